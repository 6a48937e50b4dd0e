// The text of the lesson: paragraphs with *emphasis*, `code` and [links](address); formulas with x_i and x^2.

import { el } from "../ui/dom.js";

/** @import { Child } from "./types.js" */

const MARKS = /\*([^*]+)\*|`([^`]+)`|\[([^\]]+)\]\(([^)]+)\)/g;

/**
 * A text with its marks as elements.
 * @param {string} text
 * @returns {Child[]}
 */
export function rich(text) {
  /** @type {Child[]} */
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(MARKS)) {
    const [whole, emphasis, code, link, address] = match;
    parts.push(text.slice(end, match.index));
    if (emphasis) parts.push(el("em", {}, emphasis));
    else if (code) parts.push(el("code", {}, ...raised(code)));
    else parts.push(el("a", { href: address }, link));
    end = match.index + whole.length;
  }
  return [...parts, text.slice(end)].filter((part) => part !== "");
}

/** @param {string} text @returns {HTMLElement} */
export const p = (text) => el("p", {}, ...rich(text));

/** @param {string} text @returns {HTMLElement} */
export const h3 = (text) => el("h3", {}, ...rich(text));

/** @param {...string} lines @returns {HTMLElement} */
export const formula = (...lines) =>
  el("p", { class: "formula" }, ...lines.flatMap((line, n) => [...(n ? [el("br")] : []), ...raised(line)]));

/**
 * x_i and x_{ij} lowered, x^2 and x^{−1} raised.
 * @param {string} text
 * @returns {Child[]}
 */
function raised(text) {
  /** @type {Child[]} */
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(/([_^])(?:\{([^}]*)\}|([\p{L}\p{N}]))/gu)) {
    const inner = raised(match[2] ?? match[3]);
    parts.push(text.slice(end, match.index), el(match[1] === "_" ? "sub" : "sup", {}, ...inner));
    end = match.index + match[0].length;
  }
  return [...parts, text.slice(end)].filter((part) => part !== "");
}
