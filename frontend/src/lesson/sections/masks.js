// Masks: what a word must not see gets the weight 0, and the others share what it had.

import { el } from "../../ui/dom.js";
import { format, percent } from "../../ui/format.js";
import { maskedWeights } from "../layers.js";
import { scoresOf, sum } from "../numbers.js";
import { formula, p } from "../prose.js";
import { ARROW, encoded, HEAD, LAYER } from "../readings.js";
import { changedTokens } from "../vectors.js";
import { keepingFocus } from "../widgets/focus.js";
import { heat } from "../widgets/heat.js";
import { sentence } from "../widgets/sentence.js";
import { options, slider } from "../widgets/slider.js";

/** @import { Pass } from "../../model/types.js" */
/** @import { MaskName } from "../layers.js" */
/** @import { Exercise, Lesson, Section } from "../types.js" */

/** @type {MaskName[]} */
const MASKS = ["all", "causal", "lengths", "window"];
const NAMES = ["none", "causal", "lengths", "window"];

/**
 * The scaled scores of one head.
 * @param {Pass} pass
 * @param {number} l
 * @param {number} h
 */
function scaledScores({ layers }, l, h) {
  const { scale } = layers[l];
  return scoresOf(layers[l], h).map((row) => row.map((score) => scale * score));
}

/**
 * What the mask does, in a sentence.
 * @param {MaskName} mask
 * @param {number} reach
 * @param {string[]} words
 */
function described(mask, reach, words) {
  if (mask === "causal")
    return "Each word sees itself and what came before it. The first has only itself, and gets 100 %.";
  if (mask === "lengths")
    return reach < words.length
      ? `Only the first ${reach} are text: from “${words[reach]}” on, all is taken for padding.`
      : "All of them are text: nothing is masked.";
  if (mask === "window") return `Each word sees at most ${reach} to the left and ${reach} to the right.`;
  return "Every word sees every word.";
}

/** @param {Lesson} lesson */
async function playground(lesson) {
  const read = (/** @type {string} */ text) => encoded(lesson, text);
  let pass = await read(ARROW);
  /** @type {MaskName} */
  let mask = "all";
  let [layer, head, reach] = [LAYER, HEAD, 2];
  const says = el("p", { class: "reads", role: "status" });
  const place = el("div");
  const update = () => {
    const words = pass.tokens.map(({ text }) => text);
    const weights = maskedWeights(scaledScores(pass, layer, head), mask, reach);
    const label = `Weights of layer ${layer}, head ${head}: a row for each word that looks`;
    const { node } = heat({ label, rows: words, values: weights, peak: 1 });
    keepingFocus(place, () => place.replaceChildren(node));
    says.textContent = `${described(mask, reach, words)} Each row sums to ${format(Math.max(...weights.map(sum)), 2)}.`;
  };
  /** @param {string} name @param {number} min @param {number} max @param {number} value @param {(value: number) => void} take @param {(value: number) => string} [say] */
  const number = (name, min, max, value, take, say = String) =>
    slider({
      label: name,
      min,
      max,
      step: 1,
      value,
      say,
      onInput: (changed) => {
        take(changed);
        update();
      },
    });
  const reaches = number("Words", 1, 6, reach, (value) => {
    reach = value;
  });
  reaches.node.hidden = true;
  const choice = options({
    label: "Mask",
    options: NAMES,
    onChoose: (n) => {
      mask = MASKS[n];
      reaches.node.hidden = mask === "all" || mask === "causal";
      update();
    },
  });
  const layers = number("Layer", 0, pass.layers.length - 1, layer, (value) => {
    layer = value;
  });
  const heads = number("Head", 0, pass.layers[0].query.shape[0] - 1, head, (value) => {
    head = value;
  });
  const text = sentence({
    label: "Text",
    text: ARROW,
    onText: async (changed) => {
      try {
        pass = await read(changed);
        update();
      } catch (error) {
        says.textContent = String(error instanceof Error ? error.message : error);
      }
    },
  });
  update();
  return [text.node, choice.node, reaches.node, place, says, layers.node, heads.node];
}

/** @type {Exercise} */
const renormalised = {
  id: "masks-weights",
  async prepare(lesson) {
    const pass = await encoded(lesson, ARROW);
    const row = pass.tokens.findIndex(({ text }) => text === "flies");
    const scores = scaledScores(pass, LAYER, HEAD);
    const [free, masked] = ["all", "causal"].map(
      (mask) => maskedWeights(scores, /** @type {MaskName} */ (mask), 0)[row],
    );
    const words = pass.tokens.map(({ text }) => text);
    const list = words.map((word, j) => `${word} ${percent(free[j])}`).join(", ");
    return {
      kind: "weights",
      question: `In layer ${LAYER}, head ${HEAD}, “flies” gives: ${list}. Now mask the future. Draw the weights of “flies”.`,
      words,
      right: masked,
      tolerance: 0.1,
      why: () =>
        `The words after “flies” get exp(−∞) = 0. What remains is divided by its sum, ${format(sum(free.slice(0, row + 1)), 3)}, so that it is one again. The ratios between the words that are seen stay as they were.`,
    };
  },
};

/** @type {Exercise} */
const later = {
  id: "masks-later",
  async prepare(lesson) {
    const texts = ["The cat sat on the mat", "The cat slept on the mat"];
    const [a, b] = await Promise.all(texts.map((text) => encoded(lesson, text, { causal: true })));
    const words = [...a.tokens.keys()].filter((i) => !a.tokens[i].special);
    const place = words.findIndex((i) => a.tokens[i].text !== b.tokens[i].text);
    const changed = changedTokens(a, b).flatMap((i) => (words.includes(i) ? [words.indexOf(i)] : []));
    const all = [...words.keys()];
    const answers = [all, [place], all.slice(0, place + 1), all.slice(place)];
    return {
      kind: "choice",
      question: `The encoder reads “${texts[0]}” with a causal mask in every layer. Then “sat” becomes “slept”. Whose vectors after the last layer change?`,
      options: [
        "Those of all words",
        "That of the changed word alone",
        "Those of “The”, “cat” and the changed word",
        "Those of the changed word and of all words after it",
      ],
      right: answers.findIndex((places) => String(places) === String(changed)),
      why: () =>
        `Those that changed, computed: ${changed.map((n) => `“${b.tokens[words[n]].text}”`).join(", ")}. No word before the change can see it, in any layer. So a model can learn from all words of a text at once: each position sees exactly what it would see while writing.`,
    };
  },
};

/** @type {Section} */
export const masks = {
  id: "masks",
  title: "Masks",
  plain: ["causal"],
  build: (lesson) => [
    p(
      "Sometimes a word must not attend everywhere. The texts of a batch are padded to the same length, and nothing should attend to the padding: that is a mask by *lengths*. A decoder must not see words that are not yet written: that is the *causal* mask. A *window* lets each word see its neighbourhood alone, which makes long texts cheaper.",
    ),
    formula("w_{ij} = exp(s_{ij}) / Σ_k exp(s_{ik}),  s_{ij} = −∞ where j is masked"),
    p(
      "A masked score is −∞, and exp(−∞) is 0. The softmax divides by the sum of what is left, so each row still sums to one. Mask a real sentence, in any head of the encoder.",
    ),
    lesson.later(() => playground(lesson)),
    p(
      "Here the mask is put on one head of a model that was trained without it. A decoder is trained with the causal mask in all layers, and has learned to make do with the past.",
    ),
  ],
  exercises: [renormalised, later],
};
