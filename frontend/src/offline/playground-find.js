// The places of a word in a text, as it is typed: `occurrences` of regard/viewer/replies.py, without Python.

import { clipped } from "../ui/format.js";

/** @import { Words } from "../model/types.js" */
/** @typedef {{start: number, end: number, tokens: number[]}} Found a word, several in a row, or a part of a word */

const QUOTES = /[‘’‚‛′ʼ＇`´]/g;
const DOUBLE_QUOTES = /[“”„‟″«»]/g;
const DASHES = /[‐‑‒–—―−﹘﹣－]/g;

/** @param {string} text */
const spaced = (text) => text.split(/\s+/u).filter(Boolean).join(" ");

/**
 * As it is written, with composed accents, and any white space as one space.
 * @param {string} text
 */
const exact = (text) => spaced(text.normalize("NFC"));

/** @param {string} text */
const straightened = (text) => text.replace(QUOTES, "'").replace(DOUBLE_QUOTES, '"').replace(DASHES, "-");

/**
 * The same for straight and curly quotes, all dashes, ligatures, and with or without zero-width characters.
 * @param {string} text
 */
const typographic = (text) => spaced(straightened(straightened(text).normalize("NFKC")).replace(/\p{Cf}/gu, ""));

/**
 * The same for upper and lower case, too.
 * @param {string} text
 */
const caseless = (text) => typographic(text).toUpperCase().toLowerCase().replaceAll("ς", "σ").normalize("NFKC");

/**
 * All places of a word, found by its exact spelling, then regardless of typography, then of case: as words, as special
 * tokens, or as parts of words. Throws where there is none.
 * @param {Words} words
 * @param {string} wanted
 * @returns {Found[]}
 */
export function placesOf(words, wanted) {
  for (const matching of [wholeWords, specialTokens, subwords]) {
    const matches = [exact, typographic, caseless].map((form) => matching(words, wanted, form));
    const most = matches.reduce((best, next) => (next.length > best.length ? next : best));
    if (most.length) return most;
  }
  const cut = words.truncated ? ` ${words.truncated}` : "";
  throw new Error(`In “${clipped(words.text)}”: there is no word “${wanted}” in the text.${cut}`);
}

/** @typedef {(text: string) => string} Form */

/** @param {Words} words @param {string} wanted @param {Form} form @returns {Found[]} */
function wholeWords({ text, units }, wanted, form) {
  const inText = units.filter(({ special }) => !special);
  return runs(text, inText, wanted, form).map(([first, last]) => ({
    start: inText[first].start,
    end: inText[last].end,
    tokens: upTo(inText[first].tokens[0], inText[last].tokens.at(-1) ?? 0),
  }));
}

/** @param {Words} words @param {string} wanted @param {Form} form @returns {Found[]} */
const specialTokens = ({ units }, wanted, form) =>
  units.filter(({ special, text }) => special && form(text) === form(wanted));

/** @param {Words} words @param {string} wanted @param {Form} form @returns {Found[]} */
function subwords({ text, tokens }, wanted, form) {
  const places = [...tokens.keys()].filter((n) => tokens[n].end > tokens[n].start && !tokens[n].special);
  const spans = places.map((n) => tokens[n]);
  return runs(text, spans, wanted, form).map(([first, last]) => ({
    start: spans[first].start,
    end: spans[last].end,
    tokens: upTo(places[first], places[last]),
  }));
}

/** @param {number} first @param {number} last */
const upTo = (first, last) => Array.from({ length: last - first + 1 }, (_, n) => first + n);

/**
 * [first, last] of each run of spans whose text is the wanted one in this form, in order; they never overlap.
 * @param {string} text
 * @param {{start: number, end: number}[]} spans
 * @param {string} wanted
 * @param {Form} form
 */
function runs(text, spans, wanted, form) {
  const goal = form(wanted);
  /** @type {[number, number][]} */
  const matches = [];
  if (!goal) return matches;
  for (let first = 0; first < spans.length; first++)
    for (let last = first; last < spans.length; last++) {
      const reads = form(text.slice(spans[first].start, spans[last].end));
      if (reads === goal) {
        matches.push([first, last]);
        first = last;
      }
      if (reads === goal || !goal.startsWith(reads)) break;
    }
  return matches;
}
