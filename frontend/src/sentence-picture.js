// The saved picture of the view Sentence. It is laid out anew, and so the same whatever the size of the window.

import { count, el, format, percent } from "./dom.js";
import { dashOf, headColour, inkOf } from "./colour.js";
import { captionOf, figure, shortener, swatchKey, widthOf } from "./figure.js";
import { FAINT } from "./sentence.js";

const [ROW, SIZE, BETWEEN, BARS] = [28, 16, 260, 220]; // px: a row, a letter, the lines, the bars

/** What is drawn on the screen, as sentence.js has it, as a picture that stands alone. */
export function sentencePicture(app, drawn) {
  const { state, reading } = app;
  const { pick, heads, mean } = drawn;
  const words = shortener();
  const sides = ["from", "to"].map((side) => entriesOf(drawn.columns[side], drawn, side, words, reading));
  const widest = sides.map((entries) => Math.max(20, ...entries.map(({ text }) => widthOf(text, SIZE, 600))));
  const [left, right] = [widest[0] + 10, widest[0] + 10 + BETWEEN];
  const body = el("g", { "font-size": SIZE });
  body.append(...curves(app, drawn, sides, left, right));
  sides.forEach((entries, n) => body.append(...labels(app, entries, n ? right + 8 : left - 8, n ? "start" : "end", pick)));
  const withBars = pick?.side === "from";
  if (withBars) body.append(...bars(app, drawn, sides[1], right + 16 + widest[1]));
  const drawing = { body, width: right + 16 + widest[1] + (withBars ? BARS + 60 : 0), height: ROW * Math.max(...sides.map((entries) => entries.length)) };
  const word = pick && `“${words.name(reading.units[pick.u])}”`;
  const subject = !pick ? "what each word attends to" : pick.side === "from" ? `what ${word} attends to` : `what attends to ${word}`;
  const { title, caption } = captionOf(app, `Layer ${state.layer}, ${headNames(heads, reading.H)}: ${subject}.`);
  const entries = heads.map((h) => ({ colour: headColour(h, app.isDark()), text: String(h), dash: dashOf(h) }));
  const legend = [swatchKey(app, "Head", entries, Math.max(420, drawing.width)), weightKey(app)];
  return figure(app, { title, caption, drawing, legend, notes: [...notesOn(app, drawn, withBars), ...words.notes()] });
}

/** The rows of a column: words, of a long text only those with lines, and how many are left out between them. */
function entriesOf(column, { lines, pick, mean }, side, words, reading) {
  const ends = new Set(lines.filter((line) => line[3] >= FAINT).map((line) => line[side === "from" ? 1 : 2]));
  const keep = (u) => column.length <= 64 || ends.has(u) || u === pick?.u || (mean && pick.side !== side && mean[u] >= FAINT / 2);
  const entries = [];
  let left = 0;
  const close = () => left && entries.push({ text: `⋮ ${count(left, "word")}` });
  for (const u of column) {
    if (u < 0) left -= u;
    else if (!keep(u)) left++;
    else {
      close();
      left = 0;
      entries.push({ u, text: words.name(reading.units[u]), special: reading.special.has(u) });
    }
  }
  close();
  return entries;
}

const placesOf = (entries) => new Map(entries.map(({ u }, n) => [u, (n + 0.5) * ROW]));

function curves(app, { lines, heads }, sides, left, right) {
  const [rows, columns] = sides.map(placesOf);
  const spread = Math.min(2, (0.5 * ROW) / heads.length);
  const bend = (right - left) * 0.4;
  return heads.map((h, k) => {
    const place = (k - (heads.length - 1) / 2) * spread;
    const group = el("g", { fill: "none", stroke: headColour(h, app.isDark()), "stroke-dasharray": dashOf(h) }, el("title", {}, `Head ${h}`));
    for (const [head, u, v, weight] of lines) {
      if (head !== h || weight < FAINT || !rows.has(u) || !columns.has(v)) continue;
      const [from, to] = [rows.get(u) + place, columns.get(v) + place].map((y) => y.toFixed(1));
      const d = `M${left} ${from}C${left + bend} ${from} ${right - bend} ${to} ${right} ${to}`;
      group.append(el("path", { d, "stroke-opacity": (weight ** 0.7).toFixed(3), "stroke-width": (0.8 + 4 * weight).toFixed(2) }));
    }
    return group;
  });
}

