// The worker in which a model is: it answers the messages of model/client.js. Bundled as text, started from a blob.

import { unpack } from "./file.js";
import { fastestProduct } from "./gpu.js";
import { load } from "./load.js";
import { openReader } from "./reader.js";

/** @import { Predictable } from "./reader.js" */
/** @import { ModelFile, ReadOptions } from "./types.js" */
/** @import { Place } from "./load.js" */

/**
 * A message; the reply has its `id`. `cancel` names another message, and has no reply.
 * @typedef {(
 *   | {type: "open", place?: Place, file?: ModelFile}
 *   | {type: "read", text: string, options?: ReadOptions}
 *   | {type: "predict", reading: number, layer: number | null, first: number, count: number, k: number}
 *   | {type: "write", text: string, count: number}
 *   | {type: "cancel"}
 * ) & {id: number}} Message
 */

const KEPT = 8; // readings that can be asked for predictions

/** @type {ReturnType<typeof openReader>} */
let reader;
/** @type {ReturnType<typeof fastestProduct>} */
let fastest;
/** @type {Map<number, Predictable>} */
const readings = new Map();
/** @type {Set<number>} */
const cancelled = new Set();
const turn = new MessageChannel();

self.onmessage = async ({ data }) => {
  if (data.type === "cancel") return cancelled.add(data.id);
  try {
    const reply = await answer(data);
    self.postMessage({ id: data.id, reply }, { transfer: data.type === "read" ? buffersOf(reply) : [] });
  } catch (error) {
    self.postMessage({ id: data.id, error: error instanceof Error ? error.message : String(error) });
  }
  cancelled.delete(data.id);
};

/** @param {Message} message */
async function answer(message) {
  const { id } = message;
  const progress = (/** @type {number | null} */ share) => self.postMessage({ id, progress: share });
  const pause = (/** @type {number} */ share) => {
    progress(share);
    return letMessagesPass(id);
  };
  if (message.type === "open") {
    const file = message.file ? await unpack(message.file) : await load(/** @type {Place} */ (message.place), progress);
    reader = openReader(file, () => (fastest ??= fastestProduct()));
    return { name: file.name, architecture: file.architecture, config: file.config };
  }
  if (message.type === "read") {
    const read = await reader.read(message.text, message.options, pause);
    readings.set(id, structuredClone({ ids: read.ids, hidden: read.hidden })); // the reply's arrays are handed over
    for (const old of [...readings.keys()].slice(0, -KEPT)) readings.delete(old);
    return { id, ...read.reading };
  }
  if (message.type === "predict") {
    const read = readings.get(message.reading);
    if (!read) throw new Error("The text of these predictions is no longer there: read it again.");
    return reader.predict(read, message.layer, message.first, message.count, message.k);
  }
  if (message.type === "write") return reader.write(message.text, message.count, pause);
  throw new Error("The page asks its model for something that it does not know.");
}

/**
 * Lets a message that cancels this one arrive, and throws if it has.
 * @param {number} id
 */
async function letMessagesPass(id) {
  await new Promise((resolve) => {
    turn.port1.addEventListener("message", resolve, { once: true }); // several may wait: a message wakes them all
    turn.port1.start();
    turn.port2.postMessage(null);
  });
  if (cancelled.has(id)) throw new Error("The answer is no longer wanted.");
}

/**
 * The buffers of all arrays in a reply, each once: they are handed over, not copied.
 * @param {unknown} value
 * @param {Set<Transferable>} [buffers]
 * @returns {Transferable[]}
 */
function buffersOf(value, buffers = new Set()) {
  if (ArrayBuffer.isView(value)) buffers.add(/** @type {ArrayBuffer} */ (value.buffer));
  else if (value && typeof value === "object") for (const part of Object.values(value)) buffersOf(part, buffers);
  return [...buffers];
}
