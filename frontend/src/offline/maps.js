// The maps of a saved reading besides its weights: what the file holds is what the weights are multiplied by.

import { decode } from "./codec.js";
import { dot } from "./pooling.js";

/** @import { NumberArray } from "../types.js" */
/** @import { Arrays, OfflineAttention } from "./attention.js" */
/** @import { Encoded } from "./codec.js" */

/**
 * A map as the file has it: factors φ(a_i · b_j), the products of the vectors that the heads add, or else its numbers.
 * @typedef {object} EncodedMap
 * @property {{query: Part, key: Part, activation: "relu" | "abs" | null}[]} [factors]
 * @property {Encoded | null} [gram] by key, the upper triangle of its H × H products
 * @property {Encoded} [dense] by head, unit and unit
 */
/** @typedef {Encoded | "value" | null} Part an array; the values, which the file holds already; nothing */

/**
 * @typedef {object} OfflineMap
 * @property {string} name
 * @property {number} heads 1 where all are taken together
 * @property {{query: NumberArray | null, key: NumberArray | null, activation: "relu" | "abs" | null}[]} factors
 * @property {NumberArray | null} gram
 * @property {NumberArray | null} dense
 */

/**
 * @param {string} name
 * @param {number} heads
 * @param {EncodedMap} map
 * @param {Arrays} arrays
 * @returns {Promise<OfflineMap>}
 */
export async function openMap(name, heads, { factors = [], gram, dense }, arrays) {
  /** @param {Part} part */
  const opened = async (part) => (part === "value" ? arrays.value : part && decode(part));
  return {
    name,
    heads,
    factors: await Promise.all(
      factors.map(async ({ query, key, activation }) => ({
        query: await opened(query),
        key: await opened(key),
        activation,
      })),
    ),
    gram: gram ? await decode(gram) : null,
    dense: dense ? await decode(dense) : null,
  };
}

const ACTIVATIONS = { relu: (/** @type {number} */ x) => Math.max(0, x), abs: Math.abs };

/**
 * Token i as query over every key, in a head or in all together.
 * @param {OfflineAttention} attention
 * @param {number} l
 * @param {Arrays} arrays
 * @param {number} h
 * @param {number} i
 * @param {OfflineMap} map
 */
export function numbersOfToken(attention, l, arrays, h, i, { factors, gram }) {
  const numbers = gram ? combined(attention, l, arrays, i, gram) : attention.ofToken(l, arrays, h, i).weights;
  for (const { query, key, activation } of factors) {
    const a = query && attention.vector(query, l, h, i);
    for (let j = 0; j < numbers.length; j++) {
      if (!numbers[j]) continue;
      const b = key && attention.vector(key, l, h, j);
      const product = a && b ? dot(a, b) : (a ?? b ?? [1])[0];
      numbers[j] *= activation ? ACTIVATIONS[activation](product) : product;
    }
  }
  return numbers;
}

/**
 * The length of the sum of what all heads add: √(Σ w w′ G) over the pairs of heads, G their vectors' products.
 * @param {OfflineAttention} attention
 * @param {number} l
 * @param {Arrays} arrays
 * @param {number} i
 * @param {NumberArray} gram
 */
function combined(attention, l, arrays, i, { shape, data }) {
  const { H, N } = attention;
  const weights = Array.from({ length: H }, (_, h) => attention.ofToken(l, arrays, h, i).weights);
  const triangle = shape[2];
  return Float64Array.from({ length: N }, (_, j) => {
    let [square, place] = [0, j * triangle];
    for (let h = 0; h < H; h++)
      for (let g = h; g < H; g++) square += (g === h ? 1 : 2) * weights[h][j] * weights[g][j] * data[place++];
    return Math.sqrt(Math.max(0, square));
  });
}
