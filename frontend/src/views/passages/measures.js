// The three numbers between a sentence and a passage, the proof first: what they are called, their units, their meaning.

import { dataElement, el } from "../../ui/dom.js";
import { format, percent } from "../../ui/format.js";

/** @import { AnswerSource as Source } from "../../protocol.js" */

/**
 * @typedef {object} Measure
 * @property {"knockout" | "attention" | "logits"} name of the number in a source
 * @property {string} title
 * @property {string} unit
 * @property {string} meaning
 */

/** @type {Measure[]} */
export const MEASURES = [
  {
    name: "knockout",
    title: "Knockout",
    unit: "nats",
    meaning:
      "the proof: by how much the log-probability of the sentence falls when the passage is hidden and the model computes it again.",
  },
  {
    name: "attention",
    title: "Attention",
    unit: "share",
    meaning:
      "the share of the attention of the sentence's tokens that the passage got, over the heads that matter, without the first token, a sink.",
  },
  {
    name: "logits",
    title: "Logits",
    unit: "direct",
    meaning:
      "what the heads carried from the passage straight into the logits of the sentence's tokens; a dash where they are no such sum.",
  },
];

/**
 * The cell of a number; a dash where it is not known.
 * @param {Source} source
 * @param {Measure["name"]} name
 */
export function numberCell(source, name) {
  const number = source[name];
  if (number === null)
    return el("td", { class: "number" }, el("span", { title: "It is not known for this model." }, "–"));
  return el("td", { class: "number" }, dataElement(number, name === "attention" ? percent : signed));
}

/** @param {number} number */
export const signed = (number) => format(number, Math.abs(number) >= 99.95 ? 0 : 2);

/** What the numbers mean. */
export const meanings = () =>
  el(
    "dl",
    { class: "measures" },
    ...MEASURES.flatMap(({ title, unit, meaning }) => [
      el("dt", {}, `${title} `, el("span", { class: "unit" }, `(${unit})`)),
      el("dd", {}, meaning),
    ]),
  );
