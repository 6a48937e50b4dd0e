// How far the vectors of a model are apart: after its layers, and between two readings.

import { cosine, findWord, vectorOf, wordVector } from "./numbers.js";

/** @import { Pass, Reading } from "../model/types.js" */
/** @typedef {import("./numbers.js").Vector} Vector */

/** 1 − cos: 0 where two vectors point the same way. @param {Vector} a @param {Vector} b */
export const apart = (a, b) => Math.max(0, 1 - cosine(a, b));

/** What the decoder left of a text. @param {Reading} reading @returns {Pass} */
export function decoderOf({ decoder }) {
  if (!decoder) throw new Error("lesson: this model has no decoder");
  return decoder;
}

/** The words of a text, by their places among all units: special tokens are left out. @param {Pass} pass */
export const wordPlaces = ({ units }) => [...units.keys()].filter((u) => !units[u].special);

/** The number of layers. @param {Pass} pass */
export const layersOf = ({ hidden }) => hidden.shape[0] - 1;

/**
 * How far each word's vector after a layer is from where it began.
 * @param {Pass} pass
 * @param {number} after 0 is before the first layer
 */
export const moved = (pass, after) =>
  wordPlaces(pass).map((u) => apart(wordVector(pass, 0, u), wordVector(pass, after, u)));

/**
 * How far a word's last vectors in two texts are apart.
 * @param {Pass} a
 * @param {Pass} b
 * @param {string} word
 */
export function apartIn(a, b, word) {
  const [u, v] = [findWord(a, word), findWord(b, word)];
  if (u < 0 || v < 0) throw new Error(`lesson: one of the texts has no word ${word}`);
  return apart(wordVector(a, layersOf(a), u), wordVector(b, layersOf(b), v));
}

/**
 * The tokens whose last vectors differ between two readings of equally many tokens, by more than rounding.
 * @param {Pass} a
 * @param {Pass} b
 */
export function changedTokens(a, b) {
  const last = layersOf(a);
  return [...a.tokens.keys()].filter((i) => apart(vectorOf(a.hidden, last, i), vectorOf(b.hidden, last, i)) > 1e-5);
}

/**
 * Items in an order that is not yet the right one, and the right one: the places of the items, the largest value first.
 * @param {[string, number][]} valued
 */
export function toOrder(valued) {
  const byName = [...valued].sort(([a], [b]) => (a < b ? -1 : 1));
  const places = () => [...byName.keys()].sort((a, b) => byName[b][1] - byName[a][1]);
  if (places().every((place, n) => place === n)) byName.reverse();
  return { items: byName.map(([name]) => name), right: places() };
}
