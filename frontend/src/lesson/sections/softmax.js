// Softmax: scores become weights.

import { el } from "../../ui/dom.js";
import { format, percent } from "../../ui/format.js";
import { descending, findWordOrFirst, scoresOf, softmax as softmaxOf, sum } from "../numbers.js";
import { formula, h3, p, rich } from "../prose.js";
import { ARROW, encoded, HEAD, LAYER } from "../readings.js";
import { shownBars } from "../widgets/bars.js";
import { slider } from "../widgets/slider.js";

/** @import { Exercise, Section } from "../types.js" */

const WORDS = ["Time", "like", "arrow"];
const SCORES = [1, 2, 4];

/** Scores to move, a number to add to all of them, and the weights. */
function playground() {
  const scores = SCORES.slice();
  let shift = 0;
  const bars = shownBars({ label: "Weights", words: WORDS, weights: softmaxOf(scores) });
  const says = el("p", { class: "reads", role: "status" });
  const draw = () => {
    const shifted = scores.map((score) => score + shift);
    bars.set(WORDS, softmaxOf(shifted));
    const powers = shifted.map((score) => `\`e^{${format(score, 1)}}\` = ${format(Math.exp(score), 2)}`);
    says.replaceChildren(
      ...rich(
        `${powers.join(", ")}; their sum is ${format(sum(shifted.map(Math.exp)), 2)}, and its logarithm, the lse, ${format(Math.log(sum(shifted.map(Math.exp))), 2)}.`,
      ),
    );
  };
  const knobs = WORDS.map((word, n) =>
    slider({
      ...{
        label: `Score of “${word}”`,
        min: -5,
        max: 5,
        step: 0.1,
        value: scores[n],
        say: (score) => format(score, 1),
      },
      onInput: (score) => {
        scores[n] = score;
        draw();
      },
    }),
  );
  const all = slider({
    ...{ label: "Add to all scores", min: -10, max: 10, step: 1, value: 0, say: (number) => format(number, 0) },
    onInput: (number) => {
      shift = number;
      draw();
    },
  });
  draw();
  return el(
    "div",
    { class: "pair" },
    el("div", {}, ...knobs.map(({ node }) => node), all.node),
    el("div", {}, bars.node, says),
  );
}

/** The same scores, larger and larger: by the formula as it stands, and as it is computed. */
function overflow() {
  const says = el("p", { class: "reads", role: "status" });
  /** @param {number} power */
  const draw = (power) => {
    const large = SCORES.map((score) => score * 10 ** power);
    const powers = large.map(Math.exp);
    /** @param {number[]} weights */
    const shown = (weights) =>
      weights.map((weight) => (Number.isNaN(weight) ? "not a number" : format(weight, 2))).join(", ");
    says.replaceChildren(
      `Scores ${large.join(", ")}. By the formula: ${shown(powers.map((number) => number / sum(powers)))}.`,
      el("br"),
      `With the largest score subtracted first: ${shown(softmaxOf(large))}.`,
    );
  };
  const knob = slider({
    ...{ label: "Multiply the scores by", min: 0, max: 4, step: 1, value: 0, say: (power) => String(10 ** power) },
    onInput: draw,
  });
  draw(0);
  return [knob.node, says];
}

/** @type {Exercise} */
const ratio = {
  id: "softmax-ratio",
  async prepare(lesson) {
    const pass = await encoded(lesson, ARROW);
    const attention = pass.layers[LAYER];
    const i = pass.units[findWordOrFirst(pass, "flies")].tokens[0];
    const scores = scoresOf(attention, HEAD)[i].map((score) => score * attention.scale);
    const weights = softmaxOf(scores);
    const [first, second] = descending(weights);
    const name = (/** @type {number} */ j) => pass.tokens[j].text || pass.tokens[j].piece;
    const right = weights[first] / weights[second];
    return {
      kind: "number",
      question: `In layer ${LAYER}, head ${HEAD}, “flies” has the scaled scores ${format(scores[first], 2)} for “${name(first)}” and ${format(scores[second], 2)} for “${name(second)}”. How many times the weight of “${name(second)}” does “${name(first)}” get? (e is 2.718.)`,
      right,
      tolerance: Number((0.12 * right).toFixed(2)),
      why: () =>
        `The weights are ${percent(weights[first])} and ${percent(weights[second])}. Their ratio is e to the power of the difference of the scores, \`e^{${format(scores[first] - scores[second], 2)}}\`; the sum below the fraction is the same for both and drops out.`,
    };
  },
};

/** @type {Section} */
export const softmax = {
  id: "softmax",
  title: "Softmax",
  plain: ["softmax"],
  build: (lesson) => [
    formula("softmax(s)_j = e^{s_j} / Σ_k e^{s_k}"),
    p(
      "Every weight is positive, each row sums to one, and the largest score gets the most, but never everything. Move the scores. Then add to all of them at once: only differences count, and the weights stay as they are.",
    ),
    playground(),
    lesson.exercise("softmax-ratio"),
    h3("Safe to compute"),
    p(
      "e to the power of a large number is more than a computer can hold. Since only differences count, the largest score is subtracted first: the largest power is then `e^0` = 1, and none overflows.",
    ),
    ...overflow(),
    p(
      "The logarithm of the sum, the *lse*, is all that has to be kept of a row: any weight is `e^{s_j − lse}`. Fast attention keeps it instead of the matrix of weights.",
    ),
  ],
  exercises: [ratio],
};
