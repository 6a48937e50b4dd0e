// What BERT does to a text before its words are divided into pieces: tokenizers' BertNormalizer and BertPreTokenizer.

import { isAccent, isControl, isPunctuation, isSpace } from "../unicode.js";

/** A character, and the place of the text that it stands for. @typedef {{character: string, start: number, end: number}} Placed */

/**
 * @typedef {object} Normalizer
 * @property {boolean} clean whether control characters are left out, and all white space becomes spaces
 * @property {boolean} chinese whether Chinese characters are words of their own
 * @property {boolean} accents whether accents are taken off
 * @property {boolean} lowercase
 */

/**
 * The words of a text between spaces and punctuation marks, which are words of their own.
 * @param {string} text
 * @param {number} offset the place of its first character
 * @param {Normalizer} normalizer
 */
export function bertWords(text, offset, normalizer) {
  /** @type {Placed[][]} */
  const words = [];
  /** @type {Placed[]} */
  let word = [];
  const end = () => {
    if (word.length) words.push(word);
    word = [];
  };
  for (const placed of normalised(text, offset, normalizer)) {
    if (isSpace(placed.character)) end();
    else if (isPunctuation(placed.character)) {
      end();
      words.push([placed]);
    } else word.push(placed);
  }
  end();
  return words;
}

/**
 * @param {string} text
 * @param {number} offset
 * @param {Normalizer} normalizer
 */
export function* normalised(text, offset, { clean, chinese, accents, lowercase }) {
  let start = offset;
  for (const original of text) {
    const end = start + original.length;
    for (const character of charactersOf(original, { clean, chinese, accents, lowercase }))
      yield { character, start, end };
    start = end;
  }
}

/**
 * What becomes of a character.
 * @param {string} character
 * @param {Normalizer} normalizer
 */
function charactersOf(character, { clean, chinese, accents, lowercase }) {
  if (clean) {
    if (character === "\0" || character === "\ufffd" || isControl(character)) return "";
    if (isSpace(character)) return " ";
  }
  let result = accents ? [...character.normalize("NFD")].filter((part) => !isAccent(part)).join("") : character;
  if (lowercase) result = [...result].map((part) => part.toLowerCase()).join("");
  return chinese && isChinese(character) ? ` ${result} ` : result;
}

const CHINESE = [
  [0x4e00, 0x9fff],
  [0x3400, 0x4dbf],
  [0x20000, 0x2a6df],
  [0x2a700, 0x2b73f],
  [0x2b740, 0x2b81f],
  [0x2b920, 0x2ceaf],
  [0xf900, 0xfaff],
  [0x2f800, 0x2fa1f],
];

/** @param {string} character */
function isChinese(character) {
  const code = character.codePointAt(0) ?? 0;
  return CHINESE.some(([first, last]) => code >= first && code <= last);
}
