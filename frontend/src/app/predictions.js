// The predictions that have been asked for, remembered for as long as their reading is shown.

import { PREDICTED_TOKENS } from "../protocol.js";

/** @import { App, PredictionsOfTokens } from "../types.js" */
/** @import { PredictionsReply } from "../protocol.js" */

/** @implements {PredictionsOfTokens} */
export class PredictionMemory {
  /** @param {App} app */
  constructor(app) {
    this.app = app;
    this.of = ""; // the reading
    /** By "layer first". @type {Map<string, PredictionsReply>} */
    this.known = new Map();
  }

  /**
   * What a layer predicts at the tokens from one on, as many as a reply has; the last layer is the model itself.
   * @param {number} l
   * @param {number} first
   * @param {AbortSignal} [signal]
   */
  async from(l, first, signal) {
    const { reading } = this.app;
    if (this.of !== reading.id) this.known.clear();
    this.of = reading.id;
    const key = `${l} ${first}`;
    const reply = this.known.get(key) ?? (await this.app.request({ type: "predictions", layer: l, first }, signal));
    if (this.of === reading.id) this.known.set(key, reply);
    return reply;
  }

  /**
   * The first of the tokens that are asked for together with one.
   * @param {number} i
   */
  blockOf(i) {
    return Math.floor(i / PREDICTED_TOKENS) * PREDICTED_TOKENS;
  }
}
