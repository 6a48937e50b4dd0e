// An encoder-decoder reads a source and a target: the one that is given, or else the one that it writes.

import { encode, tokenOf, unitsOf } from "./text.js";

/** @import { Read } from "./reader.js" */
/** @import { Encoded } from "./text.js" */
/** @import { Tokenizer } from "./tokenizer/tokenizer.js" */
/** @import { Config, Forward, Pass, Run, RunOptions } from "./types.js" */

/** @typedef {{model: Forward, tokenizer: Tokenizer, config: Config}} Opened */

/**
 * @param {Opened} opened
 * @param {string} text
 * @param {string | null} target
 * @param {RunOptions} options
 * @returns {Promise<Read>}
 */
export async function readWithTarget(opened, text, target, options) {
  const { model, tokenizer, config } = opened;
  const encoded = encode(tokenizer, text, config.positions);
  const source = await model.run(encoded.ids, options);
  const written = target ?? (await writtenFor(opened, source, config.positions, options));
  const wanted = encodeTarget(tokenizer, startOf(config), written, config.positions);
  const run = await model.run(wanted.ids, { ...options, source });
  const reading = { encoder: passOf(encoded, source), decoder: passOf(wanted, run) };
  return { reading, hidden: run.hidden, ids: wanted.ids };
}

/**
 * @param {Opened} opened
 * @param {string} text
 * @param {number} count
 * @param {RunOptions} options
 */
export async function writeTarget(opened, text, count, options) {
  const { ids } = encode(opened.tokenizer, text, opened.config.positions);
  return writtenFor(opened, await opened.model.run(ids, options), count, options);
}

/**
 * @param {Opened} opened
 * @param {Run} source
 * @param {number} count
 * @param {RunOptions} options
 */
async function writtenFor({ model, tokenizer, config }, source, count, options) {
  return tokenizer.decode((await model.write?.([startOf(config)], count, { ...options, source })) ?? []);
}

/**
 * The target begins with a token of its own, and may be empty.
 * @param {Tokenizer} tokenizer
 * @param {number} start
 * @param {string} text
 * @param {number} limit how many tokens the model takes
 * @returns {Encoded}
 */
function encodeTarget(tokenizer, start, text, limit) {
  if (text)
    return encode(
      {
        ...tokenizer,
        single: [
          [start, 0],
          ["A", 0],
        ],
      },
      text,
      limit,
    );
  const tokens = [tokenOf(tokenizer, text, start, null)];
  return { text, tokens, units: unitsOf(text, tokens), second: null, truncated: null, ids: [start], types: [0] };
}

/** The token that begins a target. @param {Config} config */
const startOf = ({ start }) => Number(start);

/**
 * What a forward pass left of a text, with its words.
 * @param {Encoded} encoded
 * @param {Run} run
 * @returns {Pass}
 */
export const passOf = ({ ids, types, ...words }, run) => ({ ...words, ...run });
