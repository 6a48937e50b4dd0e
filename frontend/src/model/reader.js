// A model that is open: text → `Reading`, predictions, text that it writes. The worker answers with it.

import { open as openEncoder } from "./encoder.js";
import { tensorsOf } from "./file.js";
import { linear } from "./linear.js";
import { open as openLlama } from "./llama.js";
import { passOf, readWithTarget, writeTarget } from "./target.js";
import { encode, encodePair } from "./text.js";
import { openTokenizer } from "./tokenizer/tokenizer.js";
import { open as openTranslator } from "./translator.js";

/** @import { Unpacked } from "./file.js" */
/** @import { Architecture, Forward, Predictions, Product, ReadOptions, Reading, Run, RunOptions } from "./types.js" */

/** By architecture, what opens a model. @type {Record<Architecture, (config: any, tensors: any) => Forward>} */
const ARCHITECTURES = { encoder: openEncoder, decoder: openLlama, "encoder-decoder": openTranslator };

/** What `predict` needs of a reading. @typedef {{hidden: Run["hidden"], ids: number[]}} Predictable */
/** @typedef {Predictable & {reading: Omit<Reading, "id">}} Read */

/** @typedef {NonNullable<RunOptions["pause"]>} Pause */

const LONG = 96; // tokens, from which on it is asked whether there is a faster way to multiply than JavaScript's

/**
 * @param {Unpacked} file
 * @param {() => Promise<Product>} [fastest] the fastest way to multiply matrices here
 */
export function openReader(file, fastest = async () => linear) {
  const opener = ARCHITECTURES[file.architecture];
  if (!opener) throw new Error(`The file of the model has an unknown architecture: ${file.architecture}.`);
  const { config } = file;
  const tokenizer = openTokenizer(file.tokenizer);
  const model = opener(config, tensorsOf(file));
  const opened = { model, tokenizer, config };

  /**
   * @param {string} text
   * @param {ReadOptions} [options]
   * @param {Pause} [pause]
   * @returns {Promise<Read>}
   */
  async function read(text, { pair = null, changes } = {}, pause) {
    if (file.architecture === "encoder-decoder") return readWithTarget(opened, text, pair, { changes, pause });
    const encoded =
      pair === null ? encode(tokenizer, text, config.positions) : encodePair(tokenizer, text, pair, config.positions);
    const product = encoded.ids.length < LONG ? linear : await fastest();
    const run = await model.run(encoded.ids, { types: encoded.types, changes, product, pause });
    const pass = passOf(encoded, run);
    const reading =
      file.architecture === "encoder" ? { encoder: pass, decoder: null } : { encoder: null, decoder: pass };
    return { reading, hidden: run.hidden, ids: encoded.ids };
  }

  /**
   * The k likeliest tokens at `count` places from `first`, if the model ended after a layer; after the last for null.
   * @param {Predictable} read
   * @param {number | null} layer
   * @param {number} first
   * @param {number} count
   * @param {number} k
   * @returns {Predictions}
   */
  function predict({ hidden, ids }, layer, first, count, k) {
    if (!model.logits) throw new Error(`${file.name} predicts no tokens.`);
    const [states, n, dim] = hidden.shape;
    const start = (layer === null ? states - 1 : layer + 1) * n;
    const rows = hidden.data.subarray((start + first) * dim, (start + Math.min(n, first + count)) * dim);
    const logits = model.logits(rows);
    const width = (logits.length * dim) / rows.length;
    const places = Array.from({ length: rows.length / dim }, (_, row) =>
      likeliest(logits.subarray(row * width, (row + 1) * width), k, ids[first + row + 1]),
    );
    return {
      ids: places.map((place) => place.ids),
      texts: places.map((place) => place.ids.map((id) => tokenizer.decode([id]) || tokenizer.nameOf(id))),
      probabilities: places.map(({ probabilities }) => probabilities),
      surprise: places.map(({ surprise }) => surprise),
    };
  }

  /**
   * @param {string} text
   * @param {number} count
   * @param {Pause} [pause]
   */
  async function write(text, count, pause) {
    if (!model.write) throw new Error(`${file.name} writes no text.`);
    if (file.architecture === "encoder-decoder") return writeTarget(opened, text, count, { pause });
    const { ids } = encode(tokenizer, text, config.positions);
    if (ids.length >= config.positions)
      throw new Error(
        `This model takes at most ${config.positions} tokens, with those that it writes: shorten the text.`,
      );
    return tokenizer.decode(await model.write(ids, count, { pause }));
  }

  return { read, predict, write };
}

/**
 * The k likeliest tokens of some logits, and −log p of the one that came, null for the last.
 * @param {Float32Array} logits
 * @param {number} k
 * @param {number | undefined} came
 */
function likeliest(logits, k, came) {
  const peak = logits.reduce((largest, logit) => Math.max(largest, logit), -Infinity);
  const total = Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - peak), 0)) + peak;
  const ids = [...logits.keys()].sort((a, b) => logits[b] - logits[a] || a - b).slice(0, k);
  return {
    ids,
    probabilities: ids.map((id) => Math.exp(logits[id] - total)),
    surprise: came === undefined ? null : total - logits[came],
  };
}
