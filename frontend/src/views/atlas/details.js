// Beside the heat map of a score: what it is, the heads with the largest, and the proofs.

import { dataElement, el, quoted } from "../../ui/dom.js";
import { capitalized, count, format, listed, percent } from "../../ui/format.js";
import { visible } from "../../ui/words.js";
import {
  changeOf,
  countsOf,
  headName,
  isFound,
  partName,
  proofsOf,
  rangeSays,
  shown,
  tablesOf,
  textName,
  topOf,
} from "./scores.js";

/** @import { AtlasHead, AtlasOfHeads, AtlasProof } from "../../types.js" */

/**
 * What a score is: in a sentence, with its range, from where on a head counts, and its paper.
 * @param {AtlasOfHeads} atlas
 * @param {string} name
 * @returns {(Node | string)[]}
 */
export function aboutScore(atlas, name) {
  const score = atlas.scores[name];
  const { found, measured } = countsOf(atlas, name);
  const tokens = Object.hasOwn(atlas.tokens, score.text) ? `, ${count(atlas.tokens[score.text], "token")}` : "";
  const sentences = [
    score.phrase && `The head ${score.phrase}.`,
    `${[capitalized(rangeSays(score)), `measured ${textName(score.text)}${tokens}`].filter(Boolean).join(", ")}.`,
    score.found_from !== null &&
      atlas.against === null &&
      `From ${score.found_from} on a head is one that does this: ${found} of ${measured} are.`,
    score.found_from !== null &&
      atlas.against !== null &&
      `From ${score.found_from} on a head is one that does this: ${found} of ${measured} are in just one of the models.`,
    atlas.against !== null && `The numbers are those of ${atlas.model} less those of ${atlas.against}.`,
  ];
  return [sentences.filter(Boolean).join(" "), ...(score.paper ? [" ", ...paper(score.paper)] : [])];
}

/**
 * A paper, with its address as a link.
 * @param {string} text
 */
function paper(text) {
  const [, before, address, after] = /^(.*?)(https:\/\/[\w./~-]+)(.*)$/s.exec(text) ?? [];
  if (!address) return [`${text}.`];
  return [before, el("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, address), `${after}.`];
}

/**
 * The heads with the largest numbers, part by part, each with what it attends to in the example.
 * @param {AtlasOfHeads} atlas
 * @param {string} name
 */
export function headList(atlas, name) {
  const title = atlas.against === null ? "Heads with the largest score" : "Heads that changed most";
  const lists = tablesOf(atlas, name).map(([part]) => {
    const heads = topOf(atlas, name, part);
    const heading = [title, partName(part)].filter(Boolean).join(": ");
    const items = heads.map((head, n) => headItem(atlas, name, part, head, n));
    const list = heads.length ? el("ol", {}, ...items) : el("p", { class: "hint" }, "It was measured of no head.");
    return el("section", {}, el("h3", {}, heading), list);
  });
  return lists;
}

/**
 * @param {AtlasOfHeads} atlas
 * @param {string} name
 * @param {string} part
 * @param {AtlasHead} head
 * @param {number} n its place in the list
 */
function headItem(atlas, name, part, head, n) {
  const place = { part, layer: head.layer, head: head.head };
  const button = el("button", { type: "button", class: "quiet", "data-part": part, "data-place": n }, headName(place));
  const change = changeOf(atlas, name, place);
  const both = change ? ` (${shown(change[0])} → ${shown(change[1])})` : "";
  const value = dataElement(head.value, (number) => shown(number, atlas.against !== null));
  const counts = isFound(atlas, name, place) ? el("b", {}, value) : value;
  return el("li", {}, button, " ", counts, both, ...rowOf(head));
}

/**
 * Where a head looks in the example, from the word that shows it best.
 * @param {AtlasHead} head
 */
function rowOf({ row }) {
  if (!row) return [];
  const words = row.attended
    .filter(({ weight }) => weight >= 0.005)
    .map(({ word, weight }) => [quoted(visible(word)), `\u00a0${percent(weight).replace(" ", "\u00a0")}`]);
  return words.length ? [el("p", {}, "From ", quoted(visible(row.word)), " to ", ...listed(words))] : [];
}

const ABLATIONS = /** @type {Record<string, string>} */ ({
  zero: "The heads give 0",
  mean: "The heads give their mean",
  edges: "Their edges are cut",
});

/**
 * The proofs of a score: the loss with the heads switched off, beside that with random heads off.
 * @param {AtlasOfHeads} atlas
 * @param {string} name
 */
export function proofList(atlas, name) {
  const proofs = proofsOf(atlas, name);
  return proofs.map((proof) => {
    const verdict = el("b", { class: "verdict" }, `${proof.verdict === "confirmed" ? "✓" : "✗"} ${proof.verdict}`);
    const heading = el("h3", {}, ["Proof", partName(proof.part)].filter(Boolean).join(": "), ": ", verdict);
    return el(
      "section",
      { class: "proof" },
      heading,
      el("p", {}, [proof.sentence, headsOff(proof), proof.note].filter(Boolean).join(" ")),
      el("div", { class: "scroll" }, proofTable(proof)),
    );
  });
}

/**
 * Which heads were switched off.
 * @param {AtlasProof} proof
 */
export function headsOff({ heads }) {
  const names = heads.slice(0, 8).map(([layer, head]) => [`${layer}.${head}`]);
  const more = heads.length > 8 ? ` and ${heads.length - 8} more` : "";
  return `${count(heads.length, "head")} switched off together (layer.head): ${listed(names).join("")}${more}.`;
}

/**
 * The mean of numbers; null where there is none.
 * @param {(number | null)[]} numbers
 */
export function mean(numbers) {
  const known = numbers.filter((number) => number !== null);
  return known.length ? known.reduce((sum, number) => sum + number, 0) / known.length : null;
}

/**
 * The change of the loss by each ablation, of these heads and of random ones.
 * @param {AtlasProof} proof
 */
function proofTable({ effects, loss, matters, elsewhere, before }) {
  const titles = [`Change of the loss, ${loss}`, "With these heads off", "With random heads off"];
  const head = el("tr", {}, ...titles.map((title, n) => el("th", { scope: "col", class: n ? "number" : null }, title)));
  const bodies = ["matters", "elsewhere"].flatMap((where, n) => {
    const rows = effects.filter((effect) => effect.where === where);
    const read = `On ${where === "matters" ? matters : elsewhere}; ${shown(before[n])} as the model is`;
    const title = el("tr", {}, el("th", { scope: "rowgroup", colspan: titles.length, class: "read" }, read));
    return rows.length ? [el("tbody", {}, title, ...rows.map(effectRow))] : [];
  });
  return el("table", {}, el("thead", {}, head), ...bodies);
}

/** @param {AtlasProof["effects"][number]} effect */
function effectRow({ ablation, change, random }) {
  const known = random.filter((number) => number !== null);
  const numbers = [change, mean(random)].map((number) => (number === null ? "–" : dataElement(number, signed)));
  const spread = `${signed(Math.min(...known))} to ${signed(Math.max(...known))}`;
  const name = el("th", { scope: "row" }, ABLATIONS[ablation] ?? ablation);
  const own = el("td", { class: "number" }, numbers[0]);
  return el(
    "tr",
    {},
    name,
    own,
    el("td", { class: "number" }, numbers[1], ...(known.length > 1 ? [el("small", {}, spread)] : [])),
  );
}

/** @param {number} number */
const signed = (number) => (number > 0 ? "+" : "") + format(number, 3);
