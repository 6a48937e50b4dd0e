// What the colours of the view Predictions stand for.

/** @import { Range } from "../../types.js" */

/** Probabilities. @type {Range} */
export const RANGE = { peak: 1, scale: "linear", signed: false };
