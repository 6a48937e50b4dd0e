// The models of the lesson, opened when a section first needs one, and what they read, computed once.

import { openModel } from "../model/client.js";

/** @import { Model, ReadOptions, Reading } from "../model/types.js" */

/**
 * @template T
 * @param {Map<string, Promise<T>>} kept
 * @param {string} name
 * @param {() => Promise<T>} make
 * @returns {Promise<T>} kept unless it fails, so that it can be tried again
 */
function once(kept, name, make) {
  const promise = kept.get(name) ?? make();
  kept.set(name, promise);
  promise.catch(() => kept.delete(name));
  return promise;
}

/**
 * @param {(name: string, share: number | null) => void} progress told how much of a model is there; 1 is all
 * @param {import("../model/types.js").OpenModel} [open]
 */
export function modelsOf(progress, open = openModel) {
  /** @type {Map<string, Promise<Model>>} */
  const models = new Map();
  /** @type {Map<string, Promise<Reading>>} */
  const readings = new Map();

  /** @param {string} name */
  const model = (name) =>
    once(models, name, async () => {
      progress(name, null);
      try {
        return await open(name, (share) => progress(name, share));
      } finally {
        progress(name, 1);
      }
    });

  /** @param {string} name @param {string} text @param {ReadOptions} [options] */
  const read = (name, text, options = {}) =>
    once(readings, JSON.stringify([name, text, options]), async () => (await model(name)).read(text, options));

  return { model, read };
}
