// The saved picture of a score of all heads, and the table of all scores.

import { rampColour, readableOn, shade } from "../../ui/colour.js";
import { el } from "../../ui/dom.js";
import { figure, rangeKey, widthOf } from "../../ui/figure.js";
import { capitalized, numberInCell } from "../../ui/format.js";
import { inkOf } from "../../ui/paint.js";
import { countsOf, isFound, partName, rangeOf, rangeSays, scoreOf, tablesOf, textName } from "./scores.js";

/** @import { App, AtlasOfHeads, Drawing, Row } from "../../types.js" */
/** @import { Table } from "./scores.js" */
/** @import { AtlasView } from "./view.js" */

const [WIDE, HIGH, LEFT, TOP] = [30, 22, 44, 20]; // px: a cell, the numbers of the layers, those of the heads
const DENSE = 32; // heads from which on cells are small, without numbers

/** @param {AtlasView} view */
export function atlasPicture(view) {
  const { app } = view;
  const [atlas, name] = [view.atlas(), view.score()];
  const score = atlas.scores[name];
  const { found, measured } = countsOf(atlas, name);
  const isDifference = atlas.against !== null;
  const of = isDifference ? `${atlas.model} less ${atlas.against}` : atlas.model;
  const caption = [
    score.phrase && `The head ${score.phrase}.`,
    `Measured ${textName(score.text)}.`,
    isDifference && "The numbers are changes.",
    score.paper && `${capitalized(score.paper)}.`,
  ].filter((sentence) => typeof sentence === "string" && sentence !== "");
  const notes = ["A row for each layer, a column for each head."];
  if (score.found_from !== null)
    notes.push(
      `Framed: ${found} of ${measured} heads, ${score.found_from} or more${isDifference ? " in just one of the models" : ""}.`,
    );
  const legend = [rangeKey(app, isDifference ? "Change" : rangeSays(score) || name, rangeOf(atlas, name))];
  const title = `${capitalized(name)}: all heads of ${of}`;
  const drawing = draw(app, atlas, name);
  return figure(app, { title, caption: /** @type {string[]} */ (caption), drawing, legend, notes: [notes.join(" ")] });
}

/**
 * The grids of all parts, one below the other.
 * @param {App} app
 * @param {AtlasOfHeads} atlas
 * @param {string} name
 * @returns {Drawing}
 */
function draw(app, atlas, name) {
  const { ink, soft } = inkOf(app.viewer);
  const body = el("g", { "font-size": 11 });
  let [width, y] = [0, 0];
  for (const [part, table] of tablesOf(atlas, name)) {
    if (partName(part)) {
      body.append(el("text", { x: 0, y: y + 12, fill: ink, "font-weight": 600, "font-size": 13 }, partName(part)));
      width = Math.max(width, widthOf(partName(part), 13, 600));
      y += 22;
    }
    const H = table[0]?.length ?? 0;
    const [wide, high] = H > DENSE ? [10, 8] : [WIDE, HIGH];
    const group = el("g", { transform: `translate(0 ${y})` });
    group.append(el("text", { x: 0, y: 12, fill: soft }, "layer"));
    group.append(...titlesOf(table.length, H, wide, high, ink));
    group.append(...cellsOf(app, atlas, name, part, table, wide, high));
    body.append(group);
    width = Math.max(width, LEFT + H * wide);
    y += TOP + table.length * high + 14;
  }
  return { body, width, height: y };
}

/**
 * The numbers of the layers and of the heads, as many as there is room for.
 * @param {number} L
 * @param {number} H
 * @param {number} wide
 * @param {number} high
 * @param {string} ink
 */
function titlesOf(L, H, wide, high, ink) {
  const step = wide < 20 ? 8 : 1;
  const heads = Array.from({ length: Math.ceil(H / step) }, (_, n) => n * step).map((h) =>
    el("text", { x: LEFT + (h + 0.5) * wide, y: 12, fill: ink, "text-anchor": "middle" }, String(h)),
  );
  const layers = Array.from({ length: Math.ceil(L / step) }, (_, n) => n * step).map((l) =>
    el("text", { x: LEFT - 8, y: TOP + (l + 0.5) * high + 4, fill: ink, "text-anchor": "end" }, String(l)),
  );
  return [...heads, ...layers];
}

/**
 * @param {App} app
 * @param {AtlasOfHeads} atlas
 * @param {string} name
 * @param {string} part
 * @param {Table} table
 * @param {number} wide
 * @param {number} high
 */
function cellsOf(app, atlas, name, part, table, wide, high) {
  const [range, dark] = [rangeOf(atlas, name), app.isDark()];
  const { ink: text, soft, paper } = inkOf(app.viewer);
  const lines = [text, paper];
  return table.flatMap((row, layer) =>
    row.flatMap((value, head) => {
      const [x, y] = [LEFT + head * wide, TOP + layer * high];
      const middle = { x: x + wide / 2, y: y + high / 2 + 4, "text-anchor": "middle" };
      if (value === null) return wide < 20 ? [] : [el("text", { ...middle, fill: soft }, "–")];
      const ink = readableOn(value, range, dark);
      const fill = rampColour(shade(value, range), dark, range.signed);
      const isMarked = isFound(atlas, name, { part, layer, head });
      const nodes = [el("rect", { x, y, width: wide - 1, height: high - 1, fill })];
      if (isMarked) nodes.push(...frame([x, y, wide - 1, high - 1], wide < 20 ? 1 : 1.5, lines));
      const text = wide < 20 ? "" : numberInCell(value, range.peak);
      if (text) nodes.push(el("text", { ...middle, fill: ink, "font-weight": isMarked ? 700 : 400 }, text));
      return nodes;
    }),
  );
}

/**
 * The frame of a head that is found: two lines, one of which is seen on any colour.
 * @param {[x: number, y: number, width: number, height: number]} box
 * @param {number} line px
 * @param {string[]} colours
 */
function frame([x, y, width, height], line, colours) {
  return colours.map((stroke, n) => {
    const inset = (n + 0.5) * line;
    const place = { x: x + inset, y: y + inset, width: width - 2 * inset, height: height - 2 * inset };
    return el("rect", { ...place, fill: "none", stroke, "stroke-width": line });
  });
}

/**
 * A row for each head, a column for each score; of a difference, its numbers before and the changes.
 * @param {AtlasOfHeads} atlas
 * @returns {Row[]}
 */
export function atlasTable(atlas) {
  const names = Object.keys(atlas.scores);
  const rows = Object.entries(atlas.parts).flatMap(([part, tables]) => {
    const own = Object.values(tables);
    const [L, H] = [own[0]?.length ?? 0, own[0]?.[0]?.length ?? 0];
    return Array.from({ length: L * H }, (_, n) => {
      const place = { part, layer: Math.floor(n / H), head: n % H };
      const values = names.flatMap((name) => {
        const value = scoreOf(atlas, name, place) ?? "";
        return atlas.base ? [scoreOf({ ...atlas, parts: atlas.base }, name, place) ?? "", value] : [value];
      });
      return [part, place.layer, place.head, ...values];
    });
  });
  const titles = names.flatMap((name) => (atlas.base ? [`${name} before`, `${name} change`] : [name]));
  return [["part", "layer", "head", ...titles], ...rows];
}
