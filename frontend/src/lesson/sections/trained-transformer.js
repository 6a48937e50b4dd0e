// The trained Transformer: it writes step by step, and what it cannot do.

import { el } from "../../ui/dom.js";
import { percent } from "../../ui/format.js";
import { FORMS, rightDate } from "../dates.js";
import { sum } from "../numbers.js";
import { formula, h3, p } from "../prose.js";
import { meanHead, translation } from "../translations.js";
import { candidates, candidatesOf } from "../widgets/candidates.js";
import { keepingFocus } from "../widgets/focus.js";
import { heat } from "../widgets/heat.js";
import { sentence } from "../widgets/sentence.js";

/** @import { Model } from "../../model/types.js" */
/** @import { Candidate } from "../widgets/candidates.js" */
/** @import { Exercise, Lesson, Section } from "../types.js" */

const DATE = "March 3, 1987";
const SHOWN = 5; // candidates
const LONGEST = 16; // characters that are written at most

/** Texts that no form of the training has, with what somebody would write. @type {[string, string][]} */
const OUTSIDE = [
  ["1987/03/03", "1987-03-03"],
  ["the third of March 1987", "1987-03-03"],
  ["3.3.87", "1987-03-03"],
  ["the day after 3 March 1987", "1987-03-04"],
];

/** Those of the training, which `rightDate` answers. */
const INSIDE = ["the 21st of June 1905", "Dec 9, 2014", "30.11.1768", "7/4/1776", "Friday, 1 May 2026"];

/**
 * What the model would write next, and where it has looked so far.
 * @param {Model} model
 * @param {string} text
 * @param {string} written
 */
async function step(model, text, written) {
  const reading = await model.read(text, { pair: written });
  const predictions = await model.predict(reading.id, null, written.length, 1, SHOWN);
  const { characters, written: rows, heads } = translation(reading);
  return { list: candidatesOf(predictions, model.config.end), characters, rows, weights: meanHead(heads) };
}

/**
 * The heat map of the alignment, in percent: a row for each character that is written.
 * @param {Awaited<ReturnType<typeof step>>} state
 * @param {boolean} isOver whether the end is written, too
 */
function alignment({ characters, rows, weights, list }, isOver) {
  const names = [...rows.slice(0, -1), isOver ? "end" : `${list[0].ends ? "end" : list[0].text} ?`];
  const values = weights.map((row) => row.map((weight) => 100 * weight));
  const label =
    "Where it looked for each character, in percent, the mean of the last layer’s heads; “?” is what comes next";
  const { node } = heat({ label, rows: names, columns: characters, values, digits: 0, peak: 100 });
  node.classList.add("alignment");
  return [el("p", { class: "hint" }, label), node];
}

/** @param {Lesson} lesson */
async function playground(lesson) {
  const model = await lesson.model("dates");
  let [text, written, isOver] = [DATE, "", false];
  const shown = el("p", { class: "written", "aria-live": "polite" });
  const says = el("p", { class: "reads", role: "status" });
  const place = el("div");
  /** @type {Candidate[]} */
  let list = [];
  let asked = 0;
  const update = async () => {
    asked += 1;
    const turn = asked;
    try {
      const state = await step(model, text, written);
      if (turn !== asked) return;
      list = state.list;
      isOver ||= written.length >= LONGEST;
      choice.set(list);
      keepingFocus(place, () => place.replaceChildren(...alignment(state, isOver)));
      shown.textContent = `Written: ${written || "nothing yet"}`;
      if (isOver && document.activeElement === next) again.focus();
      next.disabled = isOver;
      says.textContent = isOver
        ? verdict(text, written)
        : `Next: “${list[0].ends ? "end" : list[0].text}”, ${percent(list[0].probability)}.`;
    } catch (error) {
      if (turn === asked) says.textContent = String(error instanceof Error ? error.message : error);
    }
  };
  /** @param {Candidate} candidate */
  const write = ({ text: character, ends }) => {
    if (isOver) return;
    if (ends) isOver = true;
    else written += character;
    return update();
  };
  const choice = candidates({ label: "The likeliest next characters: choose the one to be written", onChoose: write });
  const next = el("button", { type: "button", class: "main" }, "Write the likeliest");
  next.addEventListener("click", () => list[0] && write(list[0]));
  const again = el("button", { type: "button", class: "quiet" }, "Begin again");
  const begin = (/** @type {string} */ changed) => {
    [text, written, isOver] = [changed, "", false];
    return update();
  };
  again.addEventListener("click", () => begin(text));
  const source = sentence({
    label: "A date",
    text: DATE,
    texts: [FORMS[0], ...OUTSIDE.slice(0, 2).map(([date]) => date)],
    onText: begin,
  });
  await update();
  return [source.node, shown, el("p", { class: "buttons" }, next, again), says, choice.node, place];
}

