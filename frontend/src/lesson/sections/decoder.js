// The decoder: it predicts the next token, and writes by doing so again and again.

import { el } from "../../ui/dom.js";
import { format, percent } from "../../ui/format.js";
import { largest, sum } from "../numbers.js";
import { formula, h3, p } from "../prose.js";
import { decoderOf, wordPlaces } from "../vectors.js";
import { candidates, candidatesOf, visible } from "../widgets/candidates.js";
import { sentence } from "../widgets/sentence.js";

/** @import { Model } from "../../model/types.js" */
/** @import { Candidate } from "../widgets/candidates.js" */
/** @import { Exercise, Lesson, Section } from "../types.js" */

const BEGINNING = "Once upon a time, there was a little";
const BEGINNINGS = [BEGINNING, "One day, Tom found a", "The dog was sad because"];
const SHOWN = 8; // candidates
const MORE = 20; // tokens that are written at once

/**
 * What the model predicts after a text: of each layer, as if it were the last.
 * @param {Model} model
 * @param {string} text
 * @param {number} k
 * @returns {Promise<Candidate[][]>}
 */
async function predicted(model, text, k) {
  const reading = await model.read(text);
  const { tokens, truncated } = decoderOf(reading);
  if (truncated) throw new Error(`The model reads at most ${model.config.positions} tokens: begin a new text.`);
  const layers = Array.from({ length: model.config.layers }, (_, l) => l);
  const all = layers.map((l) => model.predict(reading.id, l, tokens.length - 1, 1, k));
  return (await Promise.all(all)).map((predictions) => candidatesOf(predictions, model.config.end));
}

/** A table of what each layer would write. @param {Candidate[][]} layers */
function lens(layers) {
  const rows = layers.map((list, l) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, String(l)),
      ...list
        .slice(0, 3)
        .map(({ text, probability, ends }) =>
          el("td", {}, el("bdi", {}, ends ? "end" : visible(text)), " ", el("small", {}, percent(probability))),
        ),
    ),
  );
  const head = ["layer", "likeliest", "second", "third"].map((name) => el("th", { scope: "col" }, name));
  return [el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows)];
}

/** @param {Lesson} lesson */
async function playground(lesson) {
  const model = await lesson.model("stories");
  let [beginning, written, added, isOver] = [BEGINNING, "", "", false];
  const story = el("p", { class: "story" });
  const says = el("p", { class: "reads", role: "status" });
  const layers = el("table", { class: "lens" });
  let asked = 0;
  const update = async () => {
    asked += 1;
    const turn = asked;
    story.replaceChildren(el("bdi", {}, beginning, el("mark", {}, written)));
    if (isOver && document.activeElement === more) again.focus();
    more.disabled = isOver;
    try {
      const predictions = await predicted(model, beginning + written, SHOWN);
      if (turn !== asked) return;
      const last = predictions[predictions.length - 1];
      choice.set(last);
      layers.replaceChildren(el("caption", {}, "What each layer would write next"), ...lens(predictions));
      says.textContent = isOver
        ? "The text ends here."
        : `${added ? `Written: “${added.trim()}”. ` : ""}The likeliest next token is “${visible(last[0].text)}”, with ${percent(last[0].probability)}.`;
    } catch (error) {
      if (turn === asked) says.textContent = String(error instanceof Error ? error.message : error);
    }
  };
  const choice = candidates({
    label: "The likeliest next tokens: choose the one to be written",
    onChoose: ({ text, ends }) => {
      isOver = ends;
      added = ends ? "" : text;
      written += added;
      update();
    },
  });
  const more = el("button", { type: "button", class: "main" }, `Write ${MORE} tokens`);
  more.addEventListener("click", async () => {
    const before = beginning + written;
    try {
      const text = await model.write(before, MORE);
      if (before !== beginning + written) return; // something else was written meanwhile
      isOver = text === "";
      added = text;
      written += added;
      await update();
    } catch (error) {
      says.textContent = String(error instanceof Error ? error.message : error);
    }
  });
  const again = el("button", { type: "button", class: "quiet" }, "Begin again");
  const begin = (/** @type {string} */ text) => {
    [beginning, written, added, isOver] = [text, "", "", false];
    update();
  };
  again.addEventListener("click", () => begin(beginning));
  const text = sentence({ label: "Beginning", text: BEGINNING, texts: BEGINNINGS, onText: begin });
  await update();
  const buttons = el("p", { class: "buttons" }, more, again);
  return [text.node, story, buttons, says, choice.node, h3("The logit lens"), ...aboutLens(), layers];
}

