// The saved picture of the view Map: the cells that are seen, with their words.

import { el } from "../../ui/dom.js";
import { captionOf, cellGrid, cellNumbers, figure, rangeKey, widthOf, wordShortener } from "../../ui/figure.js";
import { capitalized, count } from "../../ui/format.js";
import { areWeights, headName, wordsOf } from "../../ui/maps.js";
import { inkOf } from "../../ui/paint.js";
import { rangeAt } from "./levels.js";

/** @import { App, Drawing, Range, Scale } from "../../types.js" */
/** @import { Matrix } from "./levels.js" */
/**
 * @typedef {{matrix: Matrix, level: number, cell: number, rows: number[], columns: number[], weights: number[][]}} CellsSeen
 */
/** @typedef {{place: number, text: string}} Label */

const [ROOM, LETTER, LABEL] = [720, 12, 16]; // px: the matrix at most, a letter, between two labels

/** @param {App} app @param {CellsSeen} seen @param {Scale} scale */
export function mapPicture(app, seen, scale) {
  const { state, reading } = app;
  const { matrix, level, cell, rows, columns } = seen;
  const size = Math.max(ROOM / 256 / 2, Math.min(36, ROOM / Math.max(rows.length, columns.length)));
  const words = wordShortener();
  /** @param {number[]} cells @param {number} step @returns {Label[]} */
  const labelled = (cells, step) =>
    cells.flatMap((n, place) =>
      place % step ? [] : [{ place, text: words.name(reading.units[matrix.units[n * cell]]) }],
    );
  const [perRow, perColumn] = [Math.ceil(LABEL / size), Math.ceil((LABEL * Math.SQRT2) / size)];
  const range = rangeAt(matrix, level, scale);
  const drawing = draw(app, seen, size, range, labelled(rows, perRow), labelled(columns, perColumn));
  const shown = wordsOf(state);
  const place = `layer ${state.layer}, ${headName(reading, state, state.head)}`;
  const { title, caption } = captionOf(app, `${shown.title} of ${place}.`);
  const unit = areWeights(state) ? "Weight" : capitalized(shown.unit);
  const legend = [rangeKey(app, scale === "log" ? `${unit} (logarithmic)` : unit, range)];
  const notes = notesOn(seen, shown.many, state.reduce === "max" ? "largest" : "mean", perRow > 1 || perColumn > 1);
  return figure(app, { title, caption, drawing, legend, notes: [notes, ...words.notes()] });
}

/**
 * @param {App} app
 * @param {CellsSeen} seen
 * @param {number} size px of a cell
 * @param {Range} range
 * @param {Label[]} down
 * @param {Label[]} across
 * @returns {Drawing}
 */
function draw(app, { rows, columns, cell, weights }, size, range, down, across) {
  const { ink } = inkOf(app.viewer);
  const [width, height] = [size * columns.length, size * rows.length];
  /** @param {Label[]} labels */
  const longest = (labels) => Math.max(10, ...labels.map(({ text }) => widthOf(text, LETTER)));
  const left = Math.ceil(longest(down)) + 10;
  const top = Math.ceil(longest(across) / Math.SQRT2) + 16;
  const body = el("g", { "font-size": LETTER, fill: ink });
  const grid = el("g", { transform: `translate(${left} ${top})` });
  const layout = { rows: rows.length, columns: columns.length, width, height, range };
  grid.append(cellGrid(app, weights.flat(), layout));
  if (size >= 28 && cell === 1) grid.append(...cellNumbers(weights, size, range, app.isDark()));
  body.append(grid);
  for (const { place, text } of down)
    body.append(el("text", { x: left - 6, y: top + (place + 0.5) * size + 4, "text-anchor": "end" }, text));
  for (const { place, text } of across) {
    const transform = `translate(${left + (place + 0.5) * size} ${top - 6}) rotate(-45)`;
    body.append(el("text", { transform }, text));
  }
  const ends = across.map(({ place, text }) => (place + 0.5) * size + widthOf(text, LETTER) / Math.SQRT2 - width);
  return { body, width: left + width + Math.ceil(Math.max(0, ...ends)) + 6, height: top + height };
}

/**
 * @param {CellsSeen} seen
 * @param {string} many what the numbers are
 * @param {string} reduced
 * @param {boolean} isSparse whether not all cells are labelled
 */
function notesOn({ matrix, cell, rows, columns }, many, reduced, isSparse) {
  const notes = ["Rows attend, columns are attended to."];
  if (cell > 1) notes.push(`Each cell is the ${reduced} of ${cell} × ${cell} ${many}.`);
  if (cell > 1 || isSparse) notes.push("A word stands beside the first of those that it labels.");
  const cells = Math.ceil(matrix.size / cell);
  if (rows.length < cells || columns.length < cells) {
    /** @param {number[]} list */
    const range = (list) => `${list[0] * cell} to ${Math.min(matrix.size, (list[list.length - 1] + 1) * cell) - 1}`;
    const words = count(matrix.size, "word");
    notes.push(`A part of ${words}: rows ${range(rows)}, columns ${range(columns)}, counted from 0.`);
  }
  if (matrix.isFirstExcluded) notes.push("The first word's row and column are left out of the scale of colours.");
  return notes.join(" ");
}
