// One word in several places, layer by layer: regard/lens/compare.py, without Python.

import { eigen } from "./playground-eigen.js";
import { dot, range } from "./pooling.js";

/** @import { Pass } from "../model/types.js" */
/** @import { NumberArray } from "../types.js" */

const SAME = 1e-6; // vectors whose cosine is this close to 1 are the same but for rounding

/**
 * The vectors of a word before the first layer and after each: the mean over its tokens.
 * @param {Pick<Pass, "hidden">} pass
 * @param {number[]} tokens
 */
export function vectorsOf({ hidden }, tokens) {
  const [states, rows, width] = hidden.shape;
  return range(0, states).map((l) => {
    const mean = new Float64Array(width);
    for (const i of tokens)
      for (let d = 0; d < width; d++) mean[d] += hidden.data[(l * rows + i) * width + d] / tokens.length;
    return mean;
  });
}

/**
 * The cosines of the word's vectors (L+1, n, n), the vectors in two dimensions (L+1, n, 2), and the two groups into which
 * those after the last layer fall.
 * @param {Float64Array[][]} places by place, its vectors by layer
 */
export function comparison(places) {
  const n = places.length;
  const byLayer = places[0].map((_, l) => places.map((vectors) => vectors[l]));
  const similarities = byLayer.map(cosines);
  const last = /** @type {number[][]} */ (similarities.at(-1));
  if (!last.flat().every(Number.isFinite))
    throw new Error("The model's vectors of the word hold NaN or infinity; they cannot be compared.");
  const isSame = last.flat().every((cosine) => cosine > 1 - SAME);
  return {
    clusters: isSame ? [range(0, n), []] : twoClusters(last),
    similarity: stacked(similarities, [byLayer.length, n, n]),
    plane: stacked(planes(byLayer), [byLayer.length, n, 2]),
  };
}

/** @param {number[][][]} numbers @param {number[]} shape @returns {NumberArray} */
const stacked = (numbers, shape) => ({ shape, data: Float32Array.from(numbers.flat(2)) });

/** @param {Float64Array[]} vectors */
function cosines(vectors) {
  const lengths = vectors.map((vector) => Math.max(1e-12, Math.sqrt(dot(vector, vector))));
  return vectors.map((a, i) => vectors.map((b, j) => dot(a, b) / (lengths[i] * lengths[j])));
}

/**
 * The vectors of each layer in the two dimensions in which they differ most, divided by the root mean square of their
 * distances from the mean, and rotated or mirrored to fit the layer before.
 * @param {Float64Array[][]} byLayer
 */
function planes(byLayer) {
  /** @type {number[][][]} */
  const done = [];
  for (const vectors of byLayer) {
    const plane = principal(vectors);
    done.push(done.length ? fitted(plane, done[done.length - 1]) : plane);
  }
  return done;
}

/**
 * The first two principal components, from the eigenvectors of the n × n products.
 * @param {Float64Array[]} vectors
 */
function principal(vectors) {
  const n = vectors.length;
  const mean = vectors[0].map((_, d) => vectors.reduce((sum, vector) => sum + vector[d], 0) / n);
  const centred = vectors.map((vector) => vector.map((number, d) => number - mean[d]));
  const products = centred.map((a) => centred.map((b) => dot(a, b)));
  const size = Math.max(1e-12, Math.sqrt(products.reduce((sum, row, i) => sum + row[i], 0) / n));
  const { values, vectors: axes } = eigen(products);
  return range(0, n).map((i) =>
    [0, 1].map((k) => (k < n ? (axes[k][i] * Math.sqrt(Math.max(0, values[k]))) / size : 0)),
  );
}

/**
 * A plane, rotated or mirrored to fit another best (orthogonal Procrustes).
 * @param {number[][]} plane
 * @param {number[][]} other
 */
function fitted(plane, other) {
  /** @param {number} k @param {number} m */
  const product = (k, m) => plane.reduce((sum, point, i) => sum + point[k] * other[i][m], 0);
  const [a, b, c, d] = [product(0, 0), product(0, 1), product(1, 0), product(1, 1)];
  const [turned, mirrored] = [Math.hypot(a + d, b - c), Math.hypot(a - d, b + c)];
  if (!turned && !mirrored) return plane;
  const [x, y, sign] =
    turned >= mirrored ? [(a + d) / turned, (b - c) / turned, 1] : [(a - d) / mirrored, (b + c) / mirrored, -1];
  return plane.map(([p, q]) => [p * x - sign * q * y, p * y + sign * q * x]);
}

/**
 * The two groups with the least similarity across, as a share of each group's total: the normalised cut (Shi & Malik
 * 2000), the best one in the order of the second eigenvector of the normalised Laplacian.
 * @param {number[][]} similarity
 * @returns {number[][]}
 */
export function twoClusters(similarity) {
  const n = similarity.length;
  const weights = similarity.map((row, i) => row.map((number, j) => (i === j ? 0 : Math.max(0, number))));
  const degrees = weights.map((row) => row.reduce((a, b) => a + b, 0));
  const roots = degrees.map((degree) => 1 / Math.sqrt(Math.max(1e-12, degree)));
  const second = eigen(weights.map((row, i) => row.map((weight, j) => roots[i] * weight * roots[j]))).vectors[1];
  const order = range(0, n).sort((a, b) => roots[a] * second[a] - roots[b] * second[b]);
  /** @param {number[]} group */
  const total = (group) => group.reduce((sum, i) => sum + degrees[i], 0);
  const costs = range(1, n).map((cut) => {
    const [first, rest] = [order.slice(0, cut), order.slice(cut)];
    const across = first.reduce((sum, i) => sum + rest.reduce((inner, j) => inner + weights[i][j], 0), 0);
    const cost = across * (1 / total(first) + 1 / total(rest));
    return Number.isFinite(cost) ? cost : 0;
  });
  const cut = 1 + costs.indexOf(Math.min(...costs));
  const groups = [order.slice(0, cut), order.slice(cut)].map((group) => group.sort((a, b) => a - b));
  return groups.sort(([a], [b]) => a - b);
}
