import assert from "node:assert/strict";
import { test } from "node:test";
import { deflateRawSync } from "node:zlib";
import { OfflineAttention } from "../src/offline/attention.js";
import { decode, exponentials } from "../src/offline/codec.js";
import { coarser, pooled, range } from "../src/offline/pooling.js";
import { offlineSource } from "../src/offline/source.js";
import { rowsOf } from "../src/offline/walk.js";

const close = (a, b, error = 1e-6) => assert.ok(Math.abs(a - b) <= error, `${a} is not ${b}`);
const base64 = (bytes) => Buffer.from(bytes).toString("base64");
const float32 = (shape, numbers) => ({ shape, float32: base64(Float32Array.from(numbers).buffer) });

/** Numbers that look random, the same each time. */
function noise(count, seed = 1) {
  let state = seed;
  return range(0, count).map(() => {
    state = (state * 48271) % 2147483647;
    return state / 1073741823.5 - 1;
  });
}

const [H, N, D] = [2, 5, 3];
const QUERY = noise(H * N * D, 1);
const KEY = noise(N * D, 2); // one key head, which both query heads share
const VALUE = noise(N * D, 3);
const rule = {
  scale: 0.5,
  softcap: null,
  sinks: null,
  spans: null,
  made: null,
  heads: null,
  shares: [
    [0.5, null],
    [0, 1],
  ],
};
const metadata = {
  ...{ reading: "offline", model: "m", text: "a bc d", layers: 1, heads: H, second: null, causal: true, sinks: false },
  ...{
    units: ["[S]", "a", "bc", "d"],
    special: [0],
    first_tokens: [0, 1, 2, 4],
    tokens: ["[S]", "a", "b", "##c", "d"],
  },
  maps: [
    { name: "weights", heads: true, target: false, signed: false, missing: null },
    { name: "value-weighted", heads: true, target: false, signed: false, missing: null },
    { name: "norms", heads: false, target: false, signed: false, missing: null },
    { name: "gradient", heads: true, target: true, signed: false, missing: "It is too long." },
  ],
  ...{ attention_layers: [0], unknown: [], unknown_tokens: [], truncated: null, note: "" },
};
/** A factor a key, one a row, and one of a head's products; G by key. */
const [ROW, COLUMN, SLOPES] = [noise(N, 5), noise(H * N, 6), noise(H * N * D, 7)];
const GRAM = range(0, N).flatMap((j) => [1 + j, 0.5, 2]);
const maps = {
  "value-weighted": {
    factors: [
      { query: float32([1, N, 1], ROW), key: float32([H, N, 1], COLUMN), activation: null },
      { query: float32([H, N, D], SLOPES), key: "value", activation: "relu" },
      { query: null, key: float32([1, N, 1], ROW), activation: "abs" },
    ],
    gram: null,
  },
  norms: { factors: [], gram: float32([1, N, 3], GRAM) },
};
const layer = {
  ...rule,
  maps,
  query: float32([H, N, D], QUERY),
  key: float32([1, N, D], KEY),
  value: float32([1, N, D], VALUE),
};
const data = {
  metadata,
  patterns: { a: "x", b: "y" },
  threshold: 0.5,
  layers: [layer],
  pictures: null,
  compared: null,
};
const dataWith = (more) => ({ ...data, layers: [{ ...layer, ...more }] });

/** The weights of a head by the definition, [starts, stops] and a sink with them. */
function weightsOf(h, { softcap = null, sinks = null, spans = null } = {}) {
  return range(0, N).map((i) => {
    const powers = range(0, N).map((j) => {
      if (spans && (j < spans[0][i] || j >= spans[1][i])) return 0;
      let score = 0;
      for (let d = 0; d < D; d++) score += QUERY[(h * N + i) * D + d] * KEY[j * D + d];
      const scaled = 0.5 * score;
      return Math.exp(softcap === null ? scaled : softcap * Math.tanh(scaled / softcap));
    });
    const total = powers.reduce((a, b) => a + b, sinks ? Math.exp(sinks[h]) : 0);
    return powers.map((power) => (total ? power / total : 0));
  });
}

