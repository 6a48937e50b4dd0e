// A classification head: a small logistic regression, trained in the page on vectors of the encoder.

import { el } from "../../ui/dom.js";
import { format, percent } from "../../ui/format.js";
import { loss, probability, train, unit } from "../classifier.js";
import { meanOf } from "../layers.js";
import { vectorOf } from "../numbers.js";
import { formula, p } from "../prose.js";
import { encoded } from "../readings.js";
import { shownBars } from "../widgets/bars.js";
import { chart } from "../widgets/chart.js";
import { sentence } from "../widgets/sentence.js";
import { slider } from "../widgets/slider.js";

/** @import { Example } from "../classifier.js" */
/** @import { Exercise, Lesson, Section } from "../types.js" */
/** @typedef {{text: string, label: 0 | 1}} Labelled */

const CLASSES = ["complaint", "praise"];
/** @type {Labelled[]} */
const SENTENCES = [
  { text: "The soup was wonderful", label: 1 },
  { text: "Friendly people and a lovely room", label: 1 },
  { text: "We had a great time and will come back", label: 1 },
  { text: "The soup was cold and salty", label: 0 },
  { text: "Nobody answered when we called", label: 0 },
  { text: "The room was dirty and loud", label: 0 },
];
const STEPS = 200;
const NEW = "What a beautiful garden";

/**
 * The vector of a text: the mean of its tokens' last vectors, of length one.
 * @param {Pick<Lesson, "read">} lesson
 * @param {string} text
 */
async function vectorOfText(lesson, text) {
  const { hidden, tokens } = await encoded(lesson, text);
  const last = hidden.shape[0] - 1;
  return unit(meanOf(tokens.map((_, i) => vectorOf(hidden, last, i))));
}

/** @param {Pick<Lesson, "read">} lesson @param {Labelled[]} labelled @returns {Promise<Example[]>} */
const examplesOf = (lesson, labelled) =>
  Promise.all(labelled.map(async ({ text, label }) => ({ label, vector: await vectorOfText(lesson, text) })));

/**
 * A row of the table of sentences: a text and its class, both of which can be changed.
 * @param {Labelled} labelled changed in place
 * @param {number} n
 * @param {() => void} onChange
 */
function sentenceRow(labelled, n, onChange) {
  const text = el("input", { type: "text", value: labelled.text, "aria-label": `Sentence ${n + 1}`, maxlength: 120 });
  text.addEventListener("change", () => {
    const changed = text.value.trim();
    text.value = changed || labelled.text;
    if (text.value === labelled.text) return;
    labelled.text = text.value;
    onChange();
  });
  const label = el("input", { type: "checkbox", "aria-label": `Sentence ${n + 1} is ${CLASSES[1]}` });
  label.checked = labelled.label === 1;
  label.addEventListener("change", () => {
    labelled.label = label.checked ? 1 : 0;
    onChange();
  });
  return el("li", {}, el("div", { class: "row" }, text, el("label", {}, label, CLASSES[1])));
}

/** @param {Lesson} lesson */
async function playground(lesson) {
  const labelled = SENTENCES.map((given) => ({ ...given }));
  let [examples, tried, text, steps] = [await examplesOf(lesson, labelled), await vectorOfText(lesson, NEW), NEW, 0];
  const says = el("p", { class: "reads", role: "status" });
  const names = () => [...labelled.map((given) => given.text), text];
  const bars = shownBars({
    label: "The probability of “praise”, for each sentence and for the new one",
    words: names(),
    weights: names().map(() => 0.5),
    head: ["sentence", "praise"],
  });
  bars.node.classList.add("sentences");
  const curve = chart({
    label: "The loss after each step",
    x: "step",
    y: "loss",
    series: [{ name: "loss", points: [[0, Math.log(2)]] }],
    high: 0.8,
  });
  const update = () => {
    const { head, losses } = train(examples, steps);
    const probabilities = [...examples.map(({ vector }) => vector), tried].map((vector) => probability(head, vector));
    bars.set(names(), probabilities);
    const every = Math.max(1, Math.floor(steps / 20));
    const points = losses.flatMap((number, step) => (step % every && step !== steps ? [] : [[step, number]]));
    curve.set([{ name: "loss", points: /** @type {[number, number][]} */ (points) }]);
    const right = examples.filter(({ label }, n) => (probabilities[n] > 0.5 ? 1 : 0) === label).length;
    const last = probabilities[examples.length];
    says.textContent = `After ${steps} steps: loss ${format(loss(head, examples), 3)}, ${steps ? right : "no"} of ${examples.length} decided right. “${text}”: ${steps ? `${CLASSES[last > 0.5 ? 1 : 0]}, ${percent(last > 0.5 ? last : 1 - last)}` : "undecided, 50 %"}.`;
  };
  /** @param {() => Promise<void>} read */
  const reread = async (read) => {
    try {
      await read();
      update();
    } catch (error) {
      says.textContent = String(error instanceof Error ? error.message : error);
    }
  };
  const onChange = () =>
    reread(async () => {
      examples = await examplesOf(lesson, labelled);
    });
  const list = el("ol", { class: "labelled", "aria-label": "Sentences to learn from" });
  list.append(...labelled.map((given, n) => sentenceRow(given, n, onChange)));
  const fresh = sentence({
    label: "A new sentence",
    text: NEW,
    onText: (changed) =>
      reread(async () => {
        tried = await vectorOfText(lesson, changed);
        text = changed;
      }),
  });
  const training = slider({
    label: "Steps of training",
    min: 0,
    max: STEPS,
    step: 1,
    value: 0,
    say: String,
    onInput: (value) => {
      steps = value;
      update();
    },
  });
  update();
  return [list, fresh.node, training.node, says, bars.node, curve.node];
}

/** @type {Exercise} */
const negated = {
  id: "classification-negation",
  async prepare(lesson) {
    const text = "The soup was not cold";
    const { head } = train(await examplesOf(lesson, SENTENCES), STEPS);
    const praise = probability(head, await vectorOfText(lesson, text));
    const options = ["Praise, with more than 60 %", "Neither: between 40 and 60 %", "Complaint, with more than 60 %"];
    return {
      kind: "choice",
      question: `The head is trained for ${STEPS} steps on the six sentences, as they stood at first. What does it make of “${text}”?`,
      options,
      right: praise > 0.6 ? 0 : praise >= 0.4 ? 1 : 2,
      why: () =>
        `It gives praise ${percent(praise)} and complaint ${percent(1 - praise)}. Six sentences have told the head nothing about “not”: all it can use is which of them the new sentence is near to. Add one with “not” and see.`,
    };
  },
};

/** @type {Section} */
export const classificationHead = {
  id: "classification-head",
  title: "A classification head",
  plain: [],
  build: (lesson) => [
    p(
      "The vectors of an encoder know their context. To classify a text, one more matrix is enough; for two classes it is a single vector w. Its product with the vector of the text is a score, and the score becomes a probability.",
    ),
    formula("p = 1 / (1 + exp(−(w · x + b)))"),
    p(
      "BERT takes the vector of its first token for x. This encoder was trained to put the meaning of a text into the mean of all its vectors, so that is taken here. In training, each step moves w a little against the gradient of the loss, the mean of −log p of the right class.",
    ),
    p(
      "The encoder stays as it is: only w and b are learned, from the six sentences below, in this page. Move the steps, and see the decision move. Change a sentence or its class, praise or complaint, and type a new one.",
    ),
    lesson.later(() => playground(lesson)),
  ],
  exercises: [negated],
};
