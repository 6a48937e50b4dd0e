// The formulas of the walk, with as many terms as a line holds.

import { el } from "../../ui/dom.js";
import { format } from "../../ui/format.js";

/** @import { Steps, Walk } from "./numbers.js" */

/**
 * The first products of query · key.
 * @param {number[]} query
 * @param {number[]} key
 */
export function productTerms(query, key) {
  const terms = query.slice(0, 3).map((number, d) => `(${format(number, 2)} × ${format(key[d], 2)})`);
  return terms.join(" + ") + (query.length > 3 ? " + …" : "");
}

/**
 * The softmax of a row: its power over the sum of the powers, the largest first.
 * @param {Walk} walk
 * @param {Steps} steps
 * @param {number} row
 * @param {number} count of all tokens
 */
export function softmaxTerms({ weights, rows }, { scaled, sink }, row, count) {
  /** @param {number} n */
  const power = (n) => ["e", el("sup", {}, format(scaled[n], 2))];
  const seen = [...weights.keys()].filter((n) => !Number.isNaN(scaled[n])).sort((a, b) => weights[b] - weights[a]);
  const terms = seen.slice(0, 3).flatMap((n, place) => [place ? " + " : "", ...power(n)]);
  const hasMore = seen.length > 3 || rows.length < count || (sink !== null && sink > 0);
  return [...power(row), " / (", ...terms, hasMore ? " + …)" : ")"];
}
