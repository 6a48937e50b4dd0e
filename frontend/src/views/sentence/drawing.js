// The lines between the columns, and the bars beside the right one. Both return their marks, for the pointer.

import { dashOf } from "../../ui/colour.js";
import { el } from "../../ui/dom.js";
import { format } from "../../ui/format.js";
import { inHeadColour } from "../../ui/paint.js";
import { WEIGHT_OF_A_LINE } from "./limits.js";
import { curve, headOffset, isDrawn, strokeOf } from "./lines.js";

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
  const { heads } = drawn;
  const origin = by("lines").getBoundingClientRect();
  const left = by("from").getBoundingClientRect().right - origin.left + 6;
  const right = by("to").getBoundingClientRect().left - origin.left - 6;
  const [rows, places] = [columns.from, columns.to].map((column) => new Map(column.map((u, n) => [u, n])));
  const groups = new Map(
    heads.map((h) => [h, inHeadColour(el("g", { "data-head": h, "stroke-dasharray": dashOf(h) }), h)]),
  );
  const marks = [];
  for (const line of drawn.lines) {
    const [h, u, v, weight] = line;
    const [row, place] = [rows.get(u), places.get(v)];
    if (!isDrawn(line) || row === undefined || place === undefined) continue;
    const offset = headOffset(heads.indexOf(h), heads.length, rowHeight);
    const [from, to] = [row, place].map((n) => (n + 0.5) * rowHeight + offset);
    groups.get(h)?.append(el("path", { d: curve(left, from, right, to), ...strokeOf(weight) }));
    marks.push({ line: [left, from, right, to], h, u, v, weight });
  }
  svg.append(...groups.values());
  return marks;
}

/**
 * The mean weight of each word on the right, as a bar with a piece for each head, whatever lines are hidden.
 * @param {SVGElement} svg
 * @param {SentenceView} view
 * @returns {Mark[]}
 */
export function drawBars(svg, view) {
  const { app, columns, rowHeight } = view;
  const { heads, mean, row, pick } = view.drawn;
  const { by, reading } = app;
  const start = by("to").getBoundingClientRect().right - by("lines").getBoundingClientRect().left + 12;
  const room = by("lines").clientWidth - start - 48; // px for a mean weight of one
  if (room <= 40 || !pick || !row || !mean) return [];
  const groups = heads.map((h) => inHeadColour(el("g", { "data-head": h }), h));
  /** @type {Mark[]} */
  const marks = [];
  columns.to.forEach((v, n) => {
    if (v < 0 || !view.isDirectionShown(pick.u, v)) return;
    const y = (n + 0.5) * rowHeight;
    let x = start;
    heads.forEach((h, k) => {
      const weight = row[h * reading.U + v];
      const width = (weight / heads.length) * room;
      if (!(width > 0.1)) return;
      groups[k].append(el("rect", { x, y: y - 7, width, height: 14 }));
      marks.push({ bar: [x, y - 7, width, 14], h, u: pick.u, v, weight });
      x += width;
    });
    if (mean[v] >= WEIGHT_OF_A_LINE / 2) svg.append(el("text", { x: x + 8, y: y + 4 }, format(mean[v])));
  });
  svg.append(...groups);
  return marks;
}
