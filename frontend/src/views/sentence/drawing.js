// The lines between the columns, and the bars beside the right one. Both return their marks, for the pointer.

import { dashOf } from "../../ui/colour.js";
import { el } from "../../ui/dom.js";
import { areWeights, chosenMap, formatNumber } from "../../ui/maps.js";
import { inColourOf } from "../../ui/paint.js";
import { WEIGHT_OF_A_LINE } from "./limits.js";
import { curve, headOffset, isDrawn, largestOf, sidesOfWord, strokeOf } from "./lines.js";

/** @import { Mark } from "./lines.js" */
/** @import { SentenceView } from "./view.js" */

/**
 * The curves, a group for each head.
 * @param {SVGElement} svg
 * @param {SentenceView} view
 * @returns {Mark[]}
 */
export function drawCurves(svg, { app, columns, rowHeight, drawn }) {
  const { by } = app;
  const { heads, peak } = drawn;
  const { heads: hasHeads, signed } = chosenMap(app.reading, app.state);
  const origin = by("lines").getBoundingClientRect();
  const left = by("from").getBoundingClientRect().right - origin.left + 6;
  const right = by("to").getBoundingClientRect().left - origin.left - 6;
  const [rows, places] = [columns.from, columns.to].map((column) => new Map(column.map((u, n) => [u, n])));
  const groups = new Map(
    heads.map((h) => [h, inColourOf(el("g", { "data-head": h, "stroke-dasharray": dashOf(h) }), h, hasHeads)]),
  );
  const marks = [];
  for (const line of drawn.lines) {
    const [h, u, v, weight] = line;
    const [row, place] = [rows.get(u), places.get(v)];
    if (!isDrawn(line, peak) || row === undefined || place === undefined) continue;
    const offset = headOffset(heads.indexOf(h), heads.length, rowHeight);
    const [from, to] = [row, place].map((n) => (n + 0.5) * rowHeight + offset);
    const attributes = { class: signed && signOf(weight), ...strokeOf(weight, peak) };
    groups.get(h)?.append(el("path", { d: curve(left, from, right, to), ...attributes }));
    marks.push({ line: [left, from, right, to], h, u, v, weight, share: Math.abs(weight) / peak });
  }
  svg.append(...groups.values());
  return marks;
}

/**
 * The class of a number's colour.
 * @param {number} number
 */
const signOf = (number) => (number < 0 ? "minus" : "plus");

/**
 * The mean weight of each word on the right, as a bar with a piece for each head, whatever lines are hidden; where
 * numbers have signs, as one bar in the colour of its sign.
 * @param {SVGElement} svg
 * @param {SentenceView} view
 * @returns {Mark[]}
 */
export function drawBars(svg, view) {
  const { app, columns, rowHeight } = view;
  const { heads, mean, row, pick, sides } = view.drawn;
  const { by, reading, state } = app;
  const start = by("to").getBoundingClientRect().right - by("lines").getBoundingClientRect().left + 12;
  const space = by("lines").clientWidth - start - 48; // px
  if (space <= 40 || !pick || !row || !mean) return [];
  const longest = areWeights(state) ? 1 : largestOf(mean, [0], sidesOfWord(sides, pick.side)) || 1;
  const room = space / longest; // px for a mean of one
  const { heads: hasHeads, signed } = chosenMap(reading, state);
  const groups = heads.map((h) => inColourOf(el("g", { "data-head": h }), h, hasHeads));
  /** @type {Mark[]} */
  const marks = [];
  columns.to.forEach((v, n) => {
    if (v < 0 || !view.isDirectionShown(pick.u, v)) return;
    const y = (n + 0.5) * rowHeight;
    /** @type {[h: number, weight: number, share: number][]} */
    const pieces = heads.map((h) => [h, row[h * sides.V + v], row[h * sides.V + v] / heads.length]);
    let x = start;
    for (const [k, [h, weight, share]] of (signed ? [[-1, mean[v], Math.abs(mean[v])]] : pieces).entries()) {
      const width = share * room;
      if (!(width > 0.1)) continue;
      const bar = el("rect", { x, y: y - 7, width, height: 14, class: signed && signOf(weight) });
      (signed ? svg : groups[k]).append(bar);
      if (!signed) marks.push({ bar: [x, y - 7, width, 14], h, u: pick.u, v, weight, share: 0 });
      x += width;
    }
    if (Math.abs(mean[v]) >= (WEIGHT_OF_A_LINE / 2) * longest)
      svg.append(el("text", { x: x + 8, y: y + 4 }, formatNumber(state)(mean[v])));
  });
  svg.append(...groups);
  return marks;
}
