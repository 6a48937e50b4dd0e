// The encoder: layer after layer, and how far each word has moved.

import { el } from "../../ui/dom.js";
import { count, format } from "../../ui/format.js";
import { cosine, largest, wordVector } from "../numbers.js";
import { formula, p } from "../prose.js";
import { ARROW, encoded } from "../readings.js";
import { apartIn, layersOf, moved, toOrder, wordPlaces } from "../vectors.js";
import { shownBars, told } from "../widgets/bars.js";
import { keepingFocus } from "../widgets/focus.js";
import { heat } from "../widgets/heat.js";
import { sentence } from "../widgets/sentence.js";
import { slider } from "../widgets/slider.js";

/** @import { Pass } from "../../model/types.js" */
/** @import { Exercise, Lesson, Section } from "../types.js" */

const TEXTS = ["She sat on the bank of the river", "The bank raised its interest rates", ARROW];
const BASE = TEXTS[0];
const BANKS = ["They rested on the river bank", "The bank lent him money", "A bank of fog lay over the sea"];

/** @param {number} after */
const layerName = (after) => (after ? `after layer ${after - 1}` : "before the first layer");

/**
 * The words of a text, the cosines between their vectors after a layer, and how far they have moved.
 * @param {Pass} pass
 * @param {number} after
 */
function stateOf(pass, after) {
  const places = wordPlaces(pass);
  const vectors = places.map((u) => wordVector(pass, after, u));
  return {
    words: told(places.map((u) => pass.units[u].text)),
    distances: moved(pass, after),
    cosines: vectors.map((vector) => vectors.map((other) => cosine(vector, other))),
  };
}

/**
 * In a sentence, which word has moved most and which word it is nearest to.
 * @param {ReturnType<typeof stateOf>} state
 * @param {number} after
 */
function summary({ words, distances, cosines }, after) {
  if (!after) return "Before the first layer, each vector holds the word, its place, and nothing else.";
  const most = largest(distances);
  const others = cosines[most].map((number, n) => (n === most ? -Infinity : number));
  const nearest = words.length > 1 ? ` Its nearest word is “${words[largest(others)]}”.` : "";
  return `After layer ${after - 1}, “${words[most]}” has moved most, by ${format(distances[most], 2)}.${nearest}`;
}

/** @param {Lesson} lesson */
async function playground(lesson) {
  const read = (/** @type {string} */ text) => encoded(lesson, text);
  let [pass, after] = [await read(BASE), 0];
  const says = el("p", { class: "reads", role: "status" });
  const place = el("div");
  const first = stateOf(pass, after);
  const bars = shownBars({
    label: "How far each word’s vector has moved from where it began (1 − cosine)",
    words: first.words,
    weights: first.distances,
    say: (number) => format(number, 3),
    head: ["word", "moved"],
  });
  const update = () => {
    const state = stateOf(pass, after);
    bars.set(state.words, state.distances);
    const label = `The cosine between the words’ vectors ${layerName(after)}`;
    const { node } = heat({ label, rows: state.words, values: state.cosines, peak: 1, signed: true });
    keepingFocus(place, () => place.replaceChildren(el("p", { class: "hint" }, label), node));
    says.textContent = summary(state, after);
  };
  const text = sentence({
    label: "Text",
    text: BASE,
    texts: TEXTS,
    onText: async (changed) => {
      try {
        pass = await read(changed);
        update();
      } catch (error) {
        says.textContent = String(error instanceof Error ? error.message : error);
      }
    },
  });
  const layer = slider({
    label: "Layer",
    min: 0,
    max: layersOf(pass),
    step: 1,
    value: 0,
    say: layerName,
    onInput: (value) => {
      after = value;
      update();
    },
  });
  update();
  return [text.node, layer.node, says, bars.node, place];
}

/** @type {Exercise} */
const furthest = {
  id: "encoder-furthest",
  async prepare(lesson) {
    const pass = await encoded(lesson, ARROW);
    const words = wordPlaces(pass).map((u) => pass.units[u].text);
    const distances = moved(pass, layersOf(pass));
    return {
      kind: "choice",
      question: `The encoder reads “${pass.text}” in ${count(layersOf(pass), "layer")}. Whose vector is in the end *furthest* from where it began?`,
      options: words.map((word) => `“${word}”`),
      right: largest(distances),
      why: () => `1 − cosine: ${words.map((word, n) => `“${word}” ${format(distances[n], 2)}`).join(", ")}.`,
    };
  },
};

/** @type {Exercise} */
const banks = {
  id: "encoder-banks",
  async prepare(lesson) {
    const read = (/** @type {string} */ text) => encoded(lesson, text);
    const [base, ...others] = await Promise.all([BASE, ...BANKS].map(read));
    const distances = others.map((other) => apartIn(base, other, "bank"));
    const { items, right } = toOrder(BANKS.map((text, n) => [`“${text}”`, -distances[n]]));
    return {
      kind: "order",
      question: `In which of these texts is “bank” nearest to the “bank” of “${BASE}”, after the last layer?`,
      items,
      ends: ["nearest", "furthest"],
      right,
      why: () =>
        `1 − cosine: ${BANKS.map((text, n) => `“${text}” ${format(distances[n], 2)}`).join(", ")}. Before the first layer all four vectors are the same but for the position: what tells them apart came from the other words.`,
    };
  },
};

/** @type {Section} */
export const encoder = {
  id: "encoder",
  title: "The encoder",
  plain: ["encoder_layer", "encoder"],
  build: (lesson) => [
    p(
      "Attention, then feed-forward, each with a residual connection and a norm: that is a layer. Embeddings and a stack of layers: that is an encoder, and BERT is exactly this.",
    ),
    formula("a = norm(x + attention(x))", "x′ = norm(a + feed-forward(a))"),
    p(
      "Token ids go in, and after each layer a vector for every token comes out. Read a text, then step through the layers of all-MiniLM-L6-v2. Watch how far each word moves from its entry in the dictionary, and which words come near each other.",
    ),
    lesson.later(() => playground(lesson)),
    p(
      "No layer needs another size or another kind of input than the one before: each one takes a vector for every word and gives one back. So you may stop after any layer and look.",
    ),
  ],
  exercises: [furthest, banks],
};
