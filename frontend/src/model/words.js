// The words of a text, by the word boundaries of Unicode, and the tokens that each consists of: regard/lens/words.py.

import { isInvisible, isPictographic, wordBreak } from "./unicode.js";

/** Of UTF-16 units: text.slice(start, end). @typedef {[start: number, end: number]} Span */

const IGNORED = new Set(["Extend", "Format", "ZWJ"]);
const LINES = new Set(["Newline", "CR", "LF"]);
const LETTERS = new Set(["ALetter", "Hebrew_Letter"]);
const WITHIN_LETTERS = new Set(["MidLetter", "MidNumLet", "Single_Quote"]);
const WITHIN_NUMBERS = new Set(["MidNum", "MidNumLet", "Single_Quote"]);
const APOSTROPHES = new Set("'\u2019");
const VOWELS = new Set("aeiouàáâèéêìíîòóôùúûAEIOUÀÁÂÈÉÊÌÍÎÒÓÔÙÚÛİ");
const EXTENDED = new Set(["ALetter", "Hebrew_Letter", "Numeric", "Katakana"]);

/**
 * The spans of words and punctuation in a text, by UAX #29. In a run of flags each is a word.
 * @param {string} text
 * @returns {Span[]}
 */
export function words(text) {
  const characters = [...text];
  const breaks = withFlags(characters.map(wordBreak));
  /** @type {Span[]} */
  const spans = [];
  let [start, place, isVisible] = [0, 0, false];
  for (const [n, character] of characters.entries()) {
    if (n > 0 && isBoundary(breaks, characters, n)) {
      if (isVisible) spans.push(trimmed(text, start, place));
      [start, isVisible] = [place, false];
    }
    place += character.length;
    isVisible ||= !isInvisible(character);
  }
  if (isVisible) spans.push(trimmed(text, start, place));
  return spans;
}

/**
 * The classes with each flag of a run as a character and its accent: a run of two letters a flag, and perhaps one more.
 * @param {string[]} breaks
 */
function withFlags(breaks) {
  const isLetter = (/** @type {number} */ n) => breaks[n] === "Regional_Indicator";
  for (let n = 0, stop = 0; n < breaks.length; n = Math.max(stop, n + 1)) {
    if (!isLetter(n)) continue;
    stop = n;
    while (isLetter(stop)) stop++;
    if (stop - n < 4 || IGNORED.has(breaks[n - 1]) || IGNORED.has(breaks[stop])) continue;
    for (let letter = n; letter + 1 < stop; letter += 2) [breaks[letter], breaks[letter + 1]] = ["", "Extend"];
  }
  return breaks;
}

/**
 * Whether a word ends before character n, which is not the first.
 *
 * As the module regex has it, which differs from UAX #29 where it says so.
 * @param {string[]} breaks
 * @param {string[]} characters
 * @param {number} n
 */
function isBoundary(breaks, characters, n) {
  const [before, right] = [breaks[n - 1], breaks[n]];
  if (before === "CR" && right === "LF") return false; // WB3
  if (LINES.has(before) || LINES.has(right)) return true; // WB3a, WB3b
  if (before === "ZWJ" && isPictographic(characters[n])) return false; // WB3c
  if (before === "WSegSpace" && right === "WSegSpace") return false; // WB3d
  if (IGNORED.has(right)) return false; // WB4
  let at = n - 1;
  while (IGNORED.has(breaks[at])) at--;
  if (at < 0) return false; // differs: nothing but ignored characters before
  const [last, left, next] = [breaks[at - 1], breaks[at], breaks[n + 1]]; // differs: `last` and `next` may be ignored ones
  return !(
    (LETTERS.has(left) && LETTERS.has(right)) || // WB5
    (APOSTROPHES.has(characters[at]) && VOWELS.has(characters[n])) || // differs
    (LETTERS.has(left) && WITHIN_LETTERS.has(right) && LETTERS.has(next)) || // WB6
    (LETTERS.has(last) && WITHIN_LETTERS.has(left) && LETTERS.has(right)) || // WB7
    (left === "Hebrew_Letter" && right === "Single_Quote") || // WB7a
    (left === "Hebrew_Letter" && right === "Double_Quote" && next === "Hebrew_Letter") || // WB7b
    (last === "Hebrew_Letter" && left === "Double_Quote" && right === "Hebrew_Letter") || // WB7c
    ((left === "Numeric" || LETTERS.has(left)) && right === "Numeric") || // WB8, WB9
    (left === "Numeric" && LETTERS.has(right)) || // WB10
    (last === "Numeric" && WITHIN_NUMBERS.has(left) && right === "Numeric") || // WB11
    (left === "Numeric" && WITHIN_NUMBERS.has(right) && next === "Numeric") || // WB12
    (left === "Katakana" && right === "Katakana") || // WB13
    ((EXTENDED.has(left) || left === "ExtendNumLet") && right === "ExtendNumLet") || // WB13a
    (left === "ExtendNumLet" && EXTENDED.has(right)) || // WB13b
    isFirstOfFlag(breaks, at) // WB15, WB16; differs: whatever follows
  );
}

