// Which units the views leave out: the special tokens where that is chosen, and the first where it is an attention sink.

import { areWeights } from "./maps.js";
import { visible } from "./words.js";

/** @import { Reading, Selection } from "../types.js" */

const MOST = 0.5; // of the attention
const VIEWS_WITHOUT_FIRST = ["sentence", "heads", "map"];

/**
 * Whether the first unit takes most of the attention of a causal reading.
 * @param {Pick<Reading, "first_share">} reading
 */
export const takesMost = ({ first_share: share }) => (share ?? 0) >= MOST;

/**
 * Whether the view that is shown can leave the first unit out: there is something behind it, and no picture of both.
 * @param {Pick<Reading, "first_share" | "pictured">} reading
 * @param {Pick<Selection, "view">} state
 */
export const canHideFirst = ({ first_share: share, pictured }, { view }) =>
  typeof share === "number" && !pictured && VIEWS_WITHOUT_FIRST.includes(view);

/**
 * Whether the first unit is left out: as it is chosen or, of the weights, where it takes most of them and is not the word
 * that was chosen.
 * @param {Pick<Reading, "first_share" | "pictured">} reading
 * @param {Pick<Selection, "view" | "map" | "word" | "hideFirst">} state
 */
export const hidesFirst = (reading, state) =>
  canHideFirst(reading, state) && (state.hideFirst ?? (areWeights(state) && takesMost(reading) && state.word !== 0));

/**
 * Whether a unit is left out; of cross-attention, one of the columns, whose special tokens are given.
 * @param {Pick<Reading, "first_share" | "pictured" | "special">} reading
 * @param {Pick<Selection, "view" | "map" | "word" | "hide" | "hideFirst">} state
 * @param {number} u
 * @param {Set<number>} special
 */
export const isHidden = (reading, state, u, special = reading.special) =>
  (state.hide && special.has(u)) || (u === 0 && hidesFirst(reading, state));

/**
 * What a request of a map has in it about the units that are left out.
 * @param {Pick<Reading, "first_share" | "pictured">} reading
 * @param {Pick<Selection, "view" | "map" | "word" | "hide" | "hideFirst">} state
 */
export const hiddenRequest = (reading, state) => ({ hide: state.hide, hide_first: hidesFirst(reading, state) });

/**
 * The first unit, in a sentence: a token, or a word of several.
 * @param {Pick<Reading, "units" | "tokensOf">} reading
 */
export const firstName = ({ units, tokensOf }) =>
  `the first ${tokensOf(0).length > 1 ? "word" : "token"}, “${visible(units[0]).slice(0, 40)}”,`;
