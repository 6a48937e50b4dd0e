import assert from "node:assert/strict";
import { test } from "node:test";
import { describeHead, patternsOf, wordsOfCell } from "../src/views/heads/patterns.js";

const layer = {
  shares: { shape: [2, 2], data: Float32Array.from([0.1, 0.75, 0.125, 0.05]) },
  patterns: { first: "the first word", previous: "the word before" },
  threshold: 0.5,
};

test("a head's patterns, the largest share first", () => {
  assert.deepEqual(patternsOf(layer, 0)[0], { name: "previous", whom: "the word before", share: 0.75 });
  assert.equal(describeHead(patternsOf(layer, 0)), "75 % of its weight goes to the word before");
  assert.equal(describeHead(patternsOf(layer, 1)), "no clear pattern");
});

test("patterns that were not measured are not a head's", () => {
  const shares = { shape: [1, 2], data: Float32Array.from([Number.NaN, 0.75]) };
  assert.deepEqual(patternsOf({ ...layer, shares }, 0), [{ name: "previous", whom: "the word before", share: 0.75 }]);
});

test("a cell is described where it is more than a weight", () => {
  assert.equal(wordsOfCell({}, 64), "");
  assert.equal(wordsOfCell({}, 65), "each cell is the largest of 2 × 2 weights");
  assert.match(wordsOfCell({}, 4000), /64 × 64 weights, and a row that of its first word$/);
  assert.equal(wordsOfCell({ pictured: 3 }, 9), "each cell is the mean of 8 × 8 weights");
});
