// The scale of colours beside a picture.

import { ramp } from "./colour.js";
import { el } from "./dom.js";
import { ticksOf } from "./figure.js";
import { contextOf } from "./paint.js";

/** @import { Range } from "../types.js" */

/**
 * Draws the ramp, numbers under it, and the unit.
 * @param {HTMLElement} node
 * @param {Range} range
 * @param {boolean} dark
 * @param {string} unit
 */
export function fillLegend(node, range, dark, unit) {
  const bar = el("canvas", { width: 256, height: 1 });
  const context = contextOf(bar);
  ramp(dark, range.signed).forEach((colour, n) => {
    context.fillStyle = `rgb(${colour.join(" ")})`;
    context.fillRect(n, 0, 1, 1);
  });
  const ticks = ticksOf(range);
  const marks = ticks.map(([place, label]) => {
    const mark = el("span", {}, label);
    mark.style.left = `${100 * place}%`;
    return mark;
  });
  node.replaceChildren(bar, ...marks, el("small", {}, unit));
  const label = `Colours from ${ticks[0][1]} to ${ticks[ticks.length - 1][1]}, ${unit}, ${range.scale}`;
  node.setAttribute("aria-label", label);
}
