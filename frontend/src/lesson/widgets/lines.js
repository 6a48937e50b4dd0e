// Which word looks at which: words on the left, lines as thick as the weights, and on the right what each one gets.

import { closest, el, moveFocus } from "../../ui/dom.js";
import { percent } from "../../ui/format.js";
import { descending } from "../numbers.js";
import { told } from "./bars.js";
import { keepingFocus } from "./focus.js";

const ROW = 32; // px

/**
 * Where a word looks, in a sentence.
 * @param {string} word
 * @param {string[]} words
 * @param {ArrayLike<number>} weights
 */
export function looks(word, words, weights) {
  const [first, second] = descending(weights);
  const then = second === undefined ? "" : `, then to “${words[second]}”: ${percent(weights[second])}`;
  return `“${word}” gives most to “${words[first]}”: ${percent(weights[first])}${then}.`;
}

/**
 * The curves from the chosen row to every column.
 * @param {ArrayLike<number>} row
 * @param {number} chosen
 */
function curves(row, chosen) {
  return Array.from(row, (weight, n) => {
    const [y1, y2] = [ROW * (chosen + 0.5), ROW * (n + 0.5)];
    const line = el("path", { d: `M0 ${y1}C50 ${y1} 50 ${y2} 100 ${y2}`, "vector-effect": "non-scaling-stroke" });
    line.style.setProperty("stroke-width", `${(14 * weight).toFixed(2)}px`);
    return line;
  });
}

/** @param {string} word @param {number} weight */
function getting(word, weight) {
  const bar = el("span", { class: "bar" });
  bar.style.setProperty("--share", String(weight));
  return el("li", {}, el("bdi", {}, word), bar, el("data", { value: weight }, percent(weight).replace("below ", "< ")));
}

/** @param {string} word @param {number} n @param {boolean} isChosen */
const rowButton = (word, n, isChosen) =>
  el(
    "button",
    { type: "button", "aria-pressed": String(isChosen), tabindex: isChosen ? 0 : -1, "data-row": n },
    el("bdi", {}, word),
  );

/**
 * @param {{label: string, rows: string[], columns?: string[], weights: ArrayLike<number>[], chosen?: number, onChoose?: (row: number) => void}} given
 *   weights: a row for each word on the left
 */
export function lines({ label, rows: first, columns: other, weights: given, chosen: start = 0, onChoose }) {
  let [rows, columns, weights, chosen] = [told(first), told(other ?? first), given, start];
  const from = el("div", { class: "from" });
  const svg = el("svg", { preserveAspectRatio: "none", "aria-hidden": "true" });
  const to = el("ul", { class: "to", "aria-label": "gets" });
  const says = el("p", { class: "reads", role: "status" });
  const grid = el("div", { class: "grid" }, from, svg, to);
  const node = el("div", { class: "lines", role: "group", "aria-label": label }, grid, says);
  const draw = () => {
    const high = ROW * Math.max(rows.length, columns.length);
    svg.setAttribute("viewBox", `0 0 100 ${high}`);
    svg.style.setProperty("height", `${high}px`);
    svg.replaceChildren(...curves(weights[chosen], chosen));
    to.replaceChildren(...columns.map((word, n) => getting(word, weights[chosen][n])));
    says.textContent = looks(rows[chosen], columns, weights[chosen]);
  };
  /** @param {number} n */
  const choose = (n) => {
    if (n === chosen) return;
    chosen = n;
    for (const [place, button] of [...from.children].entries()) {
      button.setAttribute("aria-pressed", String(place === n));
      button.tabIndex = place === n ? 0 : -1;
    }
    draw();
    onChoose?.(n);
  };
  const drawRows = () => from.replaceChildren(...rows.map((word, n) => rowButton(word, n, n === chosen)));
  listen(from, choose);
  drawRows();
  draw();
  return {
    node: /** @type {HTMLElement} */ (node),
    /** @param {{rows?: string[], columns?: string[], weights: ArrayLike<number>[], chosen?: number}} changed */
    set({ rows: newRows, columns: newColumns, weights: newWeights, chosen: newChosen }) {
      if (newRows) [rows, columns] = [told(newRows), told(newColumns ?? newRows)];
      weights = newWeights;
      chosen = Math.min(newChosen ?? chosen, rows.length - 1);
      if (newRows) keepingFocus(from, drawRows);
      draw();
    },
    chosen: () => chosen,
  };
}

/**
 * A word is chosen by the pointer, or by the arrow keys among the words.
 * @param {any} from
 * @param {(n: number) => void} choose
 */
function listen(from, choose) {
  from.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    const last = from.children.length;
    moveFocus(event, [...from.children], { ArrowUp: -1, ArrowDown: 1, Home: -last, End: last });
  });
  for (const name of ["focusin", "click"])
    from.addEventListener(name, (/** @type {Event} */ event) => {
      const button = closest(event, "button");
      if (button) choose(Number(button.dataset.row));
    });
}
