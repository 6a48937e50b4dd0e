// What a language model predicts at a token, in words.

import { format, percent } from "./format.js";
import { visible } from "./words.js";

/** @import { PredictionsReply } from "../protocol.js" */
/** @import { Reading } from "../types.js" */
/**
 * @typedef {object} Predicted what is predicted at a token
 * @property {{text: string, probability: number}[]} likely the likeliest first
 * @property {number | null} surprise by the token that came next, in nats; null where it is not known
 */

/**
 * The n-th row of a reply.
 * @param {PredictionsReply} reply
 * @param {number} n
 * @returns {Predicted}
 */
export function predictedIn({ texts, probabilities, surprise }, n) {
  const k = probabilities.shape[1];
  const likely = texts[n].map((text, place) => ({ text, probability: probabilities.data[n * k + place] }));
  const nats = surprise.data[n];
  return { likely, surprise: Number.isNaN(nats) ? null : nats };
}

/**
 * Whether the likeliest token is the one that came next.
 * @param {Predicted} predicted
 */
export const isRight = ({ likely, surprise }) =>
  surprise !== null && Math.exp(-surprise) >= likely[0].probability * (1 - 1e-4);

/**
 * A predicted token where room is scarce: without the space before it.
 * @param {string} text
 */
export const shortened = (text) => visible(/\S/u.test(text) ? text.trim() : text).slice(0, 40);

/** @param {number} nats */
export const natsOf = (nats) => `${format(nats, nats < 10 ? 2 : 1)} nats`;

/**
 * The likeliest tokens, a line each.
 * @param {Predicted} predicted
 */
export const linesOf = ({ likely }) =>
  likely.map(({ text, probability }) => `${percent(probability)}  “${visible(text).slice(0, 40)}”`);

/**
 * The unit that a token is of, and which of its tokens it is.
 * @param {Pick<Reading, "first_tokens">} reading
 * @param {number} i
 */
export function unitOfToken({ first_tokens: first }, i) {
  const after = first.findIndex((token) => token > i);
  const word = (after < 0 ? first.length : after) - 1;
  return { word, token: i - first[word] };
}
