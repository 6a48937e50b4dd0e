// A page without Python behind it answers the requests of the page itself, from what its file holds.

import { MAPPED_UNITS, THUMBNAIL_SIZE, TILE_SIZE } from "../protocol.js";
import { OfflineAttention } from "./attention.js";
import { decode } from "./codec.js";
import { coarser, pooled, range } from "./pooling.js";
import { hiddenOf, walkOfToken, walkOfWeights } from "./walk.js";

/** @import { NumberArray, Side, Source } from "../types.js" */
/** @import { Data } from "./attention.js" */

/** @param {Data} data @returns {Source} */
export function offlineSource(data) {
  /** @type {any} */
  const replies = new OfflineReplies(data);
  return async ({ type, ...request }) => {
    if (!TYPES.includes(type)) throw new Error("This page stands alone: it cannot read another text.");
    return replies[type](request);
  };
}

const TYPES = ["start", "metadata", "word_weights", "layer_weights", "thumbnails", "tile", "walk"];

/** By the type of the request, the replies that regard/viewer/api.py gives. */
export class OfflineReplies {
  /** @param {Data} data */
  constructor(data) {
    this.data = data;
    this.attention = new OfflineAttention(data);
    this.special = new Set(data.metadata.special);
    /** The pictures of a long text. @type {Promise<NumberArray> | null} */
    this.pictures = null;
  }

  async start() {
    const { metadata } = this.data;
    let { compared } = this.data;
    if (compared) {
      const [similarity, plane] = await Promise.all([decode(compared.similarity), decode(compared.plane)]);
      compared = { ...compared, similarity, plane };
    }
    return { models: [], opening: { reading: metadata.reading }, compares: Boolean(compared), compared };
  }

  async metadata() {
    const { metadata, layers, pictures } = this.data;
    return {
      ...metadata,
      has: (/** @type {number} */ l) => layers[l].heads ?? null,
      floor: (/** @type {number} */ l, /** @type {number} */ h) => this.floorOf(l, h),
      pictured: pictures ? pictures.level : 0,
    };
  }

  /**
   * The finest level that there is of a head.
   * @param {number} l
   * @param {number} h
   */
  floorOf(l, h) {
    const { pictures } = this.data;
    const hasFine = !pictures || (pictures.fine && this.attention.placeOf(l, h) >= 0);
    return hasFine ? 0 : pictures.level;
  }

  /** @param {{layer: number, word: number, side: Side}} request */
  async word_weights({ layer, word, side }) {
    const { attention } = this;
    const { H, U } = attention;
    const arrays = await attention.open(layer);
    const data = new Float32Array(H * U).fill(Number.NaN);
    for (let h = 0; h < H; h++) {
      if (attention.placeOf(layer, h) < 0) continue;
      if (side === "from") {
        data.set(attention.fromUnit(layer, arrays, h, word), h * U);
        continue;
      }
      if (U <= MAPPED_UNITS) attention.matrix(layer, arrays, h); // the rows below come from it
      for (let u = 0; u < U; u++) data[h * U + u] = attention.fromUnit(layer, arrays, h, u)[word];
    }
    return { weights: { shape: [H, U], data } };
  }

  /** @param {{layer: number}} request */
  async layer_weights({ layer }) {
    const { H, U } = this.attention;
    const arrays = await this.attention.open(layer);
    const data = new Float32Array(H * U * U);
    for (let h = 0; h < H; h++) data.set(this.attention.matrix(layer, arrays, h), h * U * U);
    return { weights: { shape: [H, U, U], data } };
  }

  /** @param {{layer: number, hide: boolean}} request */
  async thumbnails({ layer, hide }) {
    const { H } = this.attention;
    const { patterns, threshold, layers } = this.data;
    const thumbs = [];
    for (let h = 0; h < H; h++) thumbs.push(await this.thumb(layer, h, hide));
    const n = thumbs[0].shape[1];
    const data = new Float32Array(H * n * n);
    for (const [h, thumb] of thumbs.entries()) data.set(thumb.data, h * n * n);
    const shares = Float32Array.from(layers[layer].shares.flat(), (share) => share ?? Number.NaN);
    return {
      thumbnails: { shape: [H, n, n], data },
      shares: { shape: [H, Object.keys(patterns).length], data: shares },
      patterns,
      threshold,
    };
  }

  /**
   * The small picture of a head.
   * @param {number} l
   * @param {number} h
   * @param {boolean} hide
   * @returns {Promise<NumberArray>}
   */
  async thumb(l, h, hide) {
    if (this.data.pictures) return this.picture(l, h);
    if (h % 4 === 3) await new Promise((done) => setTimeout(done)); // so that the page answers in between
    const { attention } = this;
    const arrays = await attention.open(l);
    const shown = this.shownUnits(hide);
    const width = 2 ** Math.max(0, Math.ceil(Math.log2(shown.length / THUMBNAIL_SIZE)));
    const cells = range(0, Math.ceil(shown.length / width));
    return pooled(attention.matrix(l, arrays, h), attention.U, shown, width, cells, cells, true);
  }

  /**
   * The picture of a head, side × side.
   * @param {number} l
   * @param {number} h
   * @returns {Promise<NumberArray>}
   */
  async picture(l, h) {
    const { metadata, pictures } = this.data;
    if (!pictures) throw new Error("This page holds no pictures.");
    this.pictures ??= decode(pictures.cells);
    const { data } = await this.pictures;
    const { side } = pictures;
    const place = metadata.attention_layers.indexOf(l) * metadata.heads + h;
    return { shape: [side, side], data: data.subarray(place * side ** 2, (place + 1) * side ** 2) };
  }

  /** @param {boolean} hide */
  shownUnits(hide) {
    return range(0, this.attention.U).filter((u) => !(hide && this.special.has(u)));
  }

  /**
   * @param {{layer: number, head: number, reduce: "mean" | "max", hide: boolean, level: number, row: number, column: number}} request
   */
  async tile({ layer, head, reduce, hide, level, row, column }) {
    const { attention } = this;
    const { pictures } = this.data;
    const { U } = attention;
    const shown = this.shownUnits(hide);
    const width = 2 ** level;
    const count = Math.ceil(shown.length / width);
    const [rows, columns] = [row, column].map((n) => range(n * TILE_SIZE, Math.min(count, (n + 1) * TILE_SIZE)));
    if (pictures && level >= pictures.level) {
      const { data } = await this.picture(layer, head);
      return { cells: coarser(data, pictures.side, U, 2 ** pictures.level, width, rows, columns) };
    }
    const all = attention.matrix(layer, await attention.open(layer), head);
    return { cells: pooled(all, U, shown, width, rows, columns, reduce === "max") };
  }

  /** @param {{layer: number, head: number, token: number, all: boolean}} request */
  async walk({ layer, head, token, all }) {
    const { attention } = this;
    const arrays = await attention.open(layer);
    if (arrays.weights) {
      const weights = attention.fromUnit(layer, arrays, head, attention.unitOf[token]);
      return walkOfWeights(weights, all, hiddenOf(arrays, token));
    }
    if (attention.placeOf(layer, head) < 0) {
      const heads = this.data.layers[layer].heads?.join(", ") || "none";
      throw new Error(
        `In a text this long the file holds the numbers of some heads only: in layer ${layer} of ${heads}.`,
      );
    }
    return walkOfToken(attention, layer, arrays, head, token, all);
  }
}
