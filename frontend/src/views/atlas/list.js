// The list of scores: each with a small picture of its heads, how many count, and the verdict of its proof.

import { el } from "../../ui/dom.js";
import { capitalized } from "../../ui/format.js";
import { painted } from "../../ui/paint.js";
import { countsOf, groupsOf, proofsOf, rangeOf, shown, tablesOf } from "./scores.js";

/** @import { AtlasOfHeads } from "../../types.js" */
/** @import { AtlasView } from "./view.js" */

/** @param {AtlasView} view */
export function drawScores(view) {
  const { app } = view;
  const [atlas, chosen, dark] = [view.atlas(), view.score(), app.isDark()];
  const list = app.by("scores");
  const hadFocus = list.contains(/** @type {Node | null} */ (app.root.activeElement));
  const groups = groupsOf(atlas).flatMap(([heading, names]) => [
    el("h2", {}, capitalized(heading)),
    ...names.map((name) => {
      const isChosen = name === chosen;
      const attributes = { type: "button", "data-score": name, "aria-pressed": String(isChosen) };
      const words = el("span", {}, el("b", {}, name), el("small", {}, glance(atlas, name)));
      return el("button", { ...attributes, tabindex: isChosen ? 0 : -1 }, thumbnail(atlas, name, dark), words);
    }),
  ]);
  list.replaceChildren(...groups);
  const button = /** @type {HTMLElement | null} */ (list.querySelector("[aria-pressed='true']"));
  if (hadFocus) button?.focus({ preventScroll: true });
  if (button && list.scrollWidth > list.clientWidth) list.scrollLeft = button.offsetLeft - list.clientWidth / 3;
}

/**
 * A small picture of a score, all parts one below the other.
 * @param {AtlasOfHeads} atlas
 * @param {string} name
 * @param {boolean} dark
 */
function thumbnail(atlas, name, dark) {
  const tables = tablesOf(atlas, name).map(([, table]) => table);
  const width = Math.max(1, ...tables.map((table) => table[0]?.length ?? 0));
  const rows = tables.flat().map((row) => [...row, ...Array(width - row.length).fill(0)]);
  const cells = Float64Array.from(rows.flat(), (value) => value ?? 0);
  const canvas = painted(cells, Math.max(1, rows.length), width, rangeOf(atlas, name), dark);
  canvas.ariaHidden = "true";
  return canvas;
}

/**
 * A score at a glance: how many heads count, and whether the proof holds; of one by which none counts, its numbers.
 * @param {AtlasOfHeads} atlas
 * @param {string} name
 */
export function glance(atlas, name) {
  const { found_from: least, unit } = atlas.scores[name];
  const { found, measured } = countsOf(atlas, name);
  if (!measured) return "not measured";
  if (least === null) {
    const values = tablesOf(atlas, name).flatMap(([, table]) => table.flat().filter((value) => value !== null));
    const least = values.reduce((a, b) => Math.min(a, b));
    const most = values.reduce((a, b) => Math.max(a, b));
    return `${shown(least)} to ${shown(most)} ${unit}`.trim();
  }
  const verdicts = new Set(proofsOf(atlas, name).map(({ verdict }) => verdict));
  const heads = `${found} ${atlas.against === null ? "found" : "changed"}`;
  return [heads, ...verdicts].join(" · ");
}
