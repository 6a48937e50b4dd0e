// Query, key and value: three roles for each word.

import { el } from "../../ui/dom.js";
import { format, percent } from "../../ui/format.js";
import { average, dot, findWordOrFirst, scoresOf, softmax, sum, vectorOf } from "../numbers.js";
import { formula, h3, p } from "../prose.js";
import { ARROW, encoded, HEAD, LAYER } from "../readings.js";
import { shownBars } from "../widgets/bars.js";
import { plane } from "../widgets/plane.js";
import { slider } from "../widgets/slider.js";

/** @import { Pass } from "../../model/types.js" */
/** @import { Child, Exercise, Lesson, PlaneVector, Section } from "../types.js" */

const SHELVES = ["fruit", "bread", "soap"];
/** @type {[number, number][]} */
const KEYS = [
  [1.2, 0.4],
  [0.2, 1.3],
  [-1.1, -0.6],
];
/** @type {[number, number][]} what there is to take: sweetness and fibre */
const VALUES = [
  [9, 3],
  [2, 7],
  [0, 0],
];

/** A query and three keys to drag; the weights and what is taken home follow. */
function supermarket() {
  const bars = shownBars({
    label: "Weights",
    words: SHELVES,
    weights: SHELVES.map(() => 0),
    head: ["shelf", "weight"],
  });
  const says = el("p", { class: "reads", role: "status" });
  /** @type {PlaneVector[]} */
  const vectors = KEYS.map((at, n) => ({ name: SHELVES[n], at, role: "key", moves: true }));
  vectors.unshift({ name: "query", at: [1, 0.9], role: "query", moves: true });
  /** @param {PlaneVector[]} all */
  const draw = ([query, ...keys]) => {
    const scores = keys.map(({ at }) => dot(query.at, at));
    const weights = softmax(scores.map((score) => score / Math.SQRT2));
    bars.set(SHELVES, weights);
    const [sweet, fibre] = average(weights, VALUES);
    const terms = scores.map((score, n) => `${format(score, 2)} for ${SHELVES[n]}`);
    says.textContent = `Scores: ${terms.join(", ")}. Taken home: sweetness ${format(sweet, 1)}, fibre ${format(fibre, 1)}.`;
  };
  const drawing = plane({ label: "A query and the keys of three shelves", vectors, onMove: draw });
  draw(vectors);
  const stock = SHELVES.map((shelf, n) => `${shelf} (${VALUES[n].join(", ")})`).join(", ");
  const values = el("p", { class: "hint" }, `The values, sweetness and fibre: ${stock}.`);
  return el("div", { class: "pair" }, drawing.node, el("div", {}, bars.node, values, says));
}

/**
 * What each word has for one that looks: score, weight, and what it adds, the length of weight times value.
 * @param {Pass} pass
 * @param {number} h
 * @param {number} u
 */
function account(pass, h, u) {
  const { scale, lengths } = pass.layers[LAYER];
  const i = pass.units[u].tokens[0];
  const scores = scoresOf(pass.layers[LAYER], h)[i];
  const weights = softmax(scores.map((score) => score * scale));
  const added = weights.map((weight, j) => weight * vectorOf(lengths, h, j)[0]);
  const total = sum(added);
  return { scores, weights, added: added.map((size) => size / total) };
}

/**
 * The real numbers of “flies” in any head of the last layer.
 * @param {Lesson} lesson
 * @returns {Promise<Child[]>}
 */
async function realNumbers(lesson) {
  const pass = await encoded(lesson, ARROW);
  const u = findWordOrFirst(pass, "flies");
  const body = el("tbody");
  const says = el("p", { class: "reads", role: "status" });
  /** @param {number} h */
  const draw = (h) => {
    const { scores, weights, added } = account(pass, h, u);
    const rows = pass.tokens.map(({ text, piece }, j) =>
      el(
        "tr",
        {},
        el("th", { scope: "row" }, text || piece),
        ...[format(scores[j], 1), percent(weights[j]), percent(added[j])].map((cell) =>
          el("td", { class: "number" }, cell),
        ),
      ),
    );
    body.replaceChildren(...rows);
    const most = added.indexOf(Math.max(...added));
    says.textContent = `Head ${h}: “${pass.tokens[most].text || pass.tokens[most].piece}” adds the most, ${percent(added[most])} of all.`;
  };
  const which = slider({
    ...{
      label: `Layer ${LAYER}, head`,
      min: 0,
      max: pass.layers[LAYER].query.shape[0] - 1,
      step: 1,
      value: HEAD,
      say: String,
    },
    onInput: draw,
  });
  draw(HEAD);
  const names = ["token", "query · key", "weight", "share of what is added"];
  const head = names.map((name, n) => el("th", { scope: "col", class: n ? "number" : null }, name));
  const table = el(
    "table",
    {},
    el("caption", {}, `“flies” in “${ARROW}”`),
    el("thead", {}, el("tr", {}, ...head)),
    body,
  );
  return [which.node, el("div", { class: "scroll" }, table), says];
}