const RULES = {
  plain: {},
  causal: { spans: [range(0, N).map(() => 0), range(0, N).map((i) => i + 1)] },
  "softcap and sinks": { softcap: 0.3, sinks: [0.5, -1] },
  "a token that may look at nothing": {
    spans: [
      [0, 0, 2, 0, 0],
      [5, 5, 2, 5, 5],
    ],
    sinks: [1, 1],
  },
};

for (const [name, options] of Object.entries(RULES))
  test(`the weights follow from query and key: ${name}`, async () => {
    const attention = new OfflineAttention(dataWith(options));
    const arrays = await attention.open(0);
    for (let h = 0; h < H; h++) {
      const expected = weightsOf(h, options);
      for (let i = 0; i < N; i++) {
        const { weights, sink } = attention.ofToken(0, arrays, h, i);
        for (let j = 0; j < N; j++) close(weights[j], expected[i][j]);
        const total = weights.reduce((a, b) => a + b, sink);
        close(total, options.spans?.[0][i] === options.spans?.[1][i] && options.spans ? 0 : 1);
      }
    }
  });

test("between words: the mean over the tokens of one, the sum over those of the other", async () => {
  const { weights } = await offlineSource(data)({ type: "word_weights", layer: 0, word: 2, side: "from" });
  const expected = weightsOf(1);
  close(weights.data[1 * 4 + 2], (expected[2][2] + expected[2][3] + expected[3][2] + expected[3][3]) / 2);
  const all = await offlineSource(data)({ type: "layer_weights", layer: 0 });
  assert.deepEqual(all.weights.shape, [2, 4, 4]);
  const to = await offlineSource(data)({ type: "word_weights", layer: 0, word: 1, side: "to" });
  for (let u = 0; u < 4; u++) close(to.weights.data[u], all.weights.data[u * 4 + 1]);
});

test("a map is the weights times its factors, in every reply", async () => {
  const source = offlineSource(data);
  const numbers = range(0, H).map((h) =>
    weightsOf(h).map((row, i) =>
      row.map((weight, j) => {
        const product = range(0, D).reduce((sum, d) => sum + SLOPES[(h * N + i) * D + d] * VALUE[j * D + d], 0);
        return weight * ROW[i] * COLUMN[h * N + j] * Math.max(0, product) * Math.abs(ROW[j]);
      }),
    ),
  );
  const between = (h, i, v) => range(v, v + 1).reduce((sum) => sum + numbers[h][i][v < 2 ? v : 4], 0);
  const map = "value-weighted";
  const all = (await source({ type: "layer_weights", layer: 0, map })).weights;
  for (const h of range(0, H)) {
    close(all.data[(h * 4 + 1) * 4 + 0], between(h, 1, 0));
    close(all.data[(h * 4 + 1) * 4 + 3], between(h, 1, 3));
    close(all.data[(h * 4 + 1) * 4 + 2], numbers[h][1][2] + numbers[h][1][3]);
    close(all.data[(h * 4 + 2) * 4 + 3], (numbers[h][2][4] + numbers[h][3][4]) / 2);
  }
  const from = (await source({ type: "word_weights", layer: 0, map, word: 1, side: "from" })).weights;
  for (const v of range(0, 4)) close(from.data[4 + v], all.data[16 + 4 + v]);
  const request = { type: "tile", layer: 0, head: 1, map, reduce: "mean", level: 0, row: 0, column: 0, hide: false };
  const { cells } = await source(request);
  for (const n of range(0, 16)) close(cells.data[n], all.data[16 + n]);
  const walk = await source({ type: "walk", layer: 0, head: 1, map, token: 3, all: false });
  for (const j of range(0, N)) close(walk.mapped.data[j], numbers[1][3][j]);
  close(
    walk.mapped_total,
    numbers[1][3].reduce((sum, number) => sum + Math.abs(number), 0),
  );
});

test("norms are lengths over all heads, the same whatever head is asked for", async () => {
  const source = offlineSource(data);
  const [a, b] = [weightsOf(0)[1], weightsOf(1)[1]];
  const expected = range(0, N).map((j) => Math.sqrt((1 + j) * a[j] ** 2 + 2 * 0.5 * a[j] * b[j] + 2 * b[j] ** 2));
  for (const head of [0, 1]) {
    const walk = await source({ type: "walk", layer: 0, head, map: "norms", token: 1, all: false });
    for (const j of range(0, N)) close(walk.mapped.data[j], expected[j]);
  }
  const { thumbnails, shares } = await source({ type: "thumbnails", layer: 0, map: "norms", hide: false });
  assert.deepEqual(thumbnails.shape, [1, 4, 4]);
  assert.deepEqual(shares.shape, [H, 2]);
  close(thumbnails.data[4], expected[0]);
  const request = { layer: 0, map: "norms" };
  assert.deepEqual((await source({ type: "layer_weights", ...request })).weights.shape, [1, 4, 4]);
});

