// The weights of a saved reading, computed from its queries and keys.

import { decode } from "./codec.js";
import { numbersOfToken, openMap } from "./maps.js";
import { dot } from "./pooling.js";

/** @import { AtlasOfHeads, MetadataReply, NumberArray, Projections } from "../types.js" */
/** @import { Encoded } from "./codec.js" */
/** @import { EncodedMap, OfflineMap } from "./maps.js" */

/**
 * What the page holds of a layer: how its weights follow from query and key, and these, or else the weights.
 * @typedef {object} Layer
 * @property {number} scale
 * @property {number | null} softcap
 * @property {number[] | null} sinks
 * @property {[starts: number[], stops: number[]] | null} spans the keys that each query may look at
 * @property {Projections | null} made
 * @property {number[] | null} heads those whose numbers are there; null for all
 * @property {(number | null)[][]} shares of the heads' patterns
 * @property {Record<string, EncodedMap>} maps those besides the weights, by name
 * @property {Encoded} [query]
 */

/** @typedef {{texts: string[][], probabilities: Encoded, surprise: Encoded}} CarriedPredictions of a layer, for all tokens */

/**
 * @typedef {object} Data
 * @property {MetadataReply} metadata null where the page holds an atlas and no text
 * @property {AtlasOfHeads | null} [atlas]
 * @property {object} open what is selected at first
 * @property {Record<string, string>} patterns
 * @property {number} threshold
 * @property {Layer[]} layers
 * @property {{level: number, rows: number, side: number, fine: boolean, cells: Encoded} | null} pictures
 * @property {(CarriedPredictions | null)[]} predictions by layer; those of the last are the model's own
 * @property {Record<string, Data>} [others] those of the other attentions of an encoder-decoder, by name
 * @property {any} compared
 */

/** @typedef {Record<string, NumberArray>} Arrays */

const KEPT = 16e6; // numbers of the heads' matrices that are kept: 64 MB

export class OfflineAttention {
  /** @param {Pick<Data, "metadata" | "layers">} data */
  constructor({ metadata, layers }) {
    this.layers = layers;
    this.H = metadata.heads;
    const columns = metadata.columns ?? metadata; // the words that are attended to
    this.N = columns.tokens.length; // keys
    this.isAcross = Boolean(metadata.columns);
    this.U = metadata.units.length; // rows of units
    this.V = columns.units.length; // columns of units
    this.first = metadata.first_tokens; // token of each unit
    this.stops = [...metadata.first_tokens.slice(1), metadata.tokens.length];
    this.unitOf = unitsOf(metadata); // of each token that attends
    this.unitOfKey = unitsOf(columns);
    this.maps = metadata.maps;
    /** By layer, its arrays. @type {Promise<Arrays>[]} */
    this.opened = [];
    /** By "l map". @type {Map<string, Promise<OfflineMap>>} */
    this.openedMaps = new Map();
    /**
     * By "l h map", the U × V weights of a head, or numbers of a map, the latest used last.
     * @type {Map<string, Float32Array>}
     */
    this.kept = new Map();
  }

  /**
   * The arrays of a layer, decoded once.
   * @param {number} l
   */
  open(l) {
    this.opened[l] ??= (async () => {
      /** @type {[string, any][]} */
      const fields = Object.entries(this.layers[l]);
      const encoded = fields.filter(([, value]) => value?.shape);
      return Object.fromEntries(await Promise.all(encoded.map(async ([name, value]) => [name, await decode(value)])));
    })();
    return this.opened[l];
  }

  /**
   * A map of a layer, decoded once; null for the weights, which the arrays of the layer are enough for.
   * @param {number} l
   * @param {string} name
   * @returns {Promise<OfflineMap | null>}
   */
  async openMap(l, name) {
    if (name === "weights") return null;
    const [offer, encoded] = [this.maps.find((map) => map.name === name), this.layers[l].maps[name]];
    if (!offer || !encoded) throw new Error(offer?.missing ?? `There is no map “${name}”.`);
    const key = `${l} ${name}`;
    let opened = this.openedMaps.get(key);
    if (!opened) {
      opened = this.open(l).then((arrays) => openMap(name, offer.heads ? this.H : 1, encoded, arrays));
      this.openedMaps.set(key, opened);
    }
    return opened;
  }

