import assert from "node:assert/strict";
import { test } from "node:test";
import { bound, bytes, clipped, count, format, formatWeight, listed, numberInCell, percent } from "../src/ui/format.js";

test("numbers have a minus sign of their own, and no negative zero", () => {
  assert.equal(format(-1.5), "−1.500");
  assert.equal(format(-0.0001), "0.000");
  assert.equal(format(Number.NaN), "–");
});

test("a small weight is written as a power of ten", () => {
  assert.equal(formatWeight(0), "0.0000");
  assert.equal(formatWeight(0.25), "0.2500");
  assert.equal(formatWeight(3.2e-12), "3.2·10⁻¹²");
  assert.deepEqual(
    [0.31, 0.004, 12.34, 0.0012].map((number, n) => numberInCell(number, [0.9, 0.9, 30, 0.004][n])),
    [".31", "", "12.3", ".0012"],
  );
  assert.equal(numberInCell(-0.31, 1), "−.31");
  assert.equal(numberInCell(Number.NaN, 1), "");
  assert.equal(formatWeight(-0.25), "−0.2500");
  assert.equal(formatWeight(-3.2e-12), "−3.2·10⁻¹²");
});

test("shares, bounds and sizes", () => {
  assert.deepEqual([0, 0.0001, 0.05, 0.0999, 0.5, 1].map(percent), [
    "0 %",
    "below 0.1 %",
    "5.0 %",
    "10 %",
    "50 %",
    "100 %",
  ]);
  assert.deepEqual([0, 7e-8, 1e-3, 2].map(bound), ["0", "0.0000001", "0.001", "10"]);
  assert.deepEqual([999, 1500, 15_000, 2.5e9].map(bytes), ["999 bytes", "1.5 kB", "15 kB", "2.5 GB"]);
  assert.deepEqual(
    [1, 2, 1000].map((n) => count(n, "word")),
    ["1 word", "2 words", "1,000 words"],
  );
});

test("lists end with “and”", () => {
  assert.equal(listed([["a"], ["b"], ["c"]]).join(""), "a, b and c");
  assert.equal(listed([["a"]]).join(""), "a");
});

test("a text is clipped between letters, not inside one", () => {
  assert.equal(clipped("short"), "short");
  assert.equal(clipped("𝒜".repeat(80), 3), "𝒜𝒜𝒜…");
});
