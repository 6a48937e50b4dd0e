// The saved picture of the view Walk: every token that its table shows, with score, scaled score, weight and what it adds.

import { headColour } from "../../ui/colour.js";
import { el } from "../../ui/dom.js";
import { captionOf, figure, widthOf, wordShortener } from "../../ui/figure.js";
import { capitalized, count, format } from "../../ui/format.js";
import { columnTitle, formatNumber, wordsOf } from "../../ui/maps.js";
import { inkOf } from "../../ui/paint.js";
import { visible } from "../../ui/words.js";

/** @import { App, Drawing } from "../../types.js" */
/** @import { Walk } from "./numbers.js" */
/** @typedef {{name: string, numbers: number[], show: (number: number) => string}} Column */

const [ROW, LETTER, NUMBER, BAR] = [26, 14, 124, 220]; // px: a row, a letter, a column of numbers, the longest bar

/** @param {App} app @param {Walk} walk */
export function walkPicture(app, walk) {
  const { reading } = app;
  const [own, names] = [reading, reading.columns].map(({ tokens, units }) => (walk.steps ? tokens : units));
  const place = walk.steps ? walk.i : walk.u;
  const chosen = reading.columns === reading ? place : -1; // a word of another text is none of the rows
  const words = wordShortener();
  const drawing = draw(
    app,
    walk,
    walk.rows.map((j) => words.name(names[j])),
    chosen,
  );
  const token = words.name(visible(own[place]));
  const { title, caption } = captionOf(app, `Attention of “${token}” in layer ${walk.l}, head ${walk.h}.`);
  return figure(app, { title, caption, drawing, notes: [notesOn(app, walk, names.length), ...words.notes()] });
}

/**
 * The length that the weights are multiplied by: of the value as the layer's output matrix passes it on, or as it is.
 * @param {boolean} projected
 */
const lengthName = (projected) => (projected ? "‖v W_O‖" : "‖v‖");

/** @param {App} app @param {Walk} walk @returns {Column[]} */
function columnsOf({ reading, state }, { steps, weights, mapped }) {
  /** @param {number} digits */
  const rounded = (digits) => (/** @type {number} */ number) => format(number, digits);
  const columns = [{ name: "weight", numbers: weights, show: rounded(4) }];
  if (steps)
    columns.unshift(
      { name: "score", numbers: steps.scores, show: rounded(3) },
      { name: "scaled", numbers: steps.scaled, show: rounded(3) },
    );
  const sum = steps?.sum;
  if (sum) columns.push({ name: `weight × ${lengthName(sum.projected)}`, numbers: sum.carried, show: rounded(4) });
  if (mapped && !(sum && state.map === "value-weighted"))
    columns.push({ name: columnTitle(reading, state), numbers: mapped, show: formatNumber(state) });
  return columns;
}

/**
 * @param {App} app
 * @param {Walk} walk
 * @param {string[]} names of the rows
 * @param {number} chosen
 * @returns {Drawing}
 */
function draw(app, walk, names, chosen) {
  const { ink, soft } = inkOf(app.viewer);
  const columns = columnsOf(app, walk);
  const first = Math.max(60, ...names.map((text) => widthOf(text, LETTER, 600))) + 8;
  const bars = first + NUMBER * columns.length + 16;
  const body = el("g", { "font-size": LETTER });
  columns.forEach(({ name }, k) => {
    const x = first + NUMBER * (k + 1);
    body.append(el("text", { x, y: 14, "text-anchor": "end", "font-size": 12, fill: soft }, name));
  });
  walk.rows.forEach((j, n) => {
    const y = ROW * (n + 1) + 14;
    body.append(el("text", { x: 0, y, fill: ink, "font-weight": j === chosen ? 700 : null }, names[n]));
    columns.forEach(({ numbers, show }, k) => {
      const place = { x: first + NUMBER * (k + 1), y, "text-anchor": "end", fill: ink };
      body.append(el("text", place, show(numbers[n])));
    });
    const width = Math.max(0.5, BAR * walk.weights[n]).toFixed(2);
    body.append(el("rect", { x: bars, y: y - 12, width, height: 14, fill: headColour(0, app.isDark()) }));
  });
  return { body, width: bars + BAR, height: ROW * (walk.rows.length + 1) };
}

/** @param {App} app @param {Walk} walk @param {number} length of the text */
function notesOn({ state }, { steps, rows, mapped }, length) {
  const notes = [];
  if (steps) {
    const { scale, softcap, adjusted } = steps;
    const cap = softcap === null ? "" : `, capped at ±${softcap}`;
    const bias = adjusted ? ", and a bias of the model" : "";
    notes.push(`Score: query · key. Scaled: score × ${format(scale, 4)}${cap}${bias}.`);
  }
  notes.push("Weight: softmax of the scaled scores, drawn as bars from 0 to 1.");
  const sum = steps?.sum;
  if (sum) notes.push(`Weight × ${lengthName(sum.projected)}: how much of the output the token adds.`);
  if (mapped) notes.push(`${capitalized(wordsOf(state).label)}: ${wordsOf(state).is}.`);
  if (steps?.masked) notes.push("A dash: the token may not look there.");
  if (steps?.sink) notes.push(`The head's sink takes ${format(steps.sink, 4)}.`);
  if (rows.length < length)
    notes.push(`Shown: ${rows.length} of ${count(length, "token")}, those with the largest ${wordsOf(state).many}.`);
  return notes.join(" ");
}
