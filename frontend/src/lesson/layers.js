// The arithmetic of a layer besides its attention: the feed-forward network, the norm, positions, masks.

import { average, dot, softmax, sum } from "./numbers.js";

/** @typedef {import("./numbers.js").Vector} Vector */

/** Functions of one number, by their names. @type {Record<string, (x: number) => number>} */
export const FUNCTIONS = {
  ReLU: (x) => Math.max(x, 0),
  GELU: (x) => (x / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))), // its usual approximation
  none: (x) => x,
};

/**
 * W_2 f(W_1 x): up, through a function of each number, and down again.
 * @param {Vector} x
 * @param {number[][]} up W_1, a row for each inner number
 * @param {number[][]} down W_2, a row for each number of the result
 * @param {(x: number) => number} f
 */
export function feedForward(x, up, down, f) {
  const inner = up.map((row) => f(dot(row, x)));
  return { inner, output: down.map((row) => dot(row, inner)) };
}

/** The mean and the variance of some numbers. @param {Vector} x */
export function moments(x) {
  const mean = sum(x) / x.length;
  return { mean, variance: sum(Array.from(x, (number) => (number - mean) ** 2)) / x.length };
}

/** (x − mean) / √(variance + ε): layer norm without its learned gain and shift. @param {Vector} x @param {number} [epsilon] */
export function normalised(x, epsilon = 1e-12) {
  const { mean, variance } = moments(x);
  return Array.from(x, (number) => (number - mean) / Math.sqrt(variance + epsilon));
}

/**
 * The angle of clock k of dim/2 at a position: position / 10000^(2k/dim).
 * @param {number} position
 * @param {number} k
 * @param {number} dim
 */
export const angleOf = (position, k, dim) => position / 10000 ** ((2 * k) / dim);

/**
 * The sinusoidal vector of a position: sine and cosine of each clock's angle.
 * @param {number} position
 * @param {number} dim
 */
export const positionVector = (position, dim) =>
  Array.from({ length: dim }, (_, d) => (d % 2 ? Math.cos : Math.sin)(angleOf(position, Math.floor(d / 2), dim)));

/** @typedef {"all" | "causal" | "lengths" | "window"} MaskName */

/**
 * Whether word i may attend to word j.
 * @param {MaskName} mask
 * @param {number} reach of lengths, how many words there are; of a window, how far it goes
 * @param {number} i
 * @param {number} j
 */
export function isSeen(mask, reach, i, j) {
  if (mask === "causal") return j <= i;
  if (mask === "lengths") return j < reach;
  if (mask === "window") return Math.abs(i - j) <= reach;
  return true;
}

/**
 * The softmax of each row of scores, where those that are masked are −∞.
 * @param {Vector[]} scores scaled
 * @param {MaskName} mask
 * @param {number} reach
 */
export const maskedWeights = (scores, mask, reach) =>
  scores.map((row, i) => softmax(Array.from(row, (score, j) => (isSeen(mask, reach, i, j) ? score : -Infinity))));

/** The mean of some vectors. @param {Vector[]} vectors */
export const meanOf = (vectors) =>
  average(
    vectors.map(() => 1 / vectors.length),
    vectors,
  );
