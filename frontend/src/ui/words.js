// Words of a text: how they are shown, and how a word that was typed is found.

/** @import { Reading, Words } from "../types.js" */

/** @type {Record<string, string>} */
const SPACES = { "\n": "⏎", "\r": "␍", "\t": "⇥", " ": "␣", "\u00a0": "⍽" };

/**
 * White space as signs, so that a token made of it can be seen.
 * @param {string} text
 */
export const visible = (text) =>
  text === "" || /\S/u.test(text) ? text : text.replace(/./gsu, (space) => SPACES[space] ?? "␣");

/**
 * The text of a reading on one line; of cross-attention, source and target.
 * @param {Pick<Reading, "text"> & {columns: Pick<Words, "text">}} reading
 */
export function textOf({ text, columns }) {
  const texts = columns.text === text ? [text] : [columns.text, text];
  return texts.map((one) => one.replace(/\s+/g, " ")).join(" → ");
}

/**
 * A text without the differences of typography: letter case, quotation marks, dashes, composed accents.
 * @param {string} text
 */
export const plain = (text) =>
  text
    .normalize("NFKC")
    .toLowerCase()
    .replace(/[‘’‚‛′`´]/g, "'")
    .replace(/[“”„‟″«»]/g, '"')
    .replace(/[‐‑‒–—−]/g, "-")
    .replace(/\s+/g, " ")
    .trim();

/**
 * The next unit after `after` that reads `wanted`, or begins a run of units that do; −1 where there is none.
 * @param {string[]} units
 * @param {string} wanted
 * @param {number} after
 * @param {(u: number) => boolean} isVisible
 */
export function findWord(units, wanted, after, isVisible) {
  const joined = plain(wanted).replaceAll(" ", "");
  if (!joined) return -1;
  const texts = units.map((text) => plain(text).replaceAll(" ", ""));
  /** @param {number} u */
  const startsRun = (u) => {
    let run = "";
    for (let v = u; v < texts.length && run.length < joined.length && isVisible(v); v++) run += texts[v];
    return run === joined;
  };
  const order = texts.map((_, n) => (after + 1 + n) % texts.length).filter(isVisible);
  return order.find((u) => texts[u] === joined) ?? order.find((u) => texts[u] && startsRun(u)) ?? -1;
}