test("a map that the file leaves out says why", async () => {
  const source = offlineSource(data);
  await assert.rejects(source({ type: "layer_weights", layer: 0, map: "gradient" }), /^Error: It is too long\.$/);
  await assert.rejects(source({ type: "layer_weights", layer: 0, map: "x" }), /There is no map “x”/);
});

test("a tile at level 0 holds the weights, without special tokens where they are hidden", async () => {
  const source = offlineSource(data);
  const request = { type: "tile", layer: 0, head: 1, reduce: "mean", level: 0, row: 0, column: 0 };
  const all = (await source({ type: "layer_weights", layer: 0 })).weights.data.subarray(16);
  const whole = (await source({ ...request, hide: false })).cells;
  assert.deepEqual(whole.shape, [4, 4]);
  for (const n of range(0, 16)) close(whole.data[n], all[n]);
  const hidden = (await source({ ...request, hide: true })).cells;
  assert.deepEqual(hidden.shape, [3, 3]);
  close(hidden.data[0], all[5]);
});

const both = (units) => ({ from: units, to: units });

test("cells of a map that is wider than high", () => {
  const weights = [1, 2, 3, 4, 5, 6]; // two words by three
  const mean = pooled(weights, 3, { from: [0, 1], to: [0, 1, 2] }, 2, [0], [0, 1], false);
  assert.deepEqual(mean.shape, [1, 2]);
  assert.deepEqual([...mean.data], [3, 4.5]);
  assert.deepEqual([...coarser(mean.data, [1, 2], [2, 3], 2, 4, [0], [0]).data], [3.5]);
});

test("cells are means, or the largest; those at the edge hold fewer weights", () => {
  const weights = range(1, 10);
  const mean = pooled(weights, 3, both([0, 1, 2]), 2, [0, 1], [0, 1], false);
  assert.deepEqual([...mean.data], [3, 4.5, 7.5, 9]);
  const largest = pooled(weights, 3, both([0, 1, 2]), 2, [0, 1], [0, 1], true);
  assert.deepEqual([...largest.data], [5, 6, 8, 9]);
  assert.deepEqual([...pooled([1, -3, 0, 2], 2, both([0, 1]), 2, [0], [0], true).data], [-3], "by magnitude");
  const again = coarser(mean.data, [2, 2], [3, 3], 2, 4, [0], [0]);
  close(again.data[0], 5);
});

test("a walk computes the context, and what each token adds", async () => {
  const walk = await offlineSource(dataWith({ hidden: float32([1, N, 2], noise(N * 2, 5)) }))({
    ...{ type: "walk", layer: 0, head: 1, token: 3, all: false },
  });
  const [weights] = [weightsOf(1)[3]];
  assert.deepEqual(walk.rows, range(0, N));
  assert.deepEqual(walk.x.shape, [2]);
  for (let d = 0; d < D; d++) {
    const expected = weights.reduce((sum, weight, j) => sum + weight * VALUE[j * D + d], 0);
    close(walk.context.data[d], expected);
  }
  close(walk.carried.data[2], weights[2] * Math.hypot(...VALUE.slice(6, 9)));
  assert.deepEqual([walk.projected, walk.error, walk.sink], [false, null, null]);
});

test("a walk is checked against the model's output where the file has it", async () => {
  const context = range(0, D).map((d) =>
    weightsOf(1)[3].reduce((sum, weight, j) => sum + weight * VALUE[j * D + d], 0),
  );
  const output = range(0, H * N).flatMap(() => context.map((number) => number + 0.25));
  const walk = await offlineSource(dataWith({ output: float32([H, N, D], output) }))({
    ...{ type: "walk", layer: 0, head: 1, token: 3, all: false },
  });
  close(walk.error, 0.25);
});

