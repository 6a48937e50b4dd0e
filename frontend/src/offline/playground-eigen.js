// The eigenvectors of a small symmetric matrix, by Jacobi's rotations.

import { range } from "./pooling.js";

const SWEEPS = 60;

/**
 * Eigenvalues, the largest first, and their eigenvectors.
 * @param {number[][]} matrix symmetric
 */
export function eigen(matrix) {
  const n = matrix.length;
  const a = matrix.map((row) => [...row]);
  const v = range(0, n).map((i) => range(0, n).map((j) => (i === j ? 1 : 0)));
  const size = Math.hypot(...a.flat());
  for (let sweep = 0; sweep < SWEEPS && offDiagonal(a) > 1e-15 * size; sweep++)
    for (let p = 0; p < n; p++) for (let q = p + 1; q < n; q++) rotate(a, v, p, q);
  const order = range(0, n).sort((i, j) => a[j][j] - a[i][i]);
  return { values: order.map((k) => a[k][k]), vectors: order.map((k) => v.map((row) => row[k])) };
}

/** @param {number[][]} a */
const offDiagonal = (a) => Math.hypot(...a.flatMap((row, i) => row.slice(0, i)));

/**
 * Turns the axes p and q so that their product vanishes.
 * @param {number[][]} a
 * @param {number[][]} v
 * @param {number} p
 * @param {number} q
 */
function rotate(a, v, p, q) {
  if (!a[p][q]) return;
  const theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
  const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.hypot(theta, 1));
  const c = 1 / Math.hypot(t, 1);
  const s = t * c;
  for (const row of a) [row[p], row[q]] = [c * row[p] - s * row[q], s * row[p] + c * row[q]];
  for (let k = 0; k < a.length; k++) [a[p][k], a[q][k]] = [c * a[p][k] - s * a[q][k], s * a[p][k] + c * a[q][k]];
  for (const row of v) [row[p], row[q]] = [c * row[p] - s * row[q], s * row[p] + c * row[q]];
}
