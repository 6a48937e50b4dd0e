import assert from "node:assert/strict";
import { test } from "node:test";
import { heaviest, windowAround, windowAtGap, withGaps } from "../src/views/sentence/columns.js";
import {
  curve,
  distanceFromBar,
  headOffset,
  heightAt,
  isDrawn,
  isShown,
  largestOf,
  linesOf,
  markAt,
  meanOver,
  sidesOfWord,
  strokeOf,
  strongestLines,
} from "../src/views/sentence/lines.js";
import { headAlone, toggledHeads } from "../src/views/sentence/selection.js";

const range = (n) => Array.from({ length: n }, (_, i) => i);
const everything = () => true;

const two = { from: [0, 1], to: [0, 1], U: 2, V: 2 }; // a text of two words

test("the mean over heads", () => {
  assert.deepEqual([...meanOver([0, 2], [1, 0, 9, 9, 0, 1], 2)], [0.5, 0.5]);
});

test("the strongest lines carry the share that is asked for, and no more than needed", () => {
  const lines = [0.1, 0.5, 0, 0.3, 0.1].map((weight, v) => [0, 0, v, weight]);
  assert.deepEqual(
    strongestLines(lines, 100).map((line) => line[2]),
    [1, 3, 0, 4],
  );
  assert.deepEqual(
    strongestLines(lines, 60).map((line) => line[2]),
    [1, 3],
  );
  assert.deepEqual(
    strongestLines(lines, 50).map((line) => line[2]),
    [1],
  );
  assert.deepEqual(strongestLines([[0, 0, 0, 0]], 100), []);
});

test("numbers with signs are as strong as they are large, and drawn against the largest", () => {
  const lines = [0.2, -4, 1].map((number, v) => [0, 0, v, number]);
  assert.deepEqual(
    strongestLines(lines, 90).map((line) => line[2]),
    [1, 2],
  );
  assert.equal(largestOf([0.2, -4, 1, 8], [0], sidesOfWord(two, "from")), 4);
  assert.equal(largestOf([0.2, -4, 1, 8], [0], { ...two, from: [0], to: [0] }), 0.2);
  assert.deepEqual(
    lines.map((line) => isDrawn(line, 40)),
    [false, true, true],
  );
  assert.deepEqual(strokeOf(-4, 4), strokeOf(1, 1));
});

test("lines between two texts: rows of the target, columns of the source", () => {
  const sides = { from: [0, 1], to: [0, 1, 2], U: 2, V: 3 };
  const from = linesOf({ pick: { u: 1, side: "from" }, row: [9, 9, 9, 0.1, 0.2, 0.7] }, [1], sides, 100, everything);
  assert.deepEqual(from[0], [1, 1, 2, 0.7]);
  const to = linesOf({ pick: { u: 2, side: "to" }, row: [9, 9, 0.4, 0.7] }, [1], sides, 100, everything);
  assert.deepEqual(to, [
    [1, 1, 2, 0.7],
    [1, 0, 2, 0.4],
  ]);
  const all = Float32Array.from([0.5, 0.25, 0.25, 0, 0, 1]);
  assert.deepEqual(linesOf({ pick: null, all }, [0], sides, 10, everything), [
    [0, 0, 0, 0.5],
    [0, 1, 2, 1],
  ]);
  assert.equal(largestOf(all, [0], sides), 1);
  assert.deepEqual(sidesOfWord(sides, "to"), { from: [0], to: [0, 1], U: 1, V: 2 });
});

