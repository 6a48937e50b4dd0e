import assert from "node:assert/strict";
import { test } from "node:test";
import {
  dashOf,
  HEADS,
  headColour,
  needsWhite,
  numberAt,
  peakOf,
  ramp,
  rampColour,
  readable,
  shade,
} from "../src/ui/colour.js";

const LINEAR = /** @type {const} */ ({ peak: 1, scale: "linear", signed: false });

test("the ramp goes from paper to ink in equal steps of lightness", () => {
  for (const dark of [false, true]) {
    const colours = ramp(dark, false);
    assert.equal(colours.length, 256);
    const luminance = colours.map(([r, g, b]) => 0.2126 * r + 0.7152 * g + 0.0722 * b);
    const steps = luminance.slice(1).map((value, n) => (value - luminance[n]) * (dark ? 1 : -1));
    assert.ok(Math.min(...steps) > -1.5, "never back");
    assert.ok(Math.abs(luminance[255] - luminance[0]) > 150);
  }
  assert.equal(rampColour(0, false, false), `rgb(${ramp(false, false)[0].join(",")})`);
});

test("shade and numberAt are inverse, on both scales, with signs and without", () => {
  for (const scale of /** @type {const} */ (["linear", "log"]))
    for (const signed of [false, true])
      for (const place of [0.25, 0.5, 0.75, 1]) {
        const range = { peak: 0.3, scale, signed };
        assert.ok(Math.abs(shade(numberAt(place, range), range) - place) < 1e-12);
      }
  assert.equal(shade(Number.NaN, LINEAR), 0);
  assert.equal(shade(0, { ...LINEAR, scale: "log" }), 0);
  assert.equal(shade(2, LINEAR), 1);
  assert.equal(shade(-1, LINEAR), 0);
  assert.equal(shade(1e-9, { ...LINEAR, scale: "log" }), 0);
});

test("with signs, 0 and what is no number are in the middle, and −x as far from it as x", () => {
  const signed = { ...LINEAR, signed: true };
  assert.deepEqual(
    [-2, -1, -0.5, 0, Number.NaN, 0.5, 1].map((number) => shade(number, signed)),
    [0, 0, 0.25, 0.5, 0.5, 0.75, 1],
  );
  for (const dark of [false, true]) {
    const colours = ramp(dark, true);
    const [[redBelow, , blueBelow], [redAbove, , blueAbove]] = [colours[0], colours[255]];
    assert.ok(blueBelow > redBelow && redAbove > blueAbove, "blue below, orange above");
    assert.deepEqual(colours[128], ramp(dark, true)[Math.round(255 * shade(0, signed))], "paper at 0");
    const luminance = colours.map(([r, g, b]) => 0.2126 * r + 0.7152 * g + 0.0722 * b);
    assert.ok(Math.abs(luminance[0] - luminance[255]) < 25, "both sides are alike");
  }
});

test("numbers can be read on every colour", () => {
  assert.equal(needsWhite(1, LINEAR, false), true);
  assert.equal(needsWhite(0.1, LINEAR, false), false);
  assert.equal(needsWhite(-1, { ...LINEAR, signed: true }, false), true);
  assert.equal(needsWhite(1, LINEAR, true), false);
  assert.equal(readable("#000000"), "#fff");
  assert.equal(readable("#ffe100"), "#000");
});

test("from the thirteenth head on, colours repeat with dashes", () => {
  assert.equal(HEADS.light.length, HEADS.dark.length);
  assert.equal(headColour(13, false), headColour(1, false));
  assert.notEqual(dashOf(13), dashOf(1));
});

test("the peak can leave the first row and column out, unless there is nothing else", () => {
  const cells = [9, 8, 7, 0.2, Number.NaN, 0.1, 5, 0.3, 0.4];
  assert.equal(peakOf(cells, 3), 9);
  assert.equal(peakOf(cells, 3, true), 0.4);
  assert.equal(peakOf([1, 0, 0.5, 0], 2, true), 1);
  assert.equal(peakOf([0.5, -2], 2), 2);
});
