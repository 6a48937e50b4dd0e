// The forward pass of regard.nn.Transformer, whose names its weights have: an encoder, and a decoder that looks at
// what the encoder made of a source. Norms come before attention and feed-forward network, positions are sinusoids.

import { ACTIVATIONS } from "./activations.js";
import { attend, byHead, joined, ruleOf } from "./attention.js";
import { stacked } from "./encoder.js";
import { largest, layerNorm, linear, sum } from "./linear.js";

/** @import { Attention, Changes, Config, Forward, Run, RunOptions, Tensors } from "./types.js" */

/** @typedef {Config & {activation: string, start: number, end: number[]}} TranslatorConfig the tokens that begin and end a target */

const TOKENS = "encoder.embeddings.tokens.weight"; // also those of the decoder, and of its output
const MADE = { norm: "LayerNorm", head_norm: false, rotated: false, factor: 1 };

/**
 * @param {TranslatorConfig} config
 * @param {Tensors} tensors
 * @returns {Forward}
 */
export function open(config, tensors) {
  const model = { config, tensors };

  async function run(/** @type {ArrayLike<number>} */ ids, /** @type {RunOptions} */ options = {}) {
    const { source, changes, pause } = options;
    const stack = source ? "decoder" : "encoder";
    const memory = source ? norm(model, "encoder.norm", lastOf(source)) : null;
    let x = embeddings(model, ids, changes);
    const hidden = [x];
    /** @type {Attention[]} */
    const layers = [];
    /** @type {Attention[]} */
    const cross = [];
    for (let l = 0; l < config.layers; l++) {
      const name = `${stack}.layers.${l}`;
      const attention = look(model, `${name}.attention`, x, null, Boolean(source), changes);
      x = added(model, `${name}.attention`, x, attention);
      if (memory) {
        const crossed = look(model, `${name}.cross_attention`, x, memory, false, { scale: changes?.scale });
        x = added(model, `${name}.cross_attention`, x, crossed);
        cross.push(crossed);
      }
      x = fed(model, name, x);
      hidden.push(x);
      layers.push(attention);
      await pause?.((l + 1) / config.layers);
    }
    return { hidden: stacked(hidden, ids.length), layers, cross: source ? cross : null };
  }

  /** @param {Float32Array} rows */
  const logits = (rows) =>
    linear(norm(model, "decoder.norm", rows), tensors.get(TOKENS), null, rows.length / config.dim);

  async function write(
    /** @type {number[]} */ ids,
    /** @type {number} */ count,
    /** @type {RunOptions} */ options = {},
  ) {
    const target = [...ids];
    while (target.length - ids.length < count && target.length < config.positions) {
      const next = largest(logits(lastOf(await run(target, options)).subarray(-config.dim)));
      if (config.end.includes(next)) break;
      target.push(next);
    }
    return target.slice(ids.length);
  }

  return { run, logits, write };
}

/** @typedef {{config: TranslatorConfig, tensors: Tensors}} Opened */

/**
 * √dim · token + position, with p_(i, 2d) = sin(i / 10000^(2d/dim)) and p_(i, 2d+1) the cosine.
 * @param {Opened} model
 * @param {ArrayLike<number>} ids
 * @param {Changes | undefined} changes
 */
function embeddings({ config: { dim }, tensors }, ids, changes) {
  const x = tensors.rows(TOKENS, ids);
  for (let place = 0; place < x.length; place++) {
    const [i, d] = [Math.floor(place / dim), place % dim];
    const angle = i * 10000 ** (-(d - (d % 2)) / dim);
    const position = changes?.positions === false ? 0 : d % 2 ? Math.cos(angle) : Math.sin(angle);
    x[place] = Math.sqrt(dim) * x[place] + position;
  }
  return x;
}

/**
 * The attention of the tokens to each other, or to the states of a source.
 * @param {Opened} model
 * @param {string} name
 * @param {Float32Array} x
 * @param {Float32Array | null} memory
 * @param {boolean} causal
 * @param {Changes | undefined} changes
 * @returns {Attention}
 */
function look(model, name, x, memory, causal, changes) {
  const { heads, groups } = model.config;
  const normed = norm(model, `${name}_norm`, x);
  const query = vectors(model, `${name}.query`, normed, heads);
  const key = vectors(model, `${name}.key`, memory ?? normed, groups);
  const value = vectors(model, `${name}.value`, memory ?? normed, groups);
  const outputWeight = model.tensors.get(`${name}.output.weight`);
  const attention = attend(query, key, value, { ...ruleOf(changes, query.shape[2], causal), outputWeight });
  const input = memory && { input: { shape: [1, query.shape[1], model.config.dim], data: x } };
  return { ...attention, ...input, made: MADE };
}

/** @param {Opened} model @param {string} name @param {Float32Array} x @param {Attention} attention */
const added = (model, name, x, { output }) => sum(x, project(model, `${name}.output`, joined(output)));

/** x and its feed-forward network. @param {Opened} model @param {string} name @param {Float32Array} x */
function fed(model, name, x) {
  const inner = project(model, `${name}.feed_forward.fc1`, norm(model, `${name}.feed_forward_norm`, x));
  ACTIVATIONS[model.config.activation](inner);
  return sum(x, project(model, `${name}.feed_forward.fc2`, inner));
}

/** @param {Opened} model @param {string} name @param {Float32Array} x @param {number} heads */
function vectors(model, name, x, heads) {
  return byHead(project(model, name, x), heads, x.length / model.config.dim);
}

/** @param {Opened} model @param {string} name @param {Float32Array} x */
function project({ tensors }, name, x) {
  const weight = tensors.get(`${name}.weight`);
  const [, inputs] = tensors.shape(`${name}.weight`);
  return linear(x, weight, tensors.get(`${name}.bias`), x.length / inputs);
}

/** @param {Opened} model @param {string} name @param {Float32Array} x */
const norm = ({ config: { epsilon }, tensors }, name, x) =>
  layerNorm(x, tensors.get(`${name}.weight`), tensors.get(`${name}.bias`), epsilon);

/** The hidden states after the last layer. @param {Run} run */
const lastOf = ({ hidden: { shape, data } }) => data.subarray(-(shape[1] * shape[2]));
