import assert from "node:assert/strict";
import { test } from "node:test";
import { fileName } from "../src/app/export-names.js";
import { parametersOf, selectionOf } from "../src/app/selection.js";
import { offlineSource } from "../src/offline/source.js";
import { headsOff, mean } from "../src/views/atlas/details.js";
import { glance } from "../src/views/atlas/list.js";
import { atlasTable } from "../src/views/atlas/picture.js";
import {
  aboutHead,
  changeOf,
  chosenScore,
  countsOf,
  factsOfAtlas,
  groupsOf,
  isFound,
  rangeOf,
  rangeSays,
  rolesOf,
  saysOf,
  scoreOf,
  shown,
  tablesOf,
  titleOfAtlas,
} from "../src/views/atlas/scores.js";

const score = (changes = {}) => ({
  phrase: "attends to the previous token",
  text: "text",
  least: 0,
  most: 1,
  unit: "share",
  found_from: 0.5,
  paper: "",
  ...changes,
});

const atlas = {
  model: "m",
  against: null,
  note: "",
  tokens: { text: 1200, repeated: 256 },
  seed: 3,
  scores: {
    previous: score(),
    entropy: score({ most: null, unit: "nats", found_from: null }),
    induction: score({ text: "repeated" }),
    alignment: score({ least: -1, unit: "correlation" }),
  },
  parts: {
    encoder: {
      previous: [
        [0.5, 0.4999],
        [null, 0.9],
      ],
      entropy: [
        [1, 2],
        [3, 4.25],
      ],
      induction: [
        [0.7, 0],
        [0, 0.8],
      ],
    },
    cross: { alignment: [[-0.2, 0.6, null]] },
  },
  base: null,
  top: {},
  proofs: [
    { score: "induction", part: "encoder", heads: [[1, 1]], verdict: "confirmed", effects: [] },
    { score: "previous", part: "encoder", heads: [], verdict: "not confirmed", effects: [] },
  ],
};
const place = (layer, head, part = "encoder") => ({ part, layer, head });

/** The same atlas as a change: what was before, and by how much it differs. */
const difference = {
  ...atlas,
  against: "b",
  base: { encoder: { previous: [[0.45, 0.9], [null, 0.6]], entropy: [], induction: [] } }, // biome-ignore format: a table
  parts: { encoder: { previous: [[0.1, -0.05], [null, -0.5]], entropy: [], induction: [] } }, // biome-ignore format: a table
};

test("a head is found from the score's own number on, and not where nothing was measured", () => {
  assert.deepEqual(
    [place(0, 0), place(0, 1), place(1, 0), place(1, 1), place(7, 0)].map((head) => isFound(atlas, "previous", head)),
    [true, false, false, true, false],
  );
  assert.ok(!isFound(atlas, "entropy", place(1, 1)), "a score that only describes");
  assert.deepEqual(countsOf(atlas, "previous"), { found: 2, measured: 3 });
  assert.deepEqual(countsOf(atlas, "alignment"), { found: 1, measured: 2 });
  assert.deepEqual(rolesOf(atlas, place(1, 1)), ["previous", "induction"], "the largest first");
});

test("a difference marks the heads that are found in just one of the models", () => {
  assert.deepEqual(
    [place(0, 0), place(0, 1), place(1, 0), place(1, 1)].map((head) => isFound(difference, "previous", head)),
    [true, false, false, true],
  );
  assert.equal(changeOf(atlas, "previous", place(0, 0)), null);
  assert.equal(saysOf(difference, "previous", place(0, 0)), "0.450 → 0.550 (+0.100)");
  assert.equal(saysOf(difference, "previous", place(1, 1)), "0.600 → 0.100 (−0.500)");
  assert.equal(saysOf(difference, "previous", place(1, 0)), "not measured");
  assert.deepEqual(rangeOf(difference, "previous"), { peak: 0.5, scale: "linear", signed: true });
  assert.match(aboutHead(difference, place(1, 1)), /head 1 of layer 1 has changed in previous 0\.600 → 0\.100/);
});

test("colours stand for all that a score can be, or where it has no bound for all that it is", () => {
  assert.deepEqual(rangeOf(atlas, "previous"), { peak: 1, scale: "linear", signed: false });
  assert.deepEqual(rangeOf(atlas, "entropy"), { peak: 4.25, scale: "linear", signed: false });
  assert.deepEqual(rangeOf(atlas, "alignment"), { peak: 1, scale: "linear", signed: true });
  assert.deepEqual(Object.values(atlas.scores).map(rangeSays), [
    "share from 0 to 1",
    "nats from 0 up",
    "share from 0 to 1",
    "correlation from −1 to 1",
  ]);
  assert.equal(rangeSays(score({ least: null, most: null, unit: "" })), "");
});

