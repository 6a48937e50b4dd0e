// A curve, or a few, with their numbers in a table for those who do not see them.

import { el } from "../../ui/dom.js";
import { format } from "../../ui/format.js";

/** @import { Series } from "../types.js" */

const [WIDE, HIGH] = [480, 240];
const EDGE = { left: 44, right: 22, top: 12, bottom: 40 };

/**
 * @param {{label: string, x: string, y: string, series: Series[], low?: number, high?: number, log?: boolean, say?: (y: number) => string}} given
 *   x, y: names of the axes; low, high: ends of the upright one; log: whether the level one is logarithmic
 */
export function chart({
  label,
  x,
  y,
  series: first,
  low = 0,
  high = 1,
  log = false,
  say = (number) => format(number, 2),
}) {
  const svg = el("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img" });
  const table = el("table");
  const node = el("figure", { class: "chart" }, el("figcaption", {}, label), svg);
  const keys = el("p", { class: "keys" });
  node.append(keys, el("details", {}, el("summary", {}, "The numbers"), el("div", { class: "scroll" }, table)));
  /** @param {number} number */
  const scaled = (number) => (log ? Math.log(number) : number);

  /** @param {Series[]} series */
  const set = (series) => {
    const places = [...new Set(series.flatMap(({ points }) => points.map(([at]) => at)))].sort((a, b) => a - b);
    const [start, end] = [scaled(places[0]), scaled(places[places.length - 1])];
    /** @param {number} at */
    const across = (at) => EDGE.left + ((scaled(at) - start) / (end - start || 1)) * (WIDE - EDGE.left - EDGE.right);
    /** @param {number} number */
    const down = (number) => HIGH - EDGE.bottom - ((number - low) / (high - low)) * (HIGH - EDGE.top - EDGE.bottom);
    svg.replaceChildren(...axes(places, across, down, [low, (low + high) / 2, high], x, y, say));
    for (const [n, { points }] of series.entries()) {
      const clipped = points.map(([at, number]) => [across(at), down(Math.max(low, Math.min(high, number)))]);
      const path = clipped.map(([left, top], k) => `${k ? "L" : "M"}${left.toFixed(1)} ${top.toFixed(1)}`).join("");
      const curve = el("g", { class: `curve-${n}` }, el("path", { d: path }));
      if (points.length < 30) curve.append(...clipped.map(([cx, cy]) => el("circle", { cx, cy, r: 4 })));
      svg.append(curve);
    }
    keys.replaceChildren(
      ...(series.length > 1 ? series.map(({ name }, n) => el("span", { class: `curve-${n}` }, name)) : []),
    );
    const summary = series.map(
      ({ name, points }) => `${name}: from ${say(points[0][1])} to ${say(points[points.length - 1][1])}`,
    );
    svg.setAttribute("aria-label", `${label}. ${summary.join("; ")}.`);
    const head = el(
      "tr",
      {},
      el("th", { scope: "col" }, x),
      ...series.map(({ name }) => el("th", { scope: "col", class: "number" }, name)),
    );
    const rows = places.map((at) => {
      const numbers = series.map(({ points }) => points.find(([other]) => other === at)?.[1]);
      const shown = numbers.map((number) => el("td", { class: "number" }, number === undefined ? "" : say(number)));
      return el("tr", {}, el("th", { scope: "row" }, String(at)), ...shown);
    });
    table.replaceChildren(el("thead", {}, head), el("tbody", {}, ...rows));
  };
  set(first);
  return { node: /** @type {HTMLElement} */ (node), set };
}

/**
 * @param {number[]} places
 * @param {(at: number) => number} across
 * @param {(number: number) => number} down
 * @param {number[]} ticks
 * @param {string} x
 * @param {string} y
 * @param {(y: number) => string} say
 */
function axes(places, across, down, ticks, x, y, say) {
  const every = Math.ceil(places.length / 8);
  const levels = ticks.flatMap((tick) => [
    el("line", { class: "grid", x1: EDGE.left, x2: WIDE - EDGE.right, y1: down(tick), y2: down(tick) }),
    el("text", { x: EDGE.left - 6, y: down(tick) + 4, "text-anchor": "end" }, say(tick)),
  ]);
  const names = places
    .filter((_, n) => n % every === 0)
    .map((at) => el("text", { x: across(at), y: HIGH - EDGE.bottom + 16, "text-anchor": "middle" }, String(at)));
  const named = [
    el("text", { x: WIDE - EDGE.right, y: HIGH - 4, "text-anchor": "end", class: "axis-name" }, x),
    el("text", { x: EDGE.left, y: HIGH - 4, class: "axis-name" }, `↑ ${y}`),
  ];
  return [...levels, ...names, ...named];
}
