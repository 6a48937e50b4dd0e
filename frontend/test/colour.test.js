import assert from "node:assert/strict";
import { test } from "node:test";
import {
  dashOf,
  HEADS,
  headColour,
  needsWhite,
  peakOf,
  ramp,
  rampColour,
  readable,
  shade,
  weightAt,
} from "../src/ui/colour.js";

test("the ramp goes from paper to ink in equal steps of lightness", () => {
  for (const dark of [false, true]) {
    const colours = ramp(dark);
    assert.equal(colours.length, 256);
    const luminance = colours.map(([r, g, b]) => 0.2126 * r + 0.7152 * g + 0.0722 * b);
    const steps = luminance.slice(1).map((value, n) => (value - luminance[n]) * (dark ? 1 : -1));
    assert.ok(Math.min(...steps) > -1.5, "never back");
    assert.ok(Math.abs(luminance[255] - luminance[0]) > 150);
  }
  assert.equal(rampColour(0, false), `rgb(${ramp(false)[0].join(",")})`);
});

test("shade and weightAt are inverse, on both scales", () => {
  for (const scale of /** @type {const} */ (["linear", "log"]))
    for (const place of [0.25, 0.5, 0.75, 1])
      assert.ok(Math.abs(shade(weightAt(place, 0.3, scale), 0.3, scale) - place) < 1e-12);
  assert.equal(shade(Number.NaN, 1, "linear"), 0);
  assert.equal(shade(0, 1, "log"), 0);
  assert.equal(shade(2, 1, "linear"), 1);
  assert.equal(shade(1e-9, 1, "log"), 0);
});

test("numbers can be read on every colour", () => {
  assert.equal(needsWhite(1, 1, "linear", false), true);
  assert.equal(needsWhite(0.1, 1, "linear", false), false);
  assert.equal(needsWhite(1, 1, "linear", true), false);
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
});
