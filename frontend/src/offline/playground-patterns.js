// The shares of a head's weight that go to each pattern: `pattern_shares` of regard/attribution/heads, without Python.

import { range } from "./pooling.js";

/** @import { Token } from "../model/types.js" */
/** @import { Arrays, OfflineAttention } from "./attention.js" */

/**
 * By head, the share of its weight that it gives to each of PATTERNS: the mean over all tokens of the text.
 * @param {OfflineAttention} attention
 * @param {Arrays} arrays of the layer
 * @param {number} l
 * @param {Token[]} tokens that attend
 * @param {Token[]} keys that are attended to; the same array where the words attend to each other
 */
export async function patternShares(attention, arrays, l, tokens, keys) {
  const rows = range(0, tokens.length).filter((i) => !tokens[i].special);
  const kinds = kindsOf(tokens, keys);
  /** @type {number[][]} */
  const shares = [];
  for (let h = 0; h < attention.H; h++) {
    if (h % 4 === 3) await new Promise((done) => setTimeout(done)); // so that the page answers in between
    const total = new Array(8).fill(0);
    for (const i of rows) {
      const { weights } = attention.ofToken(l, arrays, h, i);
      for (const [n, share] of sharesOfRow(weights, i, kinds, tokens === keys).entries()) total[n] += share;
    }
    shares.push(total.map((share) => share / Math.max(1, rows.length)));
  }
  return shares;
}

/**
 * The token of each row and key by its text, regardless of case, and which keys are separators and punctuation.
 * @param {Token[]} tokens
 * @param {Token[]} keys
 */
function kindsOf(tokens, keys) {
  /** @param {Token} token */
  const named = ({ text }) => text.toUpperCase().toLowerCase();
  return {
    rows: tokens.map(named),
    keys: keys.map(named),
    separator: keys.map(({ special }, j) => special && j > 0),
    punctuation: keys.map(({ special, text }) => !special && !/[\p{L}\p{N}]/u.test(text)),
  };
}

/**
 * The shares of one token's weight, in the order of PATTERNS.
 * @param {Float64Array} weights
 * @param {number} i
 * @param {ReturnType<typeof kindsOf>} kinds
 * @param {boolean} isSameText
 */
function sharesOfRow(weights, i, { rows, keys, separator, punctuation }, isSameText) {
  const last = weights.length - 1;
  const beside = isSameText ? [i - 1, i + 1, i] : [-1, -1, -1];
  let [separators, marks, same] = [0, 0, 0];
  for (let j = 0; j <= last; j++) {
    if (separator[j]) separators += weights[j];
    if (isSameText && i === j) continue;
    if (punctuation[j]) marks += weights[j];
    if (keys[j] === rows[i]) same += weights[j];
  }
  return [...[...beside, 0, last].map((j) => weights[j] ?? 0), separators, marks, same];
}
