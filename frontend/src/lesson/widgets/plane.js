// A plane with vectors as arrows; the tips of some can be dragged, or moved with the arrow keys.

import { el } from "../../ui/dom.js";
import { format } from "../../ui/format.js";

/** @import { PlaneVector } from "../types.js" */

const SIZE = 400; // units of the drawing, which is scaled
const STEP = 0.1;
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

/** @param {[number, number]} at */
const said = ([x, y]) => `${format(x, 1)}, ${format(y, 1)}`;

/**
 * @param {{label: string, vectors: PlaneVector[], reach?: number, onMove?: (vectors: PlaneVector[]) => void}} given
 *   reach: the largest coordinate
 */
export function plane({ label, vectors: given, reach = 2, onMove }) {
  const vectors = given.map((vector) => ({ ...vector }));
  /** @param {number} x */
  const across = (x) => (SIZE * (1 + x / reach)) / 2;
  /** @param {number} y */
  const down = (y) => (SIZE * (1 - y / reach)) / 2;
  const svg = el("svg", { viewBox: `0 0 ${SIZE} ${SIZE}`, role: "group", "aria-label": label });
  for (let n = -Math.floor(reach); n <= reach; n++) {
    const kind = n === 0 ? "axis" : "grid";
    svg.append(el("line", { class: kind, x1: across(n), x2: across(n), y1: 0, y2: SIZE }));
    svg.append(el("line", { class: kind, y1: down(n), y2: down(n), x1: 0, x2: SIZE }));
  }
  const drawings = vectors.map((vector) => {
    const line = el("line", { x1: SIZE / 2, y1: SIZE / 2 });
    const tip = el("circle", { r: vector.moves ? 14 : 5 });
    const name = el("text", { "aria-hidden": "true" }, vector.name);
    const group = el("g", { class: vector.role ?? "key" }, line, tip, name);
    svg.append(group);
    return { line, tip, name };
  });
  /** @param {number} n */
  const draw = (n) => {
    const { line, tip, name } = drawings[n];
    const { at, moves } = vectors[n];
    const [x, y] = [across(at[0]), down(at[1])];
    for (const [attribute, value] of Object.entries({ x2: x, y2: y })) line.setAttribute(attribute, String(value));
    for (const [attribute, value] of Object.entries({ cx: x, cy: y })) tip.setAttribute(attribute, String(value));
    place(name, x, y);
    if (!moves) return;
    tip.setAttribute("aria-valuenow", at[0].toFixed(1));
    tip.setAttribute("aria-valuetext", said(at));
  };
  /** @param {number} n @param {number} x @param {number} y */
  const move = (n, x, y) => {
    /** @param {number} number */
    const within = (number) => Math.max(-reach, Math.min(reach, Math.round(number / STEP) * STEP));
    vectors[n].at = [within(x), within(y)];
    draw(n);
    onMove?.(vectors);
  };
  for (const [n, { moves, name }] of vectors.entries())
    if (moves) movable(svg, drawings[n].tip, name, reach, n, vectors, move);
  for (const n of vectors.keys()) draw(n);
  const node = el("div", { class: "plane" }, svg);
  return {
    node: /** @type {HTMLElement} */ (node),
    /** @param {number} n @param {[number, number]} at */
    set(n, at) {
      vectors[n].at = at;
      draw(n);
    },
  };
}

/**
 * A name beyond its tip, within the drawing.
 * @param {Element} name
 * @param {number} x
 * @param {number} y
 */
function place(name, x, y) {
  const [across, down] = [x - SIZE / 2, y - SIZE / 2];
  const far = 20 / (Math.hypot(across, down) || 1);
  const isTight = Math.abs(across) > SIZE / 2 - 90;
  const upright = isTight || Math.abs(across) < Math.abs(down) / 2;
  const anchor = isTight ? (across > 0 ? "end" : "start") : upright ? "middle" : across > 0 ? "start" : "end";
  const left = isTight ? Math.max(4, Math.min(SIZE - 4, x + Math.sign(across) * 14)) : x + far * across;
  const top = upright ? y + (down > 0 ? 28 : -19) : y + far * down + 5;
  const attributes = { x: left, y: Math.max(16, Math.min(SIZE - 6, top)), "text-anchor": anchor };
  for (const [attribute, value] of Object.entries(attributes)) name.setAttribute(attribute, String(value));
}

/**
 * Lets a tip be dragged, and moved by the arrow keys: a slider in two dimensions.
 * @param {any} svg
 * @param {any} tip
 * @param {string} name
 * @param {number} reach
 * @param {number} n
 * @param {PlaneVector[]} vectors
 * @param {(n: number, x: number, y: number) => void} move
 */
function movable(svg, tip, name, reach, n, vectors, move) {
  const attributes = { class: "tip-of", tabindex: 0, role: "slider", "aria-label": `${name}, across and up` };
  const range = { "aria-roledescription": "point to move", "aria-valuemin": -reach, "aria-valuemax": reach };
  for (const [attribute, value] of Object.entries({ ...attributes, ...range }))
    tip.setAttribute(attribute, String(value));
  tip.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    const step = KEYS[/** @type {keyof typeof KEYS} */ (event.key)];
    if (!step) return;
    event.preventDefault();
    const [x, y] = vectors[n].at;
    const far = event.shiftKey ? 5 * STEP : STEP;
    move(n, x + far * step[0], y + far * step[1]);
  });
  /** @param {PointerEvent} event */
  const follow = (event) => {
    const box = svg.getBoundingClientRect();
    const [across, up] = [(event.clientX - box.left) / box.width, 1 - (event.clientY - box.top) / box.height];
    move(n, reach * (2 * across - 1), reach * (2 * up - 1));
  };
  tip.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
    tip.setPointerCapture(event.pointerId);
    tip.focus();
  });
  tip.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
    if (tip.hasPointerCapture(event.pointerId)) follow(event);
  });
}
