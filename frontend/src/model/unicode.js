// The properties of characters by which words and tokens are divided, the same as in Python in every browser.

import { PROPERTIES } from "./properties.js";

/**
 * The ranges of a property: first and last character, one after the other.
 * @param {string} name
 */
function rangesOf(name) {
  const numbers = PROPERTIES[name].split(" ").map((digits) => Number.parseInt(digits, 36));
  const ranges = [];
  for (let n = 0, code = 0; n < numbers.length; n += 2) {
    code += numbers[n] + numbers[n + 1];
    ranges.push(code - numbers[n + 1], code - 1);
  }
  return Int32Array.from(ranges);
}

/**
 * The place of the range that a character lies in, or −1.
 * @param {Int32Array} ranges
 * @param {number} code
 */
function find(ranges, code) {
  let [low, high] = [0, ranges.length / 2 - 1];
  while (low <= high) {
    const middle = (low + high) >> 1;
    if (code < ranges[2 * middle]) high = middle - 1;
    else if (code > ranges[2 * middle + 1]) low = middle + 1;
    else return middle;
  }
  return -1;
}

/** @param {string} name @returns {(character: string) => boolean} */
function has(name) {
  const ranges = rangesOf(name);
  return (character) => find(ranges, character.codePointAt(0) ?? -1) >= 0;
}

/** Left out before BERT's tokenizer divides a text. */
export const isControl = has("control");
/** Accents and other marks that stand above, below or within a letter. */
export const isAccent = has("accent");
/** A word of its own in BERT's tokenizer. */
export const isPunctuation = has("punctuation");
/** White space, control characters and format characters. */
export const isInvisible = has("invisible");
export const isPictographic = has("pictographic");

const SPACES = new Set("\t\n\v\f\r \u0085\u00a0\u1680\u2028\u2029\u202f\u205f\u3000");
for (let code = 0x2000; code <= 0x200a; code++) SPACES.add(String.fromCharCode(code));

/** White_Space. @param {string} character */
export const isSpace = (character) => SPACES.has(character);

const CLASSES = Object.keys(PROPERTIES).slice(Object.keys(PROPERTIES).indexOf("CR"));
/** The ranges of all classes of word breaks, in order, and the class of each. */
const BREAKS = (() => {
  const ranges = CLASSES.flatMap((name) => {
    const own = rangesOf(name);
    return Array.from({ length: own.length / 2 }, (_, n) => ({ first: own[2 * n], last: own[2 * n + 1], name }));
  }).sort((a, b) => a.first - b.first);
  return {
    ranges: Int32Array.from(ranges.flatMap(({ first, last }) => [first, last])),
    names: ranges.map(({ name }) => name),
  };
})();

/**
 * The class of a character in UAX #29, Word_Break; "" for all others.
 * @param {string} character
 */
export function wordBreak(character) {
  const place = find(BREAKS.ranges, character.codePointAt(0) ?? -1);
  return place < 0 ? "" : BREAKS.names[place];
}
