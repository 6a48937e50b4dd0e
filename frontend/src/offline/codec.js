// The arrays of a saved page: regard/viewer/payload.py encodes them.

import { fromBase64, inflated } from "../model/inflate.js";
import { LOGARITHM_STEPS } from "../protocol.js";

/** @import { NumberArray } from "../types.js" */
/**
 * An array as text, or as the numbers themselves where the page computed them.
 * @typedef {{shape: number[], data?: NumberArray["data"], float32?: string, packed?: string, logarithms?: string}} Encoded
 */

/** @param {Encoded} encoded @returns {Promise<NumberArray>} */
export async function decode({ shape, data, float32, packed, logarithms }) {
  if (data) return { shape, data };
  if (float32 !== undefined) return { shape, data: new Float32Array(fromBase64(float32).buffer) };
  const bytes = await inflated(packed ?? logarithms ?? "");
  return { shape, data: logarithms === undefined ? unpacked(bytes, shape) : exponentials(bytes) };
}

/**
 * 16 bits a number, all low bytes first: 0, or a step of its logarithm.
 * @param {Uint8Array} bytes
 */
export function exponentials(bytes) {
  const count = bytes.length / 2;
  return Float32Array.from({ length: count }, (_, n) => {
    const code = bytes[n] | (bytes[count + n] << 8);
    return code ? 2 ** ((code - 65535) / LOGARITHM_STEPS) : 0;
  });
}

/**
 * The steps of the channels, then the low bytes of all numbers, then the high bytes.
 * @param {Uint8Array} bytes
 * @param {number[]} shape
 */
export function unpacked(bytes, shape) {
  const count = shape.reduce((product, extent) => product * extent, 1);
  const [rows, width] = shape.slice(-2);
  const steps = new Float32Array(bytes.slice(0, (4 * count) / rows).buffer);
  const codes = bytes.subarray(steps.byteLength);
  const numbers = new Float32Array(count);
  for (let n = 0; n < count; n++) {
    const code = ((codes[count + n] << 24) >> 16) | codes[n]; // the high byte brings the sign
    numbers[n] = code * steps[Math.floor(n / (rows * width)) * width + (n % width)];
  }
  return numbers;
}
