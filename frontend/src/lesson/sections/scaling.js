// Scaling, and why: without it the softmax of long vectors is all or nothing.

import { el } from "../../ui/dom.js";
import { format, percent } from "../../ui/format.js";
import { dot, findWordOrFirst, normalNumbers, softmax, sum, weightsOf } from "../numbers.js";
import { formula, h3, p } from "../prose.js";
import { ARROW, encoded, HEAD, headWeights, LAYER, namesOf } from "../readings.js";
import { shownBars } from "../widgets/bars.js";
import { chart } from "../widgets/chart.js";
import { options, slider } from "../widgets/slider.js";

/** @import { Child, Exercise, Lesson, Section, Series } from "../types.js" */

const DIMS = [1, 4, 16, 64, 256, 1024];
const KEYS = 50;
const QUERIES = 12;

/**
 * The scores of random queries with random keys of so many numbers, each of size one.
 * @param {number} dim
 * @param {number} seed
 */
function randomScores(dim, seed) {
  const next = normalNumbers(seed);
  const vectors = (/** @type {number} */ count) =>
    Array.from({ length: count }, () => Float64Array.from({ length: dim }, next));
  const [queries, keys] = [vectors(QUERIES), vectors(KEYS)];
  return queries.map((query) => keys.map((key) => dot(query, key)));
}

/** @param {number[][]} scores */
function sizeOf(scores) {
  const all = scores.flat();
  const mean = sum(all) / all.length;
  return Math.sqrt(sum(all.map((score) => (score - mean) ** 2)) / all.length);
}

/** The mean of the rows' largest weights. @param {number[][]} scores @param {number} scale */
const largestWeight = (scores, scale) =>
  sum(scores.map((row) => Math.max(...softmax(row.map((score) => score * scale))))) / scores.length;

/** @param {number} seed @returns {Series[]} */
function againstDim(seed) {
  const all = DIMS.map((dim) => ({ dim, scores: randomScores(dim, seed + dim) }));
  return [
    { name: "not scaled", points: all.map(({ dim, scores }) => [dim, largestWeight(scores, 1)]) },
    { name: "divided by √d", points: all.map(({ dim, scores }) => [dim, largestWeight(scores, dim ** -0.5)]) },
  ];
}

/** Random vectors of more and more numbers: the size of their scores, and the largest weight. */
function randomVectors() {
  let [place, seed] = [3, 1];
  const says = el("p", { class: "reads", role: "status" });
  const drawing = chart({
    ...{ label: `The largest of ${KEYS} weights, random vectors`, x: "d, numbers in a vector", y: "largest weight" },
    ...{ log: true, series: againstDim(seed) },
  });
  const draw = () => {
    const scores = randomScores(DIMS[place], seed + DIMS[place]);
    const [alone, scaled] = [1, DIMS[place] ** -0.5].map((scale) => percent(largestWeight(scores, scale)));
    says.textContent = `d = ${DIMS[place]}: scores of size ${format(sizeOf(scores), 1)}; largest weight ${alone} without scaling, ${scaled} with it.`;
  };
  const which = slider({
    ...{
      label: "Numbers in a vector, d",
      min: 0,
      max: DIMS.length - 1,
      step: 1,
      value: place,
      say: (n) => String(DIMS[n]),
    },
    onInput: (n) => {
      place = n;
      draw();
    },
  });
  const again = el("button", { type: "button", class: "quiet" }, "Other random vectors");
  again.addEventListener("click", () => {
    seed += 1000;
    drawing.set(againstDim(seed));
    draw();
  });
  draw();
  return [which.node, el("p", { class: "buttons" }, again), says, drawing.node];
}

/**
 * A real head with another scale.
 * @param {Lesson} lesson
 * @returns {Promise<Child[]>}
 */
