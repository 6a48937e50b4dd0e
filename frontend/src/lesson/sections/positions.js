// Positions: without them, the order of the words changes nothing.

import { el } from "../../ui/dom.js";
import { format } from "../../ui/format.js";
import { angleOf } from "../layers.js";
import { largest, vectorOf } from "../numbers.js";
import { formula, h3, p } from "../prose.js";
import { encoded } from "../readings.js";
import { apart, apartIn, layersOf, wordPlaces } from "../vectors.js";
import { shownBars } from "../widgets/bars.js";
import { clocks } from "../widgets/clocks.js";
import { swapped } from "../widgets/sentence.js";
import { options, slider } from "../widgets/slider.js";

/** @import { Exercise, Lesson, Section } from "../types.js" */

const WORDS = ["Dog", "bites", "man", "again"];
const BASE = "dog bites man";
const TURNED = "man bites dog";
const DIM = 8; // of the clocks

/**
 * How far each word's last vector is from the one that it has in the sentence as it first stood.
 * @param {Pick<Lesson, "read">} lesson
 * @param {number[]} order the places that the words had
 * @param {boolean} positions
 */
async function changes(lesson, order, positions) {
  const sentence = (/** @type {number[]} */ places) => places.map((place) => WORDS[place]).join(" ");
  const [first, now] = await Promise.all(
    [WORDS.map((_, n) => n), order].map(async (places) => encoded(lesson, sentence(places), { positions })),
  );
  const [before, after] = [wordPlaces(first), wordPlaces(now)];
  const last = layersOf(first);
  return WORDS.map((_, place) =>
    apart(vectorOf(first.hidden, last, before[place]), vectorOf(now.hidden, last, after[order.indexOf(place)])),
  );
}

/** @param {Lesson} lesson */
async function playground(lesson) {
  let [order, positions] = [WORDS.map((_, n) => n), true];
  const bars = shownBars({
    label: "How far the last vector of each word is from that in “Dog bites man again” (1 − cosine)",
    words: WORDS,
    weights: await changes(lesson, order, positions),
    say: (number) => format(number, 3),
    peak: 0.25,
    head: ["word", "distance"],
  });
  const says = el("p", { class: "reads", role: "status" });
  const update = async () => {
    const asked = [order, positions];
    const distances = await changes(lesson, order, positions);
    if (asked[0] !== order || asked[1] !== positions) return; // it has changed meanwhile
    bars.set(WORDS, distances);
    const isMoved = order.some((place, n) => place !== n);
    says.textContent = !isMoved
      ? "The words stand as they did at first: swap two of them."
      : distances.every((distance) => distance < 1e-5)
        ? "No vector has changed: without positions, both sentences are the same."
        : `With positions, “${WORDS[largest(distances)]}” has changed most.`;
  };
  const words = swapped({
    label: "The sentence",
    words: WORDS,
    onSwap: (_, at) => {
      order = order.slice();
      [order[at], order[at + 1]] = [order[at + 1], order[at]];
      update();
    },
  });
  const choice = options({
    label: "Positions",
    options: ["on", "off"],
    onChoose: (n) => {
      positions = n === 0;
      update();
    },
  });
  await update();
  return [words.node, choice.node, bars.node, says];
}

/** Four clocks that show a position. */
function sinusoids() {
  const places = Array.from({ length: DIM / 2 }, (_, k) => k);
  /** @param {number} position */
  const angles = (position) => places.map((k) => angleOf(position, k, DIM));
  const drawing = clocks({
    label: "A clock for each pair of numbers",
    names: places.map((k) => `once in ${format(2 * Math.PI * 10000 ** ((2 * k) / DIM), k ? 0 : 1)} words`),
    angles: angles(0),
  });
  const position = slider({
    label: "Position",
    min: 0,
    max: 100,
    step: 1,
    value: 0,
    say: String,
    onInput: (value) => drawing.set(angles(value)),
  });
  return [position.node, drawing.node];
}

/** @type {Exercise} */
const without = {
  id: "positions-without",
  async prepare(lesson) {
    const texts = [TURNED, "bites man dog", "dog loves man", "man dog bites"];
    const read = (/** @type {string} */ text) => encoded(lesson, text, { positions: false });
    const [base, ...others] = await Promise.all([BASE, ...texts].map(read));
    const distances = others.map((other) => apartIn(base, other, "man"));
    return {
      kind: "choice",
      question: `The positions are switched off. In which text does “man” end with *another* vector than in “${BASE}”?`,
      options: texts.map((text) => `“${text}”`),
      right: largest(distances),
      why: () =>
        `1 − cosine, computed by the encoder: ${texts.map((text, n) => `“${text}” ${format(distances[n], 4)}`).join(", ")}. Attention is an average, and an average does not know in which order its parts came. Only another word makes another average.`,
    };
  },
};

/** @type {Exercise} */
const withPositions = {
  id: "positions-with",
  async prepare(lesson) {
    const words = BASE.split(" ");
    const [base, turned] = await Promise.all([BASE, TURNED].map((text) => encoded(lesson, text)));
    const distances = words.map((word) => apartIn(base, turned, word));
    return {
      kind: "choice",
      question: `Now with positions: “${BASE}” becomes “${TURNED}”. Whose vector after the last layer changes most?`,
      options: words.map((word) => `“${word}”`),
      right: largest(distances),
      why: () =>
        `1 − cosine: ${words.map((word, n) => `“${word}” ${format(distances[n], 3)}`).join(", ")}. Every vector changes, also that of a word that stays in its place: its neighbours are others now.`,
    };
  },
};

/** @type {Section} */
export const positions = {
  id: "positions",
  title: "Positions",
  plain: ["embed"],
  build: (lesson) => [
    p(
      "There is a gap in all this: an average knows nothing about order. “Dog bites man” would be the same as “man bites dog”. So a vector for its position is added to each word before the first layer.",
    ),
    p(
      "Here a trained encoder, all-MiniLM-L6-v2, reads a sentence. Swap two words and see which vectors change. Then switch the positions off.",
    ),
    lesson.later(() => playground(lesson)),
    lesson.exercise("positions-without"),
    lesson.exercise("positions-with"),
    h3("Many clocks"),
    p(
      "BERT and this encoder learn a vector for each position. In the original paper the vectors are sines and cosines of many frequencies, like the hands of many clocks: the first turns fast and tells neighbours apart, the last turns slowly and tells the beginning of a long text from its end.",
    ),
    formula("p_{2k} = sin(n / 10000^{2k/d}),  p_{2k+1} = cos(n / 10000^{2k/d})"),
    ...sinusoids(),
    p(
      "A step of so many words turns each hand by the same angle, wherever it begins. So a matrix that turns the hands is a step, and a model can learn to look so many words back.",
    ),
  ],
  exercises: [without, withPositions],
};
