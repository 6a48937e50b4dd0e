// The similarities of a layer as a small square.

import { rampColour } from "../../ui/colour.js";
import { el } from "../../ui/dom.js";
import { format } from "../../ui/format.js";
import { stateName } from "./comparison.js";

/** @import { Comparison } from "./comparison.js" */

/** @param {Comparison} comparison @param {number} l @param {boolean} dark @returns {SVGSVGElement} */
export function similaritySquare(comparison, l, dark) {
  const n = comparison.total;
  const size = Math.max(54, Math.min(108, 18 * n));
  const svg = el("svg", { viewBox: `0 0 ${n} ${n}`, width: size, height: size, "aria-hidden": "true" });
  for (let i = 0; i < n; i++)
    for (let j = 0; j < n; j++) {
      const fill = rampColour(comparison.placeOnScale(comparison.similarity(l, i, j)), dark, false);
      svg.append(el("rect", { x: j, y: i, width: 1.02, height: 1.02, fill, "data-pair": `${i} ${j}` }));
    }
  return svg;
}

/**
 * The square of a layer as a button that chooses the layer.
 * @param {Comparison} comparison
 * @param {number} l
 * @param {boolean} isPressed
 * @param {boolean} dark
 */
export function similarityButton(comparison, l, isPressed, dark) {
  const attributes = { type: "button", class: "similarity", "data-after": l, "aria-pressed": String(isPressed) };
  const name = el("span", {}, l ? `${l - 1}` : "in");
  const button = el("button", attributes, similaritySquare(comparison, l, dark), name);
  button.setAttribute("aria-label", `${stateName(l)}: mean similarity ${format(comparison.meanSimilarity(l), 2)}`);
  return button;
}
