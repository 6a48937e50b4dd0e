// Before the Transformer: a network that reads word by word, and Bahdanau's attention to its states.

import { el } from "../../ui/dom.js";
import { format, percent } from "../../ui/format.js";
import { average, dot, length, normalNumbers, softmax } from "../numbers.js";
import { formula, h3, p } from "../prose.js";
import { shownBars } from "../widgets/bars.js";
import { plane } from "../widgets/plane.js";
import { slider } from "../widgets/slider.js";

/** @import { Exercise, PlaneVector, Section } from "../types.js" */

const WORDS = ["the", "dog", "saw", "a", "cat"];

/** @param {number} rows @param {number} columns @param {number} seed @param {number} size */
function matrix(rows, columns, seed, size) {
  const next = normalNumbers(seed);
  return Array.from({ length: rows }, () => Array.from({ length: columns }, () => size * next()));
}

const [OF_WORD, OF_STATE] = [matrix(2, 2, 3, 1), matrix(2, 2, 8, 0.7)];
const [OF_DECODER, OF_MEMORY] = [matrix(6, 2, 21, 1.6), matrix(6, 2, 34, 1.6)];
const MIX = matrix(1, 6, 55, 1.1)[0];
const VECTORS = matrix(WORDS.length + 1, 2, 13, 1.1); // the last is that of the other word

/**
 * The states of a recurrent network: h_t = tanh(W x_t + U h_{t−1}).
 * @param {number[][]} vectors
 * @returns {[number, number][]}
 */
function states(vectors) {
  let state = [0, 0];
  return vectors.map((x) => {
    state = OF_WORD.map((row, n) => Math.tanh(dot(row, x) + dot(OF_STATE[n], state)));
    return [state[0], state[1]];
  });
}

const MEMORY = states(VECTORS.slice(0, WORDS.length));

/** The vectors of the words, one of them replaced. @param {number} k */
const replaced = (k) => WORDS.map((_, n) => VECTORS[n === k ? WORDS.length : n]);

/** How far each state is from where it was. @param {number} k the word that is replaced */
const changes = (k) =>
  states(replaced(k)).map((state, t) => length([state[0] - MEMORY[t][0], state[1] - MEMORY[t][1]]));

/**
 * Bahdanau's scores: v·tanh(A s + B h_j).
 * @param {ArrayLike<number>} state of the decoder
 */
const scores = (state) =>
  MEMORY.map((memory) =>
    dot(
      MIX,
      OF_DECODER.map((row, n) => Math.tanh(dot(row, state) + dot(OF_MEMORY[n], memory))),
    ),
  );

/** One word is replaced, and the states that change. */
function changedStates() {
  const bars = shownBars({
    ...{ label: "How far each state moves", words: WORDS, weights: changes(2), peak: 2 },
    ...{
      say: (/** @type {number} */ far) => format(far, 2),
      head: /** @type {[string, string]} */ (["state after", "moves"]),
    },
  });
  const says = el("p", { class: "reads", role: "status" });
  /** @param {number} k */
  const draw = (k) => {
    const moved = changes(k);
    bars.set(WORDS, moved);
    const count = moved.filter((far) => far > 0).length;
    says.textContent = `“${WORDS[k]}” is replaced: ${count} of ${WORDS.length} states change.`;
  };
  const which = slider({
    ...{ label: "Replace word", min: 1, max: WORDS.length, step: 1, value: 3 },
    say: (n) => `${n}, “${WORDS[n - 1]}”`,
    onInput: (n) => draw(n - 1),
  });
  draw(2);
  return el("div", {}, which.node, bars.node, says);
}

/** The decoder's state, to drag; the weights of the encoder's states, and their average. */
function bahdanau() {
  const bars = shownBars({ label: "Weights of the encoder's states", words: WORDS, weights: WORDS.map(() => 0) });
  const says = el("p", { class: "reads", role: "status" });
  /** @type {PlaneVector[]} */
  const vectors = MEMORY.map((at, n) => ({ name: WORDS[n], at, role: "key" }));
  vectors.push({ name: "decoder", at: [0.4, 0.9], role: "query", moves: true });
  vectors.push({ name: "context", at: [0, 0], role: "result" });
  /** @param {ArrayLike<number>} state */
  const draw = (state) => {
    const weights = softmax(scores(state));
    const context = average(weights, MEMORY);
    bars.set(WORDS, weights);
    drawing.set(WORDS.length + 1, [context[0], context[1]]);
    const most = weights.indexOf(Math.max(...weights));
    says.textContent = `The decoder looks most at the state after “${WORDS[most]}”: ${percent(weights[most])}. Context: (${context.map((number) => format(number, 2)).join(", ")}).`;
  };
  const drawing = plane({
    ...{ label: "The states of the encoder, the decoder's state, and the context", reach: 1.5, vectors },
    onMove: (moved) => draw(moved[WORDS.length].at),
  });
  draw(vectors[WORDS.length].at);
  return el("div", { class: "pair" }, drawing.node, el("div", {}, bars.node, says));
}

/** @type {Exercise} */
const change = {
  id: "recurrent-change",
  prepare() {
    const changed = changes(1).map((far) => far > 0);
    const options = ["only the second", "the first and the second", "the second and all after it", "all five"];
    const patterns = ["01000", "11000", "01111", "11111"];
    return {
      kind: "choice",
      question: `The network reads ${WORDS.map((word) => `“${word}”`).join(", ")}. Only the second word is replaced. Which of its five states change?`,
      options,
      right: patterns.indexOf(changed.map(Number).join("")),
      why: () =>
        "A state follows from its word and the state before it: what came earlier cannot know of a later word, and everything after it does. That is also why it is slow: the fifth state has to wait for the fourth.",
    };
  },
};

/** @type {Section} */
export const recurrent = {
  id: "recurrent",
  title: "Relevance in a recurrent network",
  plain: ["softmax"],
  build: (lesson) => [
    p(
      "Before Transformers, one network, the *encoder*, read a sentence word by word and kept a *state*, its memory of what it had read so far. A second network, the *decoder*, wrote the translation.",
    ),
    formula("h_t = tanh(W x_t + U h_{t−1})"),
    lesson.exercise("recurrent-change"),
    p("Here is a small one, with two numbers in a state. Replace a word, and see which states move."),
    changedStates(),
    h3("Looking back"),
    p(
      "Bahdanau, Cho and Bengio let the decoder look back at all states of the encoder. For each word that it writes, every state gets a *score* for how relevant it is at that moment; the scores become weights, and the weighted average of the states, the *context*, helps to choose the next word.",
    ),
    formula("score_j = v · tanh(A s + B h_j)", "weights = softmax(scores)", "context = Σ_j weight_j h_j"),
    p("Drag the decoder's state, or focus it and use the arrow keys: the weights follow at once."),
    bahdanau(),
    p(
      "The weights work well. The reading is slow, for a reason that no faster machine removes: each state depends on the one before. So keep the weights, and drop the recurrent network.",
    ),
  ],
  exercises: [change],
};
