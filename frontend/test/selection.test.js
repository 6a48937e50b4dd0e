import assert from "node:assert/strict";
import { test } from "node:test";
import { readingOf, wantedText } from "../src/app/reader.js";
import { addText, parametersOf, selectionOf, VIEW_NAMES, withinReading } from "../src/app/selection.js";
import { VIEWS } from "../src/protocol.js";
import { mapProblem } from "../src/ui/maps.js";

const metadata = {
  reading: "a1",
  model: "m",
  text: "Time flies",
  layers: 2,
  heads: 3,
  units: ["[CLS]", "Time", "flies", "[SEP]"],
  special: [0, 3],
  first_tokens: [0, 1, 2, 4],
  tokens: ["[CLS]", "time", "fl", "##ies", "[SEP]"],
  second: null,
  causal: false,
  sinks: false,
  unknown: [],
  unknown_tokens: [],
  attention_layers: [0, 1],
  attention: null,
  attentions: [],
  columns: null,
};
const reading = readingOf(metadata, "wanted", { text: "Time flies" });
const opened = (parameters, opening = {}) => selectionOf(new URLSearchParams(parameters), opening);

test("a selection survives its address", () => {
  const link =
    "view=map&map=norms&target=word%3Aflies&layer=1&head=2&word=2&side=to&token=1&step=4&heads=0.2&hide=1&mass=60&direction=ab&scale=log&reduce=max&at=1.2&seen=0.5_1_2&after=0&same=bank&texts=a%0Ab&theme=dark";
  assert.equal(String(parametersOf(opened(link), reading)), link);
});

test("what is as usual is not in the address, and no head is not all heads", () => {
  assert.equal(String(parametersOf(opened(""), reading)), "view=sentence&layer=0&head=0&word=none");
  assert.equal(String(parametersOf(opened(""), null)), "view=sentence");
  assert.deepEqual(opened("heads=").heads, []);
  assert.match(String(parametersOf(opened("heads="), reading)), /heads=$/);
});

test("an address goes before what the page opens with", () => {
  const opening = { word: 2, layer: 1, head: 1, heads: [1], view: "walk" };
  assert.deepEqual([opened("", opening).word, opened("", opening).heads, opened("", opening).view], [2, [1], "walk"]);
  assert.equal(opened("word=none", opening).word, null);
  assert.equal(opened("layer=0", opening).heads, null);
});

test("nonsense in an address is as if it were not there", () => {
  const state = opened("view=table&layer=-1&head=1e9&mass=1000&scale=cubic&at=1&seen=1_2_x&hide=yes");
  const { view, layer, head, mass, scale, at, seen, hide } = state;
  assert.deepEqual([view, layer, head, mass, scale, at, seen, hide], ["sentence", 0, 0, 100, null, null, null, false]);
});

test("a map that is not there is said, with its reason, and the weights are shown", () => {
  const maps = [
    { name: "weights", heads: true, target: false, signed: false, missing: null },
    { name: "logits", heads: true, target: true, signed: true, missing: "m has no output head." },
  ];
  assert.equal(mapProblem({ maps }, opened("")), null);
  assert.equal(
    mapProblem({ maps }, opened("map=logits")),
    "The map “logits” is not there. m has no output head. The weights are shown instead.",
  );
  const hostile = `<b>${"x".repeat(100)}`;
  const problem = mapProblem({ maps }, opened(`map=${encodeURIComponent(hostile)}`));
  assert.equal(
    problem,
    `There is no map “${hostile.slice(0, 40)}”: there are weights, logits. The weights are shown instead.`,
  );
});

test("a long text goes by the name of its reading, and the usual model is not named", () => {
  const address = (state) => {
    const parameters = new URLSearchParams();
    addText(parameters, { ...opened(""), ...state }, reading, "m");
    return String(parameters);
  };
  assert.equal(address({ text: "a b", pair: "c", model: "m" }), "text=a+b&pair=c");
  assert.equal(address({ text: "x".repeat(2001), model: "n" }), "reading=a1&model=n");
  assert.equal(address({ text: null }), "reading=a1");
});

test("a selection is brought within what a reading has", () => {
  const state = withinReading(opened("layer=7&head=9&word=9&heads=0.1.2&at=1.9&direction=ab"), reading);
  const { layer, head, word, heads, at, direction } = state;
  assert.deepEqual([layer, head, word, heads, at, direction], [0, 0, null, null, null, "all"]);
  assert.equal(withinReading(opened("hide=1&word=0"), reading).word, null);
  const pictured = withinReading(opened("hide=1&reduce=max"), { ...reading, pictured: 3 });
  assert.deepEqual([pictured.hide, pictured.reduce], [false, "mean"]);
});

test("a word of several tokens, and the last of the text", () => {
  assert.deepEqual(reading.tokensOf(2), [2, 3]);
  assert.deepEqual(reading.tokensOf(3), [4]);
});

test("what is wanted is a text, a reading, or nothing", () => {
  assert.equal(wantedText(opened("")), null);
  assert.notEqual(wantedText(opened("text=a")), wantedText(opened("text=a&pair=b")));
  assert.equal(wantedText(opened("reading=a1")), '["a1",null]');
});

test("the views are those of the protocol", () => {
  assert.deepEqual(VIEW_NAMES, VIEWS);
});

test("a selection is brought within the rows and the columns of a reading of two texts", () => {
  const columns = {
    text: "La temps",
    units: ["a", "b", "c", "d", "e", "</s>"],
    special: [5],
    first_tokens: [0, 1, 2, 3, 4, 5],
    tokens: ["a", "b", "c", "d", "e", "</s>"],
    unknown: [],
    unknown_tokens: [],
  };
  const attentions = ["encoder", "decoder", "cross"];
  const across = readingOf({ ...metadata, attention: "cross", attentions, columns }, "wanted", { text: "La temps" });
  assert.deepEqual([across.U, across.columns.U, across.columns.tokensOf(5)], [4, 6, [5]]);
  assert.equal(reading.columns, reading);
  const selected = (link) => withinReading(opened(link), across);
  assert.equal(selected("word=4").word, null);
  assert.equal(selected("word=4&side=to").word, 4);
  assert.equal(selected("word=5&side=to&hide=1").word, null);
  assert.deepEqual(selected("at=3.5").at, [3, 5]);
  assert.equal(selected("at=4.5").at, null);
  assert.match(String(parametersOf(opened(""), across)), /attention=cross/);
  assert.equal(opened("attention=decoder").attention, "decoder");
});
