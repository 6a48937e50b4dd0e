// The feed-forward network: what an average cannot do, for each word on its own.

import { el } from "../../ui/dom.js";
import { format } from "../../ui/format.js";
import { FUNCTIONS, feedForward as network } from "../layers.js";
import { normalNumbers } from "../numbers.js";
import { formula, p } from "../prose.js";
import { chart } from "../widgets/chart.js";
import { options, slider } from "../widgets/slider.js";

/** @import { Exercise, Section } from "../types.js" */

const UP = [
  [1, -1],
  [-1, 1],
];
const DOWN = [[1, 1]];
const NAMES = Object.keys(FUNCTIONS);

/** @param {number} first @param {number} second @param {string} name */
const passed = (first, second, name) => network([first, second], UP, DOWN, FUNCTIONS[name]);

/** Two numbers to move, the function to choose, and the result as a curve. */
function playground() {
  let [first, second, name] = [1.5, 0.5, NAMES[0]];
  const says = el("p", { class: "reads", role: "status" });
  const at = Array.from({ length: 9 }, (_, n) => n / 2 - 2);
  /** @returns {[number, number][]} */
  const curve = () => at.map((x) => [x, passed(x, second, name).output[0]]);
  const series = () => [{ name: "y", points: curve() }];
  const drawing = chart({
    label: "y for every x₁, with x₂ as it is set",
    x: "x₁",
    y: "y",
    series: series(),
    low: -2,
    high: 4,
  });
  const update = () => {
    const { inner, output } = passed(first, second, name);
    drawing.set(series());
    says.textContent = `x = (${format(first, 2)}, ${format(second, 2)}), h = (${inner.map((number) => format(number, 2)).join(", ")}), y = ${format(output[0], 2)}`;
  };
  /** @param {string} label @param {number} value @param {(value: number) => void} take */
  const number = (label, value, take) =>
    slider({
      label,
      min: -2,
      max: 2,
      step: 0.5,
      value,
      onInput: (changed) => {
        take(changed);
        update();
      },
    }).node;
  const choice = options({
    label: "Function f",
    options: NAMES,
    onChoose: (n) => {
      name = NAMES[n];
      update();
    },
  });
  update();
  const controls = el("div", {}, choice.node);
  controls.append(
    number("x₁", first, (value) => {
      first = value;
    }),
    number("x₂", second, (value) => {
      second = value;
    }),
    says,
  );
  return el("div", { class: "pair" }, controls, drawing.node);
}

/** @type {Exercise} */
const result = {
  id: "feed-forward-number",
  prepare() {
    const x = [0.5, 2];
    const { inner, output } = passed(x[0], x[1], "ReLU");
    return {
      kind: "number",
      question: `The network is h = ReLU(x₁ − x₂, x₂ − x₁) and y = h₁ + h₂. What is y for x = (${x.join(", ")})?`,
      right: output[0],
      tolerance: 0.05,
      why: () =>
        `The inner numbers are ReLU(${format(x[0] - x[1], 1)}) = ${format(inner[0], 1)} and ReLU(${format(x[1] - x[0], 1)}) = ${format(inner[1], 1)}; their sum is ${format(output[0], 1)}. The network computes how far the two numbers are apart, whichever is larger.`,
    };
  },
};

/** @type {Exercise} */
const alone = {
  id: "feed-forward-words",
  prepare() {
    const next = normalNumbers(9);
    /** @param {number} rows @param {number} columns */
    const matrix = (rows, columns) => Array.from({ length: rows }, () => Array.from({ length: columns }, next));
    const [up, down, before] = [matrix(16, 4), matrix(4, 16), matrix(5, 4)];
    const after = before.map((vector, n) => (n === 2 ? vector.map((number) => number + 1) : vector));
    /** @param {number[]} vector */
    const through = (vector) => network(vector, up, down, FUNCTIONS.GELU).output;
    const changed = before.flatMap((vector, n) =>
      through(vector).some((number, d) => number !== through(after[n])[d]) ? [n] : [],
    );
    const answers = [[], [2], [2, 3, 4], [0, 1, 2, 3, 4]];
    return {
      kind: "choice",
      question:
        "Five words go through a feed-forward network. Now the vector of the *third* word is changed, and nothing else. Which results change?",
      options: ["None", "Only that of the third word", "Those of the third word and of all after it", "All five"],
      right: answers.findIndex((places) => String(places) === String(changed)),
      why: () =>
        `Computed for five random vectors and a random network: the results that changed are those of ${changed.map((n) => `word ${n + 1}`).join(", ")}. Each word passes through the network on its own. Only attention carries anything from one word to another.`,
    };
  },
};

/** @type {Section} */
export const feedForward = {
  id: "feed-forward",
  title: "Feed-forward",
  plain: ["feed_forward"],
  build: () => [
    p(
      "An average only mixes what is already there. To compute something new, each word then passes through a small network on its own: up to more dimensions, through a function that is not a straight line, and down again.",
    ),
    formula("h = f(W_1 x + b_1)", "y = W_2 h + b_2"),
    p(
      "In most models the inner vector h has four times as many numbers as x. Then the two matrices of this network hold 8 d² numbers, and those of attention, for query, key, value and output, hold 4 d²: two thirds of a layer are here.",
    ),
    p(
      "Here is the smallest network that does what no weighted sum can. It tells how far two numbers are apart. Move x₁ and x₂, then choose “none” for the function: without its bend, the network is one matrix, and this one gives zero for everything.",
    ),
    playground(),
    formula("h_1 = f(x_1 − x_2),  h_2 = f(x_2 − x_1),  y = h_1 + h_2"),
    p(
      "ReLU sets negative numbers to zero. GELU is a smooth form of it, x Φ(x), which BERT uses; Φ is the distribution function of the normal distribution.",
    ),
  ],
  exercises: [result, alone],
};
