// The selection that all views share, and the address that a link carries it in.

import { VIEWS } from "../protocol.js";

/** @import { Direction, Opening, Reading, Scale, Selection, ViewName } from "../types.js" */

/** @type {ViewName[]} */
export const VIEW_NAMES = /** @type {any} */ (VIEWS);
const TEXT_IN_ADDRESS = 2000; // characters of a text that a link carries with it

/**
 * What is selected: by the parameters of an address, or where it leaves something open, by `opening`.
 * @param {URLSearchParams} parameters
 * @param {Opening} opening
 * @returns {Selection}
 */
export function selectionOf(parameters, opening) {
  const { number, numbers, choice } = reader(parameters);
  const at = numbers("at");
  const seen = parameters.get("seen")?.split("_").map(Number) ?? [];
  return {
    view: choice("view", VIEW_NAMES) ?? opening.view ?? "sentence",
    attention: parameters.get("attention") ?? (parameters.size ? null : (opening.attention ?? null)),
    map: parameters.get("map") ?? (parameters.size ? "weights" : (opening.map ?? "weights")),
    target: parameters.get("target") || null,
    word: number("word") ?? (parameters.has("word") ? null : (opening.word ?? null)),
    side: choice("side", /** @type {const} */ (["to"])) ?? "from",
    token: number("token") ?? 0,
    step: number("step") ?? 0,
    layer: number("layer") ?? opening.layer ?? 0,
    head: number("head") ?? opening.head ?? 0,
    heads: parameters.size ? numbers("heads") : (opening.heads ?? null),
    hide: parameters.get("hide") === "1",
    hideFirst: { hidden: true, shown: false }[parameters.get("first") ?? ""] ?? null,
    score: parameters.get("score"),
    lens: choice("lens", /** @type {const} */ (["next"])) ?? "predicted",
    mass: Math.min(100, Math.max(10, number("mass") ?? 100)),
    direction: choice("direction", /** @type {Direction[]} */ (["aa", "ab", "ba", "bb"])) ?? "all",
    scale: choice("scale", /** @type {Scale[]} */ (["linear", "log"])),
    reduce: choice("reduce", /** @type {const} */ (["max"])) ?? "mean",
    at: at?.length === 2 ? at : null,
    seen: seen.length === 3 && seen.every(Number.isFinite) && seen[2] > 0 ? seen : null,
    after: number("after"),
    same: parameters.get("same"),
    texts: parameters.get("texts"),
    theme: choice("theme", /** @type {const} */ (["light", "dark"])),
    text: parameters.get("text"),
    pair: parameters.get("pair"),
    model: parameters.get("model"),
    id: parameters.get("reading"),
  };
}

/**
 * Reads parameters, null for those that are not there or not valid.
 * @param {URLSearchParams} parameters
 */
function reader(parameters) {
  /** @param {string} digits */
  const isNumber = (digits) => /^\d{1,9}$/.test(digits);
  return {
    /** @param {string} name */
    number(name) {
      const value = parameters.get(name);
      return value !== null && isNumber(value) ? Number(value) : null;
    },
    /** @param {string} name */
    numbers: (name) => parameters.get(name)?.split(".").filter(isNumber).map(Number) ?? null,
    /**
     * @template {string} T
     * @param {string} name
     * @param {readonly T[]} choices
     * @returns {T | null}
     */
    choice: (name, choices) => choices.find((choice) => choice === parameters.get(name)) ?? null,
  };
}

/**
 * The parameters of an address for what is selected; `reading` is null while there is none.
 * @param {Selection} state
 * @param {Reading | null} reading
 */
export function parametersOf(state, reading) {
  /** @type {Record<string, string | number | false | null | undefined>} */
  const parameters = {
    view: state.view,
    attention: reading && (reading.attentions.length > 1 ? (state.attention ?? reading.attention) : null),
    map: state.map !== "weights" && state.map,
    target: state.target,
    layer: reading || state.view === "atlas" ? state.layer : null,
    head: reading || state.view === "atlas" ? state.head : null,
    word: reading && (state.word ?? "none"),
    side: state.side === "to" && "to",
    token: state.token || null,
    step: state.step || null,
    heads: state.heads?.join("."),
    hide: state.hide && 1,
    first: state.hideFirst === null ? null : state.hideFirst ? "hidden" : "shown",
    score: state.score,
    lens: state.lens !== "predicted" && state.lens,
    mass: state.mass < 100 && state.mass,
    direction: state.direction !== "all" && state.direction,
    scale: state.scale,
    reduce: state.reduce !== "mean" && state.reduce,
    at: state.at?.join("."),
    seen: state.seen?.join("_"),
    after: state.after,
    same: state.same || null,
    texts: state.texts && state.texts.length <= TEXT_IN_ADDRESS ? state.texts : null,
    theme: state.theme,
  };
  const given = Object.entries(parameters).filter(([, value]) => (value ?? false) !== false);
  return new URLSearchParams(given.map(([name, value]) => [name, String(value)]));
}

/**
 * Adds the text to the parameters of an address: itself where it is short, or else the name of its reading.
 * @param {URLSearchParams} parameters
 * @param {Selection} state
 * @param {Reading | null} reading
 * @param {string} usualModel
 */
export function addText(parameters, state, reading, usualModel) {
  const { text, pair, model } = state;
  const id = reading?.id ?? state.id;
  if (text !== null && text.length + (pair ?? "").length <= TEXT_IN_ADDRESS) {
    parameters.set("text", text);
    if (pair) parameters.set("pair", pair);
  } else if (id) parameters.set("reading", id);
  if (model && model !== usualModel) parameters.set("model", model);
}

/**
 * A selection that came by the address, or from another reading, brought within what the reading has.
 * @param {Selection} state
 * @param {Reading} reading
 * @returns {Selection}
 */
export function withinReading(state, reading) {
  /** @param {number | null} value @param {number} size */
  const within = (value, size) => (value !== null && value < size ? value : null);
  const heads = state.heads?.filter((h) => h < reading.H) ?? null;
  const hide = state.hide && !reading.pictured; // pictures are as they are
  const words = state.side === "to" ? reading.columns : reading;
  const word = within(state.word, words.U);
  const [rows, columns] = [reading.U, reading.columns.U];
  return {
    ...state,
    word: hide && word !== null && words.special.has(word) ? null : word,
    layer: reading.attended.includes(state.layer) ? state.layer : reading.attended[0],
    head: within(state.head, reading.H) ?? 0,
    heads: heads?.length === reading.H ? null : heads,
    at: state.at?.some((u, n) => u >= (n ? columns : rows)) ? null : state.at,
    hide,
    reduce: reading.pictured ? "mean" : state.reduce,
    direction: reading.second === null ? "all" : state.direction,
  };
}
