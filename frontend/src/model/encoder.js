// The forward pass of BERT and its kind: regard.nn.Encoder, whose names its weights have.

import { ACTIVATIONS } from "./activations.js";
import { attend, byHead, joined, ruleOf } from "./attention.js";
import { layerNorm, linear, sum } from "./linear.js";

/** @import { Attention, Config, Forward, RunOptions, Tensors } from "./types.js" */

/**
 * @param {Config} config with `activation`
 * @param {Tensors} tensors
 * @returns {Forward}
 */
export function open(config, tensors) {
  const run = async (/** @type {ArrayLike<number>} */ ids, /** @type {RunOptions} */ options = {}) => {
    const n = ids.length;
    let x = embeddings(config, tensors, ids, options);
    const hidden = [x];
    /** @type {Attention[]} */
    const layers = [];
    for (let l = 0; l < config.layers; l++) {
      const attention = await attentionOf(config, tensors, `layers.${l}.attention`, x, options);
      const change = await project(tensors, `layers.${l}.attention.output`, joined(attention.output), n, options);
      x = norm(config, tensors, `layers.${l}.attention_norm`, sum(x, change));
      const inner = await feedForward(config, tensors, l, x, n, options);
      x = norm(config, tensors, `layers.${l}.feed_forward_norm`, sum(x, inner));
      hidden.push(x);
      layers.push(attention);
      await options.pause?.((l + 1) / config.layers);
    }
    return { hidden: stacked(hidden, n), layers, cross: null };
  };
  return { run };
}

/**
 * norm(token + position + type) of each token.
 * @param {Config} config
 * @param {Tensors} tensors
 * @param {ArrayLike<number>} ids
 * @param {RunOptions} options
 */
function embeddings(config, tensors, ids, { types, changes }) {
  const x = tensors.rows("embeddings.tokens.weight", ids);
  const positions = changes?.positions === false ? null : tensors.get("embeddings.positions.weight");
  const kinds = tensors.has("embeddings.types.weight") ? tensors.get("embeddings.types.weight") : null;
  for (let i = 0; i < ids.length; i++) {
    const type = types?.[i] ?? 0;
    for (let d = 0; d < config.dim; d++)
      x[i * config.dim + d] += (positions?.[i * config.dim + d] ?? 0) + (kinds?.[type * config.dim + d] ?? 0);
  }
  return norm(config, tensors, "embeddings.norm", x);
}

/**
 * @param {Config} config
 * @param {Tensors} tensors
 * @param {string} name
 * @param {Float32Array} x
 * @param {RunOptions} options
 */
async function attentionOf({ heads, groups, dim }, tensors, name, x, options) {
  const n = x.length / dim;
  const query = byHead(await project(tensors, `${name}.query`, x, n, options), heads, n);
  const key = byHead(await project(tensors, `${name}.key`, x, n, options), groups, n);
  const value = byHead(await project(tensors, `${name}.value`, x, n, options), groups, n);
  const rule = ruleOf(options.changes, query.shape[2], false);
  const attention = attend(query, key, value, { ...rule, outputWeight: tensors.get(`${name}.output.weight`) });
  return { ...attention, made: { norm: "", head_norm: false, rotated: false, factor: 1 } };
}

/**
 * @param {Config} config
 * @param {Tensors} tensors
 * @param {number} l
 * @param {Float32Array} x
 * @param {number} n
 * @param {RunOptions} options
 */
async function feedForward({ activation }, tensors, l, x, n, options) {
  const inner = await project(tensors, `layers.${l}.feed_forward.fc1`, x, n, options);
  ACTIVATIONS[String(activation)](inner);
  return project(tensors, `layers.${l}.feed_forward.fc2`, inner, n, options);
}

/**
 * @param {Tensors} tensors
 * @param {string} name
 * @param {Float32Array} x
 * @param {number} n
 * @param {RunOptions} options
 */
const project = (tensors, name, x, n, { product = linear }) =>
  product(x, tensors.get(`${name}.weight`), tensors.get(`${name}.bias`), n);

/** @param {Config} config @param {Tensors} tensors @param {string} name @param {Float32Array} x */
const norm = ({ epsilon }, tensors, name, x) =>
  layerNorm(x, tensors.get(`${name}.weight`), tensors.get(`${name}.bias`), epsilon);

/**
 * The hidden states of all layers in one array (L + 1, N, dim).
 * @param {Float32Array[]} states
 * @param {number} n
 */
export function stacked(states, n) {
  const data = new Float32Array(states.length * states[0].length);
  for (const [l, state] of states.entries()) data.set(state, l * state.length);
  return { shape: [states.length, n, states[0].length / n], data };
}
