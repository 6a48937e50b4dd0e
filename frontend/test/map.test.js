import assert from "node:assert/strict";
import { test } from "node:test";
import * as levels from "../src/views/map/levels.js";
import { TileStore } from "../src/views/map/tiles.js";

const maps = [
  { name: "weights", heads: true, target: false, signed: false, missing: null },
  { name: "norms", heads: false, target: false, signed: false, missing: null },
  { name: "logits", heads: true, target: true, signed: true, missing: null },
];
const reading = { id: "a", causal: true, maps };
const question = { map: "weights", layer: 1, head: 2, reduce: "mean", hide: false };
const count = (size) => Array.from({ length: size }, (_, n) => n);
const matrixOf = (size, more = {}, wide = size) =>
  levels.makeMatrix({ ...reading, ...more }, question, count(size), count(wide));

test("at the top level one tile holds all", () => {
  assert.deepEqual(
    [1, 256, 257, 512, 10_000].map((size) => matrixOf(size).top),
    [0, 0, 1, 1, 6],
  );
});

test("a saved reading may have coarse levels alone", () => {
  const matrix = matrixOf(1000, { pictured: 4, floor: () => 4 });
  assert.deepEqual([matrix.floor, matrix.top], [4, 4]);
});

test("the level that is seen is the finest whose cells are a pixel", () => {
  const matrix = matrixOf(10_000);
  assert.deepEqual(
    [50, 1, 0.5, 0.3, 0.001].map((unit) => levels.levelSeen(matrix, unit)),
    [0, 0, 1, 2, 6],
  );
});

test("a tile at the edge is smaller, and all tiles cover the map", () => {
  const matrix = matrixOf(300);
  assert.deepEqual(levels.tileBounds(matrix, 0, 1, 0, true), [0, 0, 44, 256]);
  const [left, , width] = levels.tileBounds(matrix, 0, 1, 0, false);
  assert.ok(Math.abs(left + width - 1) < 1e-12);
});

test("a map of cross-attention may be wider than high", () => {
  const matrix = matrixOf(10, {}, 300);
  assert.equal(matrix.top, 1);
  assert.deepEqual(levels.tileBounds(matrix, 0, 1, 0, true), [0, 0, 44, 10]);
  const [left, top, width, height] = levels.tileBounds(matrix, 0, 1, 0, false);
  assert.ok(Math.abs(left + width - 1) + Math.abs(top + height - 10 / 300) < 1e-12);
  assert.equal(levels.windowOf({ left: 0, top: 0, unit: 2 }, { width: 600, height: 600 }, matrix), null);
});

test("a window moves as little as it must", () => {
  assert.equal(levels.shiftToShow(5, 2, 10, 100), 0);
  assert.equal(levels.shiftToShow(1, 2, 10, 100), -10);
  assert.equal(levels.shiftToShow(13, 2, 10, 100), 20);
});

test("the cells between two edges", () => {
  assert.deepEqual(levels.cellsBetween(3.5, 2, 1, 10), [3, 4, 5]);
  assert.deepEqual(levels.cellsBetween(-5, 100, 4, 10), [0, 1, 2]);
  assert.deepEqual(levels.unitsUnder({ left: 2, top: 1, unit: 10 }, { x: 25, y: 9 }), [1, 4]);
});

test("labels stand a power of two apart", () => {
  assert.deepEqual(
    [20, 15, 14, 5, 1].map((unit) => levels.labelStep(unit, 15)),
    [1, 1, 2, 4, 16],
  );
});

test("a window is noted unless it shows all", () => {
  const [square, matrix] = [(side) => ({ width: side, height: side }), matrixOf(100)];
  assert.equal(levels.windowOf({ left: 0, top: 0, unit: 10 }, square(1000), matrix), null);
  assert.deepEqual(levels.windowOf({ left: 1.234, top: 2, unit: 10 }, square(500), matrix), [1.23, 2, 50]);
});

test("colours follow the largest weight of a level, else that of the top", () => {
  const matrix = matrixOf(1000);
  assert.equal(levels.rangeAt(matrix, 1, "log").peak, 1);
  matrix.peaks[matrix.top] = 0.5;
  assert.equal(levels.rangeAt(matrix, 1, "log").peak, 0.5);
  matrix.peaks[1] = 0.7;
  assert.equal(levels.rangeAt(matrix, 1, "log").peak, 0.7);
  assert.equal(levels.scaleOf(null, 256), "linear");
  assert.equal(levels.scaleOf(null, 257), "log");
  assert.equal(levels.scaleOf("linear", 10_000), "linear");
});

test("a map of all heads together is the same whatever head is chosen", () => {
  const [first, second] = [2, 3].map((head) =>
    levels.makeMatrix(reading, { ...question, map: "norms", head }, [0, 1], [0, 1]),
  );
  assert.equal(first.key, second.key);
  assert.deepEqual([first.request.map, first.request.head], ["norms", 0]);
  assert.notEqual(first.key, levels.keyOf(reading, { ...question, head: 0 }));
  assert.equal(levels.makeMatrix(reading, { ...question, map: "logits" }, [0, 1], [0, 1]).signed, true);
});

test("a tile is requested once, and kept", async () => {
  const asked = [];
  const grown = [];
  const store = new TileStore(
    async (request) => {
      asked.push(request);
      return { cells: { shape: [2, 3], data: Float32Array.from([9, 9, 9, 9, 0.25, 0.5]) } };
    },
    (matrix) => grown.push(matrix),
  );
  const matrix = matrixOf(300);
  const [a, b] = await Promise.all([store.get(matrix, 0, 0, 0), store.get(matrix, 0, 0, 0)]);
  assert.equal(a, b);
  assert.equal(asked.length, 1);
  assert.deepEqual(asked[0], { type: "tile", ...question, hide_first: false, level: 0, row: 0, column: 0 });
  assert.equal(store.cellOf(matrix, 0, 1, 2), 0.5);
  assert.equal(store.cellOf(matrix, 0, 300, 0), undefined);
  assert.equal(matrix.peaks[0], 0.5, "without the first row and column");
  await store.get(matrix, 0, 1, 0);
  assert.equal(matrix.peaks[0], 9);
  assert.deepEqual(grown, [matrix]);
});

test("a tile that failed is requested again", async () => {
  let failing = true;
  const store = new TileStore(
    async () => {
      if (failing) throw new Error("gone");
      return { cells: { shape: [1, 1], data: Float32Array.of(1) } };
    },
    () => {},
  );
  await assert.rejects(store.get(matrixOf(1), 0, 0, 0), /gone/);
  failing = false;
  assert.equal((await store.get(matrixOf(1), 0, 0, 0)).rows, 1);
});
