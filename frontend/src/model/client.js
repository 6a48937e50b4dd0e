// Opens a model in a worker of its own and asks it: the page's side of model/worker.js.
//
// The page names its models in a script element, <script type="application/json" id="models">, as
// {"encoder": {"file": "models/encoder.js", "digest": "…", "bytes": 27000000}}. build.js puts the bundled text of
// worker.js in the place of WORKER_SCRIPT.

/** @import { Place } from "./load.js" */
/** @import { Model, ModelFile, OpenModel, Reading } from "./types.js" */

/** @typedef {{file: string, digest?: string, bytes?: number}} Listed */

/** @type {OpenModel} */
export async function openModel(name, progress = () => {}) {
  const listed = listedModels()[name] ?? { file: `models/${name}.js` };
  const ask = startWorker();
  try {
    const opened = await ask({ type: "open", ...(await source(listed, progress)) }, { progress });
    return { ...opened, ...questions(ask), close: ask.close };
  } catch (error) {
    ask.close();
    throw error;
  }
}

/** @returns {Record<string, Listed>} */
function listedModels() {
  return JSON.parse(document.getElementById("models")?.textContent || "{}");
}

/**
 * Where the worker finds the file; of a page from a disk, which may fetch nothing, the file itself.
 * @param {Listed} listed
 * @param {(share: number | null) => void} progress
 * @returns {Promise<{place: Place} | {file: ModelFile}>}
 */
async function source({ file, digest, bytes }, progress) {
  const url = new URL(file, document.baseURI);
  const place = { url: url.href, digest: digest?.replace(/^sha256:/, "") ?? null, bytes: bytes ?? null };
  return url.protocol === "file:" ? { file: await fromScript(url.href, progress) } : { place };
}

/** The last script, whether it succeeds or not: they all call one function, so they are loaded one after another. */
let lastScript = Promise.resolve();

/**
 * @param {string} url
 * @param {(share: number | null) => void} progress
 * @returns {Promise<ModelFile>}
 */
function fromScript(url, progress) {
  progress(null);
  const script = lastScript.then(() => loadScript(url));
  lastScript = script.then(
    () => {},
    () => {},
  );
  return script;
}

/** @param {string} url @returns {Promise<ModelFile>} */
function loadScript(url) {
  return new Promise((resolve, reject) => {
    const page = /** @type {{regardModel?: (file: ModelFile) => void}} */ (globalThis);
    const script = document.createElement("script");
    page.regardModel = resolve;
    script.src = url;
    script.onerror = () => reject(new Error(`${decodeURI(url)} cannot be loaded: copy the whole folder again.`));
    script.onload = () => {
      script.remove();
      reject(new Error(`${decodeURI(url)} is damaged: copy the whole folder again.`)); // unless it has been resolved
    };
    document.head.append(script);
  });
}

/**
 * @param {ReturnType<typeof startWorker>} ask
 * @returns {Pick<Model, "read" | "predict" | "write">}
 */
const questions = (ask) => ({
  read: (text, { progress, ...options } = {}, signal) => ask({ type: "read", text, options }, { signal, progress }),
  predict: (reading, layer, first, count, k) => ask({ type: "predict", reading, layer, first, count, k }),
  write: (text, count) => ask({ type: "write", text, count }),
});

/** A worker as a function that asks it. */
function startWorker() {
  if (!("Worker" in globalThis)) throw new Error("This browser has no Web Workers, in which the model would run.");
  const url = URL.createObjectURL(new Blob([WORKER_SCRIPT], { type: "text/javascript" }));
  const worker = new Worker(url);
  URL.revokeObjectURL(url);
  /** @type {Map<number, {resolve: (reply: any) => void, reject: (error: unknown) => void, progress?: (share: number | null) => void}>} */
  const waiting = new Map();
  let last = 0;
  const fail = (/** @type {string} */ message) => {
    for (const { reject } of waiting.values()) reject(new Error(message));
    waiting.clear();
  };
  worker.onerror = () => fail("The model's worker has stopped: reload the page.");
  worker.onmessage = ({ data: { id, reply, error, progress } }) => {
    const asked = waiting.get(id);
    if (!asked) return;
    if (progress !== undefined) return asked.progress?.(progress);
    waiting.delete(id);
    if (error === undefined) asked.resolve(reply);
    else asked.reject(new Error(error));
  };

  /**
   * @param {{type: string, [field: string]: unknown}} message
   * @param {{signal?: AbortSignal, progress?: (share: any) => void}} [options]
   * @returns {Promise<any>}
   */
  const ask = (message, { signal, progress } = {}) =>
    new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      last += 1;
      const id = last;
      waiting.set(id, { resolve, reject, progress });
      const cancel = () => {
        if (waiting.delete(id)) worker.postMessage({ type: "cancel", id });
        reject(signal?.reason);
      };
      signal?.addEventListener("abort", cancel, { once: true });
      worker.postMessage({ ...message, id });
    });
  return Object.assign(ask, {
    close() {
      worker.terminate();
      fail("The model was closed.");
    },
  });
}
