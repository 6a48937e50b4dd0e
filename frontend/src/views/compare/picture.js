// The saved picture of the view Compare: the plane, the places by number, and the similarities, layer by layer.

import { el } from "../../ui/dom.js";
import { figure, rampKey, swatchKey, wrapped } from "../../ui/figure.js";
import { format } from "../../ui/format.js";
import { classColour, hex, inkOf } from "../../ui/paint.js";
import { aroundPlace, stateName } from "./comparison.js";
import { drawPlane, HIGH, WIDE } from "./plane.js";
import { similaritySquare } from "./similarity.js";

/** @import { App, Drawing } from "../../types.js" */
/** @import { Comparison } from "./comparison.js" */

const [SQUARE, GAP] = [84, 10]; // px

/** @param {App} app @param {Comparison} comparison @param {number} shown the hidden states of the plane */
export function comparePicture(app, comparison, shown) {
  const { word, total, clusters } = comparison;
  const colours = [0, 1].map((n) => hex(classColour(app.by("comparison"), `cluster-${n}`)));
  const model = app.state.model ?? app.reading?.model ?? app.start.models[0];
  const caption =
    "Above: 2-D projection (PCA) of the word's vectors; nearby points have similar vectors. Below: cosine similarity of each two places, layer by layer.";
  const hasTwo = Boolean(clusters[1]?.length);
  const groups = colours
    .slice(0, hasTwo ? 2 : 1)
    .map((colour, n) => ({ colour, text: hasTwo ? `group ${n + 1}` : "one group" }));
  const notes = comparison.notes(app.reading?.causal ?? false);
  return figure(app, {
    title: `“${word}” in ${total} places, ${stateName(shown)}`,
    caption: [model ? `Model: ${model}.` : "", caption].filter(Boolean),
    drawing: draw(app, comparison, shown, colours),
    legend: [similarityKey(app, comparison), swatchKey(app, "Colour", groups, WIDE)],
    notes: ["The groups are those into which the vectors after the last layer fall.", ...notes],
  });
}

/**
 * @param {App} app
 * @param {Comparison} comparison
 * @param {number} shown
 * @param {string[]} colours
 * @returns {Drawing}
 */
function draw(app, comparison, shown, colours) {
  const { ink, soft } = inkOf(app.viewer);
  const body = el("g");
  const frame = { width: WIDE, height: HIGH, rx: 8, fill: "none", stroke: soft, "stroke-opacity": 0.4 };
  body.append(planeAlone(comparison, shown, colours, ink), el("rect", frame));
  const listed = list(body, comparison, HIGH + 8, colours, ink) + 14;
  return { body, width: WIDE, height: squares(body, app, comparison, listed, shown, ink) };
}

/**
 * The plane with the colours that the style sheet gives it on the screen.
 * @param {Comparison} comparison
 * @param {number} shown
 * @param {string[]} colours
 * @param {string} ink
 */
function planeAlone(comparison, shown, colours, ink) {
  const plane = drawPlane(comparison, shown, WIDE);
  plane.setAttribute("width", String(WIDE));
  plane.setAttribute("height", String(HIGH));
  for (const [i, group] of plane.querySelectorAll("g").entries())
    group.setAttribute("fill", colours[comparison.clusterOf(i)]);
  for (const text of plane.querySelectorAll("text")) {
    text.setAttribute("font-size", "13");
    text.setAttribute("fill", ink);
  }
  return plane;
}

/**
 * The places by number, with the word in brackets; returns where they end.
 * @param {SVGElement} body
 * @param {Comparison} comparison
 * @param {number} top
 * @param {string[]} colours
 * @param {string} ink
 */
function list(body, comparison, top, colours, ink) {
  let y = top;
  for (const [i, place] of comparison.places.entries()) {
    const [before, word, behind] = aroundPlace(place, 140);
    body.append(el("circle", { cx: 6, cy: y + 9, r: 5, fill: colours[comparison.clusterOf(i)] }));
    body.append(el("text", { x: 34, y: y + 14, "text-anchor": "end", fill: ink }, `${i + 1}.`));
    for (const line of wrapped(`${before}[${word}]${behind}`, WIDE - 40, 13, { lines: 2 })) {
      y += 18;
      body.append(el("text", { x: 40, y: y - 4, fill: ink }, line));
    }
  }
  return y;
}

/**
 * The similarities, layer by layer; returns where they end.
 * @param {SVGElement} body
 * @param {App} app
 * @param {Comparison} comparison
 * @param {number} top
 * @param {number} shown
 * @param {string} ink
 */
function squares(body, app, comparison, top, shown, ink) {
  const perRow = Math.floor(WIDE / (SQUARE + GAP));
  for (let l = 0; l < comparison.states; l++) {
    const [x, y] = [(l % perRow) * (SQUARE + GAP), top + Math.floor(l / perRow) * (SQUARE + 28)];
    const square = similaritySquare(comparison, l, app.isDark());
    const place = { x, y, width: SQUARE, height: SQUARE, "shape-rendering": "crispEdges" };
    for (const [name, value] of Object.entries(place)) square.setAttribute(name, String(value));
    const bold = l === shown ? 700 : null;
    const label = { x, y: y + SQUARE + 14, fill: ink, "font-size": 12, "font-weight": bold };
    body.append(square, el("text", label, l ? stateName(l) : "before"));
  }
  return top + Math.ceil(comparison.states / perRow) * (SQUARE + 28);
}

/** @param {App} app @param {Comparison} comparison @returns {Drawing} */
const similarityKey = (app, { least }) =>
  rampKey(
    app,
    "Similarity",
    [0, 0.5, 1].map((place) => [place, format(least + (1 - least) * place, 2)]),
    false,
  );
