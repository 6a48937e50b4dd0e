// The attention of one layer: its output, and what the maps of its weights follow from. The weights themselves are
// a function of query, key and scale, which the views compute where they show them (offline/attention.js).

import { linear, softmax } from "./linear.js";

/** @import { NumberArray } from "../types.js" */
/** @import { Attention, Changes } from "./types.js" */

/**
 * softmax(scale · q kᵀ) v, head by head, with all that the maps of its weights follow from.
 *
 * @param {NumberArray} query (H, N, D)
 * @param {NumberArray} key (G, M, D)
 * @param {NumberArray} value (G, M, E)
 * @param {object} options
 * @param {number} options.scale
 * @param {boolean} options.causal whether a token sees no later one
 * @param {Float32Array} options.outputWeight W_O as PyTorch keeps it (dim, H·E)
 * @returns {Attention} without `made`
 */
export function attend(query, key, value, { scale, causal, outputWeight }) {
  const output = averages(query, key, value, { scale, causal });
  const gram = products(value, outputWeight, query.shape[0]);
  return { query, key, value, output, lengths: lengthsOf(gram, query.shape[0]), gram, scale, causal, made: null };
}

/**
 * softmax(scale · q kᵀ) v alone: (H, N, E). Of fewer queries than keys, the last query belongs to the last key.
 *
 * @param {NumberArray} query (H, N, D)
 * @param {NumberArray} key (G, M, D)
 * @param {NumberArray} value (G, M, E)
 * @param {{scale: number, causal: boolean}} rule
 * @returns {NumberArray}
 */
export function averages(query, key, value, { scale, causal }) {
  const [heads, rows] = query.shape;
  const [groups, columns] = key.shape;
  const extent = value.shape[2];
  const output = new Float32Array(heads * rows * extent);
  for (let h = 0; h < heads; h++) {
    const group = Math.floor((h * groups) / heads);
    const weights = linear(partOf(query, h), partOf(key, group), null, rows); // (N, M), the scores at first
    for (let i = 0; i < rows; i++) {
      const row = weights.subarray(i * columns, (i + 1) * columns);
      for (let j = 0; j < columns; j++) row[j] *= scale;
      if (causal) row.fill(-Infinity, columns - rows + i + 1);
      softmax(row);
    }
    const values = transposed(partOf(value, group), columns);
    output.set(linear(weights, values, null, rows), h * rows * extent);
  }
  return { shape: [heads, rows, extent], data: output };
}

/**
 * The vectors of one head, or of one group.
 * @param {NumberArray} array
 * @param {number} place
 */
function partOf({ shape: [, n, width], data }, place) {
  return /** @type {Float32Array} */ (data.subarray(place * n * width, (place + 1) * n * width));
}

/**
 * @param {Float32Array} matrix
 * @param {number} rows
 */
function transposed(matrix, rows) {
  const columns = matrix.length / rows;
  const result = new Float32Array(matrix.length);
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) result[c * rows + r] = matrix[r * columns + c];
  return result;
}

/**
 * G_j[h, h′] = f^h_j · f^h′_j with f^h_j = v_j W_O^h, for h ≤ h′, row by row: (1, M, H (H + 1) / 2).
 *
 * @param {NumberArray} value (G, M, E)
 * @param {Float32Array} outputWeight (dim, H·E)
 * @param {number} heads
 * @returns {NumberArray}
 */
export function products(value, outputWeight, heads) {
  const [groups, tokens, extent] = value.shape;
  const dim = outputWeight.length / (heads * extent);
  const vectors = Array.from({ length: heads }, (_, h) => {
    const group = Math.floor((h * groups) / heads);
    return linear(partOf(value, group), columnsOf(outputWeight, dim, h * extent, extent), null, tokens); // (M, dim)
  });
  const pairs = (heads * (heads + 1)) / 2;
  const gram = new Float32Array(tokens * pairs);
  for (let j = 0; j < tokens; j++) {
    let place = j * pairs;
    for (let h = 0; h < heads; h++) {
      for (let other = h; other < heads; other++) {
        let product = 0;
        for (let d = j * dim; d < (j + 1) * dim; d++) product += vectors[h][d] * vectors[other][d];
        gram[place++] = product;
      }
    }
  }
  return { shape: [1, tokens, pairs], data: gram };
}

/**
 * ‖v_j W_O^h‖, the roots of the gram's diagonal: (H, M, 1).
 * @param {NumberArray} gram
 * @param {number} heads
 * @returns {NumberArray}
 */
function lengthsOf({ shape: [, tokens, pairs], data }, heads) {
  const lengths = new Float32Array(heads * tokens);
  let place = 0;
  for (let h = 0; h < heads; h++) {
    for (let j = 0; j < tokens; j++) lengths[h * tokens + j] = Math.sqrt(data[j * pairs + place]);
    place += heads - h;
  }
  return { shape: [heads, tokens, 1], data: lengths };
}

/**
 * Some columns of a matrix (rows, …), as a matrix of their own.
 * @param {Float32Array} matrix
 * @param {number} rows
 * @param {number} first
 * @param {number} count
 */
function columnsOf(matrix, rows, first, count) {
  const width = matrix.length / rows;
  const columns = new Float32Array(rows * count);
  for (let r = 0; r < rows; r++) columns.set(matrix.subarray(r * width + first, r * width + first + count), r * count);
  return columns;
}

/**
 * Vectors (N, heads · width) by head: (heads, N, width).
 * @param {Float32Array} vectors
 * @param {number} heads
 * @param {number} n
 * @returns {NumberArray}
 */
export function byHead(vectors, heads, n) {
  const dim = vectors.length / n;
  const width = dim / heads;
  const data = new Float32Array(vectors.length);
  for (let h = 0; h < heads; h++)
    for (let i = 0; i < n; i++)
      data.set(vectors.subarray(i * dim + h * width, i * dim + (h + 1) * width), (h * n + i) * width);
  return { shape: [heads, n, width], data };
}

/**
 * The other way round: (heads, N, width) → (N, heads · width).
 * @param {NumberArray} array
 */
export function joined({ shape: [heads, n, width], data }) {
  const vectors = new Float32Array(data.length);
  for (let h = 0; h < heads; h++)
    for (let i = 0; i < n; i++)
      vectors.set(data.subarray((h * n + i) * width, (h * n + i + 1) * width), (i * heads + h) * width);
  return vectors;
}

/**
 * Scale and mask of a layer, where a lesson does not change them.
 * @param {Changes | undefined} changes
 * @param {number} width of a head's queries
 * @param {boolean} causal what the model itself does
 */
export const ruleOf = (changes, width, causal) => ({
  scale: changes?.scale ?? 1 / Math.sqrt(width),
  causal: changes?.causal ?? causal,
});
