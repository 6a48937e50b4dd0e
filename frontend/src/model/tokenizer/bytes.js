// Byte-level BPE, the tokenizer of GPT-2: Radford et al. 2019. A text's UTF-8, of which pairs are merged in the order
// in which they were learned.

/** @import { Piece } from "./tokenizer.js" */

/**
 * @typedef {object} Bytes
 * @property {string[]} vocab by id; a byte is spelled by the character that stands for it
 * @property {string[]} merges pairs with a space between them, the earliest first
 */

/** The 256 characters that stand for bytes: those that can be seen for themselves, the others from U+0100 on. */
export const CHARACTERS = (() => {
  const characters = [];
  let other = 0x100;
  for (let byte = 0; byte < 256; byte++) {
    const isVisible = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
    characters.push(String.fromCharCode(isVisible ? byte : other++));
  }
  return characters;
})();
const BYTES = new Map(CHARACTERS.map((character, byte) => [character, byte]));

/** A contraction, letters, digits or other characters with a space before them, or white space. */
const SPACE = "[\\p{White_Space}]";
const WORDS = new RegExp(
  `'(?:[stmd]|re|ve|ll)| ?\\p{L}+| ?\\p{N}+| ?[^\\p{White_Space}\\p{L}\\p{N}]+|${SPACE}+(?!\\P{White_Space})|${SPACE}+`,
  "gu",
);

/** @param {Bytes} spec */
export function openBytes({ vocab, merges }) {
  const ids = new Map(vocab.map((token, id) => [token, id]));
  const ranks = new Map(merges.map((pair, rank) => [pair, rank]));

  /** @param {string} word @param {number} offset @returns {Piece[]} */
  function piecesOf(word, offset) {
    const symbols = bytesOf(word, offset);
    for (;;) {
      let [best, place] = [Infinity, -1];
      for (let n = 0; n + 1 < symbols.length; n++) {
        const rank = ranks.get(`${symbols[n].text} ${symbols[n + 1].text}`) ?? Infinity;
        if (rank < best) [best, place] = [rank, n];
      }
      if (place < 0) break;
      const [first, second] = symbols.slice(place, place + 2);
      symbols.splice(place, 2, { text: first.text + second.text, start: first.start, end: second.end });
    }
    return symbols.map(({ text, start, end }) => ({ id: ids.get(text) ?? -1, start, end }));
  }

  return {
    /** @param {string} text @param {number} offset */
    pieces: (text, offset) => [...text.matchAll(WORDS)].flatMap((match) => piecesOf(match[0], offset + match.index)),
    /** @param {number[]} tokens */
    decode(tokens) {
      const bytes = tokens.flatMap((id) => [...vocab[id]].map((character) => BYTES.get(character) ?? 0));
      return new TextDecoder().decode(new Uint8Array(bytes));
    },
  };
}

/**
 * The bytes of a word, each with the place of its character.
 * @param {string} word
 * @param {number} offset
 */
function bytesOf(word, offset) {
  const symbols = [];
  const encoder = new TextEncoder();
  let start = offset;
  for (const character of word) {
    const end = start + character.length;
    for (const byte of encoder.encode(character)) symbols.push({ text: CHARACTERS[byte], start, end });
    start = end;
  }
  return symbols;
}