/**
 * Whether what was written is right, where that is known.
 * @param {string} text
 * @param {string} written
 */
function verdict(text, written) {
  const right = rightDate(text);
  if (right === null) return `It has written ${written}. The text is no date in a form of its training.`;
  return written === right
    ? `It has written ${written}, which is right.`
    : `It has written ${written}; right is ${right}.`;
}

/**
 * What the model writes, and how sure it is: the mean of the probabilities of its characters, and of the end.
 * @param {Model} model
 * @param {string} text
 */
async function answered(model, text) {
  const written = await model.write(text, LONGEST);
  const { id } = await model.read(text, { pair: written });
  const { probabilities } = await model.predict(id, null, 0, written.length + 1, 1);
  return { written, sure: sum(probabilities.map(([first]) => first)) / probabilities.length };
}

/** What it writes of dates in forms of its training, and of others. @param {Lesson} lesson */
async function limits(lesson) {
  const model = await lesson.model("dates");
  const texts = [...INSIDE.slice(0, 2).map((text) => [text, rightDate(text)]), ...OUTSIDE];
  const rows = await Promise.all(
    texts.map(async ([text, right]) => {
      const { written, sure } = await answered(model, String(text));
      const cells = [written, right, written === right ? "✓" : "✗"].map((cell) => el("td", {}, String(cell)));
      cells.push(el("td", { class: "number" }, el("data", { value: sure }, percent(sure))));
      return el("tr", {}, el("th", { scope: "row" }, String(text)), ...cells);
    }),
  );
  const head = ["source", "it writes", "right", "", "sure"].map((name) =>
    el(name ? "th" : "td", name ? { scope: "col" } : {}, name),
  );
  const table = el(
    "table",
    { class: "limits" },
    el("caption", {}, "Two forms that it has seen in training, and four that it has not"),
  );
  table.append(el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows));
  return [
    el(
      "div",
      { class: "scroll", tabindex: 0, role: "region", "aria-label": "What it writes of dates in other forms" },
      table,
    ),
  ];
}

/** @type {Exercise} */
const wrong = {
  id: "trained-forms",
  async prepare(lesson) {
    const model = await lesson.model("dates");
    /** @param {string} text @param {string | null} right */
    const tried = async (text, right) => ({ text, right, written: await model.write(text, LONGEST) });
    const inside = await Promise.all(INSIDE.map((text) => tried(text, rightDate(text))));
    const outside = await Promise.all(OUTSIDE.map(([text, right]) => tried(text, right)));
    const missed = outside.find(({ right, written }) => right !== written);
    const solved = inside.filter(({ right, written }) => right === written).slice(0, 3);
    if (!missed || !solved.length) throw new Error("lesson: the dates model writes all dates right, or none");
    const offered = [...solved.slice(0, 2), missed, ...solved.slice(2)];
    return {
      kind: "choice",
      question: "Which of these dates does the model write *wrong*?",
      options: offered.map(({ text }) => `“${text}”`),
      right: offered.indexOf(missed),
      why: () =>
        `It writes ${offered.map(({ text, written }) => `${written} for “${text}”`).join(", ")}. “${missed.text}” has a form that it never saw in training. It has not learned what a date is, but where the parts of a date stand in the forms that it knows.`,
    };
  },
};

/** @type {Section} */
export const trainedTransformer = {
  id: "trained-transformer",
  title: "The trained Transformer",
  plain: ["write"],
  build: (lesson) => [
    p(
      "An encoder, a decoder, and a score for each token of the vocabulary: this is the Transformer of “Attention Is All You Need”. In training it is given the right characters so far, for all positions at once, and learns to predict the next.",
    ),
    formula("loss = mean of −log p(y_n | y_1 … y_{n−1}, source)"),
    p(
      "Now it writes by itself: each character that it writes becomes part of its input. Write step by step, and see how the alignment grows, row by row. Or choose an unlikely character, and see how the model goes on after a mistake.",
    ),
    lesson.later(() => playground(lesson)),
    h3("What it cannot do"),
    p(
      `The model was trained on dates in ${FORMS.length} forms: ${FORMS.map((form) => `“${form}”`).join(", ")}, of the years 1600 to 2199. In these it hardly ever errs. It writes something for any other text, too. The last column says how sure it is: the mean probability of the characters that it writes.`,
    ),
    lesson.later(() => limits(lesson)),
    lesson.exercise("trained-forms"),
    p(
      "That is all of it: a weighted average, learned queries, keys and values, several heads, a network for each word, sums and norms, positions and masks. The models that fill data centres have more layers and more numbers, and the same parts. In the [playground](index.html) you can look into each of these three models with texts of your own.",
    ),
  ],
  exercises: [wrong],
};
