// Llama and the encoder-decoder on made-up weights: tests/test_playground_seq.py compares them with Python.

import assert from "node:assert/strict";
import { test } from "node:test";
import { open as openLlama } from "../src/model/llama.js";
import { open as openTranslator } from "../src/model/translator.js";

/** Weights that are always the same, between −1 and 1 over the root of a row's length. */
function tensors(shapes) {
  const arrays = new Map();
  for (const [name, shape] of Object.entries(shapes)) {
    let code = [...name].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 65521, 7);
    const next = () => {
      code = (code * 16807 + 11) % 2147483647;
      return ((code / 2147483647) * 4 - 2) / Math.sqrt(shape.at(-1));
    };
    arrays.set(name, { shape, data: Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, next) });
  }
  return {
    has: (name) => arrays.has(name),
    shape: (name) => arrays.get(name).shape,
    get: (name) => arrays.get(name).data,
    rows(name, rows) {
      const { shape, data } = arrays.get(name);
      const parts = Array.from(rows, (row) => data.subarray(row * shape[1], (row + 1) * shape[1]));
      return Float32Array.from(parts.flatMap((part) => [...part]));
    },
  };
}

const llama = (config = {}, head = false) => {
  const shapes = { "model.embed_tokens.weight": [11, 8], "model.norm.weight": [8] };
  if (head) shapes["lm_head.weight"] = [11, 8];
  for (const l of [0, 1]) {
    const layer = `model.layers.${l}`;
    for (const [name, rows] of Object.entries({ q: 8, k: 4, v: 4, o: 8 }))
      shapes[`${layer}.self_attn.${name}_proj.weight`] = [rows, 8];
    shapes[`${layer}.mlp.gate_proj.weight`] = shapes[`${layer}.mlp.up_proj.weight`] = [5, 8];
    shapes[`${layer}.mlp.down_proj.weight`] = [8, 5];
    shapes[`${layer}.input_layernorm.weight`] = shapes[`${layer}.post_attention_layernorm.weight`] = [8];
  }
  const sizes = { layers: 2, heads: 4, groups: 2, dim: 8, positions: 16, epsilon: 1e-5, theta: 10000, end: [] };
  return openLlama({ ...sizes, ...config }, tensors(shapes));
};

/** What a model writes, reading all again for every token. */
async function readAgain(model, ids, count, options = {}) {
  const target = [...ids];
  for (let n = 0; n < count; n++) {
    const { hidden } = await model.run(target, options);
    const logits = model.logits(hidden.data.subarray(-8));
    target.push(logits.indexOf(Math.max(...logits)));
  }
  return target.slice(ids.length);
}

test("what is written with a cache is what is written without", async () => {
  for (const changes of [undefined, { scale: 2 }, { positions: false }]) {
    const model = llama();
    assert.deepEqual(await model.write([3, 1, 4], 9, { changes }), await readAgain(model, [3, 1, 4], 9, { changes }));
  }
});

test("writing ends at an end token, after so many tokens, and where the positions end", async () => {
  const written = await llama().write([3, 1, 4], 9);
  const end = written[4];
  const first = written.indexOf(end);
  assert.deepEqual(await llama({ end: [end] }).write([3, 1, 4], 9), written.slice(0, first));
  assert.deepEqual(await llama().write([3, 1, 4], 2), written.slice(0, 2));
  assert.equal((await llama().write([3, 1, 4], 100)).length, 13);
  assert.deepEqual(await llama({ positions: 3 }).write([3, 1, 4], 5), []);
});

test("a token sees no later one, and by rotation only how far others are", async () => {
  const model = llama();
  const [long, short] = [await model.run([3, 1, 4, 1, 5]), await model.run([3, 1, 4])];
  for (let d = 0; d < 3 * 8; d++) {
    assert.ok(Math.abs(long.hidden.data[2 * 5 * 8 + d] - short.hidden.data[2 * 3 * 8 + d]) < 1e-5);
  }
  const [{ query, key }] = (await model.run([6, 6, 6, 6])).layers;
  const score = (i, j) => [0, 1].reduce((sum, d) => sum + query.data[i * 2 + d] * key.data[j * 2 + d], 0);
  assert.ok(Math.abs(score(1, 0) - score(3, 2)) < 1e-5);
  assert.ok(Math.abs(score(1, 0) - score(3, 0)) > 1e-3);
});

test("a head of its own is used where there is one", async () => {
  const rows = Float32Array.from({ length: 8 }, (_, d) => d - 3);
  assert.notDeepEqual(llama({}, true).logits(rows), llama().logits(rows));
});

test("who cancels gets no more layers", async () => {
  let layers = 0;
  const pause = async () => {
    layers += 1;
    throw new Error("The answer is no longer wanted.");
  };
  await assert.rejects(llama().run([1, 2], { pause }), /no longer wanted/);
  await assert.rejects(llama().write([1, 2], 5, { pause }), /no longer wanted/);
  assert.equal(layers, 2);
});

test("a target looks at the source, and ends", async () => {
  const shapes = { "encoder.embeddings.tokens.weight": [9, 8] };
  const both = (name, shape) => {
    shapes[`${name}.weight`] = shape;
    shapes[`${name}.bias`] = [shape[0]];
  };
  for (const stack of ["encoder", "decoder"]) {
    const layer = `${stack}.layers.0`;
    for (const attention of stack === "encoder" ? ["attention"] : ["attention", "cross_attention"]) {
      for (const name of ["query", "key", "value", "output"]) both(`${layer}.${attention}.${name}`, [8, 8]);
      both(`${layer}.${attention}_norm`, [8]);
    }
    both(`${layer}.feed_forward.fc1`, [12, 8]);
    both(`${layer}.feed_forward.fc2`, [8, 12]);
    both(`${layer}.feed_forward_norm`, [8]);
    both(`${stack}.norm`, [8]);
  }
  const sizes = { layers: 1, heads: 2, groups: 2, dim: 8, positions: 12, epsilon: 1e-5, activation: "relu" };
  const model = openTranslator({ ...sizes, start: 1, end: [] }, tensors(shapes));
  const source = await model.run([3, 4, 5, 6, 7]);
  assert.equal(source.cross, null);
  const target = await model.run([1, 8, 2], { source });
  assert.deepEqual(target.cross[0].query.shape, [2, 3, 4]);
  assert.deepEqual(target.cross[0].key.shape, [2, 5, 4]);
  assert.deepEqual([target.layers[0].causal, target.cross[0].causal, source.layers[0].causal], [true, false, false]);
  const written = await model.write([1], 6, { source });
  assert.deepEqual(written, await readAgain(model, [1], 6, { source }));
  assert.equal((await model.write([1], 100, { source })).length, 11);
});
