// Where the answers come from: the server, or the notebook's Python. The questions are those of view/desk.py, and
// frozen.js answers them without either.

/** A question over HTTP. */
export function httpSource() {
  return async (question, signal) => {
    let response;
    try {
      response = await fetch("api", { method: "POST", body: JSON.stringify(question), signal });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Error("The server does not answer: is “regard serve” still running?");
    }
    if (!response.ok) {
      const told = await response.json().catch(() => ({}));
      throw Object.assign(new Error(told.error ?? `The server answered ${response.status}.`), { status: response.status, code: told.code });
    }
    return decoded(await response.arrayBuffer());
  };
}

const GONE = "The kernel was restarted. Run the cell again.";
const SILENT = "The kernel does not answer. If it is busy, try again when it is done; if it was restarted, run the cell again.";
const PATIENCE = 20_000; // ms: what takes long is answered at once, by the share that is done

/** A question to the Python of a notebook, over the channel of its widget. */
export function widgetSource(model) {
  let last = 0;
  const waiting = new Map();
  model.on("msg:custom", (message, buffers) => {
    const asker = waiting.get(message.id);
    if (!asker) return;
    waiting.delete(message.id);
    if (message.error) asker.reject(Object.assign(new Error(message.error), { status: message.status, code: message.code }));
    else asker.resolve(decoded(aligned(buffers[0])));
  });
  return async (question, signal) => {
    const id = ++last;
    let timer;
    try {
      return await new Promise((resolve, reject) => {
        waiting.set(id, { resolve, reject });
        signal?.addEventListener("abort", () => reject(signal.reason));
        timer = setTimeout(() => reject(new Error(SILENT)), PATIENCE);
        send(model, { id, request: question }).catch(() => reject(new Error(GONE)));
      });
    } finally {
      clearTimeout(timer);
      waiting.delete(id);
    }
  };
}

/** Sends a message to Python. Where there is no kernel, notebooks throw: at once, or by the promise that they return. */
async function send(model, message) {
  await model.send(message);
}

/** A buffer that begins where float32 may; what a notebook hands over may be a view into another. */
const aligned = (view) => {
  const bytes = new Uint8Array(view.buffer ?? view, view.byteOffset ?? 0, view.byteLength);
  return bytes.slice().buffer;
};

/** The dictionary of an answer, with its arrays in it by name: {shape, data}. See encode() in view/desk.py. */
function decoded(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const { arrays, ...answer } = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  let at = 4 + length;
  for (const [name, shape] of arrays) {
    const size = shape.reduce((product, one) => product * one, 1);
    answer[name] = { shape, data: new Float32Array(buffer, at, size) };
    at += 4 * size;
  }
  return answer;
}

/**
 * Asks until there is an answer: what takes long is answered by the share that is done, and the number of its job.
 *
 * A job that somebody else cancelled, in another tab, is begun anew for those who still wait for it.
 */
export function patient(source, progress) {
  return async (question, signal) => {
    let job;
    for (;;) {
      signal?.throwIfAborted();
      const answer = await source(job === undefined ? question : { ...question, job }, signal);
      if (answer.cancelled === true && (!signal || signal.aborted)) throw new DOMException("Cancelled.", "AbortError");
      if (!("progress" in answer) && answer.cancelled !== true) return answer;
      job = answer.job;
      if (job !== undefined) progress(question, answer.progress, job);
    }
  };
}
