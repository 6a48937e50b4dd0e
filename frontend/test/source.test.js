import assert from "node:assert/strict";
import { test } from "node:test";
import { notebookSource } from "../src/source/notebook.js";
import { poll } from "../src/source/poll.js";
import { replyOf } from "../src/source/reply.js";

/** A reply as Python encodes it: the length of the head, the head padded to four bytes, the arrays. */
function encoded(fields, arrays) {
  const head = JSON.stringify({ ...fields, arrays: Object.entries(arrays).map(([name, { shape }]) => [name, shape]) });
  const padded = new TextEncoder().encode(head.padEnd(Math.ceil(head.length / 4) * 4));
  const numbers = Float32Array.from(Object.values(arrays).flatMap(({ data }) => data));
  const bytes = new Uint8Array(4 + padded.length + numbers.byteLength);
  new DataView(bytes.buffer).setUint32(0, padded.length, true);
  bytes.set(padded, 4);
  bytes.set(new Uint8Array(numbers.buffer), 4 + padded.length);
  return bytes.buffer;
}

test("a reply has its arrays by name", () => {
  const reply = replyOf(encoded({ named: 0.5 }, { a: { shape: [2, 1], data: [1, 2] }, b: { shape: [1], data: [3] } }));
  assert.equal(reply.named, 0.5);
  assert.deepEqual(reply.a, { shape: [2, 1], data: Float32Array.of(1, 2) });
  assert.deepEqual([...reply.b.data], [3]);
});

test("a request is sent again with its job until there is a reply", async () => {
  const replies = [{ progress: 0.25, job: 7 }, { progress: null, job: 7 }, { done: true }];
  const sent = [];
  const shown = [];
  const source = poll(
    async (request) => {
      sent.push(request);
      return replies.shift();
    },
    (request, share, job) => shown.push([request.type, share, job]),
  );
  assert.deepEqual(await source({ type: "thumbnails" }), { done: true });
  assert.deepEqual(sent, [{ type: "thumbnails" }, { type: "thumbnails", job: 7 }, { type: "thumbnails", job: 7 }]);
  assert.deepEqual(shown, [
    ["thumbnails", 0.25, 7],
    ["thumbnails", null, 7],
  ]);
});

test("a cancelled job is begun anew for those who still wait, and ends for those who do not", async () => {
  const replies = () => [{ progress: 0, job: 1 }, { cancelled: true }, { done: true }];
  const source = (list) =>
    poll(
      async () => list.shift(),
      () => {},
    );
  assert.deepEqual(await source(replies())({ type: "page" }, new AbortController().signal), { done: true });
  await assert.rejects(source(replies())({ type: "page" }), { name: "AbortError" });
  const stopped = AbortSignal.abort();
  await assert.rejects(source(replies())({ type: "page" }, stopped), { name: "AbortError" });
});

test("a notebook's replies find the request they belong to, errors too", async () => {
  let receive = (..._) => {};
  const sent = [];
  const model = {
    on: (_, listener) => {
      receive = listener;
    },
    send: (message) => sent.push(message),
  };
  const source = notebookSource(model);
  const [first, second] = [source({ type: "start" }), source({ type: "tile" })];
  assert.deepEqual(sent[1], { id: 2, request: { type: "tile" } });
  const buffer = encoded({ n: 1 }, {});
  const shifted = new Uint8Array(buffer.byteLength + 1);
  shifted.set(new Uint8Array(buffer), 1);
  receive({ id: 1 }, [new DataView(shifted.buffer, 1)]);
  receive({ id: 2, error: "There is no tile.", status: 400 }, []);
  receive({ id: 9 }, []);
  assert.deepEqual(await first, { n: 1 });
  await assert.rejects(second, { message: "There is no tile.", status: 400 });
});

test("a kernel that is gone is not taken for a busy one", async () => {
  const model = {
    on() {},
    send() {
      throw new Error("no comm");
    },
  };
  await assert.rejects(notebookSource(model)({ type: "start" }), /The kernel was restarted/);
});
