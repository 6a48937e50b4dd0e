// The opening: the same word in two sentences, the supermarket and the weighted average, on a real model's numbers.

import { el } from "../../ui/dom.js";
import { capitalized, format, percent } from "../../ui/format.js";
import { average, descending, findWord, vectorOf } from "../numbers.js";
import { h3, p } from "../prose.js";
import { ARROW, BANANA, encoded, HEAD, headWeights, LAYER, namesOf, sharedWords } from "../readings.js";
import { shownBars } from "../widgets/bars.js";
import { lines } from "../widgets/lines.js";
import { sentence } from "../widgets/sentence.js";
import { slider } from "../widgets/slider.js";

/** @import { Pass } from "../../model/types.js" */
/** @import { Child, Exercise, Lesson, Section } from "../types.js" */

/** @param {number} after */
const stage = (after) => (after === 0 ? "before the first layer" : `after layer ${after - 1}`);

/**
 * The word whose two vectors are furthest apart, in a sentence.
 * @param {ReturnType<typeof sharedWords>} shared
 * @param {number} after
 */
function furthest(shared, after) {
  if (!shared.length) return "The two sentences have no word in common.";
  const [most] = descending(shared.map(({ apart }) => apart[after]));
  const far = format(shared[most].apart[after], 2);
  const where = capitalized(stage(after));
  if (far === "0.00") return `${where}, the words that both sentences have are the same vectors.`;
  return `${where}, “${shared[most].word}” is furthest apart: ${far}.`;
}

/**
 * Two sentences to edit, and how far the vectors of their common words are apart, layer by layer.
 * @param {Lesson} lesson
 * @returns {Promise<Child[]>}
 */
async function changedWord(lesson) {
  const texts = [ARROW, BANANA];
  let shared = sharedWords(await encoded(lesson, texts[0]), await encoded(lesson, texts[1]));
  let after = 0;
  const says = el("p", { class: "reads", role: "status" });
  const bars = shownBars({
    label: "",
    words: [],
    weights: [],
    say: (apart) => format(apart, 2),
    head: ["word", "apart"],
  });
  const draw = () => {
    bars.set(
      shared.map(({ word }) => word),
      shared.map(({ apart }) => apart[after]),
    );
    bars.node.querySelector("caption")?.replaceChildren(`How far apart: 1 − cosine, ${stage(after)}`);
    says.textContent = furthest(shared, after);
  };
  const fields = texts.map((text, n) =>
    sentence({
      label: n ? "Second sentence" : "First sentence",
      text,
      onText: async (typed) => {
        texts[n] = typed;
        const [a, b] = await Promise.all(texts.map((other) => encoded(lesson, other)));
        if (texts[n] !== typed) return;
        shared = sharedWords(a, b);
        draw();
      },
    }),
  );
  const layer = slider({
    ...{ label: "Compare", min: 0, max: 6, step: 1, value: after, say: stage },
    onInput: (value) => {
      after = value;
      draw();
    },
  });
  draw();
  return [...fields.map(({ node }) => node), layer.node, bars.node, says];
}

/**
 * A sentence, the word that looks, its head's weights, and one number of the average that it takes home.
 * @param {Lesson} lesson
 * @returns {Promise<Child[]>}
 */
async function shopping(lesson) {
  let pass = await encoded(lesson, BANANA);
  const home = el("div");
  const view = lines({
    label: `Weights of layer ${LAYER}, head ${HEAD}`,
    rows: namesOf(pass),
    weights: headWeights(pass, LAYER, HEAD),
    chosen: findWord(pass, "flies"),
    onChoose: () => draw(),
  });
  let number = 0;
  const draw = () => home.replaceChildren(...takenHome(pass, view.chosen(), number));
  const field = sentence({
    label: "Sentence",
    text: BANANA,
    texts: [BANANA, "Fruit flies eat a banana", "The plane flies to Rome"],
    onText: async (typed) => {
      pass = await encoded(lesson, typed);
      view.set({
        rows: namesOf(pass),
        weights: headWeights(pass, LAYER, HEAD),
        chosen: Math.max(0, findWord(pass, "flies")),
      });
      draw();
    },
  });
  const which = slider({
    ...{ label: "Which number of the vectors", min: 1, max: pass.layers[LAYER].value.shape[2], step: 1, value: 1 },
    say: String,
    onInput: (value) => {
      number = value - 1;
      draw();
    },
  });
  draw();
  return [field.node, view.node, h3("What it takes home"), homeSays(), which.node, home];
}

const homeSays = () =>
  p(
    "The vector that a word takes home is the *weighted average* of all the values: each number of it is weight times value, summed. A word of several tokens has a row for its first.",
  );

