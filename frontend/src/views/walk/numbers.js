// The numbers of a walk: arithmetic alone.

/** @import { NumberArray, Projections, WalkReply } from "../../types.js" */

/**
 * The walk of one token: see regard/viewer/protocol. `rows` are the tokens (or units, where only weights are known)
 * that the lists are of; `best` is the one with the largest weight.
 * @typedef {object} Walk
 * @property {number} l
 * @property {number} h
 * @property {number} u
 * @property {number} i
 * @property {number[]} rows
 * @property {number[]} weights
 * @property {number[]} [x]
 * @property {number[]} [normed]
 * @property {number[]} [unrotated]
 * @property {Projections | null} [made]
 * @property {number[]} [mapped] of a map besides the weights, its number for each row
 * @property {number} [mappedTotal] the sum of the magnitudes of all tokens
 * @property {Steps | null} steps from query to weights; null where only the weights are known
 */

/**
 * @typedef {object} Steps
 * @property {number} best
 * @property {number} scale
 * @property {number | null} softcap
 * @property {boolean} adjusted a bias was added
 * @property {number | null} sink
 * @property {boolean} masked
 * @property {number[]} query
 * @property {number[]} [key] none where the keys are those of another text
 * @property {number[][]} keys
 * @property {number[]} scores
 * @property {number[]} scaled
 * @property {Sum | null} sum from weights to context; null where the values are left out
 */

/**
 * @typedef {object} Sum
 * @property {number[]} [value] likewise
 * @property {number[][]} values
 * @property {number[]} context
 * @property {number[]} carried weight × length of the value, for each row
 * @property {number} total the same of all tokens, those that are not listed as well
 * @property {boolean} projected the length is ‖v W_O‖, not ‖v‖
 * @property {number | null} error against the model's own output
 */

/**
 * An array of one dimension as a list of numbers, one of two as a list of such lists.
 * @param {NumberArray} array
 * @returns {any}
 */
export function listsOf({ shape, data }) {
  if (shape.length === 1) return Array.from(data);
  const width = shape[shape.length - 1];
  return Array.from({ length: data.length / width }, (_, n) => Array.from(data.subarray(n * width, (n + 1) * width)));
}

/**
 * The reply to a request for a walk, with lists in the place of arrays.
 * @param {WalkReply} reply
 * @param {{l: number, h: number, u: number, i: number}} place
 * @returns {Walk}
 */
export function walkOf(reply, place) {
  /** @type {any} */
  const lists = Object.fromEntries(
    Object.entries(reply).map(([name, value]) => [
      name,
      /** @type {any} */ (value)?.shape ? listsOf(/** @type {NumberArray} */ (value)) : value,
    ]),
  );
  const { rows, weights, x, normed, unrotated, made, mapped, mapped_total: mappedTotal } = lists;
  const steps = lists.query ? stepsOf(lists) : null;
  return { ...place, rows, weights, x, normed, unrotated, made, mapped, mappedTotal, steps };
}

/** @param {any} lists @returns {Steps} */
function stepsOf(lists) {
  const { best, scale, softcap, adjusted, sink, masked, query, key, keys, scores, scaled } = lists;
  const sum = lists.values ? sumOf(lists) : null;
  return { best, scale, softcap, adjusted, sink, masked, query, key, keys, scores, scaled, sum };
}

/** @param {any} lists @returns {Sum} */
function sumOf({ value, values, context, carried, carried_total, weights, projected, error }) {
  const lengths = values.map(
    (/** @type {number[]} */ vector, /** @type {number} */ n) => weights[n] * Math.hypot(...vector),
  );
  const listed = carried ?? lengths;
  const total = carried_total ?? listed.reduce((/** @type {number} */ a, /** @type {number} */ b) => a + b, 0);
  return { value, values, context, carried: listed, total, projected: Boolean(projected), error: error ?? null };
}

/**
 * The largest magnitude among the numbers of some vectors.
 * @param {number[][]} vectors
 */
export const peakOf = (vectors) =>
  vectors.reduce((peak, vector) => vector.reduce((m, x) => Math.max(m, Math.abs(x)), peak), 0);
