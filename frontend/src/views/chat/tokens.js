// The tokens of a reply as a page shows them: each with how likely the model found it, by colour and by line.

import { el } from "../../ui/dom.js";
import { count, percent } from "../../ui/format.js";
import { visible } from "../../ui/words.js";

/** @import { WrittenToken } from "../../protocol.js" */
/** @typedef {{text: string, tokens: WrittenToken[]}} Piece text, and the tokens that make it: several for some characters */

/** From the most likely down: the least probability of a level, and what the key calls it. */
export const LEVELS = [
  { from: 0.9, name: "90 % or more" },
  { from: 0.5, name: "50 to 90 %" },
  { from: 0.1, name: "10 to 50 %" },
  { from: 0, name: "below 10 %" },
];

/**
 * The tokens by the text that they add: those of an incomplete character together with the one that completes it.
 * @param {WrittenToken[]} tokens
 * @returns {{pieces: Piece[], open: WrittenToken[]}} and the tokens of a character that is incomplete still
 */
export function piecesOf(tokens) {
  /** @type {Piece[]} */
  const pieces = [];
  /** @type {WrittenToken[]} */
  let open = [];
  for (const token of tokens) {
    open.push(token);
    if (!token.text) continue;
    pieces.push({ text: token.text, tokens: open });
    open = [];
  }
  return { pieces, open };
}

/**
 * The probability of a piece: that of all its tokens, one after another.
 * @param {Piece} piece
 */
export const probabilityOf = ({ tokens }) => tokens.reduce((product, { probability }) => product * probability, 1);

/** @param {number} probability */
export const levelOf = (probability) => LEVELS.findIndex(({ from }) => probability >= from);

/**
 * What is said of a piece that is pointed at.
 * @param {Piece} piece
 */
export function sayingOf(piece) {
  const several = piece.tokens.length > 1 ? `, ${count(piece.tokens.length, "token")}` : "";
  return `“${visible(piece.text)}”${several}: probability ${percent(probabilityOf(piece))}`;
}

/** @param {Piece} piece */
export function pieceElement(piece) {
  const level = levelOf(probabilityOf(piece));
  return el("span", { class: `piece level-${level}`, title: sayingOf(piece) }, piece.text);
}

/** What the lines under the tokens mean. */
export const keyElements = () => [
  "Probability of a token: ",
  ...LEVELS.map(({ name }, n) => el("span", { class: `piece level-${n}` }, name)),
];

/**
 * How a reply ended, in a sentence.
 * @param {WrittenToken[]} tokens
 * @param {"end" | "length" | "interrupted" | null} finished null where an error ended it
 * @param {number} most tokens that it might have had
 */
export function endingOf(tokens, finished, most) {
  const written = count(tokens.length, "token");
  const isCut = piecesOf(tokens).open.length > 0;
  const left = isCut ? " It ends within a character, which is left out." : "";
  if (!tokens.length) return finished === "end" ? "The model had nothing to say." : "Stopped before the first token.";
  if (finished === "end") return `${written}; the model ended the reply itself.${left}`;
  if (finished === "interrupted") return `Stopped after ${written}; what was written stays.${left}`;
  if (finished === null) return `It broke off after ${written}.${left}`;
  const limit = tokens.length === most ? "the most that were asked for" : "where the model's context ends";
  return `Cut off at ${written}, ${limit}.${left}`;
}
