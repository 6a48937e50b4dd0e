// The maps, in words: what their numbers are, and of what.

import { format, formatWeight, percent } from "./format.js";

/** @import { App, MapOffer, Reading, Selection } from "../types.js" */

/**
 * @typedef {object} Vocabulary
 * @property {string} label in the choice of maps
 * @property {string} title of a picture: “… of layer 5, head 11”
 * @property {string} one a number of the map
 * @property {string} many
 * @property {string} unit of the numbers, beside their scale
 * @property {string} is what a number is, in a sentence
 * @property {string} [says] a sentence about the numbers
 */

/** @type {Record<string, Vocabulary>} */
const VOCABULARY = {
  weights: {
    label: "weights",
    title: "Attention weights",
    one: "weight",
    many: "weights",
    unit: "share of attention",
    is: "the share of attention",
  },
  "value-weighted": {
    label: "value-weighted",
    title: "Value-weighted attention",
    one: "length",
    many: "lengths",
    unit: "length of the vector that is added",
    is: "the length of the vector that is added",
    says: "Not where a head looks, but what it brings home: the weight times the length of the value, once the layer's output matrix W_O has been applied to it.",
  },
  norms: {
    label: "norms",
    title: "Norms of what the heads add together",
    one: "length",
    many: "lengths",
    unit: "length of the vector that is added",
    is: "the length of the vector that is added",
    says: "What all heads together bring home from a word: their vectors are added up before the length is taken, and may cancel out.",
  },
  gradient: {
    label: "gradient",
    title: "Gradient-weighted attention",
    one: "number",
    many: "numbers",
    unit: "towards the target",
    is: "how much works towards the target",
    says: "How much a weight works towards the target: the weight times the slope of the target along it, where that is above 0.",
  },
  logits: {
    label: "logits",
    title: "Logit attribution",
    one: "number",
    many: "numbers",
    unit: "towards (+) or against (−) the target",
    is: "how much works towards the target or, below 0, against it",
    says: "What a head adds from a word to the logit of the target, directly, with the final norm held fixed. Orange works towards it, blue against it.",
  },
};

/**
 * The attentions of an encoder-decoder, in the choice of them.
 * @type {Record<string, string>}
 */
export const ATTENTIONS = { encoder: "encoder", decoder: "decoder", cross: "cross-attention" };

/**
 * The words for the chosen map.
 * @param {Pick<Selection, "map">} state
 */
export const wordsOf = ({ map }) => VOCABULARY[map] ?? VOCABULARY.weights;

/**
 * The chosen map; the weights, until a reading says which there are.
 * @param {Pick<Reading, "maps"> | null} reading
 * @param {Pick<Selection, "map">} state
 * @returns {MapOffer}
 */
export const chosenMap = (reading, { map }) =>
  reading?.maps.find(({ name }) => name === map) ?? {
    name: "weights",
    heads: true,
    target: false,
    signed: false,
    missing: null,
  };

/**
 * What a request about the chosen map has in it.
 * @param {Pick<Reading, "maps">} reading
 * @param {Pick<Selection, "map" | "target">} state
 * @returns {{map: string, target?: string}}
 */
export function mapRequest(reading, state) {
  const { map, target } = state;
  return target && chosenMap(reading, state).target ? { map, target } : { map };
}

/** @param {Pick<Selection, "map">} state */
export const areWeights = ({ map }) => map === "weights";

/**
 * How many heads the chosen map has: one, where it is of all together.
 * @param {Pick<Reading, "maps" | "H">} reading
 * @param {Pick<Selection, "map">} state
 */
export const headCount = (reading, state) => (chosenMap(reading, state).heads ? reading.H : 1);

/**
 * The chosen head of the map, or the only one.
 * @param {Pick<Reading, "maps">} reading
 * @param {Pick<Selection, "map" | "head">} state
 */
export const headOf = (reading, state) => (chosenMap(reading, state).heads ? state.head : 0);

/**
 * A head in a sentence.
 * @param {Pick<Reading, "maps">} reading
 * @param {Pick<Selection, "map">} state
 * @param {number} h
 */
export const headName = (reading, state, h) => (chosenMap(reading, state).heads ? `head ${h}` : "all heads together");

/**
 * Why the map of an address cannot be shown; nothing where it can.
 * @param {Pick<Reading, "maps">} reading
 * @param {Pick<Selection, "map">} state
 */
export function mapProblem({ maps }, { map }) {
  const offer = maps.find(({ name }) => name === map);
  const instead = "The weights are shown instead.";
  if (offer) return offer.missing && `The map “${map}” is not there. ${offer.missing} ${instead}`;
  return `There is no map “${map.slice(0, 40)}”: there are ${maps.map(({ name }) => name).join(", ")}. ${instead}`;
}

/**
 * What the numbers of the chosen map are, in sentences; nothing for the weights.
 * @param {Pick<App, "reading" | "state" | "targetName">} app
 */
export function aboutMap({ reading, state, targetName }) {
  const { says } = wordsOf(state);
  const target = chosenMap(reading, state).target && (targetName ?? reading.target);
  return [says, target && `The target: ${target}.`].filter(Boolean).join(" ");
}

/**
 * The unit of one number.
 * @param {Pick<Selection, "map">} state
 * @param {number} number
 */
export const unitOf = (state, number) =>
  state.map !== "logits" ? wordsOf(state).unit : number < 0 ? "against the target" : "towards the target";

/**
 * The chosen map as the title of a column.
 * @param {Pick<Reading, "maps">} reading
 * @param {Pick<Selection, "map">} state
 */
export const columnTitle = (reading, state) =>
  wordsOf(state).label + (chosenMap(reading, state).heads ? "" : ", all heads");

/**
 * A number of a map as a sentence has it: a weight as a share.
 * @param {Pick<Selection, "map">} state
 */
export const shownIn = (state) => (areWeights(state) ? percent : formatNumber(state));

/**
 * A number of a map beside others.
 * @param {Pick<Selection, "map">} state
 * @returns {(number: number) => string}
 */
export const formatNumber = (state) => (number) => {
  const size = Math.abs(number);
  if (areWeights(state) || Number.isNaN(number)) return format(number);
  const digits = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : size >= 0.01 || !size ? 3 : 4;
  const text = size > 0 && size < 0.001 ? formatWeight(number) : format(number, digits);
  return state.map === "logits" && number > 0 ? `+${text}` : text;
};
