// The parts of a model that runs in the page; tests/test_playground_model.py compares whole models with Python.

import assert from "node:assert/strict";
import { test } from "node:test";
import { deflateRawSync } from "node:zlib";
import { ACTIVATIONS, normal } from "../src/model/activations.js";
import { attend, byHead, joined } from "../src/model/attention.js";
import { float16, parse, tensorsOf, unpack } from "../src/model/file.js";
import { layerNorm, linear, rmsNorm, softmax } from "../src/model/linear.js";
import { printable } from "../src/model/text.js";
import { CHARACTERS, openBytes } from "../src/model/tokenizer/bytes.js";
import { openTokenizer } from "../src/model/tokenizer/tokenizer.js";
import { units, words } from "../src/model/words.js";

const close = (given, expected, tolerance = 1e-6) => {
  assert.equal(given.length, expected.length);
  for (const [n, number] of [...expected].entries())
    assert.ok(Math.abs(given[n] - number) <= tolerance, `${n}: ${given[n]} is not ${number}`);
};
/** Numbers that look random, the same each time. */
const numbers = (count, seed = 1) =>
  Float32Array.from({ length: count }, (_, n) => Math.sin(12.9898 * (n + 1) * seed) * 1.7);

test("float16: the values of IEEE 754", () => {
  const values = [
    [0x0000, 0],
    [0x3c00, 1],
    [0xc000, -2],
    [0x3555, 0.333251953125],
    [0x7bff, 65504],
    [0x0400, 2 ** -14],
    [0x03ff, (1023 / 1024) * 2 ** -14],
    [0x0001, 2 ** -24],
    [0x8001, -(2 ** -24)],
    [0x7c00, Infinity],
    [0xfc00, -Infinity],
  ];
  for (const [code, value] of values) assert.equal(float16(code), value);
  assert.ok(Object.is(float16(0x8000), -0));
  assert.ok(Number.isNaN(float16(0x7e00)));
});

test("Φ and GELU: published values", () => {
  const table = [
    [0, 0.5],
    [0.5, 0.6914624612740131],
    [1, 0.8413447460685429],
    [1.96, 0.9750021048517795],
    [-1, 0.15865525393145707],
    [-2.5, 0.006209665325776132],
    [-3, 0.0013498980316300946],
    [-5, 2.866515718791939e-7],
    [7.99, 1],
    [40, 1],
    [-40, 0],
  ];
  for (const [x, value] of table) assert.ok(Math.abs(normal(x) - value) < 1e-9, `Φ(${x}) = ${normal(x)}`);
  assert.ok(Number.isNaN(normal(Number.NaN)));
  const x = Float32Array.of(-3, -1, 0, 1, 3);
  ACTIVATIONS.gelu(x);
  close(x, [-0.0040496940948903, -0.158655253931457, 0, 0.841344746068543, 2.99595030590511], 1e-7);
  const tanh = Float32Array.of(-1, 1, 3);
  ACTIVATIONS.gelu_new(tanh);
  close(tanh, [-0.158808, 0.841192, 2.996363], 1e-6);
  const [relu, silu] = [Float32Array.of(-1, 2), Float32Array.of(-1, 2)];
  ACTIVATIONS.relu(relu);
  ACTIVATIONS.silu(silu);
  close(relu, [0, 2]);
  close(silu, [-0.2689414213699951, 1.7615941559557649]);
});

test("a matrix product of any size is that of its definition", () => {
  for (const [n, inputs, outputs] of [
    [1, 1, 1],
    [3, 5, 7],
    [4, 8, 2],
    [5, 3, 65],
    [14, 16, 130],
  ]) {
    const [x, weight, bias] = [numbers(n * inputs), numbers(inputs * outputs, 2), numbers(outputs, 3)];
    const expected = Float64Array.from({ length: n * outputs }, (_, place) => {
      const [i, o] = [Math.floor(place / outputs), place % outputs];
      let sum = bias[o];
      for (let k = 0; k < inputs; k++) sum += x[i * inputs + k] * weight[o * inputs + k];
      return sum;
    });
    close(linear(x, weight, bias, n), expected, 1e-5);
    const without = linear(x, weight, null, n);
    close(
      without,
      expected.map((number, place) => number - bias[place % outputs]),
      1e-5,
    );
  }
});

test("norms and softmax", () => {
  const x = Float32Array.of(1, 2, 3, 4);
  const deviation = Math.sqrt(1.25);
  close(layerNorm(x, Float32Array.of(1, 2, 1, 1), Float32Array.of(0, 0, 5, 0), 0), [
    -1.5 / deviation,
    -1 / deviation,
    5 + 0.5 / deviation,
    1.5 / deviation,
  ]);
  close(
    rmsNorm(x, Float32Array.of(1, 1, 1, 2), 0),
    [1, 2, 3, 8].map((number) => number / Math.sqrt(7.5)),
  );
  close(softmax(Float64Array.of(0, Math.log(3), -Infinity)), [0.25, 0.75, 0], 1e-15);
  close(softmax(Float64Array.of(1000, 1000)), [0.5, 0.5]); // no overflow
});

