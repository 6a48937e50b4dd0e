// The file of a model: read, inflated, and its arrays made Float32Arrays. regard/playground/weights.py writes it.

import { inflated } from "./inflate.js";

/** @import { ModelFile, StoredTensor, Tensors } from "./types.js" */

/** A model's file without its text form: what is kept of it. @typedef {Omit<ModelFile, "data"> & {bytes: ArrayBuffer}} Unpacked */

/**
 * `regardModel({…});` as the object between the brackets.
 * @param {string} text
 * @returns {ModelFile}
 */
export function parse(text) {
  try {
    return JSON.parse(text.slice(text.indexOf("(") + 1, text.lastIndexOf(")")));
  } catch {
    throw new Error("The file of the model is damaged: it is cut short, or no model.");
  }
}

/**
 * @param {ModelFile} file
 * @returns {Promise<Unpacked>}
 */
export async function unpack({ data, ...file }) {
  const bytes = await inflated(data).catch(() => {
    throw new Error("The file of the model is damaged: its weights cannot be unpacked.");
  });
  return check({ ...file, bytes: bytes.buffer });
}

/**
 * The same, if its arrays lie within its bytes.
 * @param {Unpacked} file
 */
export function check(file) {
  for (const { name, shape, type, offset, scales = 0, width = Infinity } of file.tensors) {
    const count = shape.reduce((product, extent) => product * extent, 1);
    const stop = offset + count * WIDTHS[type];
    const last = scales + (4 * count) / width;
    if (!(Math.max(stop, last) <= file.bytes.byteLength))
      throw new Error(`The file of the model is damaged: ${name} is not whole.`);
  }
  return file;
}

const WIDTHS = { float32: 4, float16: 2, int8: 1 };

/**
 * The arrays by their names. One that is asked for whole is kept as float32; rows are made each time.
 * @param {Unpacked} file
 * @returns {Tensors}
 */
export function tensorsOf({ tensors, bytes }) {
  const stored = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  /** @type {Map<string, Float32Array>} */
  const whole = new Map();
  const find = (/** @type {string} */ name) => {
    const tensor = stored.get(name);
    if (!tensor) throw new Error(`The file of the model lacks ${name}.`);
    return tensor;
  };
  return {
    has: (name) => stored.has(name),
    shape: (name) => find(name).shape,
    get(name) {
      let array = whole.get(name);
      if (!array) {
        const tensor = find(name);
        array = new Float32Array(tensor.shape.reduce((product, extent) => product * extent, 1));
        fill(array, tensor, bytes, 0);
        whole.set(name, array);
      }
      return array;
    },
    rows(name, rows) {
      const tensor = find(name);
      const width = tensor.shape.at(-1) ?? 1;
      const array = new Float32Array(rows.length * width);
      for (let n = 0; n < rows.length; n++)
        fill(array.subarray(n * width, (n + 1) * width), tensor, bytes, rows[n] * width);
      return array;
    },
  };
}

/**
 * Fills an array with numbers of a stored one, from the number `first` on, as float32.
 * @param {Float32Array} array
 * @param {StoredTensor} tensor
 * @param {ArrayBuffer} bytes
 * @param {number} first
 */
function fill(array, { type, offset, scales = 0, width = 1 }, bytes, first) {
  const start = offset + first * WIDTHS[type];
  if (type === "float32") return array.set(new Float32Array(bytes, start, array.length));
  if (type === "float16") {
    const codes = new Uint16Array(bytes, start, array.length);
    for (let n = 0; n < codes.length; n++) array[n] = float16(codes[n]);
    return;
  }
  const codes = new Int8Array(bytes, start, array.length);
  const factors = new Float32Array(bytes, scales + (4 * first) / width, array.length / width);
  for (let piece = 0; piece < factors.length; piece++)
    for (let n = piece * width; n < (piece + 1) * width; n++) array[n] = codes[n] * factors[piece];
}

/**
 * The number that 16 bits stand for (IEEE 754 binary16): a sign, five bits of exponent, ten of fraction.
 * @param {number} code
 */
export function float16(code) {
  const sign = code & 0x8000 ? -1 : 1;
  const exponent = (code >> 10) & 0x1f;
  const fraction = code & 0x3ff;
  if (exponent === 0x1f) return fraction ? Number.NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction);
}
