import assert from "node:assert/strict";
import { test } from "node:test";
import { loss, probability, train, unit } from "../src/lesson/classifier.js";
import { FORMS, rightDate } from "../src/lesson/dates.js";
import {
  FUNCTIONS,
  feedForward,
  isSeen,
  maskedWeights,
  moments,
  normalised,
  positionVector,
} from "../src/lesson/layers.js";
import { modelsOf } from "../src/lesson/models.js";
import { dot, normalNumbers, softmax, sum, weightsOf } from "../src/lesson/numbers.js";
import { SECTIONS } from "../src/lesson/sections/index.js";
import { lengths } from "../src/lesson/sections/layer-norm.js";
import { meanHead, translation } from "../src/lesson/translations.js";
import { apart, apartIn, changedTokens, moved, toOrder } from "../src/lesson/vectors.js";
import { candidatesOf, visible } from "../src/lesson/widgets/candidates.js";
import { ACTIVATIONS } from "../src/model/activations.js";
import { fakeOpen, fakeReading } from "./fake-model.js";
import { fakeDates } from "./fake-sequences.js";

const near = (a, b, tolerance = 1e-9) => assert.ok(Math.abs(a - b) <= tolerance, `${a} is not ${b}`);
const random = (count, seed) => Array.from({ length: count }, normalNumbers(seed));
const OURS = "feed-forward layer-norm positions encoder classification-head masks decoder cross-attention";
const sections = SECTIONS.filter(({ id }) => `${OURS} trained-transformer`.split(" ").includes(id));
const exercise = (id) => sections.flatMap(({ exercises }) => exercises).find((other) => other.id === id);

/** The task of an exercise where some of the models are others. */
const taskWith = (id, opened = {}) => {
  const open = async (name, progress) => ({ ...(await fakeOpen(name, progress)), ...opened[name] });
  return exercise(id).prepare(modelsOf(() => {}, open));
};

test("the sections stand in the order of the guide, with fifteen exercises", () => {
  assert.deepEqual(
    sections.map(({ id }) => id),
    `${OURS} trained-transformer`.split(" "),
  );
  assert.equal(sections.flatMap(({ exercises }) => exercises).length, 15);
});

test("the network without a bend is zero, and with ReLU the distance of two numbers", () => {
  const [up, down] = [[[1, -1], [-1, 1]], [[1, 1]]]; // biome-ignore format: matrices
  for (const [a, b] of [
    [1.5, 0.5],
    [-2, 1],
    [0, 0],
    [0.25, 0.75],
  ]) {
    assert.equal(feedForward([a, b], up, down, FUNCTIONS.ReLU).output[0], Math.abs(a - b));
    assert.equal(feedForward([a, b], up, down, FUNCTIONS.none).output[0], 0);
  }
});

test("GELU is that of the models, within its approximation", () => {
  const x = Float32Array.from({ length: 161 }, (_, n) => n / 20 - 4);
  const exact = x.slice();
  ACTIVATIONS.gelu(exact);
  for (const [n, number] of x.entries()) near(FUNCTIONS.GELU(number), exact[n], 1e-3);
});

test("a norm has mean 0 and variance 1, whatever factor and shift went before", () => {
  for (let seed = 1; seed < 20; seed++) {
    const x = random(2 + (seed % 9), seed);
    const { mean, variance } = moments(normalised(x));
    near(mean, 0);
    near(variance, 1, 1e-6);
    const other = normalised(x.map((number) => 7 * number - 3));
    for (const [n, number] of normalised(x).entries()) near(number, other[n], 1e-6);
  }
  assert.ok(normalised([2, 2, 2]).every((number) => number === 0));
});

test("a deep stack grows without norms and keeps its length with them", () => {
  const [first, last] = [lengths(2, true, false)[0][1], lengths(2, true, false)[12][1]];
  assert.ok(last > first + 2);
  for (const [, power] of lengths(4, false, true).slice(1)) near(power, Math.log10(4), 1e-6);
  assert.ok(lengths(0.25, false, false)[12][1] < -4);
});

test("products of sinusoidal positions depend on their distance alone", () => {
  for (const distance of [0, 1, 7, 30]) {
    const expected = sum(Array.from({ length: 8 }, (_, k) => Math.cos(distance / 10000 ** (k / 8))));
    for (const place of [0, 5, 93])
      near(dot(positionVector(place, 16), positionVector(place + distance, 16)), expected);
  }
});

