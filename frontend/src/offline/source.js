// A page without Python behind it answers the requests of the page itself, from what its file holds.

import { MAPPED_UNITS, PREDICTED_TOKENS, PREDICTIONS, THUMBNAIL_SIZE, TILE_SIZE } from "../protocol.js";
import { OfflineAttention } from "./attention.js";
import { decode } from "./codec.js";
import { numbersOfToken } from "./maps.js";
import { coarser, pooled, range } from "./pooling.js";
import { hiddenOf, walkOfToken, walkOfWeights } from "./walk.js";

/** @import { NumberArray, Side, Source } from "../types.js" */
/** @import { Data } from "./attention.js" */

/** @param {Data} data @returns {Source} */
export function offlineSource(data) {
  if (!data.metadata) return async () => ({ models: [], opening: null, compares: false, atlas: data.atlas });
  /** By the name of an attention, where there are several. @type {Map<string, any>} */
  const others = new Map(Object.entries(data.others ?? {}).map(([name, other]) => [name, new OfflineReplies(other)]));
  const first = new OfflineReplies(data);
  return async ({ type, ...request }) => {
    if (!TYPES.includes(type)) throw new Error("This page stands alone: it cannot read another text.");
    const [, attention = ""] = String(request.reading ?? "").split(".");
    return (others.get(attention) ?? first)[type](request);
  };
}

const TYPES = ["start", "metadata", "word_weights", "layer_weights", "thumbnails", "tile", "walk", "predictions"];

/** By the type of the request, the replies that regard/viewer/api.py gives. */
export class OfflineReplies {
  /** @param {Data} data */
  constructor(data) {
    this.data = data;
    this.attention = new OfflineAttention(data);
    const { special, columns } = data.metadata;
    this.special = { from: new Set(special), to: new Set((columns ?? data.metadata).special) };
    /** The pictures of a long text. @type {Promise<NumberArray> | null} */
    this.pictures = null;
  }

