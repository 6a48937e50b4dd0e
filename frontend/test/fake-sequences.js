// A decoder and an encoder-decoder for the tests of the lesson: predictions that follow from the text, and cross-attention
// that looks at random, but the same for the same text.

import { rightDate } from "../src/lesson/dates.js";
import { normalNumbers, softmax } from "../src/lesson/numbers.js";

const VOCABULARY = ["[END]", " time", " girl", " boy", "ll", " was", "1", "9", "8", "-"];
const HEADS = 2;
const WIDTH = 4;

const seedOf = (...parts) =>
  [...parts.join(" ")].reduce((seed, letter) => (seed * 31 + letter.codePointAt(0)) >>> 0, 7);
const random = (count, seed) => Float32Array.from({ length: count }, normalNumbers(seed));

/** The k likeliest tokens at `count` places of a text; the last layers agree. */
function predictionsOf(text, layer, first, count, k) {
  const rows = Array.from({ length: count }, (_, n) => {
    const probabilities = softmax(random(VOCABULARY.length, seedOf(text, first + n, Math.min(layer ?? 3, 3))));
    const ids = [...VOCABULARY.keys()].sort((a, b) => probabilities[b] - probabilities[a]).slice(0, k);
    return { ids, probabilities: ids.map((id) => probabilities[id]), surprise: -Math.log(probabilities[0]) };
  });
  return {
    ids: rows.map(({ ids }) => ids),
    texts: rows.map(({ ids }) => ids.map((id) => VOCABULARY[id])),
    probabilities: rows.map(({ probabilities }) => probabilities),
    surprise: rows.map(({ surprise }, n) => (n === count - 1 ? null : surprise)),
  };
}

/** The characters of a text as tokens, which here also are its words. */
function charactersOf(text, starts) {
  const special = { text: "[START]", start: 0, end: 0, special: true, piece: "[START]", id: 1, unknown: false };
  const tokens = [...text].map((character, n) => ({
    ...special,
    ...{ text: character, start: n, end: n + 1, special: false, piece: character, id: 3 },
  }));
  if (starts) tokens.unshift(special);
  return { text, tokens, units: tokens.map((token, n) => ({ ...token, tokens: [n] })), second: null, truncated: null };
}

function passOf(words, seed, columns) {
  const n = words.tokens.length;
  const array = (rows, extra) => ({ shape: [HEADS, rows, WIDTH], data: random(HEADS * rows * WIDTH, seed + extra) });
  const layer = (rows) => ({ query: array(n, 1), key: array(rows, 2), value: array(rows, 3), scale: 2, causal: false });
  return {
    ...words,
    hidden: { shape: [2, n, WIDTH], data: random(2 * n * WIDTH, seed) },
    layers: [layer(n)],
    cross: columns ? [layer(columns)] : null,
  };
}

/** What is written of a date: the right answer in a form of the training, else something of the same shape. */
export const answerTo = (text) => rightDate(text) ?? "1907-00-00";

/** A translator of dates as model/client.js opens one. */
export function fakeDates() {
  const texts = new Map();
  return {
    async read(text, { pair = null } = {}) {
      const target = pair ?? answerTo(text);
      const [source, written] = [charactersOf(text, false), charactersOf(target, true)];
      const id = texts.size + 1;
      texts.set(id, `${text} ${target}`);
      return {
        id,
        encoder: passOf(source, seedOf(text), 0),
        decoder: passOf(written, seedOf(text, target), text.length),
      };
    },
    predict: async (id, ...rest) => predictionsOf(texts.get(id), ...rest),
    write: async (text) => answerTo(text),
  };
}

/** What a decoder has besides `read`; the id of its readings is looked up in `texts`. */
export const fakeStories = (texts) => ({
  predict: async (id, ...rest) => predictionsOf(texts.get(id), ...rest),
  write: async (text) => (seedOf(text) % 2 ? " girl" : " boy"),
});
