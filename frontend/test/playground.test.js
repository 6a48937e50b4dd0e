import assert from "node:assert/strict";
import { test } from "node:test";
import { playgroundSource } from "../src/offline/playground.js";
import { comparison, twoClusters } from "../src/offline/playground-compare.js";
import { eigen } from "../src/offline/playground-eigen.js";
import { placesOf } from "../src/offline/playground-find.js";
import { drawn } from "../src/offline/playground-writing.js";
import { dot, range } from "../src/offline/pooling.js";
import { poll } from "../src/source/poll.js";

const close = (a, b, error = 1e-6) => assert.ok(Math.abs(a - b) <= error, `${a} is not ${b}`);

/** Numbers that look random, the same each time. */
function noise(count, seed) {
  let state = seed;
  return Float32Array.from({ length: count }, () => {
    state = (state * 48271) % 2147483647;
    return state / 1073741823.5 - 1;
  });
}

const [H, D, DIM, L] = [2, 3, 6, 2];
let seed = 1;
const array = (...shape) => ({
  shape,
  data: noise(
    shape.reduce((a, b) => a * b),
    ++seed,
  ),
});

/** What a forward pass leaves: numbers that look random, of the right shapes. */
function attentionOf(N, M, causal) {
  return {
    query: array(H, N, D),
    key: array(1, M, D), // which both query heads share
    value: array(1, M, D),
    output: array(H, N, D),
    lengths: array(H, M, 1),
    gram: array(1, M, 3),
    scale: 0.5,
    causal,
    made: null,
  };
}

/** A text whose words are its tokens, between two special tokens. */
function passOf(text, { causal = false, source = null } = {}) {
  const spans = [...text.matchAll(/\S+/g)].map((match) => [match.index, match.index + match[0].length]);
  const token = (name, [start, end], special) => ({
    text: name,
    start,
    end,
    special,
    piece: name,
    id: 0,
    unknown: false,
  });
  const tokens = [
    token("[CLS]", [0, 0], true),
    ...spans.map((span) => token(text.slice(...span), span, false)),
    token("[SEP]", [0, 0], true),
  ];
  const units = tokens.map(({ piece, id, ...unit }, n) => ({ ...unit, tokens: [n] }));
  const N = tokens.length;
  return {
    ...{ text, tokens, units, second: null, truncated: null },
    hidden: array(L + 1, N, DIM),
    layers: range(0, L).map(() => attentionOf(N, N, causal)),
    cross: source && range(0, L).map(() => attentionOf(N, source.tokens.length, false)),
  };
}

const OFFER = { label: "Tiny", bytes: 2e6, exactness: "made up", examples: [] };
const OFFERS = [
  { ...OFFER, name: "encoder", architecture: "encoder" },
  { ...OFFER, name: "dates", architecture: "encoder-decoder" },
];

/** A model that reads at once what `passOf` makes of a text. */
function modelOf(name, more = {}) {
  const model = { name: "tiny", readings: [] };
  const read = async (text, { pair } = {}) => {
    const encoder = passOf(text);
    const decoder = name === "dates" ? passOf(pair ?? "its own", { causal: true, source: encoder }) : null;
    model.readings.push({ id: model.readings.length, encoder, decoder });
    return model.readings.at(-1);
  };
  const predict = async (_, layer, first, count, k) => ({
    texts: range(0, count).map((n) => range(0, k).map((m) => `${layer} ${first + n} ${m}`)),
    probabilities: range(0, count).map(() => range(0, k).map((m) => 1 / (m + 2))),
    surprise: range(0, count).map((n) => (n ? 1 : null)),
  });
  return Object.assign(model, { read, predict, ...more });
}

/** A source, the models that it opened, and what its replies said of the work. */
function opened(more = {}) {
  const models = [];
  const open = async (name) => models[models.push(modelOf(name, more)) - 1];
  const said = [];
  const source = playgroundSource(OFFERS, open, { text: "a b", pair: null });
  return { models, said, source, ask: poll(source, (_, share, job, says) => said.push({ share, job, says })) };
}

/** The weights of a head by the definition. */
function weightsOf({ query, key, scale, causal }, h, i) {
  const [N, M] = [query.shape[1], key.shape[1]];
  const scores = range(0, M).map((j) =>
    causal && j > i
      ? -Infinity
      : scale * dot(query.data.slice((h * N + i) * D, (h * N + i + 1) * D), key.data.slice(j * D, (j + 1) * D)),
  );
  const powers = scores.map(Math.exp);
  const total = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / total);
}

