// The file of a model: read, inflated, and its arrays made Float32Arrays. regard/playground/weights.py writes it.

/** @import { ModelFile, StoredTensor, Tensors } from "./types.js" */

/** A model's file without its text form: what is kept of it. @typedef {Omit<ModelFile, "data"> & {bytes: ArrayBuffer}} Unpacked */

/**
 * `regardModel({…});` as the object between the brackets.
 * @param {string} text
 * @returns {ModelFile}
 */
export function parse(text) {
  const [start, stop] = [text.indexOf("("), text.lastIndexOf(")")];
  if (start < 0 || stop < start) throw new Error("The file of the model is damaged: it does not end as it should.");
  return JSON.parse(text.slice(start + 1, stop));
}

/**
 * @param {ModelFile} file
 * @returns {Promise<Unpacked>}
 */
export async function unpack({ data, ...file }) {
  const binary = atob(data);
  const deflated = new Uint8Array(binary.length);
  for (let n = 0; n < binary.length; n++) deflated[n] = binary.charCodeAt(n);
  const stream = new Blob([deflated]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return check({ ...file, bytes: await new Response(stream).arrayBuffer() });
}

/**
 * The same, if its arrays lie within its bytes.
 * @param {Unpacked} file
 */
export function check(file) {
  for (const { name, shape, type, offset, scales } of file.tensors) {
    const count = shape.reduce((product, extent) => product * extent, 1);
    const stop = offset + count * WIDTHS[type];
    const last = scales === undefined ? 0 : scales + (4 * count) / (shape.at(-1) ?? 1);
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
        const width = tensor.shape.at(-1) ?? 1;
        const count = tensor.shape.reduce((product, extent) => product * extent, 1);
        array = new Float32Array(count);
        for (let row = 0; row * width < count; row++) fill(array, row * width, tensor, bytes, row, width);
        whole.set(name, array);
      }
      return array;
    },
    rows(name, rows) {
      const tensor = find(name);
      const width = tensor.shape.at(-1) ?? 1;
      const array = new Float32Array(rows.length * width);
      for (let n = 0; n < rows.length; n++) fill(array, n * width, tensor, bytes, rows[n], width);
      return array;
    },
  };
}

/**
 * Writes a row of a stored array, as float32.
 * @param {Float32Array} array
 * @param {number} place
 * @param {StoredTensor} tensor
 * @param {ArrayBuffer} bytes
 * @param {number} row
 * @param {number} width
 */
function fill(array, place, { type, offset, scales }, bytes, row, width) {
  const start = offset + row * width * WIDTHS[type];
  if (type === "float32") return array.set(new Float32Array(bytes, start, width), place);
  if (type === "float16") {
    const codes = new Uint16Array(bytes, start, width);
    for (let n = 0; n < width; n++) array[place + n] = float16(codes[n]);
    return;
  }
  const codes = new Int8Array(bytes, start, width);
  const [scale] = new Float32Array(bytes, (scales ?? 0) + 4 * row, 1);
  for (let n = 0; n < width; n++) array[place + n] = codes[n] * scale;
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
