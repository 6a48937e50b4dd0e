// The scores of an atlas: what their numbers can be, which heads count, and how a reader sees them.

import { format, listed } from "../../ui/format.js";

/** @import { AtlasHead, AtlasOfHeads, AtlasProof, AtlasScore, Range } from "../../types.js" */
/** @typedef {{part: string, layer: number, head: number}} Place of a head */
/** @typedef {(number | null)[][]} Table layers of heads; null where the score was not measured */

/** What a score is measured on, in the order in which they are shown. @type {Record<string, string>} */
const READ = { text: "text", repeated: "repeated random tokens", needle: "texts with a needle" };

/**
 * What a score is measured on, in a sentence.
 * @param {string} kind
 */
export const textName = (kind) => `on ${READ[kind] ?? kind}`;

/** The parts of an encoder-decoder. @type {Record<string, string>} */
const PARTS = { encoder: "Encoder", decoder: "Decoder", cross: "Cross-attention" };

/**
 * A part of the model as a heading; nothing where there is but one.
 * @param {string} part
 */
export const partName = (part) => PARTS[part] ?? part;

/**
 * The score that is shown: that of the name, or else the first.
 * @param {AtlasOfHeads} atlas
 * @param {string | null} name
 */
export const chosenScore = ({ scores }, name) =>
  name !== null && Object.hasOwn(scores, name) ? name : (Object.keys(scores)[0] ?? "");

/**
 * The names of the scores by what they are measured on.
 * @param {AtlasOfHeads} atlas
 * @returns {[heading: string, names: string[]][]}
 */
export function groupsOf({ scores }) {
  const kinds = [...new Set([...Object.keys(READ), ...Object.values(scores).map(({ text }) => text)])];
  return kinds.flatMap((kind) => {
    const names = Object.keys(scores).filter((name) => scores[name].text === kind);
    return names.length ? [[textName(kind), names]] : [];
  });
}

/**
 * The tables of a score, by part of the model.
 * @param {AtlasOfHeads} atlas
 * @param {string} name
 * @returns {[part: string, table: Table][]}
 */
export const tablesOf = ({ parts }, name) =>
  Object.entries(parts).flatMap(([part, tables]) => (Object.hasOwn(tables, name) ? [[part, tables[name]]] : []));

/**
 * What the colours of a score stand for: all that its numbers can be or, where that has no bound, all that they are; of
 * a difference, the changes, up to the largest.
 * @param {AtlasOfHeads} atlas
 * @param {string} name
 * @returns {Range}
 */
export function rangeOf(atlas, name) {
  const { least, most } = atlas.scores[name];
  let largest = 0;
  for (const [, table] of tablesOf(atlas, name))
    for (const row of table) for (const value of row) largest = Math.max(largest, Math.abs(value ?? 0));
  const isBounded = atlas.against === null && most !== null && least !== null;
  const peak = isBounded ? Math.max(Math.abs(most), Math.abs(least)) : largest;
  return { peak, scale: "linear", signed: atlas.against !== null || (least !== null && least < 0) };
}

/**
 * A head's number; null where there is none.
 * @param {AtlasOfHeads} atlas
 * @param {string} name
 * @param {Place} place
 */
export const scoreOf = ({ parts }, name, { part, layer, head }) => parts[part]?.[name]?.[layer]?.[head] ?? null;

/**
 * Of a difference, a head's number before the change and after it.
 * @param {AtlasOfHeads} atlas
 * @param {string} name
 * @param {Place} place
 * @returns {[before: number, after: number] | null}
 */
export function changeOf(atlas, name, place) {
  const before = atlas.base && scoreOf({ ...atlas, parts: atlas.base }, name, place);
  const change = scoreOf(atlas, name, place);
  return before === null || change === null ? null : [before, before + change];
}

/**
 * Whether a head counts as one that does what the score is about; in a difference, whether it does in just one model.
 * @param {AtlasOfHeads} atlas
 * @param {string} name
 * @param {Place} place
 */
export function isFound(atlas, name, place) {
  const { found_from: least } = atlas.scores[name];
  if (least === null) return false;
  if (atlas.against === null) return (scoreOf(atlas, name, place) ?? Number.NEGATIVE_INFINITY) >= least;
  const change = changeOf(atlas, name, place);
  return change !== null && change[0] >= least !== change[1] >= least;
}

/**
 * All heads of a part that count.
 * @param {AtlasOfHeads} atlas
 * @param {string} name
 * @param {string} part
 * @returns {Place[]}
 */
