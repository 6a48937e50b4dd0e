// A weighted average: all that attention does with vectors.

import { el } from "../../ui/dom.js";
import { format } from "../../ui/format.js";
import { average as averageOf } from "../numbers.js";
import { formula, p } from "../prose.js";
import { drawnBars } from "../widgets/bars.js";
import { plane } from "../widgets/plane.js";

/** @import { Exercise, PlaneVector, Section } from "../types.js" */

const WORDS = ["Time", "flies", "fast"];
/** @type {[number, number][]} */
const VECTORS = [
  [1, 0],
  [0, 1],
  [1, 1],
];

/** @param {ArrayLike<number>} vector */
const shown = (vector) => `(${Array.from(vector, (number) => format(number, 2)).join(", ")})`;

/** Three vectors to drag, their weights to draw, and the average, which follows. */
function playground() {
  let weights = [0.5, 0.25, 0.25];
  let vectors = VECTORS;
  const says = el("p", { class: "reads", role: "status" });
  const update = () => {
    const mean = averageOf(weights, vectors);
    drawing.set(3, [mean[0], mean[1]]);
    const terms = weights.map((weight, j) => `${format(weight, 2)} · ${shown(vectors[j])}`);
    says.textContent = `${terms.join(" + ")} = ${shown(mean)}`;
  };
  const drawing = plane({
    label: "Three vectors and their weighted average",
    reach: 1.5,
    vectors: [
      ...VECTORS.map((at, j) => /** @type {PlaneVector} */ ({ name: WORDS[j], at, moves: true, role: "key" })),
      { name: "average", at: [0, 0], role: "result" },
    ],
    onMove: (moved) => {
      vectors = moved.slice(0, 3).map(({ at }) => at);
      update();
    },
  });
  const bars = drawnBars({
    words: WORDS,
    label: "Weights",
    weights,
    onInput: (drawn) => {
      weights = drawn;
      update();
    },
  });
  update();
  return el("div", { class: "pair" }, drawing.node, el("div", {}, bars.node, says));
}

/** @type {Exercise} */
const target = {
  id: "average-weights",
  prepare() {
    const right = [0.6, 0.1, 0.3];
    const goal = averageOf(right, VECTORS);
    return {
      kind: "weights",
      question: `Which weights bring the average of ${VECTORS.map((vector, j) => `“${WORDS[j]}” (${vector.join(", ")})`).join(", ")} to ${shown(goal)}?`,
      words: WORDS,
      right,
      tolerance: 0.06,
      why: () =>
        `The second number, ${format(goal[1], 1)}, is what “Time” does not get, since only its vector has a 0 there: it gets ${format(1 - goal[1], 1)}. The first number, ${format(goal[0], 1)}, in the same way leaves ${format(1 - goal[0], 1)} for “flies”, and “fast” has the rest.`,
    };
  },
};

/**
 * Whether a weighted average of three vectors can lie there: each of the three weights that would be needed is positive.
 * @param {[number, number]} point
 */
function isReached([x, y]) {
  const [a, b, c] = VECTORS;
  const area = (b[1] - c[1]) * (a[0] - c[0]) + (c[0] - b[0]) * (a[1] - c[1]);
  const first = ((b[1] - c[1]) * (x - c[0]) + (c[0] - b[0]) * (y - c[1])) / area;
  const other = ((c[1] - a[1]) * (x - c[0]) + (a[0] - c[0]) * (y - c[1])) / area;
  return first >= 0 && other >= 0 && first + other <= 1;
}

/** @type {Exercise} */
const outside = {
  id: "average-reach",
  prepare() {
    /** @type {[number, number][]} */
    const points = [
      [0.9, 0.9],
      [0.5, 0.6],
      [0.2, 0.3],
      [0.7, 0.6],
    ];
    return {
      kind: "choice",
      question:
        "The weights are positive and sum to one. To which point can you *not* bring the average of (1, 0), (0, 1) and (1, 1), whatever the weights?",
      options: points.map((point) => shown(point)),
      right: points.findIndex((point) => !isReached(point)),
      why: () =>
        "An average lies between what it averages: within the triangle of the three vectors. Attention can mix what is there, and cannot leave it. That is why a second kind of layer follows it, the feed-forward network.",
    };
  },
};

/** @type {Section} */
export const average = {
  id: "average",
  title: "A weighted average",
  plain: ["product"],
  build: () => [
    p(
      "A word is a row of numbers, a *vector*; a sentence of three words with two numbers each is a matrix of 3 × 2. All that attention ever does with these vectors is to average them, with weights that are positive and sum to one.",
    ),
    formula("average = w_1 x_1 + w_2 x_2 + w_3 x_3,  w_1 + w_2 + w_3 = 1"),
    p(
      "Drag the tips of the vectors, draw the weights, and watch the average. All weight on one word gives that word's vector; equal weights give the middle.",
    ),
    playground(),
    p("Where do the weights come from? That is what the rest of this lesson is about."),
  ],
  exercises: [target, outside],
};
