// The arithmetic of attention on small lists of numbers, as the lesson teaches it.

/** @import { NumberArray } from "../types.js" */
/** @import { Attention, Pass } from "../model/types.js" */
/** @typedef {ArrayLike<number>} Vector */

/** @param {Vector} numbers */
export const sum = (numbers) => Array.from(numbers).reduce((total, number) => total + number, 0);

/** @param {Vector} a @param {Vector} b */
export const dot = (a, b) => sum(Array.from(a, (number, n) => number * b[n]));

/** @param {Vector} vector */
export const length = (vector) => Math.sqrt(dot(vector, vector));

/** @param {Vector} a @param {Vector} b */
export const cosine = (a, b) => dot(a, b) / (length(a) * length(b));

/** @param {Vector} numbers */
export const largest = (numbers) =>
  Array.from(numbers).reduce((best, number, n) => (number > numbers[best] ? n : best), 0);

/** The places of numbers, the largest first. @param {Vector} numbers */
export const descending = (numbers) =>
  Array.from(numbers, (_, n) => n).sort((a, b) => numbers[b] - numbers[a] || a - b);

/** exp(s_j) / Σ exp(s); the largest score is subtracted first, so that nothing overflows. @param {Vector} scores */
export function softmax(scores) {
  const peak = Math.max(...Array.from(scores));
  const powers = Array.from(scores, (score) => Math.exp(score - peak));
  const total = sum(powers);
  return powers.map((power) => power / total);
}

/** Σ w_j v_j. @param {Vector} weights @param {Vector[]} vectors */
export const average = (weights, vectors) =>
  Array.from(vectors[0], (_, d) => sum(vectors.map((vector, j) => weights[j] * vector[d])));

/** The products of all rows of two matrices: A Bᵀ. @param {Vector[]} a @param {Vector[]} b */
export const products = (a, b) => a.map((row) => b.map((other) => dot(row, other)));

/**
 * A vector of an array (heads, tokens, width).
 * @param {NumberArray} array
 * @param {number} h
 * @param {number} i
 */
export function vectorOf({ shape: [, tokens, width], data }, h, i) {
  const start = (h * tokens + i) * width;
  return data.subarray(start, start + width);
}

/**
 * All vectors of one head, a row for each token.
 * @param {NumberArray} array
 * @param {number} h
 */
export const rowsOf = (array, h) => Array.from({ length: array.shape[1] }, (_, i) => vectorOf(array, h, i));

/**
 * The scores q·k of one head, a row for each query, not scaled; −∞ where a later token must not be seen.
 * @param {Attention} attention
 * @param {number} h
 */
export function scoresOf({ query, key, causal }, h) {
  const group = Math.floor((h * key.shape[0]) / query.shape[0]);
  const scores = products(rowsOf(query, h), rowsOf(key, group));
  return causal ? scores.map((row, i) => row.map((score, j) => (j > i ? -Infinity : score))) : scores;
}

/**
 * The weights of one head between tokens, a row for each query.
 * @param {Attention} attention
 * @param {number} h
 * @param {number} [scale] in the place of the model's own
 */
export const weightsOf = (attention, h, scale = attention.scale) =>
  scoresOf(attention, h).map((row) => softmax(row.map((score) => score * scale)));

/**
 * Weights between words: the mean of the rows of a word's tokens, the sum of its columns.
 * @param {number[][]} weights between tokens
 * @param {{tokens: number[]}[]} rows
 * @param {{tokens: number[]}[]} [columns]
 */
export const betweenWords = (weights, rows, columns = rows) =>
  rows.map(({ tokens }) =>
    columns.map((column) => sum(tokens.map((i) => sum(column.tokens.map((j) => weights[i][j])))) / tokens.length),
  );

/**
 * The vector of a word after so many layers: the mean of its tokens'.
 * @param {Pass} pass
 * @param {number} after 0 is before the first layer
 * @param {number} u
 */
export function wordVector({ hidden, units }, after, u) {
  const { tokens } = units[u];
  return average(
    tokens.map(() => 1 / tokens.length),
    tokens.map((i) => vectorOf(hidden, after, i)),
  );
}

/**
 * The first word of a text that is spelt so, whatever its case; −1 where there is none.
 * @param {Pass} pass
 * @param {string} word
 */
export const findWord = ({ units }, word) =>
  units.findIndex(({ text, special }) => !special && text.toLowerCase() === word.toLowerCase());

/**
 * Numbers that look random and are the same for everybody: a normal distribution, by Box and Muller, of the
 * generator mulberry32.
 * @param {number} seed
 */
export function normalNumbers(seed) {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 2 ** 32;
  };
  return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
}

/**
 * Weights after one of them is set: they still sum to one. The others give or take in proportion to what they have, and
 * those that are held only when the rest has nothing left.
 * @param {number[]} weights
 * @param {number} k
 * @param {number} value
 * @param {ReadonlySet<number>} [held]
 */
export function withWeight(weights, k, value, held = new Set()) {
  const rest = weights.map((_, n) => n).filter((n) => n !== k);
  const free = rest.filter((n) => !held.has(n));
  const bound = rest.filter((n) => held.has(n));
  const left = 1 - value - sum(bound.map((n) => weights[n]));
  const after = weights.slice();
  after[k] = value;
  share(after, free, free.length ? Math.max(0, left) : 0);
  if (left < 0 || !free.length) share(after, bound, 1 - value);
  return after;
}

/**
 * Divides an amount among some places as they had it, evenly where they had nothing.
 * @param {number[]} weights
 * @param {number[]} places
 * @param {number} amount
 */
function share(weights, places, amount) {
  const before = sum(places.map((n) => weights[n]));
  for (const n of places) weights[n] = before > 0 ? (weights[n] * amount) / before : amount / places.length;
}

/**
 * The first word of a text that is spelt so, or the first that is no special token.
 * @param {Pass} pass
 * @param {string} word
 */
export function findWordOrFirst(pass, word) {
  const place = findWord(pass, word);
  return place >= 0
    ? place
    : Math.max(
        0,
        pass.units.findIndex(({ special }) => !special),
      );
}
