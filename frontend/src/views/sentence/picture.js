// The saved picture of the view Sentence. It is laid out anew, and so the same whatever the size of the window.

import { dashOf, headColour } from "../../ui/colour.js";
import { el } from "../../ui/dom.js";
import { captionOf, figure, swatchKey, widthOf, wordShortener } from "../../ui/figure.js";
import { count, format, percent } from "../../ui/format.js";
import { inkOf } from "../../ui/paint.js";
import { WEIGHT_OF_A_LINE } from "./limits.js";
import { curve, headOffset, isDrawn, strokeOf, sum } from "./lines.js";

/** @import { App, Drawing, Reading, Side } from "../../types.js" */
/** @import { WordShortener } from "../../ui/figure.js" */
/** @import { Pick } from "./lines.js" */
/** @import { IsDirectionShown } from "./summary.js" */
/** @import { Drawn } from "./view.js" */
/**
 * @typedef {{u?: number, text: string, special?: boolean}} Entry a row of a column: a unit, or words that are left out
 */

const [ROW, SIZE, BETWEEN, BARS] = [28, 16, 260, 220]; // px: a row, a letter, the lines, the bars
const ALL_ROWS = 64; // of a longer column, only words with lines are drawn

/**
 * What is drawn on the screen, as a picture that stands alone.
 * @param {App} app
 * @param {Drawn} drawn
 * @param {IsDirectionShown} isDirectionShown
 */
export function sentencePicture(app, drawn, isDirectionShown) {
  const { state, reading } = app;
  const { pick, heads } = drawn;
  const words = wordShortener();
  const [left, right] = /** @type {Side[]} */ (["from", "to"]).map((side) => entriesOf(drawn, side, words, reading));
  const withBars = pick?.side === "from";
  const drawing = draw(app, drawn, left, right, withBars ? isDirectionShown : null);
  const word = pick && `“${words.name(reading.units[pick.u])}”`;
  const subject = !pick
    ? "what each word attends to"
    : withBars
      ? `what ${word} attends to`
      : `what attends to ${word}`;
  const { title, caption } = captionOf(app, `Layer ${state.layer}, ${headNames(heads, reading.H)}: ${subject}.`);
  const entries = heads.map((h) => ({ colour: headColour(h, app.isDark()), text: String(h), dash: dashOf(h) }));
  const legend = [swatchKey(app, "Head", entries, Math.max(420, drawing.width)), weightKey(app)];
  return figure(app, { title, caption, drawing, legend, notes: [notesOn(app, drawn, withBars), ...words.notes()] });
}

/**
 * @param {App} app
 * @param {Drawn} drawn
 * @param {Entry[]} left
 * @param {Entry[]} right
 * @param {IsDirectionShown | null} barsFor
 * @returns {Drawing}
 */
function draw(app, drawn, left, right, barsFor) {
  /** @param {Entry[]} entries */
  const widest = (entries) => Math.max(20, ...entries.map(({ text }) => widthOf(text, SIZE, 600)));
  const x1 = widest(left) + 10;
  const x2 = x1 + BETWEEN;
  const end = x2 + 16 + widest(right);
  const body = el("g", { "font-size": SIZE });
  const { pick } = drawn;
  body.append(...curves(app, drawn, left, right, x1, x2));
  body.append(...labels(app, left, x1 - 8, "end", pick?.side === "from" ? pick : null));
  body.append(...labels(app, right, x2 + 8, "start", pick?.side === "to" ? pick : null));
  if (barsFor) body.append(...bars(app, drawn, right, end, barsFor));
  return { body, width: end + (barsFor ? BARS + 60 : 0), height: ROW * Math.max(left.length, right.length) };
}

/**
 * The rows of a column: words, of a long text only those with lines, and how many are left out between them.
 * @param {Drawn} drawn
 * @param {Side} side
 * @param {WordShortener} words
 * @param {Reading} reading
 * @returns {Entry[]}
 */
function entriesOf({ columns, lines, pick, mean }, side, words, reading) {
  const column = columns[side];
  const ends = new Set(lines.filter(isDrawn).map(([, u, v]) => (side === "from" ? u : v)));
  /** @param {number} u */
  const isKept = (u) =>
    column.length <= ALL_ROWS ||
    ends.has(u) ||
    u === pick?.u ||
    (mean && pick?.side !== side && mean[u] >= WEIGHT_OF_A_LINE / 2);
  /** @type {Entry[]} */
  const entries = [];
  let left = 0;
  const closeGap = () => {
    if (left) entries.push({ text: `⋮ ${count(left, "word")}` });
    left = 0;
  };
  for (const u of column) {
    if (u < 0) left -= u;
    else if (!isKept(u)) left++;
    else {
      closeGap();
      entries.push({ u, text: words.name(reading.units[u]), special: reading.special.has(u) });
    }
  }
  closeGap();
  return entries;
}

