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
  const [heads, rows, width] = query.shape;
  const [groups, columns] = key.shape;
  const extent = value.shape[2];
  const output = new Float32Array(heads * rows * extent);
  const total = new Float64Array(extent);
  for (let h = 0; h < heads; h++) {
    const group = Math.floor((h * groups) / heads);
    const keys = key.data.subarray(group * columns * width, (group + 1) * columns * width);
    const values = value.data.subarray(group * columns * extent, (group + 1) * columns * extent);
    for (let i = 0; i < rows; i++) {
      const seen = causal ? columns - rows + i + 1 : columns;
      const start = (h * rows + i) * width;
      const weights = softmax(scores(query.data.subarray(start, start + width), keys, seen, scale));
      total.fill(0);
      for (let j = 0; j < seen; j++) for (let e = 0; e < extent; e++) total[e] += weights[j] * values[j * extent + e];
      output.set(total, (h * rows + i) * extent);
    }
  }
  return { shape: [heads, rows, extent], data: output };
}

/**
 * scale · q·k_j of the first keys.
 * @param {ArrayLike<number>} query
 * @param {ArrayLike<number>} keys
 * @param {number} count
 * @param {number} scale
 */
function scores(query, keys, count, scale) {
  const width = query.length;
  const numbers = new Float64Array(count);
  for (let j = 0; j < count; j++) {
    let product = 0;
    for (let d = 0; d < width; d++) product += query[d] * keys[j * width + d];
    numbers[j] = scale * product;
  }
  return numbers;
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
    const values = value.data.subarray(group * tokens * extent, (group + 1) * tokens * extent);
    return linear(values, columnsOf(outputWeight, dim, h * extent, extent), null, tokens); // (M, dim)
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
