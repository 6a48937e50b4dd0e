// The sections of the lesson, in their order.

import { average } from "./average.js";
import { contextual } from "./contextual.js";
import { flies } from "./flies.js";
import { heads } from "./heads.js";
import { projections } from "./projections.js";
import { recurrent } from "./recurrent.js";
import { scaling } from "./scaling.js";
import { self } from "./self.js";
import { softmax } from "./softmax.js";

/** @import { Section } from "../types.js" */

/** @type {Section[]} */
export const SECTIONS = [flies, average, recurrent, self, contextual, projections, scaling, softmax, heads];
