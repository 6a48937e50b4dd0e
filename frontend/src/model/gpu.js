// Matrix products on the graphics processor, for long texts, where the browser gives one and it is worth it.
//
// Whether it is, is tried: a product there must have the numbers of linear.js, and take less time. Everything works
// without it.

import { linear } from "./linear.js";

/** @import { Product } from "./types.js" */

const SIDE = 16; // of the squares of numbers that a group of threads loads at once
const LONGEST_TRIAL = 2000; // milliseconds
/** GPUBufferUsage, by the specification. */
const USAGE = { MAP_READ: 0x01, COPY_SRC: 0x04, COPY_DST: 0x08, UNIFORM: 0x40, STORAGE: 0x80 };
const SHADER = `
struct Sizes { vectors: u32, inputs: u32, outputs: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
var<workgroup> vectors: array<f32, ${SIDE * SIDE}>;
var<workgroup> rows: array<f32, ${SIDE * SIDE}>;

@compute @workgroup_size(${SIDE}, ${SIDE})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) local: vec3u) {
  let i = group.y * ${SIDE}u + local.y;
  let o = group.x * ${SIDE}u + local.x;
  let loaded = group.x * ${SIDE}u + local.y; // the row that this thread loads a number of
  let place = local.y * ${SIDE}u + local.x;
  var sum = 0.0;
  for (var first = 0u; first < sizes.inputs; first += ${SIDE}u) {
    let k = first + local.x;
    vectors[place] = 0.0;
    rows[place] = 0.0;
    if (k < sizes.inputs && i < sizes.vectors) { vectors[place] = x[i * sizes.inputs + k]; }
    if (k < sizes.inputs && loaded < sizes.outputs) { rows[place] = weight[loaded * sizes.inputs + k]; }
    workgroupBarrier();
    for (var d = 0u; d < ${SIDE}u; d++) { sum += vectors[local.y * ${SIDE}u + d] * rows[local.x * ${SIDE}u + d]; }
    workgroupBarrier();
  }
  if (i < sizes.vectors && o < sizes.outputs) { y[i * sizes.outputs + o] = sum; }
}`;

/**
 * The faster way to multiply matrices here: on the graphics processor, or else `linear`.
 * @returns {Promise<Product>}
 */
export async function fastestProduct() {
  const tried = gpuProduct()
    .then(async (product) => (product && (await isWorthIt(product)) ? product : linear))
    .catch(() => linear);
  return Promise.race([tried, new Promise((resolve) => setTimeout(resolve, LONGEST_TRIAL, linear))]);
}

/**
 * `linear` on the graphics processor; null where the browser gives none. One that is lost later is done without.
 * @returns {Promise<Product | null>}
 */
export async function gpuProduct() {
  const adapter = await globalThis.navigator?.gpu?.requestAdapter();
  if (!adapter) return null;
  const device = await adapter.requestDevice();
  let isLost = false;
  device.lost.then(() => {
    isLost = true;
  });
  const module = device.createShaderModule({ code: SHADER });
  const pipeline = await device.createComputePipelineAsync({ layout: "auto", compute: { module } });
  /** The weights that are there already. @type {WeakMap<Float32Array, GPUBuffer>} */
  const kept = new WeakMap();
  return async (x, weight, bias, n) => {
    if (isLost) return linear(x, weight, bias, n);
    try {
      return plus(await multiply(device, pipeline, kept, x, weight, n), bias);
    } catch {
      isLost = true;
      return linear(x, weight, bias, n);
    }
  };
}

/**
 * x Wᵀ, computed there.
 * @param {GPUDevice} device
 * @param {GPUComputePipeline} pipeline
 * @param {WeakMap<Float32Array, GPUBuffer>} kept
 * @param {Float32Array} x
 * @param {Float32Array} weight
 * @param {number} n
 */
async function multiply(device, pipeline, kept, x, weight, n) {
  const [inputs, outputs] = [x.length / n, (weight.length * n) / x.length];
  const rows = kept.get(weight) ?? bufferOf(device, weight, USAGE.STORAGE);
  kept.set(weight, rows);
  const size = 4 * n * outputs;
  const buffers = [
    bufferOf(device, Uint32Array.of(n, inputs, outputs, 0), USAGE.UNIFORM),
    bufferOf(device, x, USAGE.STORAGE),
    device.createBuffer({ size, usage: USAGE.STORAGE | USAGE.COPY_SRC }),
    device.createBuffer({ size, usage: USAGE.MAP_READ | USAGE.COPY_DST }),
  ];
  const [sizes, vectors, result, read] = buffers;
  const entries = [sizes, vectors, rows, result].map((buffer, binding) => ({ binding, resource: { buffer } }));
  const commands = device.createCommandEncoder();
  const pass = commands.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }));
  pass.dispatchWorkgroups(Math.ceil(outputs / SIDE), Math.ceil(n / SIDE));
  pass.end();
  commands.copyBufferToBuffer(result, 0, read, 0, size);
  device.queue.submit([commands.finish()]);
  await read.mapAsync(0x01); // GPUMapMode.READ
  const y = new Float32Array(read.getMappedRange().slice(0));
  for (const buffer of buffers) buffer.destroy();
  return y;
}

/**
 * @param {GPUDevice} device
 * @param {Float32Array | Uint32Array} data
 * @param {number} usage
 */
function bufferOf(device, data, usage) {
  const buffer = device.createBuffer({ size: data.byteLength, usage: usage | USAGE.COPY_DST });
  device.queue.writeBuffer(buffer, 0, /** @type {Float32Array<ArrayBuffer>} */ (data));
  return buffer;
}

/**
 * @param {Float32Array} y
 * @param {Float32Array | null} bias
 */
function plus(y, bias) {
  if (bias) for (let n = 0; n < y.length; n++) y[n] += bias[n % bias.length];
  return y;
}

/**
 * Whether a product has the numbers of `linear`, and takes less time, once it has begun.
 * @param {Product} product
 */
async function isWorthIt(product) {
  const [n, inputs, outputs] = [96, 384, 384];
  const x = Float32Array.from({ length: n * inputs }, (_, k) => Math.sin(k * k));
  const weight = Float32Array.from({ length: inputs * outputs }, (_, k) => Math.cos(k * k * 1.7));
  const taken = async (/** @type {Product} */ multiplied) => {
    const y = await multiplied(x, weight, null, n);
    const start = performance.now();
    await multiplied(x, weight, null, n);
    return { y, time: performance.now() - start };
  };
  const [there, here] = [await taken(product), await taken(linear)];
  return there.time < here.time && there.y.every((number, k) => Math.abs(number - here.y[k]) < 1e-4);
}
