// A small matrix as colours, with its numbers, which the arrow keys read out one by one.

import { rampColour, readable, shade } from "../../ui/colour.js";
import { el } from "../../ui/dom.js";
import { format } from "../../ui/format.js";
import { told } from "./bars.js";

const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

/** @param {string} colour rgb(…) */
function inkOn(colour) {
  const bytes = (colour.match(/\d+/g) ?? []).map(Number);
  return readable(`#${bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("")}`);
}

/**
 * @param {{label: string, rows: string[], columns?: string[], values: ArrayLike<number>[], digits?: number, peak?: number, signed?: boolean}} given
 *   peak: the number of the darkest colour, by default the largest
 */
export function heat({ label, rows, columns = rows, values: first, digits = 2, peak, signed = false }) {
  const [rowNames, columnNames] = [told(rows), told(columns)];
  let values = first;
  const says = el(
    "p",
    { class: "hint reads", role: "status" },
    "Point at a number, or use the arrow keys in the table, to read it out.",
  );
  const cells = rowNames.map(() => columnNames.map(() => el("td", { role: "gridcell", tabindex: -1 })));
  const table = el("table", { class: "heat", role: "grid", "aria-label": label }, headOf(columnNames));
  table.append(
    el(
      "tbody",
      { role: "rowgroup" },
      ...cells.map((line, i) => el("tr", { role: "row" }, rowHead(rowNames[i]), ...line)),
    ),
  );
  cells[0][0].tabIndex = 0;
  const draw = () => {
    const most = peak ?? Math.max(...values.flatMap((row) => Array.from(row, Math.abs)));
    /** @type {import("../../types.js").Range} */
    const range = { peak: most, scale: "linear", signed };
    for (const [i, line] of cells.entries())
      for (const [j, cell] of line.entries()) {
        const [light, dark] = [false, true].map((isDark) => rampColour(shade(values[i][j], range), isDark, signed));
        cell.textContent = format(values[i][j], digits);
        cell.style.setProperty("background", `light-dark(${light}, ${dark})`);
        cell.style.setProperty("color", `light-dark(${inkOn(light)}, ${inkOn(dark)})`);
      }
  };
  /** @param {number} i @param {number} j */
  const read = (i, j) => {
    for (const cell of cells.flat()) cell.tabIndex = -1;
    cells[i][j].tabIndex = 0;
    says.textContent = `${rowNames[i]} → ${columnNames[j]}: ${format(values[i][j], 4)}`;
  };
  for (const [i, line] of cells.entries())
    for (const [j, cell] of line.entries()) {
      cell.addEventListener("focus", () => read(i, j));
      cell.addEventListener("pointerenter", () => read(i, j));
      cell.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
        const step = STEPS[/** @type {keyof typeof STEPS} */ (event.key)];
        if (!step) return;
        event.preventDefault();
        cells[i + step[0]]?.[j + step[1]]?.focus();
      });
    }
  draw();
  return {
    node: /** @type {HTMLElement} */ (el("div", { class: "heat-map" }, el("div", { class: "scroll" }, table), says)),
    /** @param {ArrayLike<number>[]} changed */
    set(changed) {
      values = changed;
      draw();
    },
  };
}

/** @param {string[]} names */
function headOf(names) {
  const cells = names.map((name) => el("th", { role: "columnheader", scope: "col" }, el("bdi", {}, name)));
  return el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, el("td", { role: "presentation" }), ...cells));
}

/** @param {string} name */
const rowHead = (name) => el("th", { role: "rowheader", scope: "row" }, el("bdi", {}, name));
