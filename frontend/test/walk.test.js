import assert from "node:assert/strict";
import { test } from "node:test";
import { productTerms } from "../src/views/walk/formulas.js";
import { listsOf, peakOf, walkOf } from "../src/views/walk/numbers.js";

const vector = (...data) => ({ shape: [data.length], data: Float64Array.from(data) });
const matrix = (rows) => ({ shape: [rows.length, rows[0].length], data: Float64Array.from(rows.flat()) });
const place = { l: 0, h: 0, u: 1, i: 1 };

test("arrays become lists", () => {
  assert.deepEqual(listsOf(vector(1, 2)), [1, 2]);
  assert.deepEqual(
    listsOf(
      matrix([
        [1, 2],
        [3, 4],
      ]),
    ),
    [
      [1, 2],
      [3, 4],
    ],
  );
  assert.equal(peakOf([[1, -3], [2]]), 3);
});

test("a walk of weights alone has no steps", () => {
  const walk = walkOf({ rows: [0, 1], weights: vector(0.5, 0.5) }, place);
  assert.equal(walk.steps, null);
  assert.deepEqual(walk.weights, [0.5, 0.5]);
});

test("a walk without values has no sum; with them, what each token adds", () => {
  const short = {
    ...{ rows: [0, 1], weights: vector(0.25, 0.75), best: 1, scale: 1, softcap: null, sink: null },
    ...{
      query: vector(1, 0),
      key: vector(0, 1),
      keys: matrix([
        [1, 0],
        [0, 1],
      ]),
      scores: vector(1, 0),
      scaled: vector(1, 0),
    },
  };
  assert.equal(walkOf(short, place).steps.sum, null);
  const whole = {
    ...short,
    value: vector(0, 1),
    values: matrix([
      [3, 4],
      [0, 1],
    ]),
    context: vector(0.75, 1.75),
  };
  const { sum } = walkOf(whole, place).steps;
  assert.deepEqual(sum.carried, [1.25, 0.75]);
  assert.deepEqual([sum.total, sum.projected, sum.error], [2, false, null]);
  const projected = walkOf({ ...whole, carried: vector(1, 2), carried_total: 5, projected: true, error: 1e-7 }, place);
  assert.deepEqual([projected.steps.sum.carried, projected.steps.sum.total], [[1, 2], 5]);
});

test("a formula has as many terms as a line holds", () => {
  assert.equal(productTerms([1, 2], [3, -4]), "(1.00 × 3.00) + (2.00 × −4.00)");
  assert.match(productTerms([1, 2, 3, 4], [1, 1, 1, 1]), / \+ …$/);
});