/**
 * @param {App} app
 * @param {Drawn} drawn
 * @param {Entry[]} left
 * @param {Entry[]} right
 * @param {number} x1
 * @param {number} x2
 */
function curves(app, { lines, heads }, left, right, x1, x2) {
  const [rows, columns] = [left, right].map((entries) => new Map(entries.map(({ u }, n) => [u, (n + 0.5) * ROW])));
  return heads.map((h, k) => {
    const offset = headOffset(k, heads.length, ROW);
    const attributes = { fill: "none", stroke: headColour(h, app.isDark()), "stroke-dasharray": dashOf(h) };
    const group = el("g", attributes, el("title", {}, `Head ${h}`));
    for (const line of lines) {
      const [head, u, v, weight] = line;
      const [row, column] = [rows.get(u), columns.get(v)];
      if (head !== h || !isDrawn(line) || row === undefined || column === undefined) continue;
      const [from, to] = [row, column].map((y) => (y + offset).toFixed(1));
      group.append(el("path", { d: curve(x1, from, x2, to), ...strokeOf(weight) }));
    }
    return group;
  });
}

/**
 * @param {App} app
 * @param {Entry[]} entries
 * @param {number} x
 * @param {"start" | "end"} anchor
 * @param {Pick | null} pick
 */
function labels(app, entries, x, anchor, pick) {
  const { ink, soft } = inkOf(app.viewer);
  return entries.map(({ u, text, special }, n) => {
    const fill = u === undefined || special ? soft : ink;
    const bold = u !== undefined && u === pick?.u ? 700 : null;
    return el("text", { x, y: (n + 0.5) * ROW + 5, "text-anchor": anchor, fill, "font-weight": bold }, text);
  });
}

/**
 * The mean weights of the words on the right.
 * @param {App} app
 * @param {Drawn} drawn
 * @param {Entry[]} entries
 * @param {number} x0
 * @param {IsDirectionShown} isDirectionShown
 */
function bars(app, { heads, row, mean, pick }, entries, x0, isDirectionShown) {
  const { U } = app.reading;
  const { ink } = inkOf(app.viewer);
  return entries.flatMap(({ u: v }, n) => {
    if (v === undefined || !pick || !row || !mean || !isDirectionShown(pick.u, v)) return [];
    const y = (n + 0.5) * ROW;
    let x = x0;
    const pieces = heads.map((h) => {
      const width = (row[h * U + v] / heads.length) * BARS || 0;
      const box = { x: x.toFixed(2), y: y - 7, width: width.toFixed(2), height: 14 };
      x += width;
      return el("rect", { ...box, fill: headColour(h, app.isDark()) }, el("title", {}, `Head ${h}`));
    });
    return [...pieces, el("text", { x: x + 6, y: y + 5, fill: ink, "font-size": 13 }, format(mean[v]))];
  });
}

/**
 * Lines as thick and dark as those of some weights.
 * @param {App} app
 * @returns {Drawing}
 */
function weightKey(app) {
  const { ink, soft } = inkOf(app.viewer);
  const body = el("g", { "font-size": 12 }, el("text", { x: 0, y: 11, fill: soft }, "Weight"));
  let x = widthOf("Weight", 12) + 10;
  for (const weight of [0.05, 0.2, 0.5, 1]) {
    body.append(el("line", { x1: x, x2: x + 28, y1: 7, y2: 7, stroke: ink, ...strokeOf(weight) }));
    body.append(el("text", { x: x + 33, y: 11, fill: ink }, String(weight)));
    x += 76;
  }
  return { body, width: x, height: 18 };
}

/** @param {number[]} heads @param {number} H */
function headNames(heads, H) {
  if (heads.length === 1) return `head ${heads[0]}`;
  return heads.length === H ? `all ${H} heads` : `heads ${heads.join(", ")}`;
}

const DIRECTIONS = {
  aa: "words of the first text attending to it",
  ab: "the first text attending to the second",
  ba: "the second text attending to the first",
  bb: "words of the second text attending to it",
};

/** @param {App} app @param {Drawn} drawn @param {boolean} withBars */
function notesOn({ state }, { lines, heads, pick, all, mean }, withBars) {
  const notes = ["A line from left to right: the word on the left attends to the word on the right."];
  if (state.direction !== "all") notes.push(`Shown: ${DIRECTIONS[state.direction]}.`);
  if (state.mass < 100) notes.push(`Of each word and head, the strongest lines, up to ${state.mass} % of the weight.`);
  notes.push(`Weights below ${WEIGHT_OF_A_LINE} get no line.`);
  if (withBars)
    notes.push(
      heads.length > 1 ? "Bars and numbers: the mean weight over these heads." : "Bars and numbers: the weight.",
    );
  const whole = sum(mean ?? []);
  const carried = sum(lines.filter(isDrawn).map((line) => line[3])) / heads.length;
  if (pick && whole > 0 && !all) notes.push(`The lines carry ${percent(Math.min(1, carried / whole))} of the weight.`);
  return notes.join(" ");
}
