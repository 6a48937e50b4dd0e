// A vector as bars up and down from a line, or as a row of cells.

import { el } from "./dom.js";
import { format } from "./format.js";
import { contextOf } from "./paint.js";

/** @import { Tip } from "../types.js" */
/** @typedef {{plus: string, minus: string}} SignColours as "red green blue" */

/**
 * A vector that the pointer, or the arrow keys, read out number by number.
 * @param {ArrayLike<number>} vector
 * @param {string} name
 * @param {SignColours} colours
 * @param {Tip} tip
 * @param {{cells?: boolean, peak?: number}} [options] a row of cells for a table; the magnitude of a full bar
 * @returns {HTMLCanvasElement}
 */
export function strip(vector, name, colours, tip, { cells = false, peak } = {}) {
  const numbers = Array.from(vector);
  const canvas = drawStrip(numbers, colours, cells, peak ?? Math.max(...numbers.map(Math.abs)));
  const ends = [Math.min(...numbers), Math.max(...numbers)].map((number) => format(number));
  canvas.setAttribute("aria-label", `${name}: ${numbers.length} numbers from ${ends.join(" to ")}`);
  readOut(canvas, numbers, name, tip, !cells); // so many cells in a table that stopping at each would be a burden
  return canvas;
}

/** @param {number[]} numbers @param {SignColours} colours @param {boolean} cells @param {number} peak */
function drawStrip(numbers, colours, cells, peak) {
  const n = numbers.length;
  const [wide, high, gap] = cells ? [1, 1, 0] : n > 100 ? [4, 96, 1] : [24, 96, 4];
  const canvas = el("canvas", { class: cells ? "cells" : "bars", width: n * wide, height: high, role: "img" });
  const context = contextOf(canvas);
  numbers.forEach((number, d) => {
    const share = peak > 0 ? Math.abs(number) / peak : 0;
    context.fillStyle = `rgb(${number < 0 ? colours.minus : colours.plus} / ${cells ? share : 1})`;
    const length = cells ? 1 : Math.max(1, (share * high) / 2);
    context.fillRect(d * wide, cells ? 0 : number < 0 ? high / 2 : high / 2 - length, wide - gap, length);
  });
  return canvas;
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {number[]} numbers
 * @param {string} name
 * @param {Tip} tip
 * @param {boolean} withKeys
 */
function readOut(canvas, numbers, name, tip, withKeys) {
  const n = numbers.length;
  let place = 0;
  /** @param {number} d */
  const show = (d) => {
    place = Math.min(n - 1, Math.max(0, d));
    const box = canvas.getBoundingClientRect();
    const x = box.left + ((place + 0.5) * box.width) / n;
    tip.show(x, box.top, `${name}, number ${place}: ${format(numbers[place], 4)}`);
  };
  /** @param {PointerEvent} event */
  const point = (event) => {
    const box = canvas.getBoundingClientRect();
    show(Math.floor(((event.clientX - box.left) / box.width) * n));
  };
  canvas.addEventListener("pointermove", point);
  canvas.addEventListener("pointerdown", point);
  canvas.addEventListener("pointerleave", () => tip.hide());
  if (!withKeys) return;
  canvas.tabIndex = 0;
  canvas.addEventListener("focus", () => canvas.matches(":focus-visible") && show(place));
  canvas.addEventListener("blur", () => tip.hide());
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    show(place + step);
  });
}