test("a text is read, and answered from what the model left of it", async () => {
  const { ask, models } = opened();
  assert.deepEqual((await ask({ type: "start" })).models, ["encoder", "dates"]);
  const metadata = await ask({ type: "read", text: "time flies like ." });
  assert.deepEqual(metadata.units, ["[CLS]", "time", "flies", "like", ".", "[SEP]"]);
  assert.deepEqual(metadata.special, [0, 5]);
  assert.equal(metadata.layers, L);
  assert.equal(metadata.causal, false);
  assert.equal(metadata.first_share, null);
  assert.equal(metadata.predictions, null);
  assert.deepEqual(
    metadata.maps.map(({ name, missing }) => [name, missing === null]),
    [
      ["weights", true],
      ["value-weighted", true],
      ["norms", true],
      ["gradient", false],
      ["logits", false],
    ],
  );
  const { weights } = await ask({ type: "layer_weights", reading: metadata.reading, layer: 1 });
  assert.deepEqual(weights.shape, [H, 6, 6]);
  await ask({ type: "read", text: "time flies like ." });
  assert.equal(models[0].readings.length, 1); // it is kept
});

test("weights, maps, patterns and walk are those of the definitions", async () => {
  const passes = [];
  const { ask } = opened({
    read: async (text) => {
      passes.push(passOf(text, { causal: true }));
      return { id: 1, encoder: null, decoder: passes[0] };
    },
  });
  const { reading, first_share: share } = await ask({ type: "read", text: "to be or not to ?" });
  const [pass] = passes;
  const N = pass.tokens.length;
  const rows = range(0, H).map((h) => range(0, N).map((i) => weightsOf(pass.layers[1], h, i)));
  const { weights } = await ask({ type: "layer_weights", reading, layer: 1 });
  for (const [n, weight] of rows.flat(2).entries()) close(weights.data[n], weight);
  const { weights: lengths } = await ask({
    type: "word_weights",
    reading,
    layer: 1,
    map: "value-weighted",
    word: 3,
    side: "from",
  });
  for (const j of range(0, N)) close(lengths.data[N + j], rows[1][3][j] * pass.layers[1].lengths.data[N + j]);
  const { weights: norms } = await ask({
    type: "word_weights",
    reading,
    layer: 1,
    map: "norms",
    word: 3,
    side: "from",
  });
  for (const j of range(0, N)) {
    const [a, b, c] = pass.layers[1].gram.data.slice(3 * j, 3 * j + 3);
    const [v, w] = [rows[0][3][j], rows[1][3][j]];
    close(norms.data[j], Math.sqrt(Math.max(0, a * v * v + 2 * b * v * w + c * w * w)));
  }
  const { shares } = await ask({ type: "thumbnails", reading, layer: 1, hide: false });
  const words = range(1, 7); // those of the text
  const mean = (numbers) => numbers.reduce((a, b) => a + b, 0) / words.length;
  const expected = [
    mean(words.map((i) => rows[0][i][i - 1])),
    mean(words.map((i) => rows[0][i][i + 1])),
    mean(words.map((i) => rows[0][i][i])),
    mean(words.map((i) => rows[0][i][0])),
    mean(words.map((i) => rows[0][i][N - 1])),
    mean(words.map((i) => rows[0][i][N - 1])), // [SEP]
    mean(words.filter((i) => i !== 6).map((i) => rows[0][i][6])),
    (rows[0][1][5] + rows[0][5][1]) / words.length, // "to" and "to"
  ];
  for (const [n, number] of expected.entries()) close(shares.data[n], number);
  const all = pass.layers.flatMap((layer) =>
    range(0, H).flatMap((h) => range(1, N).map((i) => weightsOf(layer, h, i)[0])),
  );
  close(share, all.reduce((a, b) => a + b) / all.length);
  const walk = await ask({ type: "walk", reading, layer: 1, head: 1, token: 4, all: true });
  for (const [n, weight] of rows[1][4].entries()) close(walk.weights.data[n], weight);
  assert.deepEqual([...walk.x.data], [...pass.hidden.data.slice((N + 4) * DIM, (N + 5) * DIM)]);
});

test("of a long text, every token counts for the patterns of heads", async () => {
  const passes = [];
  const { ask } = opened({
    read: async (text) => {
      passes.push(passOf(text));
      return { id: 1, encoder: passes[0], decoder: null };
    },
  });
  const words = range(0, 300).map((n) => `w${n % 100}`);
  const { reading } = await ask({ type: "read", text: words.join(" ") });
  const { shares, patterns } = await ask({ type: "thumbnails", reading, layer: 0, hide: false });
  const expected = { previous: 0, same: 0 };
  for (const i of range(1, 301)) {
    const weights = weightsOf(passes[0].layers[0], 0, i);
    expected.previous += weights[i - 1] / 300;
    for (const j of range(1, 301)) if (i !== j && (i - j) % 100 === 0) expected.same += weights[j] / 300;
  }
  for (const [name, share] of Object.entries(expected)) close(shares.data[Object.keys(patterns).indexOf(name)], share);
});