test("masked weights are the weights of those that are seen, made to sum to one", () => {
  const scores = Array.from({ length: 6 }, (_, i) => random(6, 40 + i));
  const seen = {
    all: () => true,
    causal: (i, j) => j < i + 1,
    lengths: (_, j) => j < 2,
    window: (i, j) => (i - j) ** 2 <= 4,
  };
  for (const [mask, isExpected] of Object.entries(seen))
    for (const [i, row] of maskedWeights(scores, mask, 2).entries()) {
      const free = softmax(scores[i]);
      const left = sum(free.filter((_, j) => isExpected(i, j)));
      for (const [j, weight] of row.entries()) {
        assert.equal(isSeen(mask, 2, i, j), isExpected(i, j));
        near(weight, isExpected(i, j) ? free[j] / left : 0);
      }
    }
});

test("a head begins undecided, learns what can be told apart, and turns with its labels", () => {
  const vectors = Array.from({ length: 8 }, (_, n) => unit([n % 2 ? 1 : -1, ...random(5, n + 1)]));
  const examples = vectors.map((vector, n) => ({ vector, label: n % 2 }));
  const start = train(examples, 0);
  near(start.losses[0], Math.log(2));
  for (const vector of vectors) assert.equal(probability(start.head, vector), 0.5);
  const { head, losses } = train(examples, 200);
  for (const [n, number] of losses.slice(1).entries()) assert.ok(number < losses[n] + 1e-12);
  near(losses[200], loss(head, examples));
  for (const { vector, label } of examples) assert.equal(probability(head, vector) > 0.5, label === 1);
  const turned = train(
    examples.map(({ vector, label }) => ({ vector, label: 1 - label })),
    200,
  ).head;
  for (const vector of vectors) near(probability(turned, vector), 1 - probability(head, vector), 1e-9);
});

test("a step of training goes against the gradient, as differences of the loss say it", () => {
  const examples = Array.from({ length: 5 }, (_, n) => ({ vector: unit(random(4, n + 60)), label: n % 2 }));
  const zero = train(examples, 0).head;
  const { head } = train(examples, 1);
  for (let d = 0; d < 4; d++) {
    const at = (small) =>
      loss({ ...zero, weight: zero.weight.map((number, k) => (k === d ? small : number)) }, examples);
    near(head.weight[d], (-2 * (at(1e-5) - at(-1e-5))) / 2e-5, 1e-6);
  }
});

test("dates in the forms of the training have their answer, others have none", () => {
  const months = "January February March April May June July August September October November December".split(" ");
  const week = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday".split(" ");
  for (let n = 0; n < 400; n++) {
    const time = new Date(Date.UTC(1600 + ((n * 37) % 600), n % 12, 1 + ((n * 11) % 28)));
    const [year, month, day] = [time.getUTCFullYear(), time.getUTCMonth(), time.getUTCDate()];
    const name = months[month];
    const texts = [`the ${day}th of ${name} ${year}`, `${day} ${name} ${year}`, `${day}nd ${name} ${year}`];
    texts.push(`${name} ${day}, ${year}`, `${name.slice(0, 3)} ${day}, ${year}`, `${day}.${month + 1}.${year}`);
    texts.push(`${month + 1}/${day}/${year}`, `${week[time.getUTCDay()]}, ${day} ${name} ${year}`);
    assert.equal(texts.length, FORMS.length);
    for (const text of texts) assert.equal(rightDate(text), time.toISOString().slice(0, 10), text);
  }
  for (const form of FORMS) assert.equal(rightDate(form), "1987-03-03");
  for (const text of [
    "",
    "1987/03/03",
    "31 February 2001",
    "13/1/1999",
    "0.1.1999",
    "3 march 1987",
    "March 1987",
    "3.3.87",
  ])
    assert.equal(rightDate(text), null, text);
});

test("vectors are apart by 1 − cos, and what a mask hides changes nothing", () => {
  near(apart([1, 0], [2, 0]), 0);
  near(apart([1, 0], [0, 3]), 1);
  near(apart([1, 0], [-1, 0]), 2);
  const texts = ["the cat sat down", "the cat slept down"];
  const read = (causal) => texts.map((text) => fakeReading(text, { changes: { causal } }).encoder);
  assert.deepEqual(changedTokens(...read(true)), [3, 4, 5]); // of [CLS] the cat slept down [SEP]
  assert.deepEqual(changedTokens(...read(false)), [0, 1, 2, 3, 4, 5]);
  const [a, b] = read(false);
  assert.ok(moved(a, 0).every((distance) => distance < 1e-12) && moved(a, 6).every((distance) => distance > 0));
  assert.ok(apartIn(a, b, "CAT") > 0);
  assert.throws(() => apartIn(a, b, "sat"), /no word sat/);
});

