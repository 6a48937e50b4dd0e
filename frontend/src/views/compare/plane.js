// The plane in which the places of a word are points: where they are, and which of their labels there is room for.

import { el } from "../../ui/dom.js";
import { widthOf } from "../../ui/figure.js";
import { placeLabel, stateName } from "./comparison.js";

/** @import { Place } from "../../types.js" */
/** @import { Comparison } from "./comparison.js" */
/** @typedef {(text: string) => number} Measure the width of a text in px */
/** @typedef {[left: number, top: number, right: number, bottom: number]} Box */
/** @typedef {{i: number, x: number, y: number, text: string, anchor: "start" | "end"}} Label */

export const [WIDE, HIGH] = [720, 380]; // px
const RADIUS = 6; // px of a point
const LETTER = 13; // px
const HEIGHTS = [4, 22, -14, 40, -32]; // px from a point's middle to its label's base line: the first that is free is taken

/**
 * The points in px, their middle in the middle.
 * @param {Comparison} comparison
 * @param {number} l
 * @param {number} wide
 * @returns {[number, number][]}
 */
export function pointsOf(comparison, l, wide) {
  const scale = Math.min(wide / 3, HIGH / 2 - 36) / comparison.reach;
  return comparison.places.map((_, i) => {
    const [x, y] = comparison.point(l, i);
    return [wide / 2 + x * scale, HIGH / 2 - y * scale];
  });
}

/** @param {Box} a @param {Box} b */
const overlap = (a, b) => a[0] < b[2] && a[2] > b[0] && a[1] < b[3] && a[3] > b[1];

/**
 * The words around a place, as many as so many px hold, or else its number.
 * @param {Place} place
 * @param {number} i
 * @param {number} room
 * @param {Measure} measure
 */
function fittingLabel(place, i, room, measure) {
  for (let length = Math.min(34, Math.floor(room / 5)); length >= 8; length--) {
    const label = placeLabel(place, length);
    if (measure(label) <= room) return label;
  }
  return `${i + 1}`;
}

/**
 * The labels for which there is room: the words around the place, or else its number, or nothing.
 * @param {Comparison} comparison
 * @param {[number, number][]} points
 * @param {number} wide px
 * @param {Measure} measure
 * @returns {Label[]}
 */
export function labelsOf({ places }, points, wide, measure) {
  /** @type {Box[]} */
  const taken = points.map(([x, y]) => [x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS]);
  /** @param {Box} box @param {number} i */
  const isFree = (box, i) =>
    box[0] >= 2 &&
    box[2] <= wide - 2 &&
    box[1] >= 2 &&
    box[3] <= HIGH - 2 &&
    !taken.some((other, n) => n !== i && overlap(other, box));
  /** @type {Map<number, Label>} */
  const labels = new Map();
  const fromTop = points.map((_, i) => i).sort((a, b) => points[a][1] - points[b][1]);
  for (const isShort of [false, true])
    for (const i of fromTop.filter((i) => !labels.has(i))) {
      const [x, y] = points[i];
      const anchor = x > wide / 2 ? "end" : "start";
      const room = (anchor === "end" ? x : wide - x) - 16;
      const text = isShort ? `${i + 1}` : fittingLabel(places[i], i, room, measure);
      const start = anchor === "end" ? x - 11 : x + 11;
      const width = measure(text);
      const [left, right] = anchor === "end" ? [start - width, start] : [start, start + width];
      for (const height of HEIGHTS) {
        /** @type {Box} */
        const box = [left, y + height - 12, right, y + height + 5];
        if (!isFree(box, i)) continue;
        taken.push(box);
        labels.set(i, { i, x: start, y: y + height, text, anchor });
        break;
      }
    }
  return [...labels.values()];
}

/**
 * The plane of a layer as an SVG.
 * @param {Comparison} comparison
 * @param {number} l
 * @param {number} wide px
 * @returns {SVGSVGElement}
 */
export function drawPlane(comparison, l, wide) {
  const svg = el("svg", { viewBox: `0 0 ${wide} ${HIGH}`, role: "img", class: "points" });
  const { total, word } = comparison;
  svg.setAttribute("aria-label", `The ${total} places of “${word}” in the plane, ${stateName(l)}`);
  const points = pointsOf(comparison, l, wide);
  const groups = points.map(([x, y], i) => {
    const point = el("circle", { cx: x, cy: y, r: RADIUS });
    return el("g", { class: `cluster-${comparison.clusterOf(i)}`, "data-place": i }, point);
  });
  for (const { i, x, y, text, anchor } of labelsOf(comparison, points, wide, (text) => widthOf(text, LETTER)))
    groups[i].append(el("text", { x, y, "text-anchor": anchor }, text));
  svg.append(...groups);
  return svg;
}
