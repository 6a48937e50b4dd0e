// The grids of heads: a cell for each, with its number and colour.

import { closest, el } from "../../ui/dom.js";
import { numberInCell } from "../../ui/format.js";
import { inShade } from "../../ui/paint.js";
import { isFound, partName, rangeOf, scoreOf } from "./scores.js";

/** @import { Place, Table } from "./scores.js" */
/** @import { AtlasView } from "./view.js" */

const DENSE = 32; // heads of a layer from which on a cell has no room for a number

/**
 * Builds a grid for each part, and returns its cells with their heads.
 * @param {HTMLElement} node
 * @param {[part: string, table: Table][]} tables
 */
export function buildGrids(node, tables) {
  /** @type {Map<HTMLElement, Place>} */
  const cells = new Map();
  const parts = tables.map(([part, table]) => {
    const H = table[0]?.length ?? 0;
    const heads = Array.from({ length: H }, (_, h) => h);
    const titles = heads.map((h) => el("span", { role: "columnheader", "aria-label": `Head ${h}` }, String(h)));
    const header = el(
      "div",
      { role: "row" },
      el("span", { role: "columnheader", class: "corner" }, "Layer"),
      ...titles,
    );
    const rows = table.map((_, layer) => {
      const row = heads.map((head) => {
        const cell = el("button", { type: "button", role: "gridcell", tabindex: -1, "aria-selected": "false" });
        cells.set(cell, { part, layer, head });
        return cell;
      });
      return el("div", { role: "row" }, el("span", { role: "rowheader" }, String(layer)), ...row);
    });
    const name = partName(part);
    const label = `${name && `${name}: `}layers by heads`;
    const grid = el("div", { role: "grid", class: "atlas-grid", "aria-label": label }, header, ...rows);
    grid.classList.toggle("dense", H > DENSE);
    grid.style.setProperty("--heads", String(H));
    const heading = name ? [el("h3", {}, name)] : [];
    return el("div", { class: "atlas-part" }, ...heading, el("div", { class: "scroll" }, grid));
  });
  node.replaceChildren(...parts);
  return cells;
}

/**
 * Writes the numbers of the chosen score into the cells.
 * @param {AtlasView} view
 */
export function paintGrid(view) {
  const [atlas, name, dark] = [view.atlas(), view.score(), view.app.isDark()];
  const range = rangeOf(atlas, name);
  for (const [cell, place] of view.cells) {
    const value = scoreOf(atlas, name, place);
    inShade(cell, value, range, dark);
    const hasRoom = atlas.parts[place.part][name][0].length <= DENSE;
    if (hasRoom) cell.textContent = value === null ? "–" : numberInCell(value, range.peak);
    cell.classList.toggle("found", isFound(atlas, name, place));
    cell.ariaLabel = view.describe(place);
  }
}

/**
 * The cell around an event's target, and its head.
 * @param {AtlasView} view
 * @param {Event} event
 * @returns {Place | null}
 */
export function placeOf(view, event) {
  const cell = closest(event, "[role='gridcell']");
  return (cell && view.cells.get(cell)) ?? null;
}
