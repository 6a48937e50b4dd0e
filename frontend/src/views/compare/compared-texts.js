// What is compared: an example, until somebody asks for something else.

/** @import { Selection } from "../../types.js" */

const EXAMPLE = [
  "He sat on the bank of the river.",
  "The bank lent her the money.",
  "They fished from the muddy bank.",
  "She opened an account at the bank.",
];

/**
 * The word, and the texts, each on a line of its own.
 * @param {Pick<Selection, "same" | "texts" | "model">} state
 */
export const comparedTexts = ({ same, texts, model }) => ({
  word: same ?? "bank",
  texts: texts ?? EXAMPLE.join("\n"),
  model: model ?? undefined,
});
