// The names of saved files, and tables as CSV.

/** @import { Row, SaveKind, Selection } from "../types.js" */

/**
 * Rows as RFC 4180 has them. A cell that a spreadsheet would run as a formula is kept a text.
 * @param {Row[]} rows
 */
export function csv(rows) {
  /** @param {string | number} value */
  const cell = (value) => {
    if (typeof value === "number") return String(value);
    const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
    return /[",\r\n']/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return rows.map((row) => `${row.map(cell).join(",")}\r\n`).join("");
}

/**
 * The first words of a text, for the name of a file.
 * @param {string} text
 * @param {number} count
 */
const firstWords = (text, count) =>
  (text.toLowerCase().match(/[\p{L}\p{N}\p{M}]+/gu) ?? []).slice(0, count).join("-").slice(0, 40);

/**
 * A name that says what is shown, and ends with a checksum of all that was selected, so that no two pictures share one.
 * @param {Selection} state
 * @param {SaveKind} kind
 * @param {{subject: string, word: string, all: string}} content
 */
export function fileName({ view, map, layer, head, heads, after, score }, kind, { subject, word, all }) {
  const ofMap = map !== "weights" && map;
  const [inLayer, inHead] = [`layer-${layer}`, `head-${head}`];
  const chosen = firstWords(word, 2);
  const where = {
    atlas: ["atlas", score && firstWords(score, 3)],
    sentence: ["sentence", ofMap, chosen, inLayer, heads?.length === 1 && `head-${heads[0]}`],
    heads: ["heads", ofMap],
    map: ["map", ofMap, inLayer, map !== "norms" && inHead],
    walk: ["walk", ofMap, chosen, inLayer, inHead],
    predictions: ["predictions"],
    compare: ["compare", after !== null && (after ? `layer-${after - 1}` : "before")],
  }[view];
  const parts = [firstWords(subject, 4) || "regard", ...(kind === "html" ? [] : where), checksum(all)];
  return `${parts.filter(Boolean).join("-")}.${kind}`;
}

/**
 * Six letters of a text's FNV-1a hash.
 * @param {string} text
 */
export function checksum(text) {
  let hash = 0x811c9dc5;
  for (let n = 0; n < text.length; n++) hash = Math.imul(hash ^ text.charCodeAt(n), 0x01000193) >>> 0;
  return hash.toString(36).padStart(6, "0").slice(-6);
}
