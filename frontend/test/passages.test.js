import assert from "node:assert/strict";
import { test } from "node:test";
import { filesOf, litOf, piecesOf, ranked, sayingOf, sourcesOf } from "../src/views/passages/answer.js";
import { MEASURES, signed } from "../src/views/passages/measures.js";

const source = (passage, score, knockout = score) => ({ passage, attention: 0.5, logits: null, knockout, score });
const sentence = (start, end, ...sources) => ({ text: "", start, end, log_probability: -1, sources });

test("a reply is its sentences and what stands between them, in code points", () => {
  const answer = { reply: "« 👍 Yes. No! »", sentences: [sentence(2, 8), sentence(9, 12)] };
  assert.deepEqual(piecesOf(answer), [
    { text: "« ", sentence: null },
    { text: "👍 Yes.", sentence: 0 },
    { text: " ", sentence: null },
    { text: "No!", sentence: 1 },
    { text: " »", sentence: null },
  ]);
  assert.deepEqual(piecesOf({ reply: "", sentences: [] }), []);
});

test("passages are listed by file, in the order of the file", () => {
  const passages = [
    { file: "b", start: 9 },
    { file: "a", start: 0 },
    { file: "b", start: 2 },
  ];
  assert.deepEqual(filesOf({ passages }), [
    { file: "b", passages: [2, 0] },
    { file: "a", passages: [1] },
  ]);
});

test("a source is as strong as its share of the best score; below a tenth it lights nothing", () => {
  const sources = ranked(sentence(0, 1, source(3, 8), source(1, 0.8), source(0, 0.7), source(2, -4)));
  assert.deepEqual(
    sources.map(({ strength }) => strength),
    [1, 0.1, 0.0875, 0].map((share) => (share === 0.1 ? 0.8 / 8 : share)),
  );
  assert.equal(litOf(sources.map((one) => ({ ...one, index: 0 }))).length, 2);
});

test("where no score is above 0, nothing lights up, and a sentence says so", () => {
  const answer = { sentences: [sentence(0, 1, source(0, -1), source(1, 0))] };
  assert.deepEqual(litOf(sourcesOf(answer, { kind: "sentence", index: 0 })), []);
  assert.equal(
    sayingOf(answer, { kind: "sentence", index: 0 }),
    "Sentence 1: hiding any of the passages leaves it as likely as it was.",
  );
  assert.equal(sayingOf(answer, { kind: "passage", index: 0 }), "Passage 1: no sentence needs it.");
});

test("what belongs to a sentence, and to a passage", () => {
  const answer = {
    sentences: [sentence(0, 1, source(2, 4), source(0, 3)), sentence(2, 3, source(0, 5), source(2, 0.1))],
  };
  const indices = (picked) => litOf(sourcesOf(answer, picked)).map(({ index }) => index);
  assert.deepEqual(indices({ kind: "sentence", index: 0 }), [2, 0]);
  assert.deepEqual(indices({ kind: "passage", index: 0 }), [0, 1]);
  assert.deepEqual(indices({ kind: "passage", index: 2 }), [0]);
  assert.deepEqual(indices({ kind: "passage", index: 1 }), []);
});

test("what is said goes by the proof, also where the ranking does not", () => {
  const answer = {
    sentences: [sentence(0, 1, source(2, 4, 0.5), source(0, 3, 14.23), source(1, 1, -2)), sentence(2, 3, source(0, 5))],
  };
  assert.equal(
    sayingOf(answer, { kind: "sentence", index: 0 }),
    "Sentence 1 needs passage 1 most: without it, its log-probability falls by 14.23 nats. The ranking by attention has passage 3 first.",
  );
  assert.match(sayingOf(answer, { kind: "sentence", index: 1 }), /falls by 5\.00 nats\.$/);
  assert.equal(sayingOf(answer, { kind: "passage", index: 0 }), "Passage 1: sentences 1 and 2 need it.");
  assert.equal(sayingOf(answer, { kind: "passage", index: 1 }), "Passage 2: no sentence needs it.");
  assert.equal(sayingOf(answer, { kind: "passage", index: 2 }), "Passage 3: no sentence needs it.");
  assert.match(sayingOf({ sentences: [sentence(0, 1)] }, { kind: "sentence", index: 0 }), /as likely as it was/);
});

test("the proof stands first, and numbers have their signs", () => {
  assert.equal(MEASURES[0].name, "knockout");
  assert.deepEqual([-0.02, 14.23, 0, -0.001, 120.4].map(signed), ["−0.02", "14.23", "0.00", "0.00", "120"]);
});
