// WordPiece, the tokenizer of BERT: https://arxiv.org/abs/1609.08144, section 4.1.

import { bertWords } from "./bert.js";

/** @import { Piece } from "./tokenizer.js" */
/** @import { Normalizer, Placed } from "./bert.js" */

/**
 * @typedef {object} WordPiece
 * @property {string[]} vocab by id
 * @property {string} prefix of a piece within a word
 * @property {number} unknown the id of a word without pieces
 * @property {number} longest the most characters of a word that is divided
 * @property {Normalizer} normalizer
 */

/** @param {WordPiece} spec */
export function openWordPiece({ vocab, prefix, unknown, longest, normalizer }) {
  const ids = new Map(vocab.map((token, id) => [token, id]));
  const longestToken = vocab.reduce((length, token) => Math.max(length, [...token].length), 0);

  /** The longest piece that begins a word's rest, and so on. @param {Placed[]} word @returns {Piece[]} */
  function piecesOf(word) {
    const whole = [{ id: unknown, start: word[0].start, end: word[word.length - 1].end }];
    if (word.length > longest) return whole;
    const pieces = [];
    for (let start = 0, stop = 0; start < word.length; start = stop) {
      let id;
      const before = start ? prefix : "";
      for (stop = Math.min(word.length, start + longestToken); stop > start; stop--) {
        const characters = word.slice(start, stop).map(({ character }) => character);
        id = ids.get(before + characters.join(""));
        if (id !== undefined) break;
      }
      if (id === undefined) return whole;
      pieces.push({ id, start: word[start].start, end: word[stop - 1].end });
    }
    return pieces;
  }

  return {
    /** @param {string} text @param {number} offset */
    pieces: (text, offset) => bertWords(text, offset, normalizer).flatMap(piecesOf),
    /** @param {number[]} tokens */
    decode: (tokens) =>
      tokens
        .map((id) => vocab[id])
        .reduce((text, token) => text + (token.startsWith(prefix) ? token.slice(prefix.length) : ` ${token}`), "")
        .trim(),
  };
}