test("items are in order at last, never at first", () => {
  for (let seed = 0; seed < 50; seed++) {
    const valued = random(3 + (seed % 3), seed).map((value, n) => [`item ${n}`, value]);
    const { items, right } = toOrder(valued);
    const values = right.map((place) => valued.find(([name]) => name === items[place])[1]);
    assert.deepEqual(
      values,
      [...values].sort((x, y) => y - x),
    );
    assert.ok(right.some((place, n) => place !== n));
  }
});

test("candidates name the end of a text and show spaces", () => {
  const list = candidatesOf({ ids: [[2, 5]], texts: [["[END]", " a\n"]], probabilities: [[0.75, 0.25]] }, [2]);
  assert.deepEqual(list[0], { text: "[END]", probability: 0.75, ends: true });
  assert.deepEqual([list[1].ends, visible(list[1].text)], [false, "␣a↵"]);
});

test("an alignment has a row for each character that is written, and one for the end", async () => {
  const reading = await fakeDates().read("3 March 1987");
  const { characters, written, heads } = translation(reading);
  assert.deepEqual(written, [..."1987-03-03", "end"]);
  assert.equal(characters.join(""), "3␣March␣1987");
  for (const rows of [...heads, meanHead(heads)]) {
    assert.equal(rows.length, written.length);
    for (const row of rows) near(sum(row), 1);
  }
  near(meanHead(heads)[4][3], (heads[0][4][3] + heads[1][4][3]) / 2);
  assert.throws(() => translation({ ...reading, encoder: null }), /no cross-attention/);
});

test("the answer about the eight follows where the model looks", async () => {
  const date = FORMS[0];
  for (const [right, place] of [17, 18, 19, 4, 11].entries()) {
    const dates = fakeDates();
    const read = async (text, options) => {
      const reading = await dates.read(text, options);
      const [{ query, key, ...layer }] = reading.decoder.cross;
      query.data.fill(1);
      key.data.fill(0);
      for (let h = 0; h < 2; h++) key.data.fill(1, (h * text.length + place) * 4, (h * text.length + place + 1) * 4);
      reading.decoder.cross = [{ ...layer, query, key }];
      return reading;
    };
    const task = await taskWith("cross-eight", { dates: { read } });
    assert.equal(task.right, right, date[place]);
  }
});

test("the wrong date is the one that the model writes wrong", async () => {
  for (const missed of ["1987/03/03", "3.3.87", "the day after 3 March 1987"]) {
    const right = { "1987/03/03": "1987-03-03", "3.3.87": "1987-03-03", "the third of March 1987": "1987-03-03" };
    right["the day after 3 March 1987"] = "1987-03-04";
    const write = async (text) => (text === missed ? "2000-01-01" : (right[text] ?? rightDate(text)));
    const task = await taskWith("trained-forms", { dates: { write } });
    assert.equal(task.options[task.right], `“${missed}”`);
    assert.ok(task.why(0).includes("2000-01-01"));
  }
  await assert.rejects(taskWith("trained-forms", { dates: { write: async () => "" } }), /right/);
});

test("the least expected word and the first layer follow the model's predictions", async () => {
  for (const [right, word] of ["time", "was", "little", "parliament"].entries()) {
    const predict = async (_id, _layer, first, count) => {
      const words = "[CLS] Once upon a time , there was a little parliament [SEP]".split(" ");
      const surprise = words.slice(first, first + count).map((_, n) => (words[n + 1] === word ? 9 : 1));
      return { ids: [[1]], texts: [[" time"]], probabilities: [[1]], surprise };
    };
    assert.equal((await taskWith("decoder-surprise", { stories: { predict } })).right, right);
  }
  for (const leads of [0, 2, 5]) {
    const predict = async (_id, layer) => ({
      ...{ ids: [[1]], texts: [[layer < leads ? ` ${layer}` : " time"]], probabilities: [[0.5]], surprise: [null] },
    });
    assert.equal((await taskWith("decoder-lens", { stories: { predict } })).right, leads);
  }
});

test("the weights after the mask are those before it, made to sum to one", async () => {
  const { right, words } = await taskWith("masks-weights");
  const layer = fakeReading("Time flies like an arrow").encoder.layers[5];
  const row = weightsOf(layer, 11)[2].slice(0, 3);
  assert.equal(words.indexOf("flies"), 2);
  for (const [j, weight] of right.entries()) near(weight, j < 3 ? row[j] / sum(row) : 0);
});
