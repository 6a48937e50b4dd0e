import assert from "node:assert/strict";
import { test } from "node:test";
import { findWord, plain, visible } from "../src/ui/words.js";

const everywhere = () => true;

test("white space is shown as signs, words as they are", () => {
  assert.equal(visible("a b"), "a b");
  assert.equal(visible(" \n\t"), "␣⏎⇥");
  assert.equal(visible("\u2003"), "␣");
  assert.equal(visible(""), "");
});

test("typography makes no difference", () => {
  assert.equal(plain("“It’s – ﬁne”"), '"it\'s - fine"');
  assert.equal(plain("cafe\u0301"), plain("café"));
});

test("a word is found behind another, and from the beginning again", () => {
  const units = ["the", "bank", "of", "the", "Bank"];
  assert.equal(findWord(units, "bank", -1, everywhere), 1);
  assert.equal(findWord(units, "bank", 1, everywhere), 4);
  assert.equal(findWord(units, "bank", 4, everywhere), 1);
  assert.equal(findWord(units, "river", -1, everywhere), -1);
  assert.equal(findWord(units, " ", -1, everywhere), -1);
});

test("a word that is hidden is not found, and a run of units is", () => {
  assert.equal(
    findWord(["[CLS]", "a"], "[CLS]", -1, (u) => u !== 0),
    -1,
  );
  assert.equal(findWord(["do", "n't", "worry"], "don’t worry", -1, everywhere), 0);
});
