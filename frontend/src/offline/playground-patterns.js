// The shares of a head's weight that go to each pattern: `pattern_shares` of regard/lens/patterns.py, without Python.

import { range } from "./pooling.js";

/** @import { Token } from "../model/types.js" */
/** @import { Arrays, OfflineAttention } from "./attention.js" */

const [ROWS, WEIGHTS] = [256, 1 << 22]; // the most tokens and weights of a head that are sampled

/**
 * By head, the share of its weight that it gives to each pattern: the mean over the text's tokens.
 * @param {OfflineAttention} attention
 * @param {Arrays} arrays of the layer
 * @param {number} l
 * @param {Token[]} tokens that attend
 * @param {Token[]} keys that are attended to; the same array where the words attend to each other
 */
export function patternShares(attention, arrays, l, tokens, keys) {
  const rows = sampledRows(tokens);
  const kinds = kindsOf(tokens, keys);
  return range(0, attention.H).map((h) => {
    const shares = new Array(7).fill(0);
    for (const i of rows) {
      const { weights } = attention.ofToken(l, arrays, h, i);
      for (const [n, share] of sharesOfRow(weights, i, kinds, tokens === keys).entries())
        shares[n] += share / rows.length;
    }
    return shares;
  });
}

/**
 * The tokens of the text, or a sample at even distances.
 * @param {Token[]} tokens
 */
function sampledRows(tokens) {
  const ofText = range(0, tokens.length).filter((n) => !tokens[n].special);
  const count = Math.min(Math.max(16, Math.min(ROWS, Math.floor(WEIGHTS / tokens.length))), ofText.length);
  const step = count > 1 ? (ofText.length - 1) / (count - 1) : 0;
  return range(0, count).map((n) => ofText[Math.floor(n * step + 1e-9)]);
}

/**
 * The token of each row and key by its text, regardless of case, and which keys are punctuation.
 * @param {Token[]} tokens
 * @param {Token[]} keys
 */
function kindsOf(tokens, keys) {
  /** @param {Token} token */
  const named = ({ text }) => text.toUpperCase().toLowerCase();
  return {
    rows: tokens.map(named),
    keys: keys.map(named),
    punctuation: keys.map(({ special, text }) => !special && !/[\p{L}\p{N}]/u.test(text)),
  };
}

/**
 * The shares of one token's weight, in the order of the patterns.
 * @param {Float64Array} weights
 * @param {number} i
 * @param {ReturnType<typeof kindsOf>} kinds
 * @param {boolean} isSameText
 */
function sharesOfRow(weights, i, { rows, keys, punctuation }, isSameText) {
  const last = weights.length - 1;
  const beside = isSameText ? [i - 1, i + 1, i] : [-1, -1, -1];
  let [same, marks] = [0, 0];
  for (let j = 0; j <= last; j++) {
    if (isSameText && i === j) continue;
    if (keys[j] === rows[i]) same += weights[j];
    if (punctuation[j]) marks += weights[j];
  }
  return [...[...beside, 0, last].map((j) => weights[j] ?? 0), same, marks];
}
