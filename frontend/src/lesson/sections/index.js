// The sections of the lesson, in their order.

import { average } from "./average.js";
import { classificationHead } from "./classification-head.js";
import { contextual } from "./contextual.js";
import { crossAttention } from "./cross-attention.js";
import { decoder } from "./decoder.js";
import { encoder } from "./encoder.js";
import { feedForward } from "./feed-forward.js";
import { flies } from "./flies.js";
import { heads } from "./heads.js";
import { layerNorm } from "./layer-norm.js";
import { masks } from "./masks.js";
import { positions } from "./positions.js";
import { projections } from "./projections.js";
import { recurrent } from "./recurrent.js";
import { scaling } from "./scaling.js";
import { self } from "./self.js";
import { softmax } from "./softmax.js";
import { trainedTransformer } from "./trained-transformer.js";

/** @import { Section } from "../types.js" */

/** @type {Section[]} */
export const SECTIONS = [
  ...[flies, average, recurrent, self, contextual, projections, scaling, softmax, heads],
  ...[feedForward, layerNorm, positions, encoder, classificationHead, masks],
  ...[decoder, crossAttention, trainedTransformer],
];
