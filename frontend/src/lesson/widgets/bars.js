// Weights as bars: to draw, to see, and a prediction beside the real ones.

import { el } from "../../ui/dom.js";
import { percent } from "../../ui/format.js";
import { withWeight } from "../numbers.js";

/** @param {number} number */
const inPercent = (number) => `${Math.round(100 * number)} %`;

/** Equal words told apart: the, the (2). @param {string[]} words */
export const told = (words) =>
  words.map((word, n) => {
    const before = words.slice(0, n).filter((other) => other === word).length;
    return before ? `${word} (${before + 1})` : word;
  });

/**
 * Bars that can be drawn, by the pointer or the arrow keys. Those that were moved stay as long as the others have weight
 * left to give.
 * @param {{words: string[], label: string, describedBy?: string, weights?: number[], onInput?: (weights: number[]) => void}} given
 */
export function drawnBars({ words, label, describedBy, weights: first, onInput }) {
  const names = told(words);
  const initial = () => first?.slice() ?? words.map(() => 1 / words.length);
  let weights = initial();
  /** @type {Set<number>} */
  const held = new Set();
  const inputs = names.map((word, n) => {
    const input = el("input", { type: "range", min: 0, max: 1, step: 0.01, "aria-label": word });
    input.addEventListener("input", () => {
      weights = withWeight(weights, n, input.valueAsNumber, held);
      held.add(n);
      draw();
      onInput?.(weights);
    });
    return input;
  });
  const outputs = names.map(() => el("span", { class: "amount", "aria-hidden": "true" }));
  const draw = () => {
    for (const [n, input] of inputs.entries()) {
      input.value = weights[n];
      input.style.setProperty("--share", weights[n]);
      input.setAttribute("aria-valuetext", inPercent(weights[n]));
      outputs[n].textContent = inPercent(weights[n]);
    }
  };
  const node = el("div", { class: "bars-drawn", role: "group", "aria-label": label, "aria-describedby": describedBy });
  node.append(
    ...inputs.map((input, n) =>
      el("div", {}, el("bdi", { class: "word", "aria-hidden": "true" }, names[n]), input, outputs[n]),
    ),
  );
  draw();
  return {
    node: /** @type {HTMLElement} */ (node),
    weights: () => weights,
    /** @param {number[]} changed */
    set(changed) {
      weights = changed.slice();
      held.clear();
      draw();
    },
    reset() {
      weights = initial();
      held.clear();
      draw();
    },
    focus: () => inputs[0]?.focus(),
  };
}

/** @param {number} share @param {string} [kind] */
function bar(share, kind = "") {
  const node = el("span", { class: `bar ${kind}`.trim() });
  node.style.setProperty("--share", String(Math.max(0, Math.min(1, share))));
  return node;
}

/**
 * Numbers as bars in a table: weights, or others that are at most `peak`.
 * @param {{label: string, words: string[], weights: ArrayLike<number>, say?: (weight: number) => string, peak?: number, head?: [string, string]}} given
 */
export function shownBars({ label, words, weights, say = percent, peak = 1, head = ["word", "weight"] }) {
  const body = el("tbody");
  const node = el("table", { class: "bars" }, el("caption", {}, label), el("thead", {}, headRow(head)), body);
  /** @param {string[]} names @param {ArrayLike<number>} numbers */
  const set = (names, numbers) =>
    body.replaceChildren(
      ...told(names).map((word, n) => {
        const cell = el("td", { class: "number" }, el("data", { value: numbers[n] }, say(numbers[n])));
        return el(
          "tr",
          {},
          el("th", { scope: "row" }, el("bdi", {}, word)),
          el("td", {}, bar(numbers[n] / peak)),
          cell,
        );
      }),
    );
  set(words, weights);
  return { node: /** @type {HTMLElement} */ (node), set };
}

/** @param {[string, string]} head */
const headRow = ([word, number]) =>
  el("tr", {}, el("th", { scope: "col" }, word), el("td"), el("th", { scope: "col", class: "number" }, number));

/**
 * A prediction and what is so, side by side.
 * @param {string[]} words
 * @param {ArrayLike<number>} predicted
 * @param {ArrayLike<number>} real
 * @returns {HTMLElement}
 */
export function comparedBars(words, predicted, real) {
  const rows = told(words).map((word, n) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, el("bdi", {}, word)),
      el("td", {}, bar(predicted[n], "predicted"), bar(real[n])),
      el("td", { class: "number predicted" }, inPercent(predicted[n])),
      el("td", { class: "number" }, el("data", { value: real[n] }, inPercent(real[n]))),
    ),
  );
  const head = el("tr", {}, el("th", { scope: "col" }, "word"), el("td"));
  for (const name of ["yours", "real"]) head.append(el("th", { scope: "col", class: `number ${name}` }, name));
  return el(
    "table",
    { class: "bars compared" },
    el("caption", {}, "Your weights and the real ones"),
    el("thead", {}, head),
    el("tbody", {}, ...rows),
  );
}
