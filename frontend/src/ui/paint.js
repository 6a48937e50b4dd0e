// Colours on the page: of its elements, of its style sheet, and of cells as pixels.

import { DECADES, HEADS, ramp, rampColour, readable, readableOn, shade } from "./colour.js";
import { el } from "./dom.js";

/** @import { Range } from "../types.js" */

/**
 * Gives a node the colour of a head.
 * @template {HTMLElement | SVGElement} T
 * @param {T} node
 * @param {number} h
 * @returns {T}
 */
export function inHeadColour(node, h) {
  const [light, dark] = [HEADS.light, HEADS.dark].map((colours) => colours[h % colours.length]);
  node.classList.add("head");
  node.style.setProperty("--head", `light-dark(${light}, ${dark})`);
  node.style.setProperty("--on-head", `light-dark(${readable(light)}, ${readable(dark)})`);
  return node;
}

/**
 * Gives a node the colour of its head or, where all heads are taken together, that of no head.
 * @template {HTMLElement | SVGElement} T
 * @param {T} node
 * @param {number} h
 * @param {boolean} hasHeads
 * @returns {T}
 */
export function inColourOf(node, h, hasHeads) {
  if (hasHeads) return inHeadColour(node, h);
  node.classList.add("probe--accent");
  return node;
}

/**
 * Gives a node the colour of a number, and text on it one that can be read; none to a number that is not there.
 * @template {HTMLElement} T
 * @param {T} node
 * @param {number | null} number
 * @param {Range} range
 * @param {boolean} dark
 * @returns {T}
 */
export function inShade(node, number, range, dark) {
  if (number === null) for (const name of ["--shade", "--on-shade"]) node.style.removeProperty(name);
  else {
    node.style.setProperty("--shade", rampColour(shade(number, range), dark, range.signed));
    node.style.setProperty("--on-shade", readableOn(number, range, dark));
  }
  return node;
}

/**
 * The 2-D context of a canvas.
 * @param {HTMLCanvasElement} canvas
 */
export const contextOf = (canvas) => /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));

/**
 * Cells as pixels, on a canvas of their own.
 * @param {ArrayLike<number>} cells
 * @param {number} rows
 * @param {number} columns
 * @param {Range} range
 * @param {boolean} dark
 * @returns {HTMLCanvasElement}
 */
export function painted(cells, rows, columns, range, dark) {
  const image = new ImageData(columns, rows);
  const pixels = new Uint32Array(image.data.buffer);
  const colours = packed(dark, range.signed);
  const placeOf = placesOn(range);
  for (let n = 0; n < cells.length; n++) pixels[n] = colours[placeOf(cells[n])];
  const canvas = el("canvas", { width: columns, height: rows });
  contextOf(canvas).putImageData(image, 0, 0);
  return canvas;
}

/**
 * Where on the ramp of 256 colours a number is, as fast as a map of many tiles needs it.
 * @param {Range} range
 * @returns {(number: number) => number}
 */
function placesOn(range) {
  const { peak, scale, signed } = range;
  if (signed) return (number) => Math.round(255 * shade(number, range));
  const largest = peak > 0 ? peak : 1;
  if (scale === "linear") {
    const factor = 255 / largest;
    return (number) => Math.min(255, (number * factor + 0.5) | 0); // NaN becomes 0
  }
  const factor = 255 / DECADES / Math.LN10;
  const added = 255.5 - Math.log(largest) * factor;
  return (number) => Math.min(255, Math.max(0, (Math.log(number) * factor + added) | 0)); // −∞ and NaN become 0
}

/**
 * The ramp as 32-bit pixels, in the order of bytes of all machines that browsers run on.
 * @param {boolean} dark
 * @param {boolean} signed
 */
function packed(dark, signed) {
  return Uint32Array.from(ramp(dark, signed), ([r, g, b]) => (255 << 24) | (b << 16) | (g << 8) | r);
}

/**
 * The bytes of any CSS colour: red, green, blue.
 * @param {string} colour
 */
function bytesOf(colour) {
  const context = contextOf(el("canvas", { width: 1, height: 1 }));
  context.fillStyle = colour;
  context.fillRect(0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data.slice(0, 3)];
}

/**
 * Any CSS colour as #rrggbb, for a picture that stands alone.
 * @param {string} colour
 */
export const hex = (colour) =>
  `#${bytesOf(colour)
    .map((byte) => byte.toString(16).padStart(2, "0"))
    .join("")}`;

/**
 * The colour that a class gives to text; light-dark() is only worked out where it is used.
 * @param {HTMLElement} parent
 * @param {string} name
 */
export function classColour(parent, name) {
  const probe = el("span", { class: name });
  parent.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}

/**
 * A colour of the style sheet as "red green blue", for a canvas.
 * @param {HTMLElement} parent
 * @param {string} name
 */
export const styleColour = (parent, name) => bytesOf(classColour(parent, name)).join(" ");

/**
 * The colours of text and paper as they are shown now, for a picture that stands alone.
 * @param {HTMLElement} viewer
 */
export function inkOf(viewer) {
  const style = getComputedStyle(viewer);
  return {
    ink: hex(style.color),
    soft: hex(classColour(viewer, "probe--soft")),
    paper: hex(style.backgroundColor),
  };
}
