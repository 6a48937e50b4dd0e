// The sections of the lesson, in their order.

import { average } from "./average.js";
import { classificationHead } from "./classification-head.js";
import { crossAttention } from "./cross-attention.js";
import { decoder } from "./decoder.js";
import { encoder } from "./encoder.js";
import { feedForward } from "./feed-forward.js";
import { layerNorm } from "./layer-norm.js";
import { masks } from "./masks.js";
import { positions } from "./positions.js";
import { trainedTransformer } from "./trained-transformer.js";
/** @import { Section } from "../types.js" */

/** @type {Section[]} */
export const SECTIONS = [
  average,
  feedForward,
  layerNorm,
  positions,
  encoder,
  classificationHead,
  masks,
  decoder,
  crossAttention,
  trainedTransformer,
];