test("an encoder-decoder has three attentions, and its target may be the reader's own", async () => {
  const { ask, models } = opened();
  const cross = await ask({ type: "read", text: "3 March", pair: "2001", model: "dates" });
  assert.equal(cross.attention, "cross");
  assert.deepEqual(cross.attentions, ["encoder", "decoder", "cross"]);
  assert.deepEqual(cross.units, ["[CLS]", "2001", "[SEP]"]);
  assert.deepEqual(cross.columns.units, ["[CLS]", "3", "March", "[SEP]"]);
  assert.equal(cross.note, "");
  assert.deepEqual(cross.predictions.layers, [0, 1]);
  const { weights } = await ask({ type: "layer_weights", reading: cross.reading, layer: 0 });
  assert.deepEqual(weights.shape, [H, 3, 4]);
  close(weights.data[1], weightsOf(models[0].readings[0].decoder.cross[0], 0, 0)[1]);
  const id = cross.reading.split(".")[0];
  const encoder = await ask({ type: "metadata", reading: `${id}.encoder` });
  assert.deepEqual([encoder.attention, encoder.units.length, encoder.causal], ["encoder", 4, false]);
  const decoder = await ask({ type: "metadata", reading: `${id}.decoder` });
  assert.deepEqual([decoder.attention, decoder.units.length, decoder.causal], ["decoder", 3, true]);
  const own = await ask({ type: "read", text: "3 March", model: "dates" });
  assert.deepEqual([own.units[1], own.note], ["its", "The model wrote the target itself."]);
  const { texts, probabilities, surprise } = await ask({
    type: "predictions",
    reading: own.reading,
    layer: 1,
    first: 1,
  });
  assert.deepEqual(texts[0].slice(0, 2), ["1 1 0", "1 1 1"]);
  assert.deepEqual([probabilities.shape, surprise.data[0]], [[3, 5], Number.NaN]);
});

test("a reading that is no longer kept is to be read again", async () => {
  const { ask } = opened();
  const { reading } = await ask({ type: "read", text: "one" });
  for (const text of ["two", "three", "four", "five"]) await ask({ type: "read", text });
  await assert.rejects(ask({ type: "walk", reading, layer: 0, head: 0, token: 0, all: true }), { status: 404 });
  assert.equal((await ask({ type: "read", text: "one" })).reading, reading); // by the same id
});

test("what the page cannot do is said", async () => {
  const { ask } = opened();
  const { reading } = await ask({ type: "read", text: "one" });
  await assert.rejects(ask({ type: "page", reading }), /regard serve can/);
  await assert.rejects(
    ask({ type: "read", text: "one", model: "other" }),
    /no model “other” here: there are encoder, dates/,
  );
  await assert.rejects(ask({ type: "predictions", reading }), /predicts no tokens/);
});

test("the weights of a model are awaited with their size, and what failed is tried again", async () => {
  let [tries, let_go] = [0, null];
  const open = async (_, progress) => {
    if (++tries === 1) throw new Error("The file is not whole.");
    progress(0.5);
    await new Promise((done) => {
      let_go = done;
    });
    return modelOf("encoder");
  };
  const source = playgroundSource(OFFERS, open, null);
  await assert.rejects(source({ type: "read", text: "a" }), /Tiny.*The file is not whole\. Press Read to try again\./);
  const waiting = await source({ type: "read", text: "a" });
  assert.deepEqual([waiting.progress, waiting.says], [0.5, "Loading Tiny (2.0 MB)"]);
  let_go();
  assert.equal((await source({ type: "read", text: "a", job: waiting.job })).units[1], "a");
  assert.equal(tries, 2);
});

