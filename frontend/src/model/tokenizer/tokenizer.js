// Opens the tokenizer of a model's file, by its type: text → pieces with their places, special tokens around them.

import { openBytes } from "./bytes.js";
import { openCharacters } from "./characters.js";
import { openWordPiece } from "./wordpiece.js";

/** A token, and the place of the text that it stands for. @typedef {{id: number, start: number, end: number}} Piece */

/** A token that stands in the vocabulary besides the others, and is found as it is written. @typedef {{text: string, id: number, special: boolean}} Added */

/**
 * What every tokenizer in a file has, beside what its type needs. In the templates, "A" and "B" stand for the first
 * and the second text, a number for a special token; each with the type of its tokens.
 *
 * @typedef {object} Spec
 * @property {"wordpiece" | "bytes" | "characters"} type
 * @property {string[]} vocab by id
 * @property {number | null} [unknown]
 * @property {Added[]} added
 * @property {[number | "A" | "B", number][]} single
 * @property {[number | "A" | "B", number][] | null} pair
 */

/**
 * @typedef {object} Tokenizer
 * @property {(text: string) => Piece[]} encode without special tokens
 * @property {(ids: number[]) => string} decode without special tokens
 * @property {(id: number) => string} nameOf
 * @property {number | null} unknown
 * @property {Set<number>} special
 * @property {Spec["single"]} single
 * @property {Spec["pair"]} pair
 */

/** @type {Record<string, (spec: any) => {pieces: (text: string, offset: number) => Piece[], decode: (ids: number[]) => string}>} */
const TYPES = { wordpiece: openWordPiece, bytes: openBytes, characters: openCharacters };

/**
 * @param {Record<string, any>} spec a `Spec`
 * @returns {Tokenizer}
 */
export function openTokenizer(spec) {
  const { type, vocab, added, single, pair } = /** @type {Spec} */ (spec);
  if (!TYPES[type]) throw new Error(`The file of the model has a tokenizer of an unknown type: ${type}.`);
  const tokenizer = TYPES[type](spec);
  const names = new Map(added.map(({ id, text }) => [id, text]));
  const special = new Set(added.filter((token) => token.special).map(({ id }) => id));
  const ids = new Map(added.map(({ id, text }) => [text, id]));
  const longestFirst = [...ids.keys()].sort((a, b) => b.length - a.length).map(escaped);
  const pattern = longestFirst.length ? new RegExp(longestFirst.join("|"), "gu") : null;
  return {
    encode(text) {
      const pieces = [];
      let last = 0;
      for (const match of pattern ? text.matchAll(pattern) : []) {
        const end = match.index + match[0].length;
        pieces.push(...tokenizer.pieces(text.slice(last, match.index), last));
        pieces.push({ id: ids.get(match[0]) ?? -1, start: match.index, end });
        last = end;
      }
      return pieces.concat(tokenizer.pieces(text.slice(last), last));
    },
    decode: (tokens) => tokenizer.decode(tokens.filter((id) => !special.has(id))),
    nameOf: (id) => names.get(id) ?? vocab[id],
    unknown: spec.unknown ?? null,
    special,
    single,
    pair,
  };
}

/** @param {string} text */
const escaped = (text) => text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
