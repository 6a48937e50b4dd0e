// Self-attention: scores by dot product, weights by softmax, a weighted average for each word.

import { el } from "../../ui/dom.js";
import { format } from "../../ui/format.js";
import { average, dot, products, softmax } from "../numbers.js";
import { formula, p } from "../prose.js";
import { heat } from "../widgets/heat.js";
import { plane } from "../widgets/plane.js";

/** @import { Exercise, PlaneVector, Section } from "../types.js" */

const WORDS = ["Time", "flies", "fast"];
/** @type {[number, number][]} */
const VECTORS = [
  [1, 0],
  [0, 1],
  [1, 1],
];

/** @param {ArrayLike<number>} vector @param {number} [digits] */
const shown = (vector, digits = 2) => `(${Array.from(vector, (number) => format(number, digits)).join(", ")})`;

/** @param {number[][]} scores */
const weightsFrom = (scores) => scores.map((row) => softmax(row.map((score) => score / Math.SQRT2)));

/** Three words to drag; the two matrices and the three averages follow. */
function playground() {
  const scores = heat({
    label: "Scores: a row for each word that looks",
    rows: WORDS,
    values: products(VECTORS, VECTORS),
    signed: true,
    peak: 4,
  });
  const weights = heat({
    label: "Weights: each row sums to one",
    rows: WORDS,
    values: weightsFrom(products(VECTORS, VECTORS)),
    peak: 1,
  });
  const says = el("p", { class: "reads", role: "status" });
  /** @param {[number, number][]} vectors */
  const draw = (vectors) => {
    const product = products(vectors, vectors);
    const rows = weightsFrom(product);
    scores.set(product);
    weights.set(rows);
    const means = rows.map((row) => average(row, vectors));
    for (const [n, [x, y]] of means.entries()) drawing.set(n + WORDS.length, [x, y]);
    says.textContent = `The averages: ${means.map((mean, n) => `“${WORDS[n]}” ${shown(mean)}`).join(", ")}.`;
  };
  const drawing = plane({
    label: "Three word vectors, and what each becomes",
    vectors: [
      ...VECTORS.map((at, n) => /** @type {PlaneVector} */ ({ name: WORDS[n], at, role: "key", moves: true })),
      ...WORDS.map(() => /** @type {PlaneVector} */ ({ name: "", at: [0, 0], role: "result" })),
    ],
    onMove: (moved) => draw(moved.slice(0, WORDS.length).map(({ at }) => at)),
  });
  draw(VECTORS);
  const tables = el(
    "div",
    {},
    el("p", { class: "hint" }, "Scores"),
    scores.node,
    el("p", { class: "hint" }, "Weights"),
    weights.node,
  );
  return [el("div", { class: "pair" }, drawing.node, tables), says];
}

/** @type {Exercise} */
const score = {
  id: "self-score",
  prepare() {
    const [a, b] = [
      [2, -1],
      [1, 3],
    ];
    return {
      kind: "number",
      question: `What is the score of the vectors ${shown(a, 0)} and ${shown(b, 0)}, their dot product?`,
      right: dot(a, b),
      tolerance: 0.01,
      digits: 0,
      why: () =>
        `${a.map((number, n) => `${format(number, 0)} · ${format(b[n], 0)}`).join(" + ")} = ${format(dot(a, b), 0)}. It is below zero: the two vectors point more away from each other than in the same direction.`,
    };
  },
};

/** @type {Exercise} */
const row = {
  id: "self-weights",
  prepare() {
    const scores = products(VECTORS, VECTORS)[2];
    const right = softmax(scores.map((number) => number / Math.SQRT2));
    return {
      kind: "weights",
      question: `The scores of “fast” with ${WORDS.map((word) => `“${word}”`).join(", ")} are ${scores.join(", ")}. Draw its weights.`,
      words: WORDS,
      right,
      tolerance: 0.1,
      why: () =>
        `Equal scores get equal weights, ${format(right[0], 2)} each. “fast” has the highest score with itself and gets ${format(right[2], 2)}: the most, not all.`,
    };
  },
};

/** @type {Section} */
export const self = {
  id: "self",
  title: "Self-attention",
  plain: ["dot", "product", "one_head"],
  build: (lesson) => [
    p(
      "How relevant is word j to word i? As relevant as they are similar, and the dot product measures that: multiply number by number, and add. It is large when both have large numbers in the same places.",
    ),
    formula("score_{ij} = x_i · x_j", "weights_i = softmax(score_i / √d)", "x′_i = Σ_j weight_{ij} x_j"),
    lesson.exercise("self-score"),
    p(
      "All scores together are one matrix product, and no step has to wait for another: every word looks at every word at the same time. Each word becomes its own average of all words. Drag the three words; the dashed arrows are what they become. (√d is explained later; here d is 2.)",
    ),
    lesson.exercise("self-weights"),
    ...playground(),
    p(
      "These three lines are all there is to self-attention. What follows makes them useful, fast to train, and able to look for more than one thing.",
    ),
  ],
  exercises: [score, row],
};
