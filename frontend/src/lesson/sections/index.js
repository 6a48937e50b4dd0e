// The sections of the lesson, in their order.

import { average } from "./average.js";
import { flies } from "./flies.js";

/** @import { Section } from "../types.js" */

/** @type {Section[]} */
export const SECTIONS = [flies, average];
