// A reading of a model that runs in the page, as the data of a saved page: regard/viewer/payload.py makes the same.

import { NAMED_FROM, PATTERNS } from "../protocol.js";
import { OfflineAttention } from "./attention.js";
import { range } from "./pooling.js";

/** @import { Attention, Pass, Reading, Words } from "../model/types.js" */
/** @import { Columns, MapOffer, MetadataReply, PredictionsOffer } from "../protocol.js" */
/** @import { Data, Layer } from "./attention.js" */

/** @typedef {"encoder" | "decoder" | "cross"} Part of an encoder-decoder */
/** @typedef {{text: string, pair: string | null, model: string, prompt?: number}} Wanted what is read, with which model; the length of the text with which the model went on */
/** @typedef {{id: string, model: string, exactness: string, wrote: boolean, source: Wanted}} Facts of a reading; whether the model wrote its target */
/** @typedef {{part: Part | null, pass: Pass, attentions: Attention[], source: Pass | null}} View one attention of a reading, and the words that it looks at */

const NOT_HERE = "this page computes forward passes only; regard serve has it.";
/** @type {MapOffer[]} */
const MAPS = [
  { name: "weights", heads: true, target: false, signed: false, missing: null },
  { name: "value-weighted", heads: true, target: false, signed: false, missing: null },
  { name: "norms", heads: false, target: false, signed: false, missing: null },
  { name: "gradient", heads: true, target: true, signed: false, missing: `It needs a gradient, and ${NOT_HERE}` },
  { name: "logits", heads: true, target: true, signed: true, missing: `It needs a target, and ${NOT_HERE}` },
];

/**
 * The attentions of a reading, the one that is shown first at the beginning.
 * @param {Reading} reading
 * @returns {View[]}
 */
export function viewsOf({ encoder, decoder }) {
  /** @param {Pass} pass @param {Part | null} part @returns {View} */
  const own = (pass, part) => ({ part, pass, attentions: pass.layers, source: null });
  if (encoder && decoder?.cross) {
    const cross = { part: /** @type {const} */ ("cross"), pass: decoder, attentions: decoder.cross, source: encoder };
    return [cross, own(encoder, "encoder"), own(decoder, "decoder")];
  }
  const pass = encoder ?? decoder;
  if (!pass) throw new Error("The model read nothing.");
  return [own(pass, null)];
}

/**
 * What the page holds of an attention.
 * @param {View} view
 * @param {Facts} facts
 * @returns {Data}
 */
export function dataOf(view, facts) {
  const { pass, attentions, part, source } = view;
  const layers = attentions.map((attention, l) => layerOf(attention, inputOf(view, attention, l)));
  const [heads, count] = [attentions[0].query.shape[0], attentions.length];
  const isCausal = !source && attentions[0].causal;
  /** @type {MetadataReply} */
  const metadata = {
    .../** @type {Columns} */ (wordsOf(pass)),
    reading: part ? `${facts.id}.${part}` : facts.id,
    model: facts.model,
    truncated: truncationOf(view),
    layers: count,
    heads,
    second: pass.second,
    causal: isCausal,
    first_share: null,
    sinks: false,
    note: facts.wrote && part !== "encoder" ? "The model wrote the target itself." : "",
    attention_layers: range(0, count),
    attention: part,
    attentions: part ? ["encoder", "decoder", "cross"] : [],
    columns: source ? wordsOf(source) : null,
    maps: MAPS.map((map) => ({ ...map })),
    predictions: predictionsOf(view, count),
    target: null,
    reply: replyOf(pass, facts.source),
    source: { text: facts.source.text, pair: facts.source.pair, model: facts.source.model },
    writes: part === null && isCausal ? "text" : null,
    exactness: facts.exactness,
  };
  metadata.first_share = firstShare(metadata, layers);
  const own = { patterns: PATTERNS, threshold: NAMED_FROM, predictions: [], pictures: null, compared: null };
  return { metadata, open: {}, layers, ...own };
}

/**
 * What enters an attention: the vectors before its layer or, where the self-attention of the layer comes first, others.
 * @param {View} view
 * @param {Attention} attention
 * @param {number} l
 */
function inputOf({ pass, source }, attention, l) {
  if (attention.input) return attention.input;
  if (source) return undefined;
  const [, rows, width] = pass.hidden.shape;
  return { shape: [1, rows, width], data: pass.hidden.data.subarray(l * rows * width, (l + 1) * rows * width) };
}

/**
 * A layer as a saved page has it.
 * @param {Attention} attention
 * @param {import("../types.js").NumberArray | undefined} hidden
 * @returns {Layer}
 */
function layerOf({ query, key, value, output, lengths, gram, scale, causal, made }, hidden) {
  const rows = query.shape[1];
  return {
    scale,
    softcap: null,
    sinks: null,
    spans: causal ? [range(0, rows).fill(0), range(1, rows + 1)] : null,
    made,
    heads: null,
    shares: [],
    maps: {
      "value-weighted": { factors: [{ query: null, key: lengths, activation: null }], gram: null },
      norms: { factors: [], gram },
    },
    ...{ query, key, value, output, lengths },
    ...(hidden && { hidden }),
  };
}

/**
 * Words as the metadata names them.
 * @param {Words} words
 * @returns {Columns}
 */
function wordsOf({ text, units, tokens }) {
  /** @param {{special?: boolean, unknown?: boolean}[]} things @param {"special" | "unknown"} kind */
  const places = (things, kind) => things.flatMap((thing, n) => (thing[kind] ? [n] : []));
  return {
    text: text.slice(0, 2000),
    units: units.map((unit) => unit.text),
    special: places(units, "special"),
    first_tokens: units.map((unit) => unit.tokens[0]),
    tokens: tokens.map((token) => token.text),
    unknown: places(units, "unknown"),
    unknown_tokens: places(tokens, "unknown"),
  };
}

/**
 * The unit with which begins what the model wrote itself.
 * @param {Words} words
 * @param {Wanted} wanted
 */
function replyOf({ units }, { prompt }) {
  const unit = prompt === undefined ? -1 : units.findIndex(({ special, end }) => !special && end > prompt);
  return unit < 0 ? null : unit;
}

/**
 * What was not read, of the words of both sides.
 * @param {View} view
 */
function truncationOf({ pass, source }) {
  const sentences = [source?.truncated, pass.truncated].filter(Boolean);
  return [...new Set(sentences)].join(" ") || null;
}

/**
 * Predictions are those of a decoder: of all its layers.
 * @param {View} view
 * @param {number} count of layers
 * @returns {PredictionsOffer | null}
 */
function predictionsOf({ part, source, attentions }, count) {
  const isDecoder = part === "decoder" || source !== null || (part === null && attentions[0].causal);
  return isDecoder ? { kind: "next token", layers: range(0, count), missing: null } : null;
}

/**
 * The share of its attention that the first unit of a causal reading gets, as `first_share` of regard/viewer/maps.py: the
 * mean over the units after it, all heads and layers. Null where words see those after them too, or there are fewer
 * than two of them.
 * @param {MetadataReply} metadata
 * @param {Layer[]} layers
 */
function firstShare(metadata, layers) {
  if (!metadata.causal || metadata.units.length < 3) return null;
  const attention = new OfflineAttention({ metadata, layers });
  const { U, H } = attention;
  let total = 0;
  for (const [l, layer] of layers.entries()) {
    const arrays = /** @type {any} */ (layer); // they are numbers already
    for (let h = 0; h < H; h++)
      for (let u = 1; u < U; u++) total += attention.fromUnit(l, arrays, h, u, null)[0] / (H * (U - 1) * layers.length);
  }
  return total;
}
