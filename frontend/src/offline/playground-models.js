// The models of the page: opened when a text is first read with them, and what is said while their weights come.

import { bytes } from "../ui/format.js";

/** @import { Model, OpenModel } from "../model/types.js" */
/** @import { ModelOffer } from "../types.js" */
/** @import { Report } from "./playground-jobs.js" */

/** @typedef {{model: Promise<Model>, share: number | null}} Opening the model, and the share of its weights that is there */

export class PlaygroundModels {
  /** @param {ModelOffer[]} offers @param {OpenModel} open */
  constructor(offers, open) {
    this.offers = offers;
    this.open = open;
    this.names = offers.map(({ name }) => name);
    /** By name. @type {Map<string, Opening>} */
    this.opening = new Map();
  }

  /** @param {string} name */
  offer(name) {
    const offer = this.offers.find((known) => known.name === name);
    if (offer) return offer;
    throw new Error(`There is no model “${name}” here: there are ${this.names.join(", ")}.`);
  }

  /**
   * A model, opened once; what failed can be tried again. Whoever stops waiting stops no one else: the weights go on
   * coming, and are there for the next text.
   * @param {string} name
   * @param {Report} report
   * @param {AbortSignal} signal
   * @returns {Promise<Model>}
   */
  async opened(name, report, signal) {
    const { label, bytes: size } = this.offer(name);
    const opening = this.opening.get(name) ?? this.start(name);
    const says = `Loading ${label} (${bytes(size)})`;
    const show = () => report(opening.share, says);
    show();
    const timer = setInterval(show, 100);
    try {
      return await Promise.race([opening.model, aborted(signal)]);
    } finally {
      clearInterval(timer);
      report(null, "Reading the text");
    }
  }

  /** @param {string} name @returns {Opening} */
  start(name) {
    /** @type {{share: number | null}} */
    const state = { share: null };
    const report = (/** @type {number | null} */ share) => Object.assign(state, { share });
    const model = this.open(name, report).catch((error) => {
      this.opening.delete(name);
      throw new Error(`${this.offer(name).label} could not be loaded. ${error.message} Press Read to try again.`);
    });
    const opening = Object.assign(state, { model });
    this.opening.set(name, opening);
    return opening;
  }
}

/** @param {AbortSignal} signal @returns {Promise<never>} */
const aborted = (signal) =>
  new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason), { once: true }));
