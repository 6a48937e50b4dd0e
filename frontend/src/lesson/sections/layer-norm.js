// Residual connections and layer norm: what keeps a deep stack trainable.

import { el } from "../../ui/dom.js";
import { format } from "../../ui/format.js";
import { moments, normalised } from "../layers.js";
import { dot, length, normalNumbers, softmax } from "../numbers.js";
import { formula, h3, p } from "../prose.js";
import { chart } from "../widgets/chart.js";
import { options, slider } from "../widgets/slider.js";

/** @import { Exercise, Section, Series } from "../types.js" */

const START = [2, -1, 4, 3];
const LAYERS = 12;
const DIM = 16;

/** @param {ArrayLike<number>} vector */
const shown = (vector) => `(${Array.from(vector, (number) => format(number, 2)).join(", ")})`;

/** Four numbers to move, which can be multiplied and shifted together, and their norm. */
function playground() {
  const x = START.slice();
  let [times, plus] = [1, 0];
  const says = el("p", { class: "reads", role: "status" });
  const table = el("tbody");
  const update = () => {
    const before = x.map((number) => times * number + plus);
    const after = normalised(before);
    const { mean, variance } = moments(before);
    says.textContent = `mean ${format(mean, 2)}, variance ${format(variance, 2)}; after the norm: mean ${format(moments(after).mean, 2)}, variance ${format(moments(after).variance, 2)}`;
    table.replaceChildren(
      ...before.map((number, n) =>
        el(
          "tr",
          {},
          el("th", { scope: "row" }, `x${"₁₂₃₄"[n]}`),
          ...[number, after[n]].map((value) => el("td", { class: "number" }, el("data", { value }, format(value, 2)))),
        ),
      ),
    );
  };
  /** @param {string} label @param {number} value @param {[number, number, number]} span @param {(value: number) => void} take */
  const number = (label, value, [min, max, step], take) =>
    slider({
      label,
      min,
      max,
      step,
      value,
      onInput: (changed) => {
        take(changed);
        update();
      },
    }).node;
  const numbers = START.map((value, n) =>
    number(`x${"₁₂₃₄"[n]}`, value, [-5, 5, 0.5], (changed) => {
      x[n] = changed;
    }),
  );
  const all = [
    number("All times", 1, [0.5, 10, 0.5], (value) => {
      times = value;
    }),
    number("All plus", 0, [-10, 10, 1], (value) => {
      plus = value;
    }),
  ];
  const head = ["", "before", "after"].map((name) => el("th", { scope: "col", class: name && "number" }, name));
  const result = el("table", {}, el("caption", {}, "The vector before and after the norm"));
  result.append(el("thead", {}, el("tr", {}, ...head)), table);
  update();
  return el("div", { class: "pair" }, el("div", {}, ...numbers, ...all), el("div", {}, result, says));
}

/**
 * The length of a vector through a stack of random layers, as a power of ten.
 * @param {number} size of the layers' matrices
 * @param {boolean} residual
 * @param {boolean} norm
 * @returns {[number, number][]}
 */
export function lengths(size, residual, norm) {
  const next = normalNumbers(4);
  let x = Array.from({ length: DIM }, next);
  /** @type {[number, number][]} */
  const points = [[0, Math.log10(length(x))]];
  for (let layer = 1; layer <= LAYERS; layer++) {
    const matrix = Array.from({ length: DIM }, () =>
      Array.from({ length: DIM }, () => (size * next()) / Math.sqrt(DIM)),
    );
    const change = matrix.map((row) => dot(row, x));
    x = residual ? x.map((number, d) => number + change[d]) : change;
    if (norm) x = normalised(x);
    points.push([layer, Math.log10(length(x))]);
  }
  return points;
}

/**
 * 10^power, as 10⁸ or 2.3·10⁴.
 * @param {number} power
 */
function ofPower(power) {
  const whole = Math.floor(power);
  const digits = String(whole)
    .replace("-", "⁻")
    .replace(/\d/g, (digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(digit)]);
  return whole === power ? `10${digits}` : `${format(10 ** (power - whole), 1)}·10${digits}`;
}

