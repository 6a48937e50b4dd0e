// The likeliest next tokens, with their probabilities as bars: one of them is written by its button.

import { el } from "../../ui/dom.js";
import { percent } from "../../ui/format.js";

/** @typedef {{text: string, probability: number, ends: boolean}} Candidate `ends`: the token that ends a text */

/** A token with its spaces and line breaks to be seen. @param {string} text */
export const visible = (text) => text.replaceAll(" ", "␣").replaceAll("\n", "↵");

/**
 * The candidates of one prediction.
 * @param {import("../../model/types.js").Predictions} predictions
 * @param {unknown} end the tokens that end a text
 * @param {number} [row]
 * @returns {Candidate[]}
 */
export const candidatesOf = ({ ids, texts, probabilities }, end, row = 0) =>
  ids[row].map((id, n) => ({
    text: texts[row][n],
    probability: probabilities[row][n],
    ends: [end].flat().includes(id),
  }));

/**
 * @param {{label: string, onChoose: (candidate: Candidate) => void}} given
 */
export function candidates({ label, onChoose }) {
  const body = el("tbody");
  const head = el("tr", {}, el("th", { scope: "col" }, "next"), el("td"));
  head.append(el("th", { scope: "col", class: "number" }, "probability"));
  const node = el("table", { class: "bars candidates" }, el("caption", {}, label), el("thead", {}, head), body);
  return {
    node: /** @type {HTMLElement} */ (node),
    /** @param {Candidate[]} list */
    set(list) {
      const place = [...body.querySelectorAll("button")].indexOf(/** @type {any} */ (document.activeElement));
      body.replaceChildren(...list.map((candidate) => row(candidate, onChoose)));
      if (place >= 0) body.querySelectorAll("button")[Math.min(place, list.length - 1)]?.focus();
    },
  };
}

/** @param {Candidate} candidate @param {(candidate: Candidate) => void} onChoose */
function row(candidate, onChoose) {
  const { text, probability, ends } = candidate;
  const name = ends ? "end" : visible(text);
  const said = ends ? "End the text" : `Write “${text.trim() || name}”`;
  const button = el(
    "button",
    { type: "button", class: "quiet", "aria-label": `${said}, ${percent(probability)}` },
    el("bdi", {}, name),
  );
  button.addEventListener("click", () => onChoose(candidate));
  const bar = el("span", { class: "bar" });
  bar.style.setProperty("--share", String(probability));
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, button),
    el("td", {}, bar),
    el("td", { class: "number" }, el("data", { value: probability }, percent(probability))),
  );
}