test("attention: groups share keys, a mask hides what is later, lengths and gram follow from v W_O", () => {
  const [heads, groups, n, width, dim] = [4, 2, 3, 2, 5];
  const query = { shape: [heads, n, width], data: numbers(heads * n * width) };
  const key = { shape: [groups, n, width], data: numbers(groups * n * width, 2) };
  const value = { shape: [groups, n, width], data: numbers(groups * n * width, 3) };
  const outputWeight = numbers(dim * heads * width, 4);
  for (const causal of [false, true]) {
    const attention = attend(query, key, value, { scale: 0.7, causal, outputWeight });
    for (let h = 0; h < heads; h++) {
      const group = h >> 1;
      const at = ({ data }, place, row) => data.subarray((place * n + row) * width, (place * n + row + 1) * width);
      const seenBy = (i) => (causal ? i + 1 : n);
      for (let i = 0; i < n; i++) {
        const powers = Array.from({ length: seenBy(i) }, (_, j) => {
          const [q, k] = [at(query, h, i), at(key, group, j)];
          return Math.exp(0.7 * (q[0] * k[0] + q[1] * k[1]));
        });
        const total = powers.reduce((sum, power) => sum + power, 0);
        const expected = [0, 1].map((e) => powers.reduce((sum, p, j) => sum + (p * at(value, group, j)[e]) / total, 0));
        close(at(attention.output, h, i), expected);
      }
    }
    const taken = (h, j) =>
      Array.from({ length: dim }, (_, d) =>
        [0, 1].reduce(
          (sum, e) =>
            sum + outputWeight[d * heads * width + h * width + e] * value.data[((h >> 1) * n + j) * width + e],
          0,
        ),
      );
    const product = (a, b) => a.reduce((sum, number, d) => sum + number * b[d], 0);
    const gram = [];
    for (let j = 0; j < n; j++)
      for (let h = 0; h < heads; h++) for (let g = h; g < heads; g++) gram.push(product(taken(h, j), taken(g, j)));
    assert.deepEqual(attention.gram.shape, [1, n, 10]);
    close(attention.gram.data, gram, 1e-5);
    const lengths = [];
    for (let h = 0; h < heads; h++) for (let j = 0; j < n; j++) lengths.push(Math.hypot(...taken(h, j)));
    assert.deepEqual(attention.lengths.shape, [heads, n, 1]);
    close(attention.lengths.data, lengths, 1e-5);
  }
  const vectors = numbers(n * heads * width);
  assert.deepEqual(joined(byHead(vectors, heads, n)), vectors);
});

/** A file of two arrays, as Python writes it. */
function fileOf({ tensors, bytes }) {
  const data = deflateRawSync(bytes).toString("base64");
  return `regardModel(${JSON.stringify({ name: "x (y)", architecture: "encoder", config: {}, tokenizer: {}, tensors, data })});\n`;
}

test("a file is read as it was written, and a damaged one is named", async () => {
  const bytes = Buffer.alloc(24);
  bytes.writeFloatLE(0.5, 0);
  bytes.writeFloatLE(2, 4);
  bytes.set(
    [1, -2, 127, -127].map((code) => code & 255),
    8,
  );
  bytes.writeUInt16LE(0x3c00, 12);
  const tensors = [
    { name: "int8", shape: [2, 2], type: "int8", offset: 8, scales: 0, width: 2 },
    { name: "half", shape: [1], type: "float16", offset: 12 },
    { name: "full", shape: [2], type: "float32", offset: 0 },
  ];
  const file = await unpack(parse(fileOf({ tensors, bytes })));
  const opened = tensorsOf(file);
  assert.deepEqual([...opened.get("int8")], [0.5, -1, 254, -254]);
  assert.deepEqual([...opened.rows("int8", [1, 1])], [254, -254, 254, -254]);
  assert.deepEqual([...opened.get("half")], [1]);
  assert.deepEqual([...opened.get("full")], [0.5, 2]);
  assert.equal(opened.get("full"), opened.get("full"));
  assert.ok(opened.has("half") && !opened.has("other"));
  assert.throws(() => opened.get("other"), /lacks other/);
  assert.throws(() => parse("regardModel"), /damaged/);
  assert.throws(() => parse(fileOf({ tensors, bytes }).slice(0, 90)), /damaged/);
  await assert.rejects(unpack({ tensors: [], data: "AAAA" }), /cannot be unpacked/);
  for (const change of [{ shape: [2, 9] }, { offset: 21 }, { scales: 20 }]) {
    const damaged = fileOf({ tensors: [{ ...tensors[0], ...change }], bytes });
    await assert.rejects(unpack(parse(damaged)), /int8 is not whole/);
  }
});