/**
 * One number of the average, term by term.
 * @param {Pass} pass
 * @param {number} u
 * @param {number} d
 * @returns {Child[]}
 */
function takenHome(pass, u, d) {
  const { value, output } = pass.layers[LAYER];
  const weights = headWeights(pass, LAYER, HEAD)[u];
  const values = pass.units.map(({ tokens }) => vectorOf(value, HEAD, tokens[0]));
  const rows = namesOf(pass).map((word, j) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, el("bdi", {}, word)),
      el("td", { class: "number" }, percent(weights[j])),
      el("td", { class: "number" }, format(values[j][d], 3)),
      el("td", { class: "number" }, format(weights[j] * values[j][d], 3)),
    ),
  );
  const head = ["word", "weight", "its value", "product"].map((name, n) =>
    el("th", { scope: "col", class: n ? "number" : null }, name),
  );
  const sum = average(weights, values)[d];
  const model = vectorOf(output, HEAD, pass.units[u].tokens[0])[d];
  const table = el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows));
  const isWhole = pass.units.every(({ tokens }) => tokens.length === 1);
  const same = isWhole ? ` The model itself has ${format(model, 3)}.` : "";
  return [
    el("div", { class: "scroll" }, table),
    el(
      "p",
      { class: "reads", role: "status" },
      `Number ${d + 1} of what “${namesOf(pass)[u]}” takes home: ${format(sum, 3)}.${same}`,
    ),
  ];
}

/** @type {Exercise} */
const moves = {
  id: "flies-moves",
  async prepare(lesson) {
    const replaced = ARROW.replace("Time", "Fruit");
    const after = 5;
    const shared = sharedWords(await encoded(lesson, ARROW), await encoded(lesson, replaced));
    const items = shared.map(({ word }) => word).reverse();
    const apart = items.map((item) => shared.find(({ word }) => word === item)?.apart[after] ?? 0);
    return {
      kind: "order",
      question: `In “${ARROW}”, only “Time” is replaced by “Fruit”. Put the other words in order by how far their vectors move, compared ${stage(after)}.`,
      items,
      ends: ["the one that moves most", "the one that moves least"],
      right: descending(apart),
      why: () =>
        `1 − cosine is ${descending(apart)
          .map((n) => `${format(apart[n], 3)} for “${items[n]}”`)
          .join(", ")}. The word whose meaning depends on the one that was changed moves the most.`,
    };
  },
};

/** @type {Exercise} */
const draw = {
  id: "flies-draw",
  async prepare(lesson) {
    const pass = await encoded(lesson, ARROW);
    const words = namesOf(pass);
    const right = headWeights(pass, LAYER, HEAD)[findWord(pass, "flies")];
    const [first, second] = descending(right);
    return {
      kind: "weights",
      question: `Which word will “flies” look at most in layer ${LAYER}, head ${HEAD}, of “${ARROW}”? Draw the weights.`,
      words,
      right,
      tolerance: 0.25,
      why: () =>
        `“flies” gives ${percent(right[first])} of its weight to “${words[first]}” and ${percent(right[second])} to “${words[second]}”. A head that needs nothing else leaves its weight at [CLS].`,
    };
  },
};

/** @type {Section} */
export const flies = {
  id: "flies",
  title: "One word, two meanings",
  plain: ["encoder", "one_head"],
  build: (lesson) => [
    p(
      `“${ARROW}.” “${BANANA}.” The word “flies” is spelt alike in both, and you read two different words: what time does, and an insect. You knew from the neighbours. *Self-attention* is how a network does the same, and you can see it here on a real one: an encoder of 6 layers with 12 heads each, which runs in this page. What you type stays here.`,
    ),
    h3("Change one word"),
    p(
      "The model begins with one vector for each word, as a dictionary has one entry. Layer by layer, the neighbours change it. Move the slider from before the first layer on, and see which vectors of the two sentences come apart. Then edit a word. (In the last layer all words take in the sentence as a whole: this model is trained to make one vector of it.)",
    ),
    lesson.later(() => changedWord(lesson)),
    lesson.exercise("flies-moves"),
    h3("A supermarket"),
    p(
      "How does a word find the neighbours that matter? Think of a supermarket. Each word comes with a *query*: what its recipe needs. Each word also is a shelf with a *key*, the label that is compared with the query, and a *value*, what there is to take home. The better a label matches, the larger the *weight*, and the more is taken from that shelf; the weights sum to one.",
    ),
    p(
      "Choose the word that looks, with the pointer or with ↑ and ↓. Change the sentence, and see where “flies” looks now. ([CLS] and [SEP] stand around every text that this model reads.)",
    ),
    lesson.later(() => shopping(lesson)),
    lesson.exercise("flies-draw"),
  ],
  exercises: [moves, draw],
};
