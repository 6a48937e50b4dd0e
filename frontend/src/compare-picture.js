// The saved picture of the view Compare: the plane, the places by number, and the similarities, layer by layer.

import { el, format } from "./dom.js";
import { hex, inkOf, ramp } from "./colour.js";
import { figure, swatchKey, widthOf, wrapped } from "./figure.js";

const [WIDE, HIGH, SQUARE, GAP] = [720, 380, 84, 10]; // px

/** A comparison, as compare.js has it; `plane` and `square(layer)` are its drawings on the screen. */
export function comparePicture(app, { found, colours, cluster, after, layers, plane, square, least, notes }) {
  const { ink, soft } = inkOf(app.viewer);
  const body = el("g", {});
  plane.setAttribute("width", WIDE);
  plane.setAttribute("height", HIGH);
  for (const group of plane.querySelectorAll("g")) group.setAttribute("fill", hex(colours[group.classList.contains("cluster-1") ? 1 : 0]));
  for (const text of plane.querySelectorAll("text")) {
    text.setAttribute("font-size", 13);
    text.setAttribute("fill", ink);
  }
  body.append(plane, el("rect", { width: WIDE, height: HIGH, rx: 8, fill: "none", stroke: soft, "stroke-opacity": 0.4 }));
  let y = HIGH + 8;
  for (const [i, { text, start, end }] of found.places.entries()) {
    const lines = wrapped(around(text, start, end), WIDE - 40, 13, { most: 2 });
    body.append(el("circle", { cx: 6, cy: y + 9, r: 5, fill: hex(colours[cluster(i)]) }), el("text", { x: 34, y: y + 14, "text-anchor": "end", fill: ink }, `${i + 1}.`));
    for (const line of lines) body.append(el("text", { x: 40, y: (y += 18) - 4, fill: ink }, line));
  }
  y += 14;
  const per = Math.floor(WIDE / (SQUARE + GAP));
  for (let l = 0; l < layers; l++) {
    const [x, top] = [(l % per) * (SQUARE + GAP), y + Math.floor(l / per) * (SQUARE + 28)];
    const small = square(l).querySelector("svg");
    for (const [name, value] of Object.entries({ x, y: top, width: SQUARE, height: SQUARE, "shape-rendering": "crispEdges" })) small.setAttribute(name, value);
    body.append(small, el("text", { x, y: top + SQUARE + 14, fill: ink, "font-size": 12, "font-weight": l === after ? 700 : null }, nameOf(l)));
  }
  const drawing = { body, width: WIDE, height: y + Math.ceil(layers / per) * (SQUARE + 28) };
  const model = app.state.model ?? app.reading?.model ?? app.start.models[0];
  const groups = found.clusters[1]?.length ? [0, 1] : [0];
  const legend = [similarityScale(app, least), swatchKey(app, "Colour", groups.map((n) => ({ colour: hex(colours[n]), text: groups.length > 1 ? `group ${n + 1}` : "one group" })), WIDE)];
  return figure(app, {
    title: `“${found.word}” in ${found.places.length} places, ${after ? `after layer ${after - 1}` : "before the first layer"}`,
    caption: [model ? `Model: ${model}.` : "", "Above: 2-D projection (PCA) of the word's vectors; nearby points have similar vectors. Below: cosine similarity of each two places, layer by layer."].filter(Boolean),
    drawing,
    legend,
    notes: ["The groups are those into which the vectors after the last layer fall.", ...notes],
  });
}

const nameOf = (l) => (l ? `after layer ${l - 1}` : "before");

/** The text around a place, the word in brackets: one that can be told without type. */
function around(text, start, end) {
  const [from, to] = [Math.max(0, start - 70), Math.min(text.length, end + 70)];
  return `${from ? "…" : ""}${text.slice(from, start)}[${text.slice(start, end)}]${text.slice(end, to)}${to < text.length ? "…" : ""}`;
}

function similarityScale(app, least) {
  const { ink, soft } = inkOf(app.viewer);
  const name = "Similarity";
  const x0 = Math.ceil(widthOf(name, 12)) + 14;
  const body = el("g", { "font-size": 12 }, el("text", { x: 0, y: 11, fill: soft }, name));
  const colours = ramp(app.isDark());
  for (let n = 0; n < 64; n++) body.append(el("rect", { x: x0 + 4 * n, y: 0, width: 4.2, height: 12, fill: `rgb(${colours[Math.round((255 * n) / 63)].join(",")})` }));
  for (const place of [0, 0.5, 1])
    body.append(el("text", { x: x0 + 256 * place, y: 26, fill: ink, "text-anchor": ["start", "middle", "end"][2 * place] }, format(least + (1 - least) * place, 2)));
  return { body, width: x0 + 256, height: 28 };
}