const NORMALIZER = { clean: true, chinese: true, accents: true, lowercase: true };
const VOCAB = ["[UNK]", "[MASK]", "un", "##aff", "##able", "##a", ",", "cafe", "我", "##x", "x", "$"];
const wordPiece = openTokenizer({
  type: "wordpiece",
  vocab: VOCAB,
  unknown: 0,
  prefix: "##",
  longest: 6,
  normalizer: NORMALIZER,
  added: [{ text: "[MASK]", id: 1, special: true }],
  single: [["A", 0]],
  pair: null,
});
const piecesOf = (text) => wordPiece.encode(text).map(({ id, start, end }) => [VOCAB[id], text.slice(start, end)]);

test("WordPiece: the longest piece first, unknown and overlong words whole, places in the text", () => {
  assert.deepEqual(piecesOf("unaff"), [
    ["un", "un"],
    ["##aff", "aff"],
  ]);
  assert.deepEqual(piecesOf("una"), [
    ["un", "un"],
    ["##a", "a"],
  ]);
  assert.deepEqual(piecesOf("unb"), [["[UNK]", "unb"]]); // not "un" and an unknown rest
  assert.deepEqual(piecesOf("xxxxxx").length, 6);
  assert.deepEqual(piecesOf("xxxxxxx"), [["[UNK]", "xxxxxxx"]]); // longer than it divides
  assert.deepEqual(piecesOf("Café,x"), [
    ["cafe", "Café"],
    [",", ","],
    ["x", "x"],
  ]);
  assert.deepEqual(piecesOf("CAFE\u0301"), [["cafe", "CAFE"]]); // the accent stands alone, and is left out
  assert.deepEqual(piecesOf("x我x"), [
    ["x", "x"],
    ["我", "我"],
    ["x", "x"],
  ]);
  assert.deepEqual(piecesOf("x\u0000\u200dx $"), [
    ["x", "x"],
    ["##x", "x"],
    ["$", "$"],
  ]);
  assert.deepEqual(piecesOf("x[MASK]x [mask]").slice(0, 3), [
    ["x", "x"],
    ["[MASK]", "[MASK]"],
    ["x", "x"],
  ]);
  assert.deepEqual(piecesOf(""), []);
  assert.equal(wordPiece.decode([2, 3, 1, 6, 7]), "unaff , cafe");
});

test("bytes: 256 characters that can be seen, merged by rank and not from the left", () => {
  assert.equal(new Set(CHARACTERS).size, 256);
  assert.equal(CHARACTERS[0x20], "Ġ");
  assert.equal(CHARACTERS[0x0a], "Ċ");
  assert.equal(CHARACTERS[0x41], "A");
  assert.equal(CHARACTERS[0xff], "ÿ");
  assert.equal(CHARACTERS[0xad], "Ń");
  const vocab = [...CHARACTERS, "bc", "ab", "abc", "Ġa"];
  const { pieces, decode } = openBytes({ vocab, merges: ["b c", "a b", "a bc", "Ġ a"] });
  const names = (text) => pieces(text, 0).map(({ id, start, end }) => [vocab[id], start, end]);
  assert.deepEqual(names("abc"), [["abc", 0, 3]]);
  assert.deepEqual(names("abab a"), [
    ["ab", 0, 2],
    ["ab", 2, 4],
    ["Ġa", 4, 6],
  ]);
  assert.deepEqual(
    names("😀").map(([, ...place]) => place),
    Array(4).fill([0, 2]),
  );
  assert.equal(decode(pieces("naïve 😀\n", 0).map(({ id }) => id)), "naïve 😀\n");
});

test("words as a reader sees them, and tokens that share one", () => {
  const text = "Don't stop, 3.14 👍🏽!";
  const shown = (given) => words(given).map(([start, end]) => given.slice(start, end));
  assert.deepEqual(shown(text), ["Don't", "stop", ",", "3.14", "👍🏽", "!"]);
  assert.deepEqual(shown("🇩🇪🇫🇷 👨‍👩‍👧"), ["🇩🇪", "🇫🇷", "👨‍👩‍👧"]);
  assert.deepEqual(shown("我爱。\u200bא׳ב"), ["我", "爱", "。", "א׳ב"]);
  assert.deepEqual(shown(""), []);
  const spans = [null, [0, 2], [2, 12], [12, 13], null];
  assert.deepEqual(units("unbelievable!", spans), [
    { span: null, tokens: [0] },
    { span: [0, 12], tokens: [1, 2] },
    { span: [12, 13], tokens: [3] },
    { span: null, tokens: [4] },
  ]);
  assert.deepEqual(
    units("a b", [
      [0, 1],
      [1, 3],
    ])[1],
    { span: [2, 3], tokens: [1] },
  ); // with the space before
  assert.deepEqual(
    units("a  b", [
      [0, 1],
      [1, 3],
      [3, 4],
    ])[1],
    { span: [3, 4], tokens: [1, 2] },
  );
  assert.deepEqual(units("爱我", [[0, 2]]), [{ span: [0, 2], tokens: [0] }]); // two words, one token
});

test("characters that would move or hide the text are shown by symbols", () => {
  assert.equal(printable("a\tb\x1b[31m\u202e\n\x7f\u2028"), "a⇥b␛[31m\ufffd⏎␡⏎");
});
