// Texts as the encoder reads them, and what sections ask of a reading.

import { betweenWords, cosine, findWord, weightsOf, wordVector } from "./numbers.js";

/** @import { Changes, Pass } from "../model/types.js" */
/** @import { Lesson } from "./types.js" */

export const ARROW = "Time flies like an arrow";
export const BANANA = "Fruit flies like a banana";
export const [LAYER, HEAD] = [5, 11]; // in which “flies” looks at its subject matter

/**
 * @param {Pick<Lesson, "read">} lesson
 * @param {string} text
 * @param {Changes} [changes]
 * @returns {Promise<Pass>}
 */
export async function encoded({ read }, text, changes) {
  const { encoder } = await read("encoder", text, changes ? { changes } : {});
  if (!encoder) throw new Error("lesson: the model “encoder” has no encoder.");
  return encoder;
}

/** @param {Pass} pass */
export const namesOf = ({ units }) => units.map(({ text }) => text);

/**
 * The weights of a head between words.
 * @param {Pass} pass
 * @param {number} l
 * @param {number} h
 * @param {number} [scale]
 */
export const headWeights = ({ layers, units }, l, h, scale) => betweenWords(weightsOf(layers[l], h, scale), units);

/**
 * How far the vectors of the words are apart that two texts share: 1 − cosine, after each layer.
 * @param {Pass} a
 * @param {Pass} b
 * @returns {{word: string, apart: number[]}[]} `apart` begins before the first layer
 */
export function sharedWords(a, b) {
  return a.units
    .filter(({ text, special }, u) => !special && findWord(a, text) === u && findWord(b, text) >= 0)
    .map(({ text }) => ({
      word: text,
      apart: Array.from({ length: a.hidden.shape[0] }, (_, after) => {
        const [one, other] = [a, b].map((pass) => wordVector(pass, after, findWord(pass, text)));
        return Math.max(0, 1 - cosine(one, other));
      }),
    }));
}
