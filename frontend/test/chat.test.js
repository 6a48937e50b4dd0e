import assert from "node:assert/strict";
import { test } from "node:test";
import { COMPARED_TEXTS, TEXT_LIMIT } from "../src/protocol.js";
import { problemOf, progressOf } from "../src/views/chat/panel.js";
import { endingOf, LEVELS, levelOf, piecesOf, probabilityOf, sayingOf } from "../src/views/chat/tokens.js";

const token = (text, probability = 0.5) => ({ text, probability });

test("the tokens of a character stand together, and an incomplete one is kept open", () => {
  const { pieces, open } = piecesOf([token("Hi", 0.9), token("", 0.5), token("", 0.5), token("👍", 0.1), token("")]);
  assert.deepEqual(
    pieces.map(({ text, tokens }) => [text, tokens.length]),
    [
      ["Hi", 1],
      ["👍", 3],
    ],
  );
  assert.equal(probabilityOf(pieces[1]), 0.5 * 0.5 * 0.1);
  assert.equal(open.length, 1);
});

test("every probability has a level, and the levels go down", () => {
  const places = [1, 0.9, 0.8999, 0.5, 0.4999, 0.1, 0.0999, 0];
  assert.deepEqual(places.map(levelOf), [0, 0, 1, 1, 2, 2, 3, 3]);
  assert.equal(new Set(LEVELS.map(({ name }) => name)).size, LEVELS.length);
});

test("a token is read out with its probability, white space as a sign", () => {
  assert.equal(sayingOf({ text: "\n", tokens: [token("\n", 0.25)] }), "“⏎”: probability 25 %");
  const several = { text: "é", tokens: [token("", 0.5), token("é", 0.5)] };
  assert.equal(sayingOf(several), "“é”, 2 tokens: probability 25 %");
});

test("how a reply ended is a sentence", () => {
  const tokens = [token("a"), token("b")];
  assert.equal(endingOf(tokens, "end", 9), "2 tokens; the model ended the reply itself.");
  assert.equal(endingOf(tokens, "length", 2), "Cut off at 2 tokens, the most that were asked for.");
  assert.equal(endingOf(tokens, "length", 9), "Cut off at 2 tokens, where the model's context ends.");
  assert.equal(endingOf(tokens, null, 9), "It broke off after 2 tokens.");
  assert.equal(endingOf([], "end", 9), "The model had nothing to say.");
  assert.equal(endingOf([], "interrupted", 9), "Stopped before the first token.");
  assert.equal(
    endingOf([token("a"), token("")], "interrupted", 9),
    "Stopped after 2 tokens; what was written stays. It ends within a character, which is left out.",
  );
});

test("what cannot be sent has a reason", () => {
  assert.equal(problemOf(" \n", "Nothing.", 0), "Nothing.");
  assert.match(problemOf("x".repeat(TEXT_LIMIT + 1), "", 0), /^The message has 1,048,577 characters/);
  assert.match(problemOf("x", "", COMPARED_TEXTS), /32 messages at most/);
  assert.equal(problemOf("x", "", COMPARED_TEXTS - 2), null);
});

test("what is under way is said: waiting, reading, writing", () => {
  assert.match(progressOf({ progress: null }, 0), /another tab/);
  assert.equal(progressOf({ progress: 0.333 }, 0), "The model reads the text: 33 %");
  assert.equal(progressOf({ tokens: [] }, 12), "12 tokens …");
});
