// Cross-attention: the decoder looks at what the encoder has read.

import { el } from "../../ui/dom.js";
import { percent } from "../../ui/format.js";
import { FORMS } from "../dates.js";
import { largest } from "../numbers.js";
import { formula, p } from "../prose.js";
import { meanHead, translation } from "../translations.js";
import { lines } from "../widgets/lines.js";
import { sentence } from "../widgets/sentence.js";
import { options } from "../widgets/slider.js";

/** @import { Exercise, Lesson, Section } from "../types.js" */

const DATE = FORMS[0];

/** @param {Lesson} lesson */
async function playground(lesson) {
  let read = translation(await lesson.read("dates", DATE));
  /** @type {number | null} */
  let head = null;
  const says = el("p", { class: "written", role: "status" });
  const weights = () => (head === null ? meanHead(read.heads) : read.heads[head]);
  const drawing = lines({
    label: "Where each written character looks in the source",
    rows: read.written,
    columns: read.characters,
    weights: weights(),
    chosen: 2,
  });
  const tell = () => {
    says.textContent = `It writes: ${read.written.slice(0, -1).join("")}`;
  };
  const text = sentence({
    label: "A date",
    text: DATE,
    texts: FORMS.slice(1, 5),
    onText: async (changed) => {
      try {
        read = translation(await lesson.read("dates", changed));
        drawing.set({ rows: read.written, columns: read.characters, weights: weights() });
        tell();
      } catch (error) {
        says.textContent = String(error instanceof Error ? error.message : error);
      }
    },
  });
  const choice = options({
    label: "Weights of",
    options: ["all heads", ...read.heads.map((_, h) => `head ${h}`)],
    onChoose: (n) => {
      head = n ? n - 1 : null;
      drawing.set({ weights: weights() });
    },
  });
  tell();
  return [text.node, says, choice.node, drawing.node];
}

/** @type {Exercise} */
const eight = {
  id: "cross-eight",
  async prepare(lesson) {
    const { characters, heads } = translation(await lesson.read("dates", DATE));
    const row = meanHead(heads)[2]; // the query with which the third character, the 8, is written
    const year = DATE.indexOf("1987");
    const places = [year, year + 1, year + 2, DATE.indexOf("3"), DATE.indexOf("M")];
    const names = [
      "The “1” of the year",
      "The “9” of the year",
      "The “8” of the year",
      "The “3” of the day",
      "The “M” of the month",
    ];
    const weights = places.map((j) => row[j]);
    return {
      kind: "choice",
      question: `The source is “${DATE}”. The model has written “19” and is about to write “8”. At which of these characters of the source does it look most, in the mean of the heads of its last layer?`,
      options: names,
      right: largest(weights),
      why: () =>
        `${names.map((name, n) => `${name}: ${percent(weights[n])}`).join(", ")}. Of all ${characters.length} characters, most goes to “${characters[largest(row)]}”. The newest character is “9”, and its query, with what it knows of its place, finds the one that is to be written next.`,
    };
  },
};

/** @type {Section} */
export const crossAttention = {
  id: "cross-attention",
  title: "Cross-attention",
  plain: ["decoder_layer"],
  build: (lesson) => [
    p(
      "To translate, the decoder must look at the source. Its queries meet the keys and values of what the encoder has read, the *memory*. This is Bahdanau’s idea again, for all words at once: each layer of the decoder attends to what is written so far, then to the source.",
    ),
    formula("attention(q of the target, k and v of the source) = softmax(Q Kᵀ / √d) V"),
    p(
      "The matrix of weights is no longer square: a row for each character that is written, a column for each character of the source. This small model was trained to write dates as YYYY-MM-DD. Choose a character that it has written, and see where it looked when it wrote it.",
    ),
    lesson.later(() => playground(lesson)),
    p(
      "No one told the model which character belongs to which: it was shown dates and answers only. That it looks at the digit which it is about to copy, and at the name of the month where there is no digit to copy, is what it has learned.",
    ),
  ],
  exercises: [eight],
};
