// Where the heads of a layer look, and what a cell of their pictures is.

import { SAMPLED_UNITS, THUMBNAIL_SIZE } from "../../protocol.js";
import { listed, percent } from "../../ui/format.js";

/** @import { Reading, ThumbnailsReply } from "../../types.js" */
/** @typedef {{name: string, whom: string, share: number}} Pattern */

/**
 * A head's patterns, that with the largest share of its weight first, as far as they were measured.
 * @param {ThumbnailsReply} layer
 * @param {number} h
 * @returns {Pattern[]}
 */
export function patternsOf({ shares, patterns }, h) {
  const width = shares.shape[1];
  return Object.entries(patterns)
    .map(([name, whom], n) => ({ name, whom, share: shares.data[h * width + n] }))
    .filter(({ share }) => !Number.isNaN(share)) // left out of a long text
    .sort((a, b) => b.share - a.share);
}

/**
 * What the shares of a layer are of, in their order.
 * @param {ThumbnailsReply} layer
 */
export const layerTitles = ({ patterns }) => Object.values(patterns);

/**
 * Where a head looks, in words.
 * @param {Pattern[]} patterns
 */
export function describeHead(patterns) {
  const places = patterns
    .filter(({ share }) => share > 0.2)
    .slice(0, 2)
    .map(({ whom, share }, n) => [`${percent(share)} ${n ? "" : "of its weight goes "}to ${whom}`]);
  return listed(places).join("") || "no clear pattern";
}

/**
 * What a cell of the pictures is, where it is more than a weight.
 * @param {Pick<Reading, "pictured">} reading
 * @param {number} words that are visible
 * @param {string} [many] what the numbers of the map are
 */
export function wordsOfCell({ pictured }, words, many = "weights") {
  const side = 2 ** (pictured || Math.max(0, Math.ceil(Math.log2(words / THUMBNAIL_SIZE))));
  if (side === 1) return "";
  if (pictured) return `each cell is the mean of ${side} × ${side} weights`;
  const sampled = words > SAMPLED_UNITS ? ", and a row that of its first word" : "";
  return `each cell is the largest of ${side} × ${side} ${many}${sampled}`;
}
