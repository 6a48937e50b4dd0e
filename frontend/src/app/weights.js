// The weights between words, or numbers of another map, that have been asked for, remembered until they take too much room.

import { LAYER_WEIGHTS_UNITS } from "../protocol.js";
import { headCount, mapRequest } from "../ui/maps.js";

/** @import { App, Side, WeightsOfWords } from "../types.js" */

const KEPT = 24e6; // numbers that are remembered: 96 MB

/** @implements {WeightsOfWords} */
export class WeightMemory {
  /** @param {App} app */
  constructor(app) {
    this.app = app;
    /** By "reading map target layer unit side", the latest used last. @type {Map<string, Float32Array>} */
    this.known = new Map();
    this.remembered = 0; // numbers
  }

  /**
   * All weights (H,U,V) of a layer, of a short text; H is 1 where the map is of all heads together.
   * @param {number} l
   */
  ofLayer(l) {
    const { app } = this;
    const map = mapRequest(app.reading, app.state);
    return this.remember(
      `${app.reading.id} ${map.map} ${map.target} ${l}`,
      async () => (await app.request({ type: "layer_weights", layer: l, ...map })).weights.data,
    );
  }

  /**
   * The weights (H,V) from a unit in a layer, or those (H,U) to one.
   * @param {number} l
   * @param {number} u
   * @param {Side} side
   */
  async ofWord(l, u, side) {
    const { reading, state } = this.app;
    const { U, id } = reading;
    const V = reading.columns.U;
    const map = mapRequest(reading, state);
    if (Math.max(U, V) <= LAYER_WEIGHTS_UNITS && side === "from") {
      const H = headCount(reading, state);
      const all = await this.ofLayer(l);
      return Float32Array.from({ length: H * V }, (_, n) => all[(Math.floor(n / V) * U + u) * V + (n % V)]);
    }
    const request = { type: /** @type {const} */ ("word_weights"), layer: l, ...map, word: u, side };
    return this.remember(
      `${id} ${map.map} ${map.target} ${l} ${u} ${side}`,
      async () => (await this.app.request(request)).weights.data,
    );
  }

  /** @param {string} key @param {() => Promise<any>} load @returns {Promise<Float32Array>} */
  async remember(key, load) {
    const weights = this.known.get(key) ?? (await load());
    if (!this.known.delete(key)) this.remembered += weights.length;
    this.known.set(key, weights);
    while (this.remembered > KEPT && this.known.size > 1) {
      const [oldest, numbers] = /** @type {[string, Float32Array]} */ (this.known.entries().next().value);
      this.known.delete(oldest);
      this.remembered -= numbers.length;
    }
    return weights;
  }
}
