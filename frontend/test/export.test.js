import assert from "node:assert/strict";
import { test } from "node:test";
import { checksum, csv, fileName } from "../src/app/export-names.js";
import { selectionOf } from "../src/app/selection.js";
import { reopened } from "../src/offline/reopen.js";

const stateOf = (link) => selectionOf(new URLSearchParams(link), {});

test("a table as CSV: quotes doubled, and no cell that a spreadsheet would run", () => {
  assert.equal(
    csv([
      ["a", 'b "c"'],
      [1.5, "x,y"],
    ]),
    'a,"b ""c"""\r\n1.5,"x,y"\r\n',
  );
  assert.equal(csv([["=SUM(A1)", "-1", -1, "'"]]), `"'=SUM(A1)","'-1",-1,"'"\r\n`);
});

test("a file's name says what it shows, and differs with all that was selected", () => {
  const content = { subject: "Time flies like an arrow", word: "flies", all: "one" };
  const name = fileName(stateOf("view=walk&layer=5&head=11"), "png", content);
  assert.match(name, /^time-flies-like-an-walk-flies-layer-5-head-11-[0-9a-z]{6}\.png$/);
  assert.notEqual(name, fileName(stateOf("view=walk&layer=5&head=11"), "png", { ...content, all: "two" }));
  const norms = fileName(stateOf("view=map&map=norms&layer=5&head=11"), "csv", content);
  assert.match(norms, /^time-flies-like-an-map-norms-layer-5-[0-9a-z]{6}\.csv$/);
  assert.match(fileName(stateOf(""), "html", { ...content, subject: "→" }), /^regard-[0-9a-z]{6}\.html$/);
});

test("a checksum has six letters", () => {
  assert.match(checksum(""), /^[0-9a-z]{6}$/);
  assert.notEqual(checksum("a"), checksum("b"));
});

test("a saved page opens with a link, whatever is in it", () => {
  const file = '<script id="data">{"open":{"word":null,"text":"\\u003c"},"layers":[]}</script>';
  const again = reopened(file, { word: null, text: "<" }, "view=map&$&</script>");
  const data = JSON.parse(/>(.*)<\/script>$/.exec(again)[1]);
  assert.equal(data.open.link, "view=map&$&</script>");
  assert.equal(again.split("</script>").length, 2);
});
