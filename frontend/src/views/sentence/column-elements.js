// The words of a column as buttons, and what is left out as gaps.

import { el } from "../../ui/dom.js";
import { count } from "../../ui/format.js";
import { visible } from "../../ui/words.js";

/** @import { Selection, Side, Words } from "../../types.js" */
/** @import { Pick } from "./lines.js" */

/** @param {HTMLElement} node @param {Words} words @param {number[]} column */
export function fillColumn(node, words, column) {
  let next = 0; // the unit after the last one that was placed
  const children = column.map((u) => {
    if (u < 0) return gap(-u, next);
    next = u + 1;
    return wordButton(words, u);
  });
  node.replaceChildren(...children);
}

/** @param {Words} words @param {number} u */
function wordButton({ units, special, unknown, second, reply }, u) {
  const isOfReply = reply !== null && u >= reply;
  const kind = [special.has(u) && "special", unknown.has(u) && "unknown", u === second && "second"].filter(Boolean);
  if (isOfReply) kind.push("reply");
  const text = visible(units[u]);
  const title = unknown.has(u) ? `${text}: not in the model's vocabulary` : text.length > 14 ? text : null;
  const attributes = { type: "button", dir: "auto", "data-unit": u, class: kind.join(" ") || null };
  return el("button", { ...attributes, title: title?.slice(0, 300) }, text.slice(0, 300));
}

/** @param {number} left words that are left out @param {number} next the first of them */
function gap(left, next) {
  const attributes = { class: "gap", role: "button", tabindex: -1, "data-gap": next, title: "Show these words" };
  return el("span", attributes, `⋮ ${count(left, "word")}`);
}

/**
 * Marks the picked word of a column, and the one that is held.
 * @param {HTMLElement} node
 * @param {Side} side
 * @param {Pick | null} pick
 * @param {Selection} state
 */
export function markWords(node, side, pick, state) {
  const words = /** @type {NodeListOf<HTMLElement>} */ (node.querySelectorAll("[data-unit]"));
  for (const [n, word] of words.entries()) {
    const u = Number(word.dataset.unit);
    const isPicked = pick?.side === side && pick.u === u;
    word.classList.toggle("chosen", isPicked);
    word.setAttribute("aria-pressed", String(state.word === u && state.side === side));
    word.tabIndex = (pick?.side === side ? isPicked : n === 0) ? 0 : -1; // one stop for each column; arrows do the rest
  }
}
