// Contextualised embeddings: one entry in the dictionary, as many vectors as there are sentences.

import { el } from "../../ui/dom.js";
import { format } from "../../ui/format.js";
import { cosine, descending, findWord, wordVector } from "../numbers.js";
import { p } from "../prose.js";
import { ARROW, BANANA, encoded } from "../readings.js";
import { chart } from "../widgets/chart.js";
import { sentence } from "../widgets/sentence.js";
import { options } from "../widgets/slider.js";

/** @import { Pass } from "../../model/types.js" */
/** @import { Child, Exercise, Lesson, Section, Series } from "../types.js" */

const EXAMPLES = [
  { word: "flies", texts: [ARROW, BANANA, "Time flies when we have fun"] },
  { word: "bank", texts: ["He sat on the bank of the river", "The bank lent him money", "She swam to the bank"] },
  {
    word: "spring",
    texts: ["The flowers bloom in spring", "The spring of the clock is broken", "Summer comes after spring"],
  },
];

/**
 * The cosine of a word's vectors in two texts, before the first layer and after each.
 * @param {Pass} a
 * @param {Pass} b
 * @param {string} word
 * @returns {[number, number][]}
 */
function similarity(a, b, word) {
  const [u, v] = [findWord(a, word), findWord(b, word)];
  if (u < 0 || v < 0) return [];
  return Array.from({ length: a.hidden.shape[0] }, (_, after) => [
    after,
    cosine(wordVector(a, after, u), wordVector(b, after, v)),
  ]);
}

/**
 * A word in three sentences to edit, and the curves of its similarity.
 * @param {Lesson} lesson
 * @returns {Promise<Child[]>}
 */
async function curves(lesson) {
  let { word, texts } = EXAMPLES[0];
  texts = texts.slice();
  const says = el("p", { class: "reads", role: "status" });
  /** @returns {Promise<Series[]>} */
  const series = async () => {
    const [first, ...others] = await Promise.all(texts.map((text) => encoded(lesson, text)));
    return others
      .map((pass) => ({ name: pass.text, points: similarity(first, pass, word) }))
      .filter(({ points }) => points.length);
  };
  const drawing = chart({
    ...{
      label: "Cosine with the word in the first sentence",
      x: "layers passed",
      y: "cosine",
      low: 0.2,
      series: await series(),
    },
  });
  let asked = 0;
  const draw = async () => {
    const turn = ++asked;
    const found = await series();
    if (turn !== asked) return; // a later text is being read
    if (found.length) drawing.set(found);
    const ends = found.map(({ name, points }) => `${format(points[points.length - 1][1], 2)} in “${name}”`);
    says.textContent = ends.length
      ? `“${word}”, after the last layer: ${ends.join(", ")}.`
      : `“${word}” has to be in the first sentence and in another.`;
  };
  const fields = texts.map((text, n) =>
    sentence({
      label: n ? `Sentence ${n + 1}` : "First sentence",
      text,
      onText: (typed) => {
        texts[n] = typed;
        draw();
      },
    }),
  );
  const choice = options({
    label: "Word",
    options: EXAMPLES.map((example) => example.word),
    onChoose: (n) => {
      word = EXAMPLES[n].word;
      texts = EXAMPLES[n].texts.slice();
      for (const [place, field] of fields.entries()) field.set(texts[place]);
      draw();
    },
  });
  await draw();
  return [choice.node, ...fields.map(({ node }) => node), drawing.node, says];
}

/** @type {Exercise} */
const order = {
  id: "contextual-order",
  async prepare(lesson) {
    const items = ["The plane flies to Rome", "The flies buzz around the fruit", "Time flies when we have fun"];
    const base = await encoded(lesson, ARROW);
    const passes = await Promise.all(items.map((text) => encoded(lesson, text)));
    const ends = passes.map((pass) => similarity(base, pass, "flies")[6][1]);
    return {
      kind: "order",
      question: `Compare “flies” in “${ARROW}” with “flies” in these sentences, after the last layer. Put them in order of similarity.`,
      items,
      ends: ["the most similar “flies”", "the least similar"],
      right: descending(ends),
      why: () =>
        `The cosines are ${descending(ends)
          .map((n) => `${format(ends[n], 2)} for “${items[n]}”`)
          .join(", ")}. The word is spelt alike in all of them; only the neighbours can have made the difference.`,
    };
  },
};

/** @type {Section} */
export const contextual = {
  id: "contextual",
  title: "Contextualised embeddings",
  plain: ["encoder"],
  build: (lesson) => [
    p(
      "A dictionary has one entry for “flies”. Before the first layer, so has the model: the same word at the same place is the same vector, whatever stands around it. A weighted average makes the difference through the neighbours: the same vector goes in, and different ones come out.",
    ),
    lesson.exercise("contextual-order"),
    p(
      "The *cosine* says how far two vectors point in the same direction: 1 is the same direction, 0 is none in common. Choose a word, edit the sentences, and see after how many layers the model tells them apart. (A word at another place begins a little below 1: its place is part of what goes in.)",
    ),
    lesson.later(() => curves(lesson)),
  ],
  exercises: [order],
};
