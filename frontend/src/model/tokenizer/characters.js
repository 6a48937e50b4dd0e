// A vocabulary of single characters, as that of the models that regard race trains on dates.

/** @import { Piece } from "./tokenizer.js" */

/**
 * @typedef {object} Characters
 * @property {string[]} vocab by id; names of special tokens are longer than a character
 */

/** @param {Characters} spec */
export function openCharacters({ vocab }) {
  const ids = new Map(vocab.map((token, id) => [token, id]));
  return {
    /** @param {string} text @param {number} offset @returns {Piece[]} */
    pieces(text, offset) {
      const pieces = [];
      let start = offset;
      for (const character of text) {
        const id = ids.get(character);
        if (id === undefined) {
          const known = vocab.filter((token) => [...token].length === 1).join("");
          throw new Error(`This model has no token for “${character}”: it knows the characters ${known}`);
        }
        pieces.push({ id, start, end: start + character.length });
        start += character.length;
      }
      return pieces;
    },
    /** @param {number[]} tokens */
    decode: (tokens) => tokens.map((id) => vocab[id]).join(""),
  };
}
