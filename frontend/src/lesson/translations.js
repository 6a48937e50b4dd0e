// What the dates model writes of a source, and where it looks for each character.

import { weightsOf } from "./numbers.js";
import { visible } from "./widgets/candidates.js";

/** @import { Reading } from "../model/types.js" */

/**
 * The characters of the source, those that were written, with “end” for what comes after them, and the weights of
 * the last layer's cross-attention by head. Row n is the query of the newest character when number n was to be written.
 * @param {Reading} reading
 */
export function translation(reading) {
  const { encoder: source, decoder: target } = reading;
  if (!source || !target?.cross) throw new Error("lesson: this model has no cross-attention");
  const written = target.tokens.filter(({ special }) => !special).map(({ text }) => text);
  const last = target.cross[target.cross.length - 1];
  return {
    characters: source.tokens.map(({ text }) => visible(text)),
    written: [...written, "end"],
    heads: Array.from({ length: last.query.shape[0] }, (_, h) => weightsOf(last, h)),
  };
}

/**
 * The mean of the weights over some heads, row by row.
 * @param {number[][][]} heads
 */
export const meanHead = (heads) =>
  heads[0].map((row, i) => row.map((_, j) => heads.reduce((total, head) => total + head[i][j], 0) / heads.length));
