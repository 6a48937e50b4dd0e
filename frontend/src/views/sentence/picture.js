// The saved picture of the view Sentence. It is laid out anew, and so the same whatever the size of the window.

import { dashOf, headColour } from "../../ui/colour.js";
import { el } from "../../ui/dom.js";
import { captionOf, figure, swatchKey, widthOf, wordShortener } from "../../ui/figure.js";
import { capitalized, count, percent } from "../../ui/format.js";
import { areWeights, chosenMap, formatNumber, headName, wordsOf } from "../../ui/maps.js";
import { classColour, hex, inkOf } from "../../ui/paint.js";
import { WEIGHT_OF_A_LINE } from "./limits.js";
import { curve, headOffset, isDrawn, largestOf, sidesOfWord, strokeOf, sum } from "./lines.js";
import { wholeOf } from "./summary.js";

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
  const word = pick && `“${words.name((pick.side === "to" ? reading.columns : reading).units[pick.u])}”`;
  const [takes, take] = areWeights(state) ? ["attends to", "attends to"] : ["takes from others", "takes from"];
  const subject = !pick ? `what each word ${takes}` : withBars ? `what ${word} ${takes}` : `what ${take} ${word}`;
  const facts = `Layer ${state.layer}, ${headNames(app, heads)}: ${subject}.`;
  const { title, caption } = captionOf(app, areWeights(state) ? facts : `${wordsOf(state).title}. ${facts}`);
  const legend = [...coloursKey(app, heads, Math.max(420, drawing.width)), weightKey(app, drawn.peak)];
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
function entriesOf({ columns, lines, pick, mean, peak }, side, words, reading) {
  const column = columns[side];
  const { units, special } = side === "to" ? reading.columns : reading;
  const ends = new Set(lines.filter((line) => isDrawn(line, peak)).map(([, u, v]) => (side === "from" ? u : v)));
  /** @param {number} u */
  const isKept = (u) =>
    column.length <= ALL_ROWS ||
    ends.has(u) ||
    u === pick?.u ||
    (mean && pick?.side !== side && Math.abs(mean[u]) >= (WEIGHT_OF_A_LINE / 2) * peak);
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
      entries.push({ u, text: words.name(units[u]), special: special.has(u) });
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
function curves(app, { lines, heads, peak }, left, right, x1, x2) {
  const [strokeFor, colourOf] = [signColours(app), headColours(app)];
  const [rows, columns] = [left, right].map((entries) => new Map(entries.map(({ u }, n) => [u, (n + 0.5) * ROW])));
  return heads.map((h, k) => {
    const offset = headOffset(k, heads.length, ROW);
    const attributes = { fill: "none", stroke: colourOf(h), "stroke-dasharray": dashOf(h) };
    const group = el("g", attributes, el("title", {}, capitalized(headName(app.reading, app.state, h))));
    for (const line of lines) {
      const [head, u, v, weight] = line;
      const [row, column] = [rows.get(u), columns.get(v)];
      if (head !== h || !isDrawn(line, peak) || row === undefined || column === undefined) continue;
      const [from, to] = [row, column].map((y) => (y + offset).toFixed(1));
      const stroke = strokeFor?.(weight);
      group.append(el("path", { d: curve(x1, from, x2, to), stroke, ...strokeOf(weight, peak) }));
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
function bars(app, { heads, row, mean, pick, sides }, entries, x0, isDirectionShown) {
  const { ink } = inkOf(app.viewer);
  const longest = (!areWeights(app.state) && mean && largestOf(mean, [0], sidesOfWord(sides, "from"))) || 1;
  const [fillFor, colourOf] = [signColours(app), headColours(app)];
  return entries.flatMap(({ u: v }, n) => {
    if (v === undefined || !pick || !row || !mean || !isDirectionShown(pick.u, v)) return [];
    const y = (n + 0.5) * ROW;
    let x = x0;
    const pieces = (fillFor ? [-1] : heads).map((h) => {
      const share = fillFor ? Math.abs(mean[v]) : row[h * sides.V + v] / heads.length;
      const width = (share / longest) * BARS || 0;
      const box = { x: x.toFixed(2), y: y - 7, width: width.toFixed(2), height: 14 };
      x += width;
      if (fillFor) return el("rect", { ...box, fill: fillFor(mean[v]) });
      return el(
        "rect",
        { ...box, fill: colourOf(h) },
        el("title", {}, capitalized(headName(app.reading, app.state, h))),
      );
    });
    return [
      ...pieces,
      el("text", { x: x + 6, y: y + 5, fill: ink, "font-size": 13 }, formatNumber(app.state)(mean[v])),
    ];
  });
}

/**
 * The colour of a number by its sign, where the numbers of the map have signs; null where they do not.
 * @param {App} app
 */
function signColours({ viewer, reading, state }) {
  if (!chosenMap(reading, state).signed) return null;
  const [plus, minus] = ["plus", "minus"].map((name) => hex(classColour(viewer, name)));
  return (/** @type {number} */ number) => (number < 0 ? minus : plus);
}

/**
 * The colours of heads; one that is of no head, where all are taken together.
 * @param {App} app
 * @returns {(h: number) => string}
 */
function headColours({ viewer, reading, state, isDark }) {
  if (chosenMap(reading, state).heads) return (h) => headColour(h, isDark());
  const accent = hex(classColour(viewer, "probe--accent"));
  return () => accent;
}

/**
 * What the colours of the lines stand for: heads, or signs; nothing for a map of all heads together.
 * @param {App} app
 * @param {number[]} heads
 * @param {number} room px
 * @returns {Drawing[]}
 */
function coloursKey(app, heads, room) {
  const strokeFor = signColours(app);
  if (strokeFor) {
    const signs = { "towards the target": 1, "against the target": -1 };
    const entries = Object.entries(signs).map(([text, sign]) => ({ colour: strokeFor(sign), text }));
    return [swatchKey(app, "A line works", entries, room)];
  }
  if (!chosenMap(app.reading, app.state).heads) return [];
  const entries = heads.map((h) => ({ colour: headColour(h, app.isDark()), text: String(h), dash: dashOf(h) }));
  return [swatchKey(app, "Head", entries, room)];
}

/**
 * Lines as thick and dark as those of some weights.
 * @param {App} app
 * @param {number} peak
 * @returns {Drawing}
 */
function weightKey({ viewer, state }, peak) {
  const { ink, soft } = inkOf(viewer);
  const name = areWeights(state) ? "Weight" : capitalized(wordsOf(state).unit);
  const body = el("g", { "font-size": 12 }, el("text", { x: 0, y: 11, fill: soft }, name));
  let x = widthOf(name, 12) + 10;
  for (const share of [0.05, 0.2, 0.5, 1]) {
    const text = areWeights(state) ? String(share) : formatNumber(state)(share * peak).replace("+", "±");
    body.append(el("line", { x1: x, x2: x + 28, y1: 7, y2: 7, stroke: ink, ...strokeOf(share, 1) }));
    body.append(el("text", { x: x + 33, y: 11, fill: ink }, text));
    x += 48 + Math.max(28, widthOf(text, 12));
  }
  return { body, width: x, height: 18 };
}

/** @param {App} app @param {number[]} heads */
function headNames({ reading, state }, heads) {
  const { H } = reading;
  if (heads.length === 1) return headName(reading, state, heads[0]);
  return heads.length === H ? `all ${H} heads` : `heads ${heads.join(", ")}`;
}

const DIRECTIONS = {
  aa: "words of the first text attending to it",
  ab: "the first text attending to the second",
  ba: "the second text attending to the first",
  bb: "words of the second text attending to it",
};

/** @param {App} app @param {Drawn} drawn @param {boolean} withBars */
function notesOn(app, drawn, withBars) {
  const { state } = app;
  const { lines, heads, pick, all, peak } = drawn;
  const { one, many } = wordsOf(state);
  const whole = areWeights(state) ? "the weight" : "the whole";
  const notes = ["A line from left to right: the word on the left attends to the word on the right."];
  if (state.direction !== "all") notes.push(`Shown: ${DIRECTIONS[state.direction]}.`);
  if (state.mass < 100) notes.push(`Of each word and head, the strongest lines, up to ${state.mass} % of ${whole}.`);
  const least = areWeights(state) ? String(WEIGHT_OF_A_LINE) : "1 % of the largest";
  notes.push(`${capitalized(many)} below ${least} get no line.`);
  if (withBars)
    notes.push(
      heads.length > 1 ? `Bars and numbers: the mean ${one} over these heads.` : `Bars and numbers: the ${one}.`,
    );
  const total = wholeOf(app, drawn);
  const carried = sum(lines.filter((line) => isDrawn(line, peak)).map((line) => Math.abs(line[3]))) / heads.length;
  if (pick && total > 0 && !all) notes.push(`The lines carry ${percent(Math.min(1, carried / total))} of ${whole}.`);
  return notes.join(" ");
}
