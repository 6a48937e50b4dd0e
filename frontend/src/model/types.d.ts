// The types of the models that run in the page: what their files hold, and what a forward pass leaves.
//
// Letters as in the documentation: H heads, G heads of keys and values, N tokens, M tokens that are attended to
// (N, but for cross-attention), L layers, D and E the widths of a head's keys and values.

import type { NumberArray, Projections } from "../types.js";

export type Architecture = "encoder" | "decoder" | "encoder-decoder";

/** What `models/NAME.js` passes to `regardModel`: regard/playground/weights.py writes it. */
export interface ModelFile {
  name: string; // as a reader sees it
  architecture: Architecture;
  config: Config;
  tokenizer: Record<string, unknown>; // by its `type`, see model/tokenizer/
  tensors: StoredTensor[];
  data: string; // base64 of the raw DEFLATE of all tensors
}

export interface Config {
  layers: number; // of the encoder and of the decoder, where there are both
  heads: number;
  groups: number; // heads of keys and values
  dim: number;
  positions: number; // the most tokens that the model reads
  epsilon: number; // of the norms
  [name: string]: unknown;
}

/** An array in the file; of an int8 array, every `width` numbers have a scale, float32, at `scales`. */
export interface StoredTensor {
  name: string;
  shape: number[];
  type: "float32" | "float16" | "int8";
  offset: number; // in bytes
  scales?: number;
  width?: number; // of a row, or of a piece of one
}

/** A token, as regard.lens.Token. */
export interface Token {
  text: string;
  start: number; // in characters of the text, as JavaScript counts them
  end: number;
  special: boolean;
  piece: string;
  id: number;
  unknown: boolean;
}

/** A word, or a special token, as regard.lens.Word. */
export interface Unit {
  text: string;
  start: number;
  end: number;
  tokens: number[];
  special: boolean;
  unknown: boolean;
}

/** A text as a model reads it. */
export interface Words {
  text: string;
  tokens: Token[];
  units: Unit[];
  second: number | null; // the unit with which the second text of a pair begins
  truncated: string | null; // what was left out, in a sentence
}

/** The attention of one layer: what its weights, and all maps of them, follow from. */
export interface Attention {
  query: NumberArray; // (H, N, D)
  key: NumberArray; // (G, M, D)
  value: NumberArray; // (G, M, E)
  output: NumberArray; // (H, N, E)
  input?: NumberArray; // (1, N, dim): what enters a cross-attention, which follows the self-attention of its layer
  lengths: NumberArray; // (H, M, 1): ‖v_j W_O‖
  gram: NumberArray; // (1, M, H (H + 1) / 2): the products of the heads' v_j W_O, the upper triangle
  scale: number;
  causal: boolean;
  made: Projections | null;
}

/** What one stack of layers leaves of a text. */
export interface Pass extends Words {
  hidden: NumberArray; // (L + 1, N, dim): before the first layer, after each
  layers: Attention[];
  cross: Attention[] | null; // of a decoder that looks at a source
}

/** A text, read. An encoder has `encoder`, a decoder `decoder`, an encoder-decoder both. */
export interface Reading {
  id: number; // by which `predict` finds it
  encoder: Pass | null;
  decoder: Pass | null;
}

/** What a lesson changes in a forward pass. */
export interface Changes {
  scale?: number; // in the place of 1/√D
  positions?: boolean; // false: no token knows its place
  causal?: boolean; // true: no token sees a later one; false: all see all
}

export interface ReadOptions {
  pair?: string | null; // a second text, or the target of an encoder-decoder, which else writes its own
  changes?: Changes;
  progress?: (share: number) => void; // of the forward pass
}

/** The likeliest next tokens at some tokens, if the model ended after a layer. */
export interface Predictions {
  ids: number[][];
  texts: string[][];
  probabilities: number[][];
  surprise: (number | null)[]; // −log p of the token that came, in nats
}

/** The arrays of a model's file by their names: model/file.js. */
export interface Tensors {
  has(name: string): boolean;
  shape(name: string): number[];
  get(name: string): Float32Array; // the whole array, row by row; made once and kept
  rows(name: string, rows: ArrayLike<number>): Float32Array; // some of its rows, as of a table of embeddings
}

/** y = x Wᵀ + b for n vectors, as `linear` in model/linear.js. */
export type Product = (
  x: Float32Array,
  weight: Float32Array,
  bias: Float32Array | null,
  n: number,
) => Float32Array | Promise<Float32Array>;

export interface RunOptions {
  types?: ArrayLike<number> | null; // of the tokens, in a pair of texts
  source?: Run | null; // of an encoder-decoder: what its encoder made of the source, and these are tokens of a target
  changes?: Changes;
  product?: Product; // with which an encoder multiplies; by default `linear`
  pause?: (share: number) => Promise<void>; // to be awaited after each layer; throws where the answer is no longer wanted
}

/** What a forward pass leaves. */
export interface Run {
  hidden: { shape: number[]; data: Float32Array }; // (L + 1, N, dim): before the first layer, after each, without a final norm
  layers: Attention[];
  cross: Attention[] | null;
}

/**
 * What `open(config, tensors)` of encoder.js, llama.js and translator.js returns. `run` without a `source` is that of
 * an encoder, or of a decoder that reads no source. A language model has `logits` and `write` besides.
 */
export interface Forward {
  run(ids: ArrayLike<number>, options?: RunOptions): Promise<Run>;
  /** Hidden states (n, dim), as `run` leaves them, through the final norm and the unembedding: (n, vocabulary). */
  logits?(rows: Float32Array): Float32Array;
  /** At most `count` tokens after these, the likeliest each time, without the token that ends a text. */
  write?(ids: number[], count: number, options?: RunOptions): Promise<number[]>;
}

/** A model in its worker: model/client.js. */
export interface Model {
  name: string;
  architecture: Architecture;
  config: Config;
  read(text: string, options?: ReadOptions, signal?: AbortSignal): Promise<Reading>;
  /** At `count` tokens from `first`, after a layer, or after the last where it is null. */
  predict(reading: number, layer: number | null, first: number, count: number, k: number): Promise<Predictions>;
  /** What a decoder writes after a text, token by token, the likeliest each time. */
  write(text: string, count: number): Promise<string>;
  close(): void;
}

/** Opens a model by the name of its file. `progress` is told the share that is there, null where it is not known. */
export type OpenModel = (name: string, progress?: (share: number | null) => void) => Promise<Model>;