  /**
   * The place of a head among those whose query and key the page holds, or −1.
   * @param {number} l
   * @param {number} h
   */
  placeOf(l, h) {
    return this.layers[l].heads?.indexOf(h) ?? h;
  }

  /**
   * The vector of token i in head h; query heads may share a key or value head.
   * @param {NumberArray} array
   * @param {number} l
   * @param {number} h
   * @param {number} i
   */
  vector({ shape, data }, l, h, i) {
    const [groups, rows, width] = shape;
    const heads = this.layers[l].heads?.length ?? this.H;
    const g = Math.floor((this.placeOf(l, h) * groups) / heads);
    return data.subarray((g * rows + i) * width, (g * rows + i + 1) * width);
  }

  /**
   * Token i as query over every key: scores, scaled (both NaN where it may not look), weights, and the sink's mass.
   * @param {number} l
   * @param {Arrays} arrays
   * @param {number} h
   * @param {number} i
   */
  ofToken(l, { query, key }, h, i) {
    const { N } = this;
    const { scale, softcap, sinks, spans } = this.layers[l];
    const [start, stop] = spans ? [Math.max(0, spans[0][i]), Math.min(N, spans[1][i])] : [0, N];
    const [scores, scaled] = [new Float64Array(N).fill(Number.NaN), new Float64Array(N).fill(Number.NaN)];
    const weights = new Float64Array(N);
    const q = this.vector(query, l, h, i);
    let peak = sinks ? sinks[h] : -Infinity;
    for (let j = start; j < stop; j++) {
      scores[j] = dot(q, this.vector(key, l, h, j));
      scaled[j] = scores[j] * scale;
      if (softcap !== null) scaled[j] = softcap * Math.tanh(scaled[j] / softcap);
      peak = Math.max(peak, scaled[j]);
    }
    const sinkPower = sinks && start < stop ? Math.exp(sinks[h] - peak) : 0;
    let total = sinkPower;
    for (let j = start; j < stop; j++) {
      weights[j] = Math.exp(scaled[j] - peak);
      total += weights[j];
    }
    for (let j = start; j < stop; j++) weights[j] /= total;
    return { scores, scaled, weights, sink: sinkPower ? sinkPower / total : 0 };
  }

  /**
   * Unit u as query over all units: the mean over its tokens of the sums over theirs.
   * @param {number} l
   * @param {Arrays} arrays
   * @param {number} h
   * @param {number} u
   * @param {OfflineMap | null} map
   */
  fromUnit(l, arrays, h, u, map) {
    const { U, V, N, unitOfKey } = this;
    const known = map ? map.dense : arrays.weights;
    if (known) return known.data.subarray((h * U + u) * V, (h * U + u + 1) * V);
    const kept = this.kept.get(nameOf(l, h, map));
    if (kept) return kept.subarray(u * V, (u + 1) * V);
    const row = new Float32Array(V);
    const share = 1 / (this.stops[u] - this.first[u]);
    for (let i = this.first[u]; i < this.stops[u]; i++) {
      const numbers = map ? numbersOfToken(this, l, arrays, h, i, map) : this.ofToken(l, arrays, h, i).weights;
      for (let j = 0; j < N; j++) row[unitOfKey[j]] += numbers[j] * share;
    }
    return row;
  }

  /**
   * The weights of a head, or numbers of a map, U × V, row by row.
   * @param {number} l
   * @param {Arrays} arrays
   * @param {number} h
   * @param {OfflineMap | null} map
   */
  matrix(l, arrays, h, map) {
    const { U, V, kept } = this;
    const name = nameOf(l, h, map);
    let all = kept.get(name);
    kept.delete(name);
    if (!all) {
      all = new Float32Array(U * V);
      for (let u = 0; u < U; u++) all.set(this.fromUnit(l, arrays, h, u, map), u * V);
    }
    kept.set(name, all);
    while (kept.size > 1 && kept.size * U * V > KEPT) kept.delete(kept.keys().next().value ?? "");
    return all;
  }
}

/**
 * The unit of each token.
 * @param {{tokens: string[], first_tokens: number[]}} words
 */
function unitsOf({ tokens, first_tokens: first }) {
  const units = new Int32Array(tokens.length);
  for (const [u, start] of first.entries()) units.fill(u, start, first[u + 1] ?? tokens.length);
  return units;
}

/** @param {number} l @param {number} h @param {OfflineMap | null} map */
const nameOf = (l, h, map) => `${l} ${h} ${map?.name ?? "weights"}`;
