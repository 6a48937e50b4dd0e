// Where the answers come from: the server, or the notebook's Python. The questions are those of view/desk.py, and
// frozen.js answers them without either.

/** A question over HTTP. */
export function httpSource() {
  return async (question, signal) => {
    let response;
    try {
      response = await fetch("ask", { method: "POST", body: JSON.stringify(question), signal });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Error("The server does not answer: is “regard serve” still running?");
    }
    if (!response.ok) {
      const told = await response.json().catch(() => ({}));
      throw Object.assign(new Error(told.error ?? `The server answered ${response.status}.`), { status: response.status });
    }
    return decoded(await response.arrayBuffer());
  };
}

/** A question to the Python of a notebook, over the channel of its widget. */
export function widgetSource(model) {
  let last = 0;
  const waiting = new Map();
  model.on("msg:custom", (message, buffers) => {
    const asker = waiting.get(message.id);
    if (!asker) return;
    waiting.delete(message.id);
    if (message.error) asker.reject(Object.assign(new Error(message.error), { status: message.status }));
    else asker.resolve(decoded(aligned(buffers[0])));
  });
  return (question, signal) =>
    new Promise((resolve, reject) => {
      const id = ++last;
      waiting.set(id, { resolve, reject });
      signal?.addEventListener("abort", () => {
        waiting.delete(id);
        reject(signal.reason);
      });
      model.send({ id, question });
    });
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
      if (!("working" in answer) && answer.cancelled !== true) return answer;
      job = answer.job;
      if (job !== undefined) progress(question, answer.working, job);
    }
  };
}