test("lines of a picked word, from it or to it, and of all words", () => {
  const row = [0.6, 0.4, 0.2, 0.8]; // two heads, two units
  const from = linesOf({ pick: { u: 1, side: "from" }, row }, [0, 1], two, 100, everything);
  assert.deepEqual(from, [
    [0, 1, 0, 0.6],
    [0, 1, 1, 0.4],
    [1, 1, 1, 0.8],
    [1, 1, 0, 0.2],
  ]);
  const to = linesOf({ pick: { u: 1, side: "to" }, row }, [1], two, 100, everything);
  assert.deepEqual(to, [
    [1, 1, 1, 0.8],
    [1, 0, 1, 0.2],
  ]);
  const all = Float32Array.from([0.75, 0.25, 0, 1]);
  const every = linesOf({ pick: null, all }, [0], two, 50, everything);
  assert.deepEqual(every, [
    [0, 0, 0, 0.75],
    [0, 1, 1, 1],
  ]);
  assert.deepEqual(linesOf({ pick: null, all: null }, [0], two, 100, everything), []);
});

test("a direction shows one text looking at another", () => {
  const shown = (direction) => range(2).map((u) => range(2).map((v) => isShown(direction, 1, u, v)));
  assert.deepEqual(shown("ab"), [
    [false, true],
    [false, false],
  ]);
  assert.deepEqual(shown("all"), [
    [true, true],
    [true, true],
  ]);
});

test("the lines of heads lie side by side around the middle", () => {
  const offsets = range(3).map((k) => headOffset(k, 3, 38));
  assert.deepEqual(offsets, [-2, 0, 2]);
  assert.equal(headOffset(0, 1, 38), 0);
});

test("a point on a curve is found, beside it is not", () => {
  const ends = [0, 10, 100, 50];
  assert.equal(curve(0, 10, 100, 50), "M0 10C40 10 60 50 100 50");
  assert.ok(Math.abs(heightAt(ends, 0) - 10) < 1e-9);
  assert.ok(Math.abs(heightAt(ends, 50) - 30) < 1e-6);
  assert.ok(Math.abs(heightAt(ends, 100) - 50) < 1e-6);
  assert.equal(heightAt(ends, 101), Infinity);
});

test("the pointer meets the nearest mark, rather a thick line", () => {
  const thin = { h: 0, u: 0, v: 0, weight: 0.01, share: 0.01, line: [0, 10, 100, 10] };
  const thick = { h: 1, u: 0, v: 0, weight: 0.9, share: 0.9, line: [0, 12, 100, 12] };
  const bar = { h: 2, u: 0, v: 0, weight: 0.5, share: 0, bar: [120, 0, 30, 14] };
  assert.equal(markAt([thin, thick, bar], 50, 11), thick);
  assert.equal(markAt([thin, thick, bar], 130, 5), bar);
  assert.equal(markAt([thin, thick, bar], 50, 90), null);
  assert.equal(distanceFromBar([0, 0, 10, 10], 5, 5), 0);
  assert.equal(distanceFromBar([0, 0, 10, 10], 14, 5), 4);
});

test("of a long text a column holds the words around one, and says how many it leaves out", () => {
  const units = range(500);
  const around = windowAround(250, units);
  assert.equal(around.length, 100);
  assert.ok(around.includes(250));
  assert.deepEqual(windowAround(0, units)[0], 0);
  assert.deepEqual(windowAround(499, units).at(-1), 499);
  const column = withGaps([5, 6, 400], units);
  assert.deepEqual(column, [-5, 5, 6, -393, 400, -99]);
  assert.equal(
    column.reduce((total, u) => total + (u < 0 ? -u : 1), 0),
    500,
  );
  assert.ok(windowAtGap(401, units).includes(401));
});

test("the other column holds the heaviest words in reading order, or is not known", () => {
  const mean = new Float64Array(500).fill(0.0001);
  mean[7] = 0.5;
  mean[3] = 0.4;
  assert.deepEqual(heaviest(mean, range(500), 1), [3, 7]);
  assert.equal(heaviest(new Float64Array(5).fill(Number.NaN), range(5), 1), null);
});

test("heads are switched one by one, or shown alone", () => {
  assert.deepEqual(toggledHeads([0, 1, 2], 1), [0, 2]);
  assert.deepEqual(toggledHeads([0, 2], 1), [0, 1, 2]);
  assert.deepEqual(headAlone(null, 3), { heads: [3], head: 3 });
  assert.deepEqual(headAlone([3], 3), { heads: null });
});