function labels(app, entries, x, anchor, pick) {
  const { ink, soft } = inkOf(app.viewer);
  return entries.map(({ u, text, special }, n) =>
    el(
      "text",
      { x, y: (n + 0.5) * ROW + 5, "text-anchor": anchor, fill: u === undefined || special ? soft : ink, "font-weight": u !== undefined && u === pick?.u && (pick.side === "from") === (anchor === "end") ? 700 : null },
      text,
    ),
  );
}

/** The mean weights of the words on the right. */
function bars(app, { heads, row, mean, pick, lets }, entries, x0) {
  const { U } = app.reading;
  const { ink } = inkOf(app.viewer);
  return entries.flatMap(({ u: v }, n) => {
    if (v === undefined || !lets(pick.u, v)) return [];
    const y = (n + 0.5) * ROW;
    let x = x0;
    const pieces = heads.map((h) => {
      const width = (row[h * U + v] / heads.length) * BARS || 0;
      const piece = el("rect", { x: x.toFixed(2), y: y - 7, width: width.toFixed(2), height: 14, fill: headColour(h, app.isDark()) }, el("title", {}, `Head ${h}`));
      x += width;
      return piece;
    });
    return [...pieces, el("text", { x: x + 6, y: y + 5, fill: ink, "font-size": 13 }, format(mean[v]))];
  });
}

/** Lines as thick and dark as those of some weights. */
function weightKey(app) {
  const { ink, soft } = inkOf(app.viewer);
  const body = el("g", { "font-size": 12 }, el("text", { x: 0, y: 11, fill: soft }, "Weight"));
  let x = widthOf("Weight", 12) + 10;
  for (const weight of [0.05, 0.2, 0.5, 1]) {
    const stroke = { stroke: ink, "stroke-opacity": (weight ** 0.7).toFixed(3), "stroke-width": 0.8 + 4 * weight };
    body.append(el("line", { x1: x, x2: x + 28, y1: 7, y2: 7, ...stroke }), el("text", { x: x + 33, y: 11, fill: ink }, String(weight)));
    x += 76;
  }
  return { body, width: x, height: 18 };
}

function headNames(heads, H) {
  if (heads.length === 1) return `head ${heads[0]}`;
  return heads.length === H ? `all ${H} heads` : `heads ${heads.join(", ")}`;
}

function notesOn({ state }, { lines, heads, pick, all, mean }, withBars) {
  const notes = ["A line from left to right: the word on the left attends to the word on the right."];
  const directions = { aa: "words of the first text attending to it", ab: "the first text attending to the second", ba: "the second text attending to the first", bb: "words of the second text attending to it" };
  if (state.direction !== "all") notes.push(`Shown: ${directions[state.direction]}.`);
  if (state.mass < 100) notes.push(`Of each word and head, the strongest lines, up to ${state.mass} % of the weight.`);
  notes.push(`Weights below ${FAINT} get no line.`);
  if (withBars) notes.push(heads.length > 1 ? "Bars and numbers: the mean weight over these heads." : "Bars and numbers: the weight.");
  const whole = mean ? mean.reduce((total, weight) => total + weight, 0) : 0;
  const carried = lines.reduce((total, [, , , weight]) => total + (weight >= FAINT ? weight : 0), 0) / heads.length;
  if (pick && whole > 0 && !all) notes.push(`The lines carry ${percent(Math.min(1, carried / whole))} of the weight.`);
  return [notes.join(" ")];
}