test("the scores by what they are measured on, unknown kinds last", () => {
  assert.deepEqual(groupsOf(atlas), [
    ["on text", ["previous", "entropy", "alignment"]],
    ["on repeated random tokens", ["induction"]],
  ]);
  const odd = { ...atlas, scores: { odd: score({ text: "<b>" }), previous: score() } };
  assert.deepEqual(groupsOf(odd), [
    ["on text", ["previous"]],
    ["on <b>", ["odd"]],
  ]);
});

test("a score that an address names, or else the first", () => {
  assert.equal(chosenScore(atlas, "induction"), "induction");
  for (const name of ["toString", "", "__proto__", null]) assert.equal(chosenScore(atlas, name), "previous");
  assert.equal(chosenScore({ ...atlas, scores: {} }, "induction"), "");
  assert.equal(scoreOf(atlas, "previous", place(0, 0, "constructor")), null);
  assert.deepEqual(
    tablesOf(atlas, "alignment").map(([part]) => part),
    ["cross"],
  );
});

test("a score at a glance", () => {
  assert.equal(glance(atlas, "previous"), "2 found · not confirmed");
  assert.equal(glance(atlas, "induction"), "2 found · confirmed");
  assert.equal(glance(atlas, "entropy"), "1.00 to 4.25 nats");
  assert.equal(glance(difference, "previous"), "2 changed · not confirmed");
  const nothing = { ...atlas, parts: { encoder: { previous: [[null, null]] } } };
  assert.equal(glance(nothing, "previous"), "not measured");
  assert.equal(glance({ ...nothing, parts: {} }, "entropy"), "not measured");
});

test("what stands above an atlas, and above the map of a head", () => {
  assert.equal(titleOfAtlas(difference), "The heads of m, compared with b");
  const sizes = "encoder: 2 layers × 2 heads · cross-attention: 1 layers × 3 heads";
  assert.equal(factsOfAtlas(atlas), `${sizes} · tokens read: 1,200 of text and 256 of repeated random tokens · seed 3`);
  assert.equal(
    aboutHead(atlas, place(1, 1)),
    "In the atlas, head 1 of layer 1 was found for previous 0.900 and induction 0.800.",
  );
  assert.equal(aboutHead(atlas, place(0, 1)), "In the atlas, head 1 of layer 0 was found for no score.");
});

test("numbers", () => {
  assert.deepEqual(
    [0.12345, 1.234, 12.34, 1234.5, -0.5, null].map((value) => shown(value)),
    ["0.123", "1.23", "12.3", "1235", "−0.500", "not measured"],
  );
  assert.deepEqual([mean([1, null, 2]), mean([null]), mean([])], [1.5, null, null]);
  const heads = Array.from({ length: 10 }, (_, n) => [n, 1]);
  assert.match(headsOff({ heads }), /^10 heads switched off together \(layer.head\): 0\.1, .* and 2 more\.$/);
});

test("the table has a row for each head, and of a difference what was before", () => {
  const rows = atlasTable(atlas);
  assert.deepEqual(rows[0], ["part", "layer", "head", "previous", "entropy", "induction", "alignment"]);
  assert.equal(rows.length, 1 + 4 + 3);
  assert.deepEqual(rows[3], ["encoder", 1, 0, "", 3, 0, ""]);
  assert.deepEqual(rows[6], ["cross", 0, 1, "", "", "", 0.6]);
  const both = atlasTable(difference);
  assert.deepEqual(both[0].slice(3, 5), ["previous before", "previous change"]);
  assert.deepEqual(both[1].slice(0, 5), ["encoder", 0, 0, 0.45, 0.1]);
});

test("the score and the head are in the address, with a text or without", () => {
  const link = "view=atlas&layer=2&head=1&score=induction";
  assert.equal(String(parametersOf(selectionOf(new URLSearchParams(link), {}), null)), link);
  const state = selectionOf(new URLSearchParams(link), {});
  const named = fileName(state, "csv", { subject: "SmolLM2-135M", word: "", all: "" });
  assert.match(named, /^smollm2-135m-atlas-induction-\w{6}\.csv$/);
});

test("a file without a text holds the atlas alone", async () => {
  const start = await offlineSource({ metadata: null, atlas })({ type: "start" });
  assert.deepEqual(start, { models: [], opening: null, compares: false, atlas });
});
