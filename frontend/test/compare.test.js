import assert from "node:assert/strict";
import { test } from "node:test";
import { comparedTexts } from "../src/views/compare/compared-texts.js";
import { aroundPlace, Comparison, placeLabel, stateName } from "../src/views/compare/comparison.js";
import { labelsOf, pointsOf } from "../src/views/compare/plane.js";

const text = "He sat on the bank of the river.";
const place = { text, start: 14, end: 18 };
const reply = {
  word: "bank",
  places: [place, place, place],
  clusters: [[0, 1], [2]],
  left_out: [],
  similarity: {
    shape: [2, 3, 3],
    data: Float32Array.from([1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0.5, 0.25, 0.5, 1, 0.5, 0.25, 0.5, 1]),
  },
  plane: { shape: [2, 3, 2], data: Float32Array.from([0, 0, 0, 0, 0, 0, 1, 0, -1, 0, 0, 0.5]) },
};
const comparison = new Comparison(reply);
const measure = (/** @type {string} */ label) => 7 * label.length;

test("similarities by layer", () => {
  assert.deepEqual(comparison.leastAlike(1), { pair: [0, 2], similarity: 0.25 });
  assert.ok(Math.abs(comparison.meanSimilarity(1) - 2.5 / 6) < 1e-6);
  assert.deepEqual(
    [1, 0.25, 0.625].map((value) => comparison.placeOnScale(value)),
    [1, 0, 0.5],
  );
  assert.equal(comparison.isIdentical(), false);
  assert.deepEqual(
    [0, 1, 2].map((i) => comparison.clusterOf(i)),
    [0, 0, 1],
  );
  assert.deepEqual([stateName(0), stateName(1)], ["before the first layer", "after layer 0"]);
});

test("notes say what was left out", () => {
  const left = [{ text: 3, reason: "Text 4 lacks the word." }];
  const notes = new Comparison({ ...reply, left_out: left }).notes(true);
  assert.equal(notes[0], "1 text left out: Text 4 lacks the word.");
  assert.match(notes[1], /^In this model a word sees only the words before it/);
});

test("the words around a place", () => {
  assert.deepEqual(aroundPlace(place, 12), ["…n the ", "bank", " of th…"]);
  assert.deepEqual(aroundPlace(place, 500), ["He sat on the ", "bank", " of the river."]);
  assert.equal(placeLabel(place, 34), "on the bank of the");
});

for (const wide of [280, 328, 720])
  test(`labels do not touch each other or a point, at a width of ${wide} px`, () => {
    for (const l of [0, 1]) {
      const points = pointsOf(comparison, l, wide);
      const boxes = labelsOf(comparison, points, wide, measure).map(({ i, x, y, text, anchor }) => {
        const left = anchor === "end" ? x - measure(text) : x;
        return { i, left, right: left + measure(text), top: y - 11, bottom: y + 4 };
      });
      assert.ok(boxes.length > 0);
      for (const a of boxes) {
        assert.ok(a.left >= 0 && a.right <= wide);
        for (const b of boxes) {
          const isApart = a.right <= b.left || b.right <= a.left || a.bottom + 2 <= b.top || b.bottom + 2 <= a.top;
          assert.ok(a.i === b.i || isApart, `${l}: ${a.i} and ${b.i}`);
        }
      }
    }
  });

test("an example is compared until something else is asked for", () => {
  assert.equal(comparedTexts({ same: null, texts: null, model: null }).word, "bank");
  assert.deepEqual(comparedTexts({ same: "a", texts: "b", model: "m" }), { word: "a", texts: "b", model: "m" });
});
