// From a text to the tokens that a model reads, truncated to what it takes, and its words: regard/lens/encode.py.

import { isSpace } from "./unicode.js";
import { trimmed, units } from "./words.js";

/** @import { Piece, Tokenizer } from "./tokenizer/tokenizer.js" */
/** @import { Token, Words } from "./types.js" */
/** @import { Span } from "./words.js" */

/** What a model is given of a text. @typedef {Words & {ids: number[], types: number[]}} Encoded */

/**
 * @param {Tokenizer} tokenizer
 * @param {string} text
 * @param {number} limit how many tokens the model takes
 * @returns {Encoded}
 */
export function encode(tokenizer, text, limit) {
  const pieces = piecesOf(tokenizer, text);
  const room = limit - tokenizer.single.filter(([part]) => part !== "A").length;
  let truncated = null;
  if (pieces.length > room) {
    pieces.length = room;
    const read = count(text.slice(0, lastOf(pieces)));
    truncated =
      `Only the first ${grouped(read)} of ${grouped(count(text))} characters were read: ` +
      `this model takes at most ${grouped(limit)} tokens.`;
  }
  return { ...assembled(tokenizer, tokenizer.single, text, { A: pieces, B: [] }, 0), second: null, truncated };
}

/**
 * Two texts, with a new line between them; the longer is truncated first.
 * @param {Tokenizer} tokenizer
 * @param {string} text
 * @param {string} other
 * @param {number} limit
 * @returns {Encoded}
 */
export function encodePair(tokenizer, text, other, limit) {
  if (!tokenizer.pair) throw new Error("This model reads one text and no pair.");
  const [first, second] = [piecesOf(tokenizer, text), piecesOf(tokenizer, other)];
  const room = limit - tokenizer.pair.filter(([part]) => typeof part === "number").length;
  let truncated = null;
  if (first.length + second.length > room) {
    const kept = Math.min(second.length, Math.max(Math.floor(room / 2), room - first.length));
    first.length = Math.min(first.length, room - kept);
    second.length = kept;
    const [read, readOfOther] = [count(text.slice(0, lastOf(first))), count(other.slice(0, lastOf(second)))];
    truncated =
      `Only the first ${grouped(read)} of ${grouped(count(text))} characters of the first text and the first ` +
      `${grouped(readOfOther)} of ${grouped(count(other))} of the second were read: ` +
      `this model takes at most ${grouped(limit)} tokens.`;
  }
  const start = text.length + 1;
  const encoded = assembled(tokenizer, tokenizer.pair, `${text}\n${other}`, { A: first, B: second }, start);
  const unit = encoded.units.findIndex(({ special, start: place }) => !special && place >= start);
  return { ...encoded, second: unit < 0 ? null : unit, truncated };
}

/**
 * The tokens of a text that is not blank, without special ones.
 * @param {Tokenizer} tokenizer
 * @param {string} text
 */
export function piecesOf(tokenizer, text) {
  if ([...text].every(isBlank)) throw new Error("The text is empty.");
  const broken = /[\ud800-\udfff]/u.exec(text);
  if (broken) throw new Error(`The text is not valid Unicode at character ${count(text.slice(0, broken.index))}.`);
  const pieces = tokenizer.encode(text);
  if (!pieces.length) throw new Error(`The text contains no tokens for this model: “${text.slice(0, 60)}”.`);
  return pieces;
}

/**
 * Tokens and words, special tokens included.
 * @param {Tokenizer} tokenizer
 * @param {Tokenizer["single"]} template
 * @param {string} text
 * @param {{A: Piece[], B: Piece[]}} pieces
 * @param {number} second where the second text begins
 */
function assembled(tokenizer, template, text, pieces, second) {
  /** @type {Token[]} */
  const tokens = [];
  const types = [];
  for (const [part, type] of template) {
    const placed = typeof part === "number" ? [{ id: part, start: 0, end: 0, isAdded: true }] : pieces[part];
    for (const piece of placed) {
      const offset = part === "B" ? second : 0;
      const isAdded = "isAdded" in piece;
      tokens.push(tokenOf(tokenizer, text, piece.id, isAdded ? null : [piece.start + offset, piece.end + offset]));
      types.push(type);
    }
  }
  return { text, tokens, units: unitsOf(text, tokens), ids: tokens.map(({ id }) => id), types };
}

/**
 * @param {Tokenizer} tokenizer
 * @param {string} text
 * @param {number} id
 * @param {Span | null} place null for a token that the tokenizer added
 * @returns {Token}
 */
export function tokenOf(tokenizer, text, id, place) {
  const piece = tokenizer.nameOf(id);
  if (!place) return { text: piece, start: 0, end: 0, special: true, piece, id, unknown: false };
  const [start, end] = trimmed(text, ...place);
  const written = text.slice(start, end);
  const unknown = id === tokenizer.unknown && written !== piece;
  return { text: written, start, end, special: tokenizer.special.has(id) && !unknown, piece, id, unknown };
}

/**
 * @param {string} text
 * @param {Token[]} tokens
 * @returns {Words["units"]}
 */
export function unitsOf(text, tokens) {
  /** @type {(Span | null)[]} */
  const spans = tokens.map(({ special, start, end }) => (special ? null : [start, end]));
  return units(text, spans).map(({ span, tokens: members }) => {
    const first = tokens[members[0]];
    const [start, end] = span ?? [first.start, first.end];
    const shown = span ? text.slice(start, end) : printable(first.text).replace(/^ +| +$/g, "") || "␣";
    const unknown = members.some((token) => tokens[token].unknown);
    return { text: shown, start, end, tokens: members, special: !span, unknown };
  });
}

/** @type {Record<string, string>} */
const SIGNS = { "\n": "⏎", "\t": "⇥", "\u2028": "⏎", "\u2029": "⏎", "\x7f": "␡" };

/**
 * The text with a visible symbol for each character that would move, hide or reverse the text around it.
 * @param {string} text
 */
export const printable = (text) =>
  text.replace(/[\p{Cc}\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu, (character) => {
    const code = character.charCodeAt(0);
    return SIGNS[character] ?? (code < 0x20 ? String.fromCharCode(0x2400 + code) : "\ufffd");
  });

/** Whether Python calls a character white space. @param {string} character */
const isBlank = (character) => isSpace(character) || (character >= "\x1c" && character <= "\x1f");
/** Characters, as Python counts them. @param {string} text */
const count = (text) => [...text].length;
/** @param {number} number */
const grouped = (number) => number.toLocaleString("en-US");
/** Where the text of the last token ends. @param {Piece[]} pieces */
const lastOf = (pieces) => pieces.reduce((last, { end }) => Math.max(last, end), 0);
