import assert from "node:assert/strict";
import { test } from "node:test";
import { PredictionMemory } from "../src/app/predictions.js";
import { parametersOf, selectionOf } from "../src/app/selection.js";
import { offlineSource } from "../src/offline/source.js";
import { firstName, hidesFirst, isHidden } from "../src/ui/hidden.js";
import { isRight, linesOf, predictedIn, shortened, unitOfToken } from "../src/ui/predictions.js";

const reply = {
  texts: [
    [" cat", "s"],
    [" ", "\n"],
  ],
  probabilities: { shape: [2, 2], data: Float32Array.from([0.5, 0.25, 0.75, 0.0001]) },
  surprise: { shape: [2], data: Float32Array.from([Math.log(2), Number.NaN]) },
};

test("a row of a reply", () => {
  const [first, second] = [predictedIn(reply, 0), predictedIn(reply, 1)];
  assert.deepEqual(first.likely[1], { text: "s", probability: 0.25 });
  assert.ok(isRight(first), "the token that came has the probability of the likeliest");
  assert.ok(!isRight({ ...first, surprise: Math.log(4) }));
  assert.equal(second.surprise, null);
  assert.ok(!isRight(second), "nothing came");
  assert.deepEqual(linesOf(second), ["75 %  “␣”", "below 0.1 %  “⏎”"]);
});

test("a predicted token in its cell", () => {
  assert.deepEqual([" cat", "s", " ", "\n", ""].map(shortened), ["cat", "s", "␣", "⏎", ""]);
});

test("the unit of a token", () => {
  const reading = { first_tokens: [0, 1, 4] };
  assert.deepEqual(
    [0, 1, 3, 4, 9].map((i) => Object.values(unitOfToken(reading, i)).join()),
    ["0,0", "1,0", "1,2", "2,0", "2,5"],
  );
});

const state = { view: "map", map: "weights", word: null, hide: false, hideFirst: null };
const sink = { first_share: 0.7, pictured: 0, special: new Set([2]) };

test("a first token that takes most of the attention is hidden, unless it is asked for", () => {
  assert.ok(hidesFirst(sink, state));
  assert.ok(!hidesFirst({ ...sink, first_share: 0.49 }, state), "it takes less than half");
  assert.ok(!hidesFirst(sink, { ...state, word: 0 }), "it is the chosen word");
  assert.ok(!hidesFirst(sink, { ...state, view: "walk" }), "a walk lists all tokens");
  assert.ok(!hidesFirst(sink, { ...state, map: "value-weighted" }), "of other maps it takes little");
  assert.ok(!hidesFirst(sink, { ...state, hideFirst: false }));
});

test("any first token can be hidden that there is a share of", () => {
  const chosen = { ...state, hideFirst: true };
  assert.ok(hidesFirst({ ...sink, first_share: 0.1 }, { ...chosen, word: 0, map: "norms" }));
  assert.ok(!hidesFirst({ ...sink, first_share: null }, chosen), "words see those after them too");
  assert.ok(!hidesFirst({ ...sink, pictured: 3 }, chosen), "a picture has all");
});

test("special tokens and the first are hidden each for themselves", () => {
  const hidden = (more) => [0, 1, 2].filter((u) => isHidden(sink, { ...state, ...more }, u));
  assert.deepEqual(hidden({}), [0]);
  assert.deepEqual(hidden({ hide: true }), [0, 2]);
  assert.deepEqual(hidden({ hide: true, hideFirst: false }), [2]);
  assert.deepEqual(hidden({ view: "predictions" }), []);
});

test("the first token has a name", () => {
  const named = (tokens) => firstName({ units: ["<s>"], tokensOf: () => tokens });
  assert.equal(named([0]), "the first token, “<s>”,");
  assert.equal(named([0, 1]), "the first word, “<s>”,");
});

test("what is chosen stands in the address", () => {
  const chosen = selectionOf(new URLSearchParams("first=shown&lens=next"), {});
  assert.deepEqual([chosen.hideFirst, chosen.lens], [false, "next"]);
  assert.equal(parametersOf(chosen, null).get("first"), "shown");
  assert.equal(parametersOf({ ...chosen, hideFirst: true }, null).get("first"), "hidden");
  const usual = selectionOf(new URLSearchParams("first=x&lens=y"), {});
  assert.deepEqual([usual.hideFirst, usual.lens], [null, "predicted"]);
  assert.equal(parametersOf(usual, null).has("first"), false);
});

test("predictions are requested once, as long as their reading is shown", async () => {
  const asked = [];
  const app = { reading: { id: "a" }, request: async (request) => asked.push(request) && reply };
  const memory = new PredictionMemory(app);
  assert.equal(await memory.from(1, 128), await memory.from(1, 128));
  assert.deepEqual(asked, [{ type: "predictions", layer: 1, first: 128 }]);
  app.reading = { id: "b" };
  await memory.from(1, 128);
  assert.equal(asked.length, 2);
  assert.deepEqual(
    [0, 127, 128].map((i) => memory.blockOf(i)),
    [0, 0, 128],
  );
});

test("a saved page answers from the predictions that it holds", async () => {
  const N = 130;
  const float32 = (shape, numbers) => ({
    shape,
    float32: Buffer.from(Float32Array.from(numbers).buffer).toString("base64"),
  });
  const held = {
    texts: Array.from({ length: N }, (_, i) => [`a${i}`, `b${i}`]),
    probabilities: float32(
      [N, 2],
      Array.from({ length: 2 * N }, (_, n) => n / 1000),
    ),
    surprise: float32(
      [N],
      Array.from({ length: N }, (_, n) => (n === N - 1 ? Number.NaN : n)),
    ),
  };
  const metadata = { layers: 2, tokens: Array(N).fill("a"), units: ["a"], first_tokens: [0], special: [], maps: [] };
  const missing = "The file leaves them out.";
  const source = offlineSource({ metadata: { ...metadata, predictions: { missing } }, predictions: [null, held] });
  const all = await source({ type: "predictions", layer: 1 });
  assert.deepEqual([all.texts.length, all.texts[127]], [128, ["a127", "b127"]]);
  const rest = await source({ type: "predictions", first: 128, k: 1 });
  assert.deepEqual(rest.texts, [["a128"], ["a129"]]);
  assert.deepEqual(rest.probabilities.shape, [2, 1]);
  assert.ok(Math.abs(rest.probabilities.data[1] - 0.258) < 1e-6);
  assert.deepEqual([...rest.surprise.data], [128, Number.NaN]);
  await assert.rejects(source({ type: "predictions", layer: 0 }), { message: missing });
});