/** A stack of layers: how long the vector is after each, with norms and without. */
function stack() {
  let [size, residual] = [2, true];
  /** @returns {Series[]} */
  const series = () => [
    { name: "without norm", points: lengths(size, residual, false) },
    { name: "with norm", points: lengths(size, residual, true) },
  ];
  const drawing = chart({
    label: "The length of a vector through twelve layers",
    x: "layer",
    y: "length",
    series: series(),
    low: -8,
    high: 8,
    say: ofPower,
  });
  const update = () => drawing.set(series());
  const sizes = slider({
    label: "Size of the layers’ matrices",
    min: 0.25,
    max: 4,
    step: 0.25,
    value: size,
    onInput: (value) => {
      size = value;
      update();
    },
  });
  const choice = options({
    label: "Layer",
    options: ["x + f(x)", "f(x)"],
    onChoose: (n) => {
      residual = n === 0;
      update();
    },
  });
  return el("div", {}, choice.node, sizes.node, drawing.node);
}

/** @type {Exercise} */
const values = {
  id: "layer-norm-values",
  prepare() {
    const x = [1, 3, 5, 7];
    const { mean, variance } = moments(x);
    const right = normalised(x);
    const candidates = [x.map((number) => number - mean), softmax(x), right, x.map((number) => number / length(x))];
    return {
      kind: "choice",
      question: `What does the norm make of (${x.join(", ")})?`,
      options: candidates.map(shown),
      right: candidates.findIndex((vector) => vector.every((number, n) => Math.abs(number - right[n]) < 1e-9)),
      why: () =>
        `The mean is ${format(mean, 0)} and the variance ${format(variance, 0)}: subtract ${format(mean, 0)}, then divide by √${format(variance, 0)} = ${format(Math.sqrt(variance), 2)}. The others are the differences from the mean alone, a softmax, and the vector divided by its length.`,
    };
  },
};

/** @type {Exercise} */
const scaled = {
  id: "layer-norm-scaled",
  prepare() {
    const [before, after] = [normalised(START), normalised(START.map((number) => 10 * number + 5))];
    /** @type {((number: number) => number)[]} */
    const candidates = [
      (number) => 10 * number,
      (number) => number + 5,
      (number) => number,
      (number) => 10 * number + 5,
    ];
    return {
      kind: "choice",
      question: `All numbers of the vector (${START.map((number) => format(number, 0)).join(", ")}) are multiplied by 10, and 5 is added to each. What becomes of its norm?`,
      options: ["It is ten times as large", "5 is added to each number", "It stays as it is", "Both happen to it"],
      right: candidates.findIndex((change) => before.every((number, n) => Math.abs(change(number) - after[n]) < 1e-6)),
      why: () =>
        `Before: ${shown(before)}. After: ${shown(after)}. The mean is subtracted, and with it what was added; the division by the standard deviation takes the factor away.`,
    };
  },
};

/** @type {Section} */
export const layerNorm = {
  id: "layer-norm",
  title: "Layer norm",
  plain: ["layer_norm", "add_and_norm"],
  build: () => [
    p(
      "Layers are stacked, and two things keep a deep stack trainable. The output of a layer is *added* to its input, a *residual connection*, so that no word is ever lost. And each vector is *normalised* to mean zero and variance one, so that its numbers neither explode nor vanish.",
    ),
    formula("y = x + f(x)", "norm(y)_i = (y_i − mean) / √(variance + ε)"),
    p(
      "Move the numbers, then multiply all of them, or add the same to all. Two more learned vectors, a factor and a shift for each number, follow in a model; here they are one and zero.",
    ),
    playground(),
    h3("A deep stack"),
    p(
      "A vector goes through twelve random layers. Without norms its length grows or shrinks by a factor in every layer. With them it stays the same, whatever the size of the matrices.",
    ),
    stack(),
    p(
      "The original paper normalises after the sum, `norm(x + f(x))`. Most later models normalise before, `x + f(norm(x))`, which is easier to train: the sum of all residuals then runs through the whole stack unchanged.",
    ),
  ],
  exercises: [values, scaled],
};
