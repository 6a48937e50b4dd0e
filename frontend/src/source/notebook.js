// Replies from the Python of a notebook, over the channel of its widget.

import { replyOf } from "./reply.js";

/** @import { Source } from "../types.js" */
/** @typedef {{resolve: (reply: any) => void, reject: (error: unknown) => void}} Waiting */

const RESTARTED = "The kernel was restarted. Run the cell again.";
const SILENT =
  "The kernel does not answer. If it is busy, try again when it is done; if it was restarted, run the cell again.";
const PATIENCE = 20_000; // ms: what takes long is answered at once, by the share that is done

/** @param {any} model of anywidget @returns {Source} */
export function notebookSource(model) {
  let last = 0;
  /** @type {Map<number, Waiting>} */
  const waiting = new Map();
  model.on("msg:custom", (/** @type {any} */ message, /** @type {DataView[]} */ buffers) => {
    const asker = waiting.get(message.id);
    if (!asker) return;
    waiting.delete(message.id);
    const { error, status, code } = message;
    if (error) asker.reject(Object.assign(new Error(error), { status, code }));
    else asker.resolve(replyOf(aligned(buffers[0])));
  });
  return async (request, signal) => {
    const id = ++last;
    let timer;
    try {
      return await new Promise((resolve, reject) => {
        waiting.set(id, { resolve, reject });
        signal?.addEventListener("abort", () => reject(signal.reason));
        timer = setTimeout(() => reject(new Error(SILENT)), PATIENCE);
        send(model, { id, request }).catch(() => reject(new Error(RESTARTED)));
      });
    } finally {
      clearTimeout(timer);
      waiting.delete(id);
    }
  };
}

/**
 * Sends a message to Python. Where there is no kernel, notebooks throw: at once, or by the promise that they return.
 * @param {any} model
 * @param {object} message
 */
async function send(model, message) {
  await model.send(message);
}

/**
 * A buffer that begins where float32 may; what a notebook hands over may be a view into another.
 * @param {any} view
 * @returns {ArrayBuffer}
 */
function aligned(view) {
  const bytes = new Uint8Array(view.buffer ?? view, view.byteOffset ?? 0, view.byteLength);
  return /** @type {ArrayBuffer} */ (bytes.slice().buffer);
}