/**
 * Whether an odd number of letters of flags ends at a character.
 * @param {string[]} breaks
 * @param {number} at
 */
function isFirstOfFlag(breaks, at) {
  let n = at;
  while (breaks[n] === "Regional_Indicator") n--;
  return (at - n) % 2 === 1;
}

/**
 * The words that tokens make up, in order. A token that the tokenizer added, and one of white space, is a unit of its
 * own without a span; but a space before a word belongs to it. Words that share a token are one.
 *
 * @param {string} text
 * @param {(Span | null)[]} tokens their spans; null for one that the tokenizer added
 * @returns {{span: Span | null, tokens: number[]}[]}
 */
export function units(text, tokens) {
  const known = words(text);
  /** @type {{span: Span | null, tokens: number[]}[]} */
  const result = [];
  for (const [token, span] of tokens.entries()) {
    let word = span && touched(text, known, ...trimmed(text, ...span));
    let members = [token];
    const before = result.at(-1)?.span;
    if (span && !word && before && span[0] < before[1]) word = [before[0], Math.max(before[1], span[1])];
    for (let last = before; word && last && word[0] < last[1]; last = result.at(-1)?.span) {
      word = [Math.min(last[0], word[0]), Math.max(last[1], word[1])];
      const earlier = result.pop()?.tokens ?? [];
      earlier.push(...members); // in place: a word may have very many tokens
      members = earlier;
    }
    result.push({ span: word, tokens: members });
  }
  return result;
}

/**
 * From the beginning of the first word that a token touches to the end of the last; null if it touches none.
 * @param {string} text
 * @param {Span[]} words
 * @param {number} start
 * @param {number} stop
 * @returns {Span | null}
 */
function touched(text, words, start, stop) {
  let [low, high] = [0, words.length]; // the first word that ends after `start`
  while (low < high) {
    const middle = (low + high) >> 1;
    if (words[middle][1] <= start) low = middle + 1;
    else high = middle;
  }
  const first = low;
  if (words[first]?.[0] === stop && /^ *$/.test(text.slice(start, stop))) return words[first];
  let last = first;
  while (last < words.length && words[last][0] < Math.max(stop, start + 1)) last++;
  if (first < last) return [Math.min(start, words[first][0]), Math.max(stop, words[last - 1][1])];
  return [...text.slice(start, stop)].some((character) => !isInvisible(character)) ? [start, stop] : null;
}

/** White space and zero-width characters: of direction, of order, joiners and non-joiners. */
const BLANK =
  "[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u061c\\u1680\\u2000-\\u200b\\u200e\\u200f\\u2028-\\u202f\\u205f\\u2060-\\u2064\\u2066-\\u2069\\u3000\\ufeff]*";
const BLANK_START = new RegExp(`^${BLANK}`);
const BLANK_END = new RegExp(`${BLANK}$`);

/**
 * The span without white space and zero-width characters at its ends; unchanged if it has nothing else.
 * @param {string} text
 * @param {number} start
 * @param {number} stop
 * @returns {Span}
 */
export function trimmed(text, start, stop) {
  const piece = text.slice(start, stop);
  const left = BLANK_START.exec(piece)?.[0].length ?? 0;
  const right = piece.length - (BLANK_END.exec(piece)?.[0].length ?? 0);
  return left < right ? [start + left, start + right] : [start, stop];
}
