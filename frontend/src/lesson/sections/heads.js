// Many heads: several averages at once, each with a query, key and value of its own.

import { el } from "../../ui/dom.js";
import { format, percent } from "../../ui/format.js";
import { betweenWords, findWordOrFirst, largest, sum, weightsOf } from "../numbers.js";
import { formula, h3, p } from "../prose.js";
import { ARROW, encoded, headWeights, namesOf } from "../readings.js";
import { keepingFocus } from "../widgets/focus.js";
import { heat } from "../widgets/heat.js";
import { lines } from "../widgets/lines.js";
import { sentence } from "../widgets/sentence.js";
import { slider } from "../widgets/slider.js";

/** @import { Pass } from "../../model/types.js" */
/** @import { Child, Exercise, Lesson, Section } from "../types.js" */

/**
 * A sentence, a layer and a head to choose, what a word looks at there, and what all heads of the layer look at.
 * @param {Lesson} lesson
 * @returns {Promise<Child[]>}
 */
async function everyHead(lesson) {
  let pass = await encoded(lesson, ARROW);
  let [layer, head] = [0, 0];
  const [layers, heads] = [pass.layers.length, pass.layers[0].query.shape[0]];
  const view = lines({
    ...{ label: "Where a word looks", rows: namesOf(pass), weights: headWeights(pass, 0, 0) },
    chosen: findWordOrFirst(pass, "flies"),
    onChoose: () => draw(false),
  });
  const place = el("div");
  /** @param {boolean} [isNew] whether the lines have to be drawn, too */
  const draw = (isNew = true) => {
    const all = Array.from({ length: heads }, (_, h) => betweenWords(weightsOf(pass.layers[layer], h), pass.units));
    if (isNew) view.set({ weights: all[head] });
    const names = namesOf(pass);
    const word = names[view.chosen()];
    const map = heat({
      ...{
        label: `Layer ${layer}: where “${word}” looks, a row for each head`,
        rows: all.map((_, h) => `head ${h}`),
        columns: names,
      },
      ...{ values: all.map((weights) => weights[view.chosen()]), peak: 1 },
    });
    keepingFocus(place, () =>
      place.replaceChildren(el("p", { class: "hint" }, `Layer ${layer}: where “${word}” looks in each head`), map.node),
    );
  };
  const knobs = /** @type {const} */ ([
    ["Layer", layers],
    ["Head", heads],
  ]).map(([label, count], n) =>
    slider({
      ...{ label, min: 0, max: count - 1, step: 1, value: 0, say: String },
      onInput: (value) => {
        if (n) head = value;
        else layer = value;
        draw();
      },
    }),
  );
  const field = sentence({
    ...{ label: "Sentence", text: ARROW, texts: [ARROW, "The cat sat on the mat because it was tired"] },
    onText: async (typed) => {
      pass = await encoded(lesson, typed);
      view.set({
        rows: namesOf(pass),
        weights: headWeights(pass, layer, head),
        chosen: findWordOrFirst(pass, "flies"),
      });
      draw();
    },
  });
  draw();
  return [field.node, ...knobs.map(({ node }) => node), view.node, place];
}

/**
 * The mean weight that words give to the word so many places on.
 * @param {number[][]} weights
 * @param {number} step
 */
function alongside(weights, step) {
  const inner = weights
    .map((_, u) => u)
    .slice(1, -1)
    .filter((u) => u + step >= 0 && u + step < weights.length);
  return sum(inner.map((u) => weights[u][u + step])) / inner.length;
}

/**
 * Four heads of a text: the one that looks most at the previous word, and those that do the same for three other
 * patterns, in the order of their layers.
 * @param {Pass} pass
 */
function fourHeads({ layers, units }) {
  const all = layers.flatMap((layer, l) =>
    Array.from({ length: layer.query.shape[0] }, (_, h) => ({
      l,
      h,
      weights: betweenWords(weightsOf(layer, h), units),
    })),
  );
  /** @type {((weights: number[][]) => number)[]} */
  const patterns = [
    (weights) => alongside(weights, -1),
    (weights) => alongside(weights, 1),
    (weights) => alongside(weights, 0),
    (weights) => sum(weights.map((row) => row[row.length - 1])) / weights.length,
  ];
  /** @type {typeof all} */
  const taken = [];
  for (const pattern of patterns) {
    const rest = all.filter((head) => !taken.includes(head));
    taken.push(rest[largest(rest.map(({ weights }) => pattern(weights)))]);
  }
  const sorted = taken.toSorted((a, b) => a.l - b.l || a.h - b.h);
  return { heads: sorted, previous: sorted.map(({ weights }) => alongside(weights, -1)) };
}

/** @type {Exercise} */
const previous = {
  id: "heads-previous",
  async prepare(lesson) {
    const { heads, previous: shares } = fourHeads(await encoded(lesson, ARROW));
    const right = largest(shares);
    return {
      kind: "choice",
      question: `Heads specialise. One of these looks at the word *before* the one that looks. Find it above, in “${ARROW}”: which one?`,
      options: heads.map(({ l, h }) => `layer ${l}, head ${h}`),
      right,
      why: () =>
        `It gives ${percent(shares[right])} of its weight to the previous word, the mean over all words; the others give ${shares
          .filter((_, n) => n !== right)
          .map((share) => percent(share))
          .join(", ")}. Nobody told it to: it came of the training.`,
    };
  },
};

/** @type {Exercise} */
const width = {
  id: "heads-width",
  async prepare(lesson) {
    const { config } = await lesson.model("encoder");
    const right = config.dim / config.heads;
    return {
      kind: "number",
      question: `The encoder's vectors have ${config.dim} numbers, and a layer has ${config.heads} heads that divide them. How many numbers has the query of one head?`,
      right,
      tolerance: 0.5,
      digits: 0,
      why: () =>
        `${config.dim} / ${config.heads} = ${format(right, 0)}. ${config.heads} small heads cost no more than one large one, and can look at ${config.heads} places at once.`,
    };
  },
};

/** @type {Section} */
export const heads = {
  id: "heads",
  title: "Many heads",
  plain: ["split", "attention"],
  build: (lesson) => [
    p(
      "A single average can answer only one question: who did it, or when, or where? So ask several at once. Each *head* has a query, key and value of its own, of fewer numbers; the results are put side by side and mixed by one more matrix, `W_O`.",
    ),
    formula("head_h = softmax(Q_h K_h^T / √d) V_h", "output = [head_1, head_2, …] W_O"),
    lesson.exercise("heads-width"),
    h3("All heads of the encoder"),
    p(
      "Choose a layer and a head. Some look at the previous word, some at [SEP], some at the object of a verb; many at several things.",
    ),
    lesson.later(() => everyHead(lesson)),
    lesson.exercise("heads-previous"),
  ],
  exercises: [width, previous],
};
