import assert from "node:assert/strict";
import { test } from "node:test";
import { COMPARED_TEXTS, TEXT_LIMIT } from "../src/protocol.js";
import { documentsOf, problemOf } from "../src/views/passages/panel.js";

const file = (name, ...bytes) => ({ name, arrayBuffer: async () => Uint8Array.from(bytes).buffer });

test("documents are the pasted text and the files, without a byte order mark", async () => {
  assert.deepEqual(await documentsOf([file("a.txt", 0xef, 0xbb, 0xbf, 0xc3, 0xa9)], "Pasted."), [
    { name: "pasted text", text: "Pasted." },
    { name: "a.txt", text: "é" },
  ]);
  assert.deepEqual(await documentsOf([], " \n"), []);
});

test("a file in another encoding is refused by its name", async () => {
  await assert.rejects(documentsOf([file("latin.txt", 0xe9, 0x20)], ""), /^Error: “latin\.txt” is no text in UTF-8/);
});

test("what cannot be asked has a reason", () => {
  const document = (text, name = "a.txt") => ({ name, text });
  assert.match(problemOf(" ", [document("x")]), /no question/);
  assert.match(problemOf("Why?", []), /no document/);
  assert.match(problemOf("Why?", Array(COMPARED_TEXTS + 1).fill(document("x"))), /33 documents, and the limit is 32/);
  assert.match(problemOf("Why?", [document("x"), document("\n", "b.txt")]), /“b\.txt” is empty/);
  assert.match(problemOf("Why?", [document("a\0b")]), /binary/);
  assert.match(problemOf("Why?", [document("x".repeat(TEXT_LIMIT + 1))]), /1,048,577 characters/);
  assert.equal(problemOf("Why?", [document("x")]), null);
});