async function realHead(lesson) {
  const pass = await encoded(lesson, ARROW);
  const { scale } = pass.layers[LAYER];
  const u = findWordOrFirst(pass, "flies");
  const bars = shownBars({ label: `“flies” in layer ${LAYER}, head ${HEAD}`, words: [], weights: [] });
  const says = el("p", { class: "reads", role: "status" });
  /** @param {number} factor */
  const draw = (factor) => {
    const weights = headWeights(pass, LAYER, HEAD, factor)[u];
    bars.set(namesOf(pass), weights);
    const most = Math.max(...weights);
    says.textContent = `Largest weight: ${percent(most)}. Raise its score a little, and the weight rises by w (1 − w) = ${format(most * (1 - most), 3)} times as much${most > 0.99 ? ": the softmax is frozen" : ""}.`;
  };
  const knob = slider({
    ...{
      label: "Scores are multiplied by",
      min: 0,
      max: 1,
      step: 0.01,
      value: scale,
      say: (value) => format(value, 2),
    },
    onInput: draw,
  });
  const presets = options({
    label: "Set to",
    options: [`1/√${Math.round(scale ** -2)}, as trained`, "1, no scaling"],
    onChoose: (n) => {
      const value = n ? 1 : scale;
      knob.set(value);
      draw(value);
    },
  });
  draw(scale);
  return [presets.node, knob.node, bars.node, says];
}

/**
 * The whole model with the scale 1 in all of its heads: how large the largest weights are, layer by layer.
 * @param {Lesson} lesson
 * @returns {Promise<Child[]>}
 */
async function wholeModel(lesson) {
  const passes = await Promise.all([encoded(lesson, ARROW), encoded(lesson, ARROW, { scale: 1 })]);
  const series = passes.map(({ layers }, n) => ({
    name: n ? "scale 1" : "as trained",
    points: layers.map((layer, l) => {
      const heads = Array.from({ length: layer.query.shape[0] }, (_, h) => weightsOf(layer, h));
      const most = heads.flat().map((row) => Math.max(...row));
      return /** @type {[number, number]} */ ([l, sum(most) / most.length]);
    }),
  }));
  const label = `The largest weight of a token in “${ARROW}”: the mean over all heads and tokens`;
  return [chart({ label, x: "layer", y: "largest weight", series }).node];
}

/** @type {Exercise} */
const frozen = {
  id: "scaling-frozen",
  async prepare(lesson) {
    const pass = await encoded(lesson, ARROW);
    const u = findWordOrFirst(pass, "flies");
    const [before, after] = [undefined, 1].map((scale) => headWeights(pass, LAYER, HEAD, scale)[u]);
    const most = before.indexOf(Math.max(...before));
    const bounds = [0, 0.6, 0.75, 0.95, 1.01];
    return {
      kind: "choice",
      question: `In layer ${LAYER}, head ${HEAD}, of “${ARROW}”, “flies” gives ${percent(before[most])} to “${namesOf(pass)[most]}”. Its scores are divided by √${Math.round(pass.layers[LAYER].scale ** -2)}. Leave the division out: how much does “${namesOf(pass)[most]}” get?`,
      options: ["at most 60 %", "60 to 75 %", "75 to 95 %", "above 95 %"],
      right: bounds.findIndex((bound) => after[most] < bound) - 1,
      why: () =>
        `It gets ${(100 * after[most]).toFixed(2)} %. The differences between the scores are ${format(1 / pass.layers[LAYER].scale, 1)} times as large, and the softmax raises e to their power.`,
    };
  },
};

/** @type {Exercise} */
const size = {
  id: "scaling-size",
  prepare() {
    const right = sizeOf(randomScores(64, 65));
    return {
      kind: "number",
      question:
        "Two vectors have 64 random numbers each, of size one (a standard deviation of 1, a mean of 0). Of what size are their dot products: what is their standard deviation?",
      right,
      tolerance: 1,
      digits: 1,
      why: () =>
        `Of ${QUERIES * KEYS} products it is ${format(right, 2)}, about √64 = 8. Each of the 64 terms has a variance of 1; variances add up to 64, and the standard deviation is the root.`,
    };
  },
};

/** @type {Section} */
export const scaling = {
  id: "scaling",
  title: "Scaling, and why",
  plain: ["one_head"],
  build: (lesson) => [
    p("A dot product of two vectors is a sum of d terms: the more numbers, the larger the scores."),
    lesson.exercise("scaling-size"),
    ...randomVectors(),
    p(
      "Where one weight is one and all others are zero, a small change in a score changes nothing: the gradient vanishes, and nothing is learned. Dividing by √d keeps the scores at size one for any d.",
    ),
    formula("weights = softmax(q · k / √d)"),
    h3("On a real head"),
    lesson.exercise("scaling-frozen"),
    p("Set the scale to 1 and see the softmax freeze; set it to 0, and all words get the same."),
    lesson.later(() => realHead(lesson)),
    p("And with the scale 1 in all heads of the model:"),
    lesson.later(() => wholeModel(lesson)),
  ],
  exercises: [size, frozen],
};
