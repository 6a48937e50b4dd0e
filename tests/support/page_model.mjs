// Answers requests with a model of the page, without a browser: tests/support/page_models.py asks it.
//
// It reads {file, requests} from its input, and writes a list of replies. Arrays travel as base64 of float32.

import { readFileSync } from "node:fs";
import { parse, unpack } from "../../frontend/src/model/file.js";
import { openReader } from "../../frontend/src/model/reader.js";

const { file, requests } = JSON.parse(readFileSync(0, "utf8"));
const reader = openReader(await unpack(parse(readFileSync(file, "utf8"))));

/** Each kind of request has the arguments of its function in the worker. */
async function answer({ read, predict, write, seconds }) {
  if (write) return reader.write(...write);
  if (predict) return reader.predict(await reader.read(...predict[0]), ...predict.slice(1));
  if (seconds) return fastest(...seconds);
  return (await reader.read(...read)).reading;
}

/** The shortest time that a text takes, of several. */
async function fastest(text, repeats) {
  const times = [];
  for (let n = 0; n < repeats; n++) {
    const start = performance.now();
    await reader.read(text);
    times.push((performance.now() - start) / 1000);
  }
  return Math.min(...times);
}

const replies = [];
for (const request of requests) replies.push(await answer(request).catch((error) => ({ error: error.message })));
const encoded = (_key, value) =>
  value instanceof Float32Array ? Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString("base64") : value;
process.stdout.write(JSON.stringify(replies, encoded));