test("reading a long text can be cancelled, and is then begun anew by whoever asks", async () => {
  const signals = [];
  const { source, ask } = opened({
    read: (text, { progress = () => {} } = {}, signal) => {
      signals.push(signal);
      progress(0.25);
      return new Promise((done, reject) => {
        signal.addEventListener("abort", () => reject(signal.reason));
        if (signals.length > 1) done({ id: 1, encoder: passOf(text), decoder: null });
      });
    },
  });
  const waiting = await source({ type: "read", text: "long" });
  assert.deepEqual([waiting.progress, waiting.says], [0.25, "Reading the text"]);
  assert.deepEqual(await source({ type: "cancel", job: waiting.job }), { jobs: 1 });
  assert.deepEqual(await source({ type: "read", text: "long", job: waiting.job }), { cancelled: true });
  assert.ok(signals[0].aborted);
  assert.equal((await ask({ type: "read", text: "long" })).units[1], "long");
});

test("another text puts an end to the reading of the one before", async () => {
  const signals = [];
  const { source } = opened({
    read: (_, __, signal) => new Promise(() => signals.push(signal)),
  });
  await source({ type: "read", text: "one" });
  await source({ type: "read", text: "two" });
  assert.deepEqual([signals[0].aborted, signals[1].aborted], [true, false]);
});

/** A decoder that goes on with the next of some words, until it ends the text with token 1, or cannot read more. */
function writerOf(words, positions = 40) {
  const read = async (text) => ({ id: text, encoder: null, decoder: passOf(text, { causal: true }) });
  const predict = async (text, _, __, ___, k) => {
    const next = text.split(" ").length - 1;
    const likely = next < words.length ? [` ${words[next]}`, " other"] : ["<end>", " other"];
    return {
      ids: [[next < words.length ? 5 : 1, 6].slice(0, k)],
      texts: [likely.slice(0, k)],
      probabilities: [[0.75, 0.25].slice(0, k)],
      surprise: [null],
    };
  };
  return opened({ read, predict, config: { end: [1], positions } }).source;
}

async function written(source, request) {
  const { writing } = await source({ type: "write", texts: ["once"], ...request });
  const tokens = [];
  for (;;) {
    const news = await source({ type: "written", writing, since: tokens.length });
    tokens.push(...news.tokens);
    if (news.finished) return { ...news, tokens: tokens.map(({ text }) => text), all: tokens };
  }
}

test("a decoder goes on with a text until it ends it, and the whole is read", async () => {
  const source = writerOf(["upon", "a", "time"]);
  const { tokens, all, finished, reading } = await written(source, {});
  assert.deepEqual([tokens, finished], [[" upon", " a", " time"], "end"]);
  assert.equal(all[0].probability, 0.75);
  const metadata = await source({ type: "metadata", reading });
  assert.deepEqual(metadata.source, { text: "once upon a time", pair: null, model: "encoder" });
  assert.deepEqual([metadata.units[metadata.reply], metadata.writes], ["upon", "text"]);
  const typed = await source({ type: "read", text: "once upon a time" });
  assert.equal(typed.reply, null); // which nobody wrote but the reader
});

test("it ends at the most tokens, where the model can read no more, or when it is stopped", async () => {
  const endless = new Array(100).fill("on");
  assert.deepEqual((await written(writerOf(endless), { max_tokens: 3 })).tokens.length, 3);
  const full = await written(writerOf(endless, 9), {});
  assert.deepEqual([full.tokens.length, full.finished], [6, "length"]); // with "once" and two special tokens
  const source = writerOf(endless, 1000);
  const { writing } = await source({ type: "write", texts: ["once"], max_tokens: 999 });
  await source({ type: "written", writing });
  assert.deepEqual(await source({ type: "stop", writing }), { stopped: true });
  let news = await source({ type: "written", writing });
  while (!news.finished) news = await source({ type: "written", writing });
  assert.equal(news.finished, "interrupted");
  await assert.rejects(source({ type: "written", writing: "7" }), /no longer known/);
});

test("an error while it writes is passed on", async () => {
  const read = async () => {
    throw new Error("The text contains no tokens.");
  };
  const { source } = opened({ read, config: { end: [], positions: 9 } });
  await assert.rejects(written(source, {}), /no tokens/);
});

test("tokens are drawn by their probabilities, sharper at a low temperature, the same for the same seed", async () => {
  const share = (temperature) =>
    range(0, 1000).filter((n) => drawn([0.6, 0.3, 0.1], temperature, (n + 0.5) / 1000) === 0).length / 1000;
  close(share(1), 0.6, 2e-3);
  close(share(0.5), 0.36 / (0.36 + 0.09 + 0.01), 2e-3);
  assert.equal(drawn([0.6, 0.4], 1, 1), 1);
  const words = new Array(12).fill("on");
  const draw = async (seed) =>
    (await written(writerOf(words), { temperature: 1, seed, max_tokens: 8 })).tokens.join("");
  assert.equal(await draw(1), await draw(1));
  assert.notEqual(await draw(1), await draw(2));
});