const aboutLens = () => [
  p(
    "Every layer leaves vectors of the same size, so that the last step, from a vector to a score for each token, can be taken after any of them. What comes out is what the model would write if it ended there. This is called the logit lens: the first layers guess from the newest token alone, and the context arrives in the later ones.",
  ),
];

/** @type {Exercise} */
const surprising = {
  id: "decoder-surprise",
  async prepare(lesson) {
    const model = await lesson.model("stories");
    const reading = await model.read("Once upon a time, there was a little parliament");
    const pass = decoderOf(reading);
    const { surprise } = await model.predict(reading.id, null, 0, pass.tokens.length, 1);
    const places = wordPlaces(pass).filter((u) => /\p{L}/u.test(pass.units[u].text));
    const words = places.map((u) => pass.units[u].text);
    const nats = places.map((u) => sum(pass.units[u].tokens.map((i) => surprise[i - 1] ?? 0)));
    const common = words.lastIndexOf("little");
    const shown = [words.indexOf("time"), words.indexOf("was"), common, words.indexOf("parliament")];
    return {
      kind: "choice",
      question: `The story model reads “${pass.text}”. Before each word it has predicted what comes next. Which of these words had it *least* expected?`,
      options: shown.map((n) => `“${words[n]}”`),
      right: largest(shown.map((n) => nats[n])),
      why: () =>
        `−log p of each word, given all before it: ${shown.map((n) => `“${words[n]}” ${format(nats[n], 1)}`).join(", ")}. This number, averaged over a text, is the loss with which a decoder is trained.`,
    };
  },
};

/** @type {Exercise} */
const firstLayer = {
  id: "decoder-lens",
  async prepare(lesson) {
    const beginning = "Once upon a";
    const layers = await predicted(await lesson.model("stories"), beginning, 1);
    const tops = layers.map(([{ text }]) => text);
    const final = tops[tops.length - 1];
    return {
      kind: "choice",
      question: `After “${beginning}” the model writes “${final.trim()}”. Apply the logit lens: after which layer is this token for the *first* time the likeliest?`,
      options: tops.map((_, l) => `Layer ${l}`),
      right: tops.indexOf(final),
      why: () =>
        `The likeliest tokens, layer by layer: ${layers.map(([{ text, probability }]) => `“${visible(text)}” ${percent(probability)}`).join(", ")}.`,
    };
  },
};

/** @type {Section} */
export const decoder = {
  id: "decoder",
  title: "The decoder",
  plain: ["next_word"],
  build: (lesson) => [
    p(
      "A decoder is a stack of layers with the causal mask. The last vector of a text is compared with a vector for each token of the vocabulary, and the softmax of these scores is a probability for each: what comes next?",
    ),
    formula("p = softmax(W norm(x_n))"),
    p(
      "To write, it takes a token, puts it at the end, and asks again. Only the newest token needs a query: the keys and values of all before it have not changed, because of the mask, and are kept. This is the key-value cache.",
    ),
    p(
      "This decoder is a small Llama, trained on short stories for children; its tokens are pieces of words, and ␣ is a space. Let it write, or choose the next token yourself, also an unlikely one.",
    ),
    lesson.later(() => playground(lesson)),
  ],
  exercises: [surprising, firstLayer],
};
