// The walk of one token, as the API answers it, from what a saved page holds.

import { WALK_LARGEST, WALK_ROWS, WALK_TOKENS } from "../protocol.js";

/** @import { NumberArray, WalkReply } from "../types.js" */
/** @import { Arrays, OfflineAttention } from "./attention.js" */

/**
 * The places of the tokens that a table shows: all of a short text, those with the largest weights of a longer one.
 * @param {ArrayLike<number>} weights
 * @param {boolean} all
 */
export function rowsOf(weights, all) {
  const rows = weights.length <= WALK_TOKENS ? WALK_TOKENS : all ? WALK_ROWS : WALK_LARGEST;
  return Array.from(weights, (_, n) => n)
    .sort((a, b) => weights[b] - weights[a])
    .slice(0, rows)
    .sort((a, b) => a - b);
}

/** @param {ArrayLike<number>} numbers @param {number[]} rows @returns {NumberArray} */
const taken = (numbers, rows) => ({ shape: [rows.length], data: Float64Array.from(rows, (j) => numbers[j]) });

/** @param {Float32Array | Float64Array} data @returns {NumberArray} */
const vectorOf = (data) => ({ shape: [data.length], data });

/** @param {ArrayLike<number>[]} vectors @returns {NumberArray} */
function stacked(vectors) {
  const width = vectors[0].length;
  const data = new Float32Array(vectors.length * width);
  for (const [n, vector] of vectors.entries()) data.set(vector, n * width);
  return { shape: [vectors.length, width], data };
}

/**
 * Where only the weights are known: those of the token's unit.
 * @param {ArrayLike<number>} weights
 * @param {boolean} all
 * @param {NumberArray | undefined} x
 * @param {ArrayLike<number> | null} mapped
 * @returns {WalkReply}
 */
export function walkOfWeights(weights, all, x, mapped) {
  const rows = rowsOf(mapped ? magnitudes(mapped) : weights, all);
  return { rows, weights: taken(weights, rows), ...(x && { x }), ...(mapped && mappedReply(mapped, rows)) };
}

/** @param {ArrayLike<number>} numbers */
const magnitudes = (numbers) => Float64Array.from(numbers, Math.abs);

/**
 * The numbers of a map besides the weights.
 * @param {ArrayLike<number>} mapped
 * @param {number[]} rows
 */
const mappedReply = (mapped, rows) => ({
  mapped: taken(mapped, rows),
  mapped_total: magnitudes(mapped).reduce((total, size) => total + size, 0),
});

/**
 * The vector of a token that enters a layer, where the page holds it.
 * @param {Arrays} arrays
 * @param {number} i
 */
export function hiddenOf({ hidden }, i) {
  if (!hidden) return undefined;
  const width = hidden.shape[2];
  return vectorOf(hidden.data.subarray(i * width, (i + 1) * width));
}

/**
 * @param {OfflineAttention} attention
 * @param {number} l
 * @param {Arrays} arrays
 * @param {number} h
 * @param {number} i
 * @param {boolean} all
 * @param {ArrayLike<number> | null} mapped
 * @returns {WalkReply}
 */
export function walkOfToken(attention, l, arrays, h, i, all, mapped) {
  const { scale, softcap, sinks, made } = attention.layers[l];
  const { scores, scaled, weights, sink } = attention.ofToken(l, arrays, h, i);
  const rows = rowsOf(mapped ? magnitudes(mapped) : weights, all);
  /** @param {NumberArray} array @param {number} j */
  const vector = (array, j) => attention.vector(array, l, h, j);
  const x = hiddenOf(arrays, i);
  return {
    rows,
    best: weights.reduce((best, weight, j) => (weight > weights[best] ? j : best), 0),
    scale,
    softcap,
    adjusted: false,
    sink: sinks ? sink : null,
    masked: scores.some(Number.isNaN),
    made,
    ...(x && { x }),
    query: vectorOf(vector(arrays.query, i)),
    ...(!attention.isAcross && { key: vectorOf(vector(arrays.key, i)) }),
    keys: stacked(rows.map((j) => vector(arrays.key, j))),
    scores: taken(scores, rows),
    scaled: taken(scaled, rows),
    weights: taken(weights, rows),
    ...(mapped && mappedReply(mapped, rows)),
    ...(arrays.value && sumOf(arrays, weights, rows, i, vector, attention.isAcross)),
  };
}

/**
 * From the weights to the context.
 * @param {Arrays} arrays
 * @param {Float64Array} weights
 * @param {number[]} rows
 * @param {number} i
 * @param {(array: NumberArray, j: number) => Float32Array | Float64Array} vector
 * @param {boolean} isAcross whether the values are those of another text
 */
function sumOf({ value, output, lengths }, weights, rows, i, vector, isAcross) {
  /** @param {number} j */
  const lengthOf = (j) => (lengths ? vector(lengths, j)[0] : Math.hypot(...vector(value, j)));
  const carried = weights.map((weight, j) => weight * lengthOf(j));
  const context = new Float64Array(value.shape[2]);
  for (let j = 0; j < weights.length; j++)
    vector(value, j).forEach((number, d) => {
      context[d] += weights[j] * number;
    });
  const difference = output && vector(output, i).map((number, d) => Math.abs(context[d] - number));
  return {
    ...(!isAcross && { value: vectorOf(vector(value, i)) }),
    values: stacked(rows.map((j) => vector(value, j))),
    projected: Boolean(lengths), // the lengths are ‖v W_O‖, not ‖v‖
    carried: taken(carried, rows),
    carried_total: carried.reduce((total, length) => total + length, 0),
    context: vectorOf(context),
    error: difference ? Math.max(...difference) : null,
  };
}
