// A small model for the tests of the lesson: the shapes of the embedded encoder, and numbers that follow from the words.

import { average, normalNumbers, rowsOf, weightsOf } from "../src/lesson/numbers.js";
import { fakeDates, fakeStories } from "./fake-sequences.js";

const [LAYERS, HEADS, DIM, WIDTH] = [6, 12, 24, 8];

/** A number of a word: equal words begin equal. */
const seedOf = (word) => [...word].reduce((seed, letter) => (Math.imul(seed, 31) + letter.codePointAt(0)) >>> 0, 7);

/** Words as a model reads them, one token each. */
function wordsOf(text) {
  const units = [{ text: "[CLS]", start: 0, end: 0, special: true }];
  for (const { 0: word, index } of text.matchAll(/[\p{L}\p{N}]+|[^\s\p{L}\p{N}]/gu))
    units.push({ text: word, start: index, end: index + word.length, special: false });
  units.push({ text: "[SEP]", start: text.length, end: text.length, special: true });
  const tokens = units.map((unit) => ({ ...unit, piece: unit.text.toLowerCase(), id: 1, unknown: false }));
  return {
    text,
    tokens,
    units: units.map((unit, n) => ({ ...unit, tokens: [n], unknown: false })),
    second: null,
    truncated: null,
  };
}

const random = (count, seed, size = 1) =>
  Float32Array.from(
    { length: count },
    (
      (next) => () =>
        size * next()
    )(normalNumbers(seed)),
  );

/** x times a matrix that depends on the seed: (N, DIM) to (H, N, WIDTH). */
function projected(x, seed) {
  const matrix = random(DIM * HEADS * WIDTH, seed, 0.35);
  const data = new Float32Array(HEADS * x.length * WIDTH);
  for (let h = 0; h < HEADS; h++)
    for (const [i, row] of x.entries())
      for (let d = 0; d < WIDTH; d++)
        for (let k = 0; k < DIM; k++)
          data[(h * x.length + i) * WIDTH + d] += row[k] * matrix[(k * HEADS + h) * WIDTH + d];
  return { shape: [HEADS, x.length, WIDTH], data };
}

function layerOf(x, l, { scale = 1 / Math.sqrt(WIDTH), causal = false }) {
  const [query, key, value] = [1, 2, 3].map((role) => projected(x, 100 * l + role));
  const attention = { query, key, value, scale, causal, made: null };
  const output = { shape: value.shape, data: new Float32Array(value.data.length) };
  const lengths = { shape: [HEADS, x.length, 1], data: new Float32Array(HEADS * x.length) };
  for (let h = 0; h < HEADS; h++) {
    const values = rowsOf(value, h);
    for (const [i, weights] of weightsOf(attention, h).entries()) {
      output.data.set(average(weights, values), (h * x.length + i) * WIDTH);
      lengths.data[h * x.length + i] = Math.hypot(...values[i]);
    }
  }
  return { ...attention, output, lengths, gram: { shape: [1, x.length, 78], data: new Float32Array(x.length * 78) } };
}

export function fakeReading(text, { changes = {} } = {}) {
  const words = wordsOf(text);
  const places = random(DIM * 200, 5, changes.positions === false ? 0 : 0.2);
  let x = words.tokens.map(({ piece }, i) =>
    random(DIM, seedOf(piece)).map((number, d) => number + places[DIM * i + d]),
  );
  const [hidden, layers] = [[x], []];
  for (let l = 0; l < LAYERS; l++) {
    const layer = layerOf(x, l, changes);
    layers.push(layer);
    x = x.map((row, i) =>
      row.map(
        (number, d) => number + 0.4 * layer.output.data[(d % HEADS) * x.length * WIDTH + i * WIDTH + (d % WIDTH)],
      ),
    );
    hidden.push(x);
  }
  const shape = [LAYERS + 1, x.length, DIM];
  const data = Float32Array.from(hidden.flatMap((rows) => rows.flatMap((row) => [...row])));
  return { id: 1, encoder: { ...words, hidden: { shape, data }, layers, cross: null }, decoder: null };
}

/** openModel of the tests. */
export async function fakeOpen(name, progress = () => {}) {
  progress(0.5);
  const texts = new Map(); // of what was read, by id
  const config = { layers: LAYERS, heads: HEADS, groups: HEADS, dim: DIM, positions: 128, epsilon: 1e-12, end: [0] };
  if (name === "dates") return { name, architecture: "encoder-decoder", config, ...fakeDates(), close() {} };
  const read = async (text, options = {}) => {
    const reading = { ...fakeReading(text, options), id: texts.size + 1 };
    texts.set(reading.id, text);
    return name === "stories" ? { ...reading, encoder: null, decoder: reading.encoder } : reading;
  };
  return {
    name,
    architecture: name === "stories" ? "decoder" : "encoder",
    config,
    read,
    ...fakeStories(texts),
    close() {},
  };
}
