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
  const [perRow, perColumn] = [Math.ceil(LABEL / size), Math.ceil((LABEL * Math.SQRT2) / size)];
  /** @param {number[]} cells @param {number} step @param {(n: number) => string} nameOf @returns {Label[]} */
  const labelled = (cells, step, nameOf) =>
    cells.flatMap((n, place) => (place % step ? [] : [{ place, text: words.name(nameOf(n * cell)) }]));
  const down = labelled(rows, perRow, (n) => reading.units[matrix.units[n]]);
  const range = rangeAt(matrix, level, scale);
  const across = labelled(columns, perColumn, (n) => reading.columns.units[matrix.across[n]]);
  const drawing = draw(app, seen, size, range, down, across);
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
  const { tall, wide } = matrix;
  if (rows.length < Math.ceil(tall / cell) || columns.length < Math.ceil(wide / cell)) {
    /** @param {number[]} list @param {number} size */
    const range = (list, size) => `${list[0] * cell} to ${Math.min(size, (list[list.length - 1] + 1) * cell) - 1}`;
    const words = tall === wide ? count(tall, "word") : `${tall} × ${count(wide, "word")}`;
    notes.push(`A part of ${words}: rows ${range(rows, tall)}, columns ${range(columns, wide)}, counted from 0.`);
  }
  if (matrix.isFirstExcluded) notes.push("The first word's row and column are left out of the scale of colours.");
  return notes.join(" ");
}