  async start() {
    const { metadata, atlas = null } = this.data;
    let { compared } = this.data;
    if (compared) {
      const [similarity, plane] = await Promise.all([decode(compared.similarity), decode(compared.plane)]);
      compared = { ...compared, similarity, plane };
    }
    return { models: [], opening: { reading: metadata.reading }, compares: Boolean(compared), compared, atlas };
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

  /**
   * What the numbers of a layer follow from, and how many heads have some.
   * @param {number} layer
   * @param {string} name of a map
   */
  async opened(layer, name = "weights") {
    const { attention } = this;
    const [arrays, map] = [await attention.open(layer), await attention.openMap(layer, name)];
    return { arrays, map, H: map?.heads ?? attention.H };
  }

  /** @param {{layer: number, map?: string, word: number, side: Side}} request */
  async word_weights({ layer, map: name, word, side }) {
    const { attention } = this;
    const { U, V } = attention;
    const { arrays, map, H } = await this.opened(layer, name);
    const width = side === "from" ? V : U;
    const data = new Float32Array(H * width).fill(Number.NaN);
    for (let h = 0; h < H; h++) {
      if (attention.placeOf(layer, h) < 0) continue;
      if (side === "from") {
        data.set(attention.fromUnit(layer, arrays, h, word, map), h * V);
        continue;
      }
      if (Math.max(U, V) <= MAPPED_UNITS) attention.matrix(layer, arrays, h, map); // the rows below come from it
      for (let u = 0; u < U; u++) data[h * U + u] = attention.fromUnit(layer, arrays, h, u, map)[word];
    }
    return { weights: { shape: [H, width], data } };
  }

  /** @param {{layer: number, map?: string}} request */
  async layer_weights({ layer, map: name }) {
    const { U, V } = this.attention;
    const { arrays, map, H } = await this.opened(layer, name);
    const data = new Float32Array(H * U * V);
    for (let h = 0; h < H; h++) data.set(this.attention.matrix(layer, arrays, h, map), h * U * V);
    return { weights: { shape: [H, U, V], data } };
  }

  /** @param {{layer: number, map?: string, hide: boolean, hide_first?: boolean}} request */
  async thumbnails({ layer, map, hide, hide_first: hideFirst = false }) {
    const { H } = await this.opened(layer, map);
    const { patterns, threshold } = this.data;
    const thumbs = [];
    for (let h = 0; h < H; h++) thumbs.push(await this.thumb(layer, h, this.shownUnits(hide, hideFirst), map));
    const [n, m] = thumbs[0].shape;
    const data = new Float32Array(H * n * m);
    for (const [h, thumb] of thumbs.entries()) data.set(thumb.data, h * n * m);
    const shares = Float32Array.from((await this.sharesOf(layer)).flat(), (share) => share ?? Number.NaN);
    return {
      thumbnails: { shape: [H, n, m], data },
      shares: { shape: [this.attention.H, Object.keys(patterns).length], data: shares },
      patterns,
      threshold,
    };
  }

  /**
   * The shares of the heads' patterns.
   * @param {number} l
   * @returns {Promise<(number | null)[][]>}
   */
  async sharesOf(l) {
    return this.data.layers[l].shares;
  }

  /**
   * The small picture of a head.
   * @param {number} l
   * @param {number} h
   * @param {{from: number[], to: number[]}} shown units
   * @param {string} [name] of a map
   * @returns {Promise<NumberArray>}
   */
  async thumb(l, h, shown, name) {
    if (this.data.pictures) return this.picture(l, h);
    if (h % 4 === 3) await new Promise((done) => setTimeout(done)); // so that the page answers in between
    const { attention } = this;
    const { arrays, map } = await this.opened(l, name);
    const longest = Math.max(shown.from.length, shown.to.length);
    const width = 2 ** Math.max(0, Math.ceil(Math.log2(longest / THUMBNAIL_SIZE)));
    const [rows, columns] = [shown.from, shown.to].map(({ length }) => range(0, Math.ceil(length / width)));
    return pooled(attention.matrix(l, arrays, h, map), attention.V, shown, width, rows, columns, true);
  }

  /**
   * The picture of a head.
   * @param {number} l
   * @param {number} h
   * @returns {Promise<NumberArray>}
   */
  async picture(l, h) {
    const { metadata, pictures } = this.data;
    if (!pictures) throw new Error("This page holds no pictures.");
    this.pictures ??= decode(pictures.cells);
    const { data } = await this.pictures;
    const { rows, side } = pictures;
    const place = metadata.attention_layers.indexOf(l) * metadata.heads + h;
    return { shape: [rows, side], data: data.subarray(place * rows * side, (place + 1) * rows * side) };
  }

  /**
   * The units that are shown, as rows and as columns.
   * @param {boolean} hide
   * @param {boolean} hideFirst
   */
  shownUnits(hide, hideFirst) {
    const { U, V } = this.attention;
    const { from, to } = this.special;
    return {
      from: range(hideFirst ? 1 : 0, U).filter((u) => !(hide && from.has(u))),
      to: range(hideFirst ? 1 : 0, V).filter((v) => !(hide && to.has(v))),
    };
  }

  /**
   * @param {{layer: number, head: number, map?: string, reduce: "mean" | "max", hide: boolean, hide_first?: boolean, level: number, row: number, column: number}} request
   */
  async tile({ layer, head, map: name, reduce, hide, hide_first: hideFirst = false, level, row, column }) {
    const { attention } = this;
    const { pictures } = this.data;
    const { U, V } = attention;
    const shown = this.shownUnits(hide, hideFirst);
    const width = 2 ** level;
    /** @param {number} n @param {number} length */
    const cells = (n, length) => range(n * TILE_SIZE, Math.min(Math.ceil(length / width), (n + 1) * TILE_SIZE));
    const [rows, columns] = [cells(row, shown.from.length), cells(column, shown.to.length)];
    if (pictures && level >= pictures.level) {
      const { data } = await this.picture(layer, head);
      const { level: fine, rows: down, side } = pictures;
      return { cells: coarser(data, [down, side], [U, V], 2 ** fine, width, rows, columns) };
    }
    const { arrays, map, H } = await this.opened(layer, name);
    const all = attention.matrix(layer, arrays, H === 1 ? 0 : head, map);
    return { cells: pooled(all, V, shown, width, rows, columns, reduce === "max") };
  }

  /** @param {{layer?: number, first?: number, k?: number}} request */
  async predictions({ layer, first = 0, k = PREDICTIONS }) {
    const { predictions, metadata } = this.data;
    const carried = predictions[layer ?? metadata.layers - 1];
    if (!carried) throw new Error(metadata.predictions?.missing ?? "This page holds no predictions.");
    const [probabilities, surprise] = await Promise.all([carried.probabilities, carried.surprise].map(decode));
    const stop = Math.min(surprise.data.length, first + PREDICTED_TOKENS);
    const [width, most] = [probabilities.shape[1], Math.min(k, probabilities.shape[1])];
    const numbers = range(first, stop).flatMap((i) => [...probabilities.data.slice(i * width, i * width + most)]);
    return {
      texts: carried.texts.slice(first, stop).map((texts) => texts.slice(0, most)),
      probabilities: { shape: [stop - first, most], data: Float32Array.from(numbers) },
      surprise: { shape: [stop - first], data: surprise.data.slice(first, stop) },
    };
  }

  /** @param {{layer: number, head: number, map?: string, token: number, all: boolean}} request */
  async walk({ layer, head, map: name, token, all }) {
    const { attention } = this;
    const { arrays, map, H } = await this.opened(layer, name);
    const headOfMap = H === 1 ? 0 : head;
    if (arrays.weights) {
      const u = attention.unitOf[token];
      const mapped = map && attention.fromUnit(layer, arrays, headOfMap, u, map);
      return walkOfWeights(attention.fromUnit(layer, arrays, head, u, null), all, hiddenOf(arrays, token), mapped);
    }
    if (attention.placeOf(layer, head) < 0) {
      const heads = this.data.layers[layer].heads?.join(", ") || "none";
      throw new Error(
        `In a text this long the file holds the numbers of some heads only: in layer ${layer} of ${heads}.`,
      );
    }
    const mapped = map && numbersOfToken(attention, layer, arrays, headOfMap, token, map);
    return walkOfToken(attention, layer, arrays, head, token, all, mapped);
  }
}
