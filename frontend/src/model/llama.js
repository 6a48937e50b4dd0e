// The forward pass of Llama: transformers' LlamaForCausalLM, whose names its weights have.

import { ACTIVATIONS } from "./activations.js";
import { attend, averages, byHead, joined, ruleOf } from "./attention.js";
import { stacked } from "./encoder.js";
import { largest, linear, rmsNorm, sum } from "./linear.js";

/** @import { NumberArray } from "../types.js" */
/** @import { Attention, Changes, Config, Forward, RunOptions, Tensors } from "./types.js" */

/** @typedef {Config & {theta: number, end: number[]}} LlamaConfig the base of the rotations, and the tokens that end a text */

/** Query, key and value of some tokens in one layer. @typedef {{query: NumberArray, key: NumberArray, value: NumberArray}} Projected */

const TOKENS = "model.embed_tokens.weight";

/**
 * @param {LlamaConfig} config
 * @param {Tensors} tensors
 * @returns {Forward}
 */
export function open(config, tensors) {
  const { dim, epsilon, heads } = config;
  const rule = (/** @type {Changes | undefined} */ changes) => ruleOf(changes, dim / heads, true);

  async function run(/** @type {ArrayLike<number>} */ ids, /** @type {RunOptions} */ { changes, pause } = {}) {
    let x = tensors.rows(TOKENS, ids);
    const hidden = [x];
    /** @type {Attention[]} */
    const layers = [];
    for (let l = 0; l < config.layers; l++) {
      const { query, key, value } = project(config, tensors, l, x, 0, changes);
      const outputWeight = tensors.get(nameOf(l, "self_attn.o_proj"));
      const attention = attend(query, key, value, { ...rule(changes), outputWeight });
      const rotated = changes?.positions !== false;
      x = finish(config, tensors, l, x, attention.output);
      layers.push({ ...attention, made: { norm: "LlamaRMSNorm", head_norm: false, rotated, factor: 1 } });
      hidden.push(x);
      await pause?.((l + 1) / config.layers);
    }
    return { hidden: stacked(hidden, ids.length), layers, cross: null };
  }

  /** @param {Float32Array} rows */
  function logits(rows) {
    const final = rmsNorm(rows, tensors.get("model.norm.weight"), epsilon);
    return linear(
      final,
      tensors.get(tensors.has("lm_head.weight") ? "lm_head.weight" : TOKENS),
      null,
      rows.length / dim,
    );
  }

  async function write(
    /** @type {number[]} */ ids,
    /** @type {number} */ count,
    /** @type {RunOptions} */ { changes, pause } = {},
  ) {
    /** @type {(Projected | null)[]} */
    const past = Array(config.layers).fill(null);
    const limit = Math.min(count, config.positions - ids.length);
    const written = [];
    let [fresh, start] = [ids, 0];
    while (written.length < limit) {
      let x = tensors.rows(TOKENS, fresh);
      for (let l = 0; l < config.layers; l++) {
        const { query, key, value } = project(config, tensors, l, x, start, changes);
        const known = { query, key: extended(past[l]?.key, key), value: extended(past[l]?.value, value) };
        x = finish(config, tensors, l, x, averages(query, known.key, known.value, rule(changes)));
        past[l] = known;
      }
      const next = largest(logits(x.subarray(x.length - dim)));
      if (config.end.includes(next)) break;
      written.push(next);
      [fresh, start] = [[next], start + fresh.length];
      await pause?.(written.length / limit);
    }
    return written;
  }

  return { run, logits, write };
}

/**
 * Query, key and value of tokens from position `start` on, query and key rotated.
 * @param {LlamaConfig} config
 * @param {Tensors} tensors
 * @param {number} l
 * @param {Float32Array} x
 * @param {number} start
 * @param {Changes | undefined} changes
 * @returns {Projected}
 */
function project({ dim, heads, groups, epsilon, theta }, tensors, l, x, start, changes) {
  const n = x.length / dim;
  const normed = rmsNorm(x, tensors.get(nameOf(l, "input_layernorm")), epsilon);
  const [query, key, value] = ["q", "k", "v"].map((kind) =>
    byHead(linear(normed, tensors.get(nameOf(l, `self_attn.${kind}_proj`)), null, n), kind === "q" ? heads : groups, n),
  );
  if (changes?.positions !== false) for (const vectors of [query, key]) rotate(vectors, start, theta);
  return { query, key, value };
}

/**
 * Turns the numbers d and d + D/2 of each vector together, by its position / theta^(2d/D). Su et al. 2021,
 * https://arxiv.org/abs/2104.09864; the pairs are those of transformers.
 * @param {NumberArray} vectors (heads, N, D), changed in place
 * @param {number} start the position of the first
 * @param {number} theta
 */
function rotate({ shape: [heads, n, width], data }, start, theta) {
  const half = width / 2;
  for (let d = 0; d < half; d++) {
    const frequency = Math.fround(theta ** ((-2 * d) / width));
    for (let i = 0; i < n; i++) {
      const angle = Math.fround((start + i) * frequency);
      const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
      for (let h = 0; h < heads; h++) {
        const place = (h * n + i) * width + d;
        const [first, second] = [data[place], data[place + half]];
        data[place] = first * cos - second * sin;
        data[place + half] = second * cos + first * sin;
      }
    }
  }
}

/**
 * x after a layer: the heads' outputs are joined and added, then the feed-forward network of Shazeer 2020,
 * https://arxiv.org/abs/2002.05202: (silu(x W_gate) ⊙ x W_up) W_down.
 * @param {LlamaConfig} config
 * @param {Tensors} tensors
 * @param {number} l
 * @param {Float32Array} x
 * @param {NumberArray} output
 */
function finish({ dim, epsilon }, tensors, l, x, output) {
  const n = x.length / dim;
  const attended = sum(x, linear(joined(output), tensors.get(nameOf(l, "self_attn.o_proj")), null, n));
  const normed = rmsNorm(attended, tensors.get(nameOf(l, "post_attention_layernorm")), epsilon);
  const gate = linear(normed, tensors.get(nameOf(l, "mlp.gate_proj")), null, n);
  const up = linear(normed, tensors.get(nameOf(l, "mlp.up_proj")), null, n);
  ACTIVATIONS.silu(gate);
  for (let d = 0; d < gate.length; d++) gate[d] *= up[d];
  return sum(attended, linear(gate, tensors.get(nameOf(l, "mlp.down_proj")), null, n));
}

/**
 * Keys or values with those of later tokens after them: (G, M + N, D).
 * @param {NumberArray | undefined} known (G, M, D)
 * @param {NumberArray} fresh (G, N, D)
 * @returns {NumberArray}
 */
function extended(known, fresh) {
  if (!known) return fresh;
  const [groups, n, width] = fresh.shape;
  const m = known.shape[1];
  const data = new Float32Array(groups * (m + n) * width);
  for (let g = 0; g < groups; g++) {
    data.set(known.data.subarray(g * m * width, (g + 1) * m * width), g * (m + n) * width);
    data.set(fresh.data.subarray(g * n * width, (g + 1) * n * width), (g * (m + n) + m) * width);
  }
  return { shape: [groups, m + n, width], data };
}

/** @param {number} l @param {string} module */
const nameOf = (l, module) => `model.layers.${l}.${module}.weight`;
