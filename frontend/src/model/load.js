// Brings the file of a model into the worker: from what the browser keeps, or over HTTP, told how much is there.

import { check, parse, unpack } from "./file.js";

/** @import { Unpacked } from "./file.js" */

/**
 * Where a model's file is. The digest, SHA-256 in hexadecimal, is that of the file; what is kept is found by it.
 * @typedef {{url: string, digest: string | null, bytes: number | null}} Place
 */

/** @typedef {(share: number | null) => void} Progress */

/**
 * @param {Place} place
 * @param {Progress} progress
 * @returns {Promise<Unpacked>}
 */
export async function load(place, progress) {
  const kept = await keptFile(place.digest);
  if (kept) return kept;
  const file = await unpack(parse(await fetched(place, progress)));
  await keep(place.digest, file);
  return file;
}

/**
 * @param {Place} place
 * @param {Progress} progress
 */
async function fetched({ url, digest, bytes }, progress) {
  for (const cache of /** @type {const} */ (["default", "reload"])) {
    const content = await received(await fetch(url, { cache }).catch(() => null), url, bytes, progress);
    if (!digest || !globalThis.crypto?.subtle || (await sha256(content)) === digest) return decoded(content);
  }
  throw new Error(`${url} is not the file that this page was made with: copy the whole folder again.`);
}

/**
 * The bytes of a response. How many there will be says the page or, of an uncompressed response, its header.
 * @param {Response | null} response
 * @param {string} url
 * @param {number | null} bytes
 * @param {Progress} progress
 */
async function received(response, url, bytes, progress) {
  if (!response?.ok || !response.body) {
    const reason = response ? `the server answers ${response.status}` : "the server does not answer";
    throw new Error(`${url} cannot be loaded: ${reason}.`);
  }
  const isPlain = !response.headers.get("Content-Encoding");
  const total = bytes ?? (isPlain ? Number(response.headers.get("Content-Length")) : 0);
  const parts = [];
  const reader = response.body.getReader();
  let size = 0;
  progress(total ? 0 : null);
  try {
    for (let { done, value } = await reader.read(); !done && value; { done, value } = await reader.read()) {
      parts.push(value);
      size += value.length;
      progress(total ? Math.min(1, size / total) : null);
    }
  } catch {
    throw new Error(`${url} cannot be loaded: the connection ended after ${size.toLocaleString("en")} bytes.`);
  }
  return new Blob(parts).arrayBuffer();
}

/** @param {ArrayBuffer} content */
async function sha256(content) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @param {ArrayBuffer} content */
const decoded = (content) => new TextDecoder().decode(content);

// What the browser keeps. It may refuse (a private window, a full disk, a page from a file): then nothing is kept.

/**
 * What was kept under a digest; null where there is nothing, or nothing whole.
 * @param {string | null} digest
 * @returns {Promise<Unpacked | null>}
 */
async function keptFile(digest) {
  if (!digest) return null;
  try {
    const file = await within("readonly", (store) => store.get(digest));
    return file ? check(file) : null;
  } catch {
    return null;
  }
}

/**
 * Keeps a file in the place of older ones of the same name.
 * @param {string | null} digest
 * @param {Unpacked} file
 */
async function keep(digest, file) {
  if (!digest) return;
  try {
    await within("readwrite", (store) => store.put(file, digest));
    const others = await within("readonly", (store) => store.getAllKeys());
    for (const key of others.filter((other) => other !== digest)) {
      const other = await within("readonly", (store) => store.get(key));
      if (other?.name === file.name) await within("readwrite", (store) => store.delete(key));
    }
  } catch {
    // the file is fetched again the next time
  }
}

/**
 * The result of one request to the store.
 * @template T
 * @param {IDBTransactionMode} mode
 * @param {(store: IDBObjectStore) => IDBRequest<T>} request
 * @returns {Promise<T>}
 */
async function within(mode, request) {
  const database = await opened();
  try {
    return await new Promise((resolve, reject) => {
      const transaction = database.transaction("files", mode);
      const asked = request(transaction.objectStore("files"));
      transaction.oncomplete = () => resolve(asked.result);
      transaction.onerror = transaction.onabort = () => reject(transaction.error);
    });
  } finally {
    database.close();
  }
}

/** @returns {Promise<IDBDatabase>} */
const opened = () =>
  new Promise((resolve, reject) => {
    const request = indexedDB.open("regard-models", 1);
    request.onupgradeneeded = () => request.result.createObjectStore("files");
    request.onsuccess = () => resolve(request.result);
    request.onerror = request.onblocked = () => reject(request.error);
  });