test("of a long text a walk lists the largest weights in reading order, or many", () => {
  const weights = noise(3000).map(Math.abs);
  assert.equal(rowsOf(weights, false).length, 12);
  assert.equal(rowsOf(weights, true).length, 2048);
  assert.equal(rowsOf(weights.slice(0, 24), false).length, 24);
  const rows = rowsOf(weights, false);
  assert.ok(rows.every((row, n) => !n || row > rows[n - 1]));
  assert.ok(rows.includes(weights.indexOf(Math.max(...weights))));
});

test("where some heads alone are there, the others have pictures and no walk", async () => {
  const cells = { shape: [H, 2, 2], ...float32([H * 4], [1, 0, 0.5, 0.5, 0.25, 0.75, 0.5, 0.5]) };
  const partial = {
    ...dataWith({ heads: [1], query: float32([1, N, D], QUERY.slice(N * D)) }),
    pictures: { level: 1, rows: 2, side: 2, fine: true, cells },
  };
  const source = offlineSource(partial);
  const shown = await source({ type: "metadata" });
  assert.deepEqual([shown.has(0), shown.floor(0, 0), shown.floor(0, 1), shown.pictured], [[1], 1, 0, 1]);
  const { weights } = await source({ type: "word_weights", layer: 0, word: 1, side: "from" });
  assert.ok(Number.isNaN(weights.data[0]));
  const row = weightsOf(1)[1];
  close(weights.data[4], row[0]);
  const tile = { type: "tile", layer: 0, head: 0, reduce: "mean", hide: false, level: 1, row: 0, column: 0 };
  assert.deepEqual([...(await source(tile)).cells.data], [1, 0, 0.5, 0.5]);
  await assert.rejects(source({ type: "walk", layer: 0, head: 0, token: 1 }), /in layer 0 of 1\.$/);
});

test("small pictures, and the shares of the patterns", async () => {
  const { thumbnails, shares, patterns } = await offlineSource(data)({ type: "thumbnails", layer: 0, hide: false });
  assert.deepEqual(thumbnails.shape, [H, 4, 4]);
  assert.deepEqual([...shares.data], [0.5, Number.NaN, 0, 1]);
  assert.deepEqual(patterns, data.patterns);
});

test("where only weights are known, they are the walk", async () => {
  const dense = float32([H, 4, 4], range(32, 64));
  const known = { ...rule, weights: float32([H, 4, 4], range(0, 32)), maps: { "value-weighted": { dense } } };
  const mapped = await offlineSource({ ...data, layers: [known] })({
    ...{ type: "walk", layer: 0, head: 1, map: "value-weighted", token: 3, all: false },
  });
  assert.deepEqual([...mapped.mapped.data], [56, 57, 58, 59]);
  const walk = await offlineSource({ ...data, layers: [known] })({
    type: "walk",
    layer: 0,
    head: 1,
    token: 3,
    all: false,
  });
  assert.deepEqual([...walk.weights.data], [24, 25, 26, 27]);
  assert.equal("query" in walk, false);
});

test("a page that stands alone reads no other text", async () => {
  await assert.rejects(offlineSource(data)({ type: "read", text: "a" }), /cannot read another text/);
  const start = await offlineSource(data)({ type: "start" });
  assert.deepEqual([start.models, start.compares, start.opening], [[], false, { reading: "offline" }]);
});

test("packed numbers: a step for each channel, two planes of bytes", async () => {
  const codes = [-8191, 8191, 1, -1, 0, 300]; // (3, 2)
  const [steps, low, high] = [Float32Array.of(0.5, 0.001), codes.map((c) => c & 255), codes.map((c) => (c >> 8) & 255)];
  const bytes = Buffer.concat([Buffer.from(steps.buffer), Buffer.from(low), Buffer.from(high)]);
  const { data: numbers } = await decode({ shape: [1, 3, 2], packed: base64(deflateRawSync(bytes)) });
  codes.forEach((code, n) => {
    close(numbers[n], code * [0.5, 0.001][n % 2], 1e-5);
  });
});

test("logarithms: zero, one, and the steps between", () => {
  const codes = [0, 65535, 65535 - 2048];
  const bytes = Uint8Array.from([...codes.map((code) => code & 255), ...codes.map((code) => code >> 8)]);
  assert.deepEqual([...exponentials(bytes)], [0, 1, 0.5]);
});