export const foundIn = (atlas, name, part) =>
  atlas.parts[part][name].flatMap((row, layer) =>
    row.flatMap((_, head) => (isFound(atlas, name, { part, layer, head }) ? [{ part, layer, head }] : [])),
  );

/**
 * How many heads count, in all parts, and how many were measured.
 * @param {AtlasOfHeads} atlas
 * @param {string} name
 */
export function countsOf(atlas, name) {
  let [found, measured] = [0, 0];
  for (const [part, table] of tablesOf(atlas, name)) {
    found += foundIn(atlas, name, part).length;
    measured += table.flat().filter((value) => value !== null).length;
  }
  return { found, measured };
}

/**
 * A number as a reader sees it.
 * @param {number | null} value
 * @param {boolean} [signed] whether + is written
 */
export function shown(value, signed = false) {
  if (value === null) return "not measured";
  const size = Math.abs(value);
  return (signed && value > 0 ? "+" : "") + format(value, size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3);
}

/**
 * A head's number in a sentence; of a difference, both and the change.
 * @param {AtlasOfHeads} atlas
 * @param {string} name
 * @param {Place} place
 */
export function saysOf(atlas, name, place) {
  const value = scoreOf(atlas, name, place);
  const change = changeOf(atlas, name, place);
  return change ? `${shown(change[0])} → ${shown(change[1])} (${shown(value, true)})` : shown(value);
}

/** @param {Place} place */
export const headName = ({ layer, head }) => `Layer ${layer}, head ${head}`;

/**
 * The scores by which a head counts, the largest first.
 * @param {AtlasOfHeads} atlas
 * @param {Place} place
 */
export const rolesOf = (atlas, place) =>
  Object.keys(atlas.scores)
    .filter((name) => isFound(atlas, name, place))
    .sort((a, b) => (scoreOf(atlas, b, place) ?? 0) - (scoreOf(atlas, a, place) ?? 0));

/**
 * What an atlas says of a head that another view shows.
 * @param {AtlasOfHeads} atlas
 * @param {Place} place
 */
export function aboutHead(atlas, place) {
  const roles = rolesOf(atlas, place).map((name) => [`${name} ${saysOf(atlas, name, place)}`]);
  const verb = atlas.against === null ? "was found for" : "has changed in";
  return `In the atlas, head ${place.head} of layer ${place.layer} ${verb} ${roles.length ? listed(roles).join("") : "no score"}.`;
}

/**
 * What a score's numbers can be, in words.
 * @param {AtlasScore} score
 */
export function rangeSays({ least, most, unit }) {
  if (!unit && least === null && most === null) return "";
  const from = least === null ? "" : ` from ${least.toLocaleString("en").replace("-", "−")}`;
  const to = most === null ? (least === null ? "" : " up") : ` to ${most}`;
  return `${unit}${from}${to}`.trim();
}

/**
 * The proofs of a score.
 * @param {AtlasOfHeads} atlas
 * @param {string} name
 * @returns {AtlasProof[]}
 */
export const proofsOf = ({ proofs }, name) => proofs.filter(({ score }) => score === name);

/**
 * The heads with the largest numbers.
 * @param {AtlasOfHeads} atlas
 * @param {string} name
 * @param {string} part
 * @returns {AtlasHead[]}
 */
export const topOf = ({ top }, name, part) => top[part]?.[name] ?? [];

/**
 * An atlas in a heading.
 * @param {AtlasOfHeads} atlas
 */
export const titleOfAtlas = ({ model, against }) =>
  against === null ? `The heads of ${model}` : `The heads of ${model}, compared with ${against}`;

/**
 * How many heads there are, and what was read.
 * @param {AtlasOfHeads} atlas
 */
export function factsOfAtlas({ parts, tokens, seed }) {
  const sizes = Object.entries(parts).flatMap(([part, tables]) => {
    const [table] = Object.values(tables);
    if (!table) return [];
    const name = partName(part).toLowerCase();
    return [`${name && `${name}: `}${table.length} layers × ${table[0]?.length ?? 0} heads`];
  });
  const read = Object.entries(tokens).map(([kind, number]) => [
    `${number.toLocaleString("en")} of ${READ[kind] ?? kind}`,
  ]);
  return [...sizes, read.length && `tokens read: ${listed(read).join("")}`, `seed ${seed}`].filter(Boolean).join(" · ");
}