test("a word is compared at all its places", async () => {
  const { ask, models } = opened();
  const reply = await ask({ type: "compare", word: "bank", texts: ["the Bank and the bank", "no such word", "bank"] });
  assert.deepEqual(
    reply.places.map(({ start, end }) => [start, end]),
    [
      [4, 8],
      [17, 21],
      [0, 4],
    ],
  );
  assert.deepEqual(
    [reply.left_out[0].text, reply.similarity.shape, reply.plane.shape],
    [1, [L + 1, 3, 3], [L + 1, 3, 2]],
  );
  const [first, , third] = models[0].readings.map(({ encoder }) => encoder.hidden);
  /** The vector of token i after layer 1. */
  const vector = ({ shape, data }, i) => data.slice((2 * shape[1] + i) * DIM, (2 * shape[1] + i + 1) * DIM);
  const [a, b] = [vector(first, 2), vector(third, 1)];
  close(reply.similarity.data[2 * 9 + 2], dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b)));
  await assert.rejects(
    ask({ type: "compare", word: "sea", texts: ["the bank", "a"] }),
    /In “the bank”: there is no word “sea”/,
  );
  await assert.rejects(ask({ type: "compare", word: "bank", texts: ["the bank", "a"] }), /occurs only once/);
});

test("the plane shows the distances of vectors that lie in one, and follows them from layer to layer", () => {
  const points = [
    [3, 1],
    [-1, 2],
    [-2, -2],
    [0, -1],
  ];
  const axes = [noise(9, 5), noise(9, 6)];
  const spread = ([x, y]) => Float64Array.from(axes[0], (number, d) => x * number + y * axes[1][d]);
  const places = points.map((point) => [spread(point), spread([-point[0], -point[1]])]); // turned by half a circle
  const { plane, similarity } = comparison(places);
  const at = (l, i) => [plane.data[(l * 4 + i) * 2], plane.data[(l * 4 + i) * 2 + 1]];
  const distance = ([a, b], [c, d]) => Math.hypot(a - c, b - d);
  const between = (i, j) => Math.hypot(...places[i][0].map((number, d) => number - places[j][0][d]));
  const ratio = distance(at(0, 0), at(0, 1)) / between(0, 1);
  for (const i of range(0, 4))
    for (const j of range(0, i)) close(distance(at(0, i), at(0, j)), ratio * between(i, j), 1e-5);
  for (const i of range(0, 4)) close(distance(at(0, i), at(1, i)), 0, 1e-5);
  close(range(0, 4).reduce((sum, i) => sum + distance(at(0, i), [0, 0]) ** 2, 0) / 4, 1, 1e-5);
  close(similarity.data[0], 1);
});

test("texts fall into the two groups of the normalised cut", () => {
  const example = [
    [1, 0.2, 0.9],
    [0.2, 1, 0.3],
    [0.9, 0.3, 1],
  ];
  assert.deepEqual(twoClusters(example), [[0, 2], [1]]);
  const same = Float64Array.of(1, 2, 3);
  assert.deepEqual(comparison([[same], [same], [same]]).clusters, [[0, 1, 2], []]);
});

test("eigenvectors are those of the matrix, the largest first", () => {
  const n = 7;
  const numbers = noise(n * n, 9);
  const matrix = range(0, n).map((i) => range(0, n).map((j) => numbers[i * n + j] + numbers[j * n + i]));
  const { values, vectors } = eigen(matrix);
  assert.deepEqual(
    [...values].sort((a, b) => b - a),
    values,
  );
  for (const [k, vector] of vectors.entries()) {
    close(dot(vector, vector), 1);
    for (const i of range(0, n)) close(dot(matrix[i], vector), values[k] * vector[i]);
  }
});

test("words are found as they are typed: in a row, by quotes and dashes, by case, as parts", () => {
  const pass = passOf("New York isn’t new york –");
  const found = (wanted) =>
    placesOf(pass, wanted).map(({ start, end, tokens }) => [pass.text.slice(start, end), tokens]);
  assert.deepEqual(found("New York"), [
    ["New York", [1, 2]],
    ["new york", [4, 5]],
  ]);
  assert.deepEqual(found("isn't"), [["isn’t", [3]]]);
  assert.deepEqual(found("-"), [["–", [6]]]);
  assert.deepEqual(placesOf(pass, "[SEP]")[0].tokens, [7]);
  assert.throws(() => placesOf(pass, " "), /no word/);
  assert.throws(() => placesOf({ ...pass, truncated: "Only a part was read." }, "x"), /Only a part was read/);
});
