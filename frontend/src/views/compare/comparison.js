// A comparison: one word in several places, layer by layer. Arithmetic alone.

import { clipped, count } from "../../ui/format.js";

/** @import { CompareReply, Place } from "../../types.js" */

/**
 * The name of the hidden states that enter layer n, or leave the layer before it; 0 are those before the first.
 * @param {number} n
 */
export const stateName = (n) => (n ? `after layer ${n - 1}` : "before the first layer");

export class Comparison {
  /** @param {CompareReply} reply */
  constructor({ word, places, clusters, left_out, similarity, plane }) {
    this.word = word;
    this.places = places;
    this.clusters = clusters;
    this.leftOut = left_out ?? [];
    this.similarities = Float32Array.from(similarity.data); // (L+1, n, n)
    this.plane = Float32Array.from(plane.data); // (L+1, n, 2)
    this.states = plane.shape[0];
    this.total = places.length;
    this.least = this.similarities.reduce((a, b) => Math.min(a, b), 1);
    this.reach = this.plane.reduce((reach, x) => Math.max(reach, Math.abs(x)), 1e-9);
  }

  /** @param {number} l @param {number} i @param {number} j */
  similarity(l, i, j) {
    return this.similarities[(l * this.total + i) * this.total + j];
  }

  /**
   * The mean similarity of two different places.
   * @param {number} l
   */
  meanSimilarity(l) {
    const n = this.total;
    if (n < 2) return 1;
    const sum = this.similarities.subarray(l * n * n, (l + 1) * n * n).reduce((a, b) => a + b, 0);
    return (sum - n) / (n * n - n);
  }

  /**
   * The two places that differ most.
   * @param {number} l
   * @returns {{pair: [number, number], similarity: number}}
   */
  leastAlike(l) {
    /** @type {[number, number]} */
    let pair = [0, 0];
    let least = 2;
    for (let i = 0; i < this.total; i++)
      for (let j = 0; j < i; j++) {
        const similarity = this.similarity(l, i, j);
        if (similarity < least) [least, pair] = [similarity, [j, i]];
      }
    return { pair, similarity: least };
  }

  /**
   * A similarity between the least and 1, as a share of that range.
   * @param {number} similarity
   */
  placeOnScale(similarity) {
    if (this.least >= 1) return 1;
    return Math.min(1, Math.max(0, (similarity - this.least) / (1 - this.least)));
  }

  /**
   * The group of a place: 0 or 1.
   * @param {number} i
   */
  clusterOf(i) {
    return this.clusters[1]?.includes(i) ? 1 : 0;
  }

  /**
   * Where a place is in the plane.
   * @param {number} l
   * @param {number} i
   * @returns {[number, number]}
   */
  point(l, i) {
    const [x, y] = this.plane.subarray(2 * (l * this.total + i), 2 * (l * this.total + i) + 2);
    return [x, y];
  }

  /** Whether nothing tells the places apart after the last layer. */
  isIdentical() {
    const l = this.states - 1;
    return this.places.every((_, i) => this.places.every((_, j) => this.similarity(l, i, j) > 1 - 1e-6));
  }

  /**
   * What a reader of the comparison must know beside it.
   * @param {boolean} causal
   */
  notes(causal) {
    const reasons = this.leftOut
      .slice(0, 3)
      .map(({ reason }) => reason)
      .join(" ");
    const more = this.leftOut.length > 3 ? ` And ${this.leftOut.length - 3} more.` : "";
    return [
      this.leftOut.length ? `${count(this.leftOut.length, "text")} left out: ${reasons}${more}` : "",
      causal
        ? `In this model a word sees only the words before it: what follows “${this.word}” does not change its vector.`
        : "",
      this.isIdentical() ? "The vectors are the same in all places." : "",
    ].filter(Boolean);
  }
}

/**
 * The text around a place: before the word, the word, behind it.
 * @param {Place} place
 * @param {number} room in characters, half on each side
 */
export function aroundPlace({ text, start, end }, room) {
  const from = Math.max(0, start - room / 2);
  const to = Math.min(text.length, end + room / 2);
  return [
    `${from ? "…" : ""}${text.slice(from, start)}`,
    text.slice(start, end),
    `${text.slice(end, to)}${to < text.length ? "…" : ""}`,
  ];
}

/**
 * A few words on each side of a place, for a label of so many characters.
 * @param {Place} place
 * @param {number} length
 */
export function placeLabel({ text, start, end }, length) {
  const before = text.slice(0, start).trim().split(/\s+/).slice(-2).join(" ");
  const behind = text.slice(end).trim().split(/\s+/).slice(0, 2).join(" ");
  return clipped(`${before} ${text.slice(start, end)} ${behind}`.trim(), length);
}