/** @type {Exercise} */
const doubled = {
  id: "projections-value",
  async prepare(lesson) {
    const pass = await encoded(lesson, ARROW);
    const [u, arrow] = [findWordOrFirst(pass, "flies"), findWordOrFirst(pass, "arrow")];
    const { value } = pass.layers[LAYER];
    const values = pass.tokens.map((_, j) => Array.from(vectorOf(value, HEAD, j)));
    const changed = values.map((vector, j) =>
      j === pass.units[arrow].tokens[0] ? vector.map((number) => 2 * number) : vector,
    );
    const [before, after] = [values, changed].map(() => account(pass, HEAD, u).weights); // from queries and keys alone
    const weightsChange = before.some((weight, j) => weight !== after[j]);
    const [was, is] = [average(before, values), average(after, changed)];
    const averageChanges = was.some((number, d) => Math.abs(number - is[d]) > 1e-6);
    return {
      kind: "choice",
      question: `Every number in the *value* of “arrow” is doubled; queries and keys stay. What changes for “flies” in this head?`,
      options: ["nothing", "the weights only", "what it takes home only", "the weights and what it takes home"],
      right: Number(weightsChange) + 2 * Number(averageChanges),
      why: () =>
        `The weights follow from query and keys. The value is what is carried home, ${percent(before[pass.units[arrow].tokens[0]])} of it before and after, and of a vector twice as long. The label on a shelf is not what lies on it.`,
    };
  },
};

/** @type {Exercise} */
const sink = {
  id: "projections-sink",
  async prepare(lesson) {
    const pass = await encoded(lesson, ARROW);
    const { weights, added } = account(pass, HEAD, findWordOrFirst(pass, "flies"));
    const bounds = [0, 0.05, 0.15, 0.3, 1.01];
    return {
      kind: "choice",
      question: `In layer ${LAYER}, head ${HEAD}, “flies” gives ${percent(weights[0])} of its weight to [CLS], which stands before every text. How much of what is added to “flies” comes from there: weight times the length of the value?`,
      options: ["below 5 %", "5 to 15 %", "15 to 30 %", "above 30 %"],
      right: bounds.findIndex((bound) => added[0] < bound) - 1,
      why: () =>
        `It is ${percent(added[0])}. A head cannot give away less than all of its weight, since the weights sum to one; what it does not need it leaves where the value is short. Such a token is called an *attention sink*: a large weight alone does not say that a word matters.`,
    };
  },
};

/** @type {Section} */
export const projections = {
  id: "projections",
  title: "Query, key, value",
  plain: ["linear", "one_head"],
  build: (lesson) => [
    p(
      "So far, a word looks for words like itself. Give it three separate roles instead. The *query* is what your recipe needs, a *key* is the label on a shelf, and the *value* is what you take home from there. For each role the word's vector is multiplied by a different matrix; these three matrices are what the model learns.",
    ),
    formula(
      "q_i = x_i W_Q,  k_j = x_j W_K,  v_j = x_j W_V",
      "weights_i = softmax(q_i · k_j / √d)",
      "output_i = Σ_j weight_{ij} v_j",
    ),
    p(
      "Drag the query, and the keys, or focus one and use the arrow keys. A query meets a key by the dot product, so a longer vector makes the choice sharper.",
    ),
    supermarket(),
    lesson.exercise("projections-value"),
    h3("On real numbers"),
    p(
      "“flies” in the last layer of the encoder. In each head the three matrices turn its vector of 384 numbers into a query, a key and a value of 32. Move the slider from head to head.",
    ),
    lesson.exercise("projections-sink"),
    lesson.later(() => realNumbers(lesson)),
  ],
  exercises: [doubled, sink],
};
