// Which lines the view Sentence draws, where, and with what weight.

import { WEIGHT_OF_A_LINE } from "./limits.js";

/** @import { Direction, Side } from "../../types.js" */

/** @typedef {{u: number, side: Side}} Pick the word whose lines are shown, and its column */
/**
 * Weights, or numbers of another map: (H,n) of a word and the n of the other column, or (H,U,V); `peak` is that of the thickest line.
 * @typedef {{pick: Pick | null, row?: ArrayLike<number>, all?: Float32Array | null, peak: number}} Weights
 */
/** @typedef {{from: number[], to: number[], U: number, V: number}} Sides the units that are visible, and how many there are */
/** @typedef {[head: number, from: number, to: number, weight: number]} Line */
/**
 * @typedef {{h: number, u: number, v: number, weight: number, share: number, line?: number[], bar?: number[]}} Mark a line or bar on the screen
 */

/**
 * The mean over heads of a word's weights (H,n).
 * @param {number[]} heads
 * @param {ArrayLike<number>} row
 * @param {number} n
 */
export function meanOver(heads, row, n) {
  const mean = new Float64Array(n);
  for (const h of heads) for (let v = 0; v < n; v++) mean[v] += row[h * n + v] / heads.length;
  return mean;
}

/**
 * The largest magnitude among the numbers (H,U,V) of all words, as far as these can be seen; those of one are (H,1,V).
 * @param {ArrayLike<number>} numbers
 * @param {number[]} heads
 * @param {Sides} sides
 */
export function largestOf(numbers, heads, { from, to, U, V }) {
  let largest = 0;
  for (const h of heads)
    for (const u of from)
      for (const v of to) {
        const size = Math.abs(numbers[(h * U + u) * V + v]);
        if (size > largest) largest = size;
      }
  return largest;
}

/**
 * The sides of the numbers of one word: itself, and the other column.
 * @param {Sides} sides
 * @param {Side} side of the word
 * @returns {Sides}
 */
export const sidesOfWord = ({ from, to, U, V }, side) =>
  side === "from" ? { from: [0], to, U: 1, V } : { from: [0], to: from, U: 1, V: U };

/** @param {ArrayLike<number>} numbers */
export const sum = (numbers) => Array.from(numbers).reduce((total, number) => total + number, 0);

/**
 * Whether the chosen direction of a pair of texts shows u attending to v; `second` is the first unit of the second text.
 * @param {Direction} direction
 * @param {number | null} second
 * @param {number} u
 * @param {number} v
 */
export const isShown = (direction, second, u, v) =>
  direction === "all" || second === null || direction === (u < second ? "a" : "b") + (v < second ? "a" : "b");

/**
 * The strongest of some lines, up to a share of their whole weight; of numbers with signs, their magnitudes.
 * @template {number[]} T
 * @param {T[]} lines the weight last
 * @param {number} mass percent
 */
export function strongestLines(lines, mass) {
  /** @param {T} line */
  const size = (line) => Math.abs(line[line.length - 1]);
  const strongest = lines.filter((line) => size(line) > 0).sort((a, b) => size(b) - size(a));
  const whole = strongest.reduce((total, line) => total + size(line), 0);
  let left = (whole * mass) / 100;
  const kept = [];
  for (const line of strongest) {
    if (left <= 1e-9 * whole) break;
    left -= size(line);
    kept.push(line);
  }
  return kept;
}

/**
 * The lines of all heads: for each word that attends, or for the picked one, the strongest up to a share of its weight.
 * @param {Weights} weights
 * @param {number[]} heads
 * @param {Sides} sides
 * @param {number} mass percent
 * @param {(u: number, v: number) => boolean} isDirectionShown
 * @returns {Line[]}
 */
export function linesOf({ pick, row, all }, heads, { from, to, U, V }, mass, isDirectionShown) {
  /** @param {Line[]} lines */
  const strongest = (lines) =>
    strongestLines(
      lines.filter(([, u, v]) => isDirectionShown(u, v)),
      mass,
    );
  return heads.flatMap((h) => {
    if (pick && row) {
      const { u, side } = pick;
      if (side === "from") return strongest(to.map((v) => [h, u, v, row[h * V + v]]));
      return strongest(from.map((v) => [h, v, u, row[h * U + v]]));
    }
    if (!all) return [];
    return from.flatMap((u) => strongest(to.map((v) => [h, u, v, all[(h * U + u) * V + v]])));
  });
}

/**
 * How a line is drawn; its weight as a share of the peak.
 * @param {number} weight
 * @param {number} peak
 */
export function strokeOf(weight, peak) {
  const share = Math.abs(weight) / peak;
  return { "stroke-opacity": (share ** 0.7).toFixed(3), "stroke-width": (0.8 + 4 * share).toFixed(2) };
}

/**
 * Whether a line is heavy enough to be drawn.
 * @param {Line} line
 * @param {number} peak
 */
export const isDrawn = (line, peak) => Math.abs(line[3]) >= WEIGHT_OF_A_LINE * peak;

/**
 * Px by which the lines of the k-th of n heads are moved from the middle of a row.
 * @param {number} k
 * @param {number} n
 * @param {number} rowHeight
 */
export const headOffset = (k, n, rowHeight) => (k - (n - 1) / 2) * Math.min(2, (0.5 * rowHeight) / n);

/**
 * The curve from the left column to the right one.
 * @param {number} left
 * @param {number | string} from
 * @param {number} right
 * @param {number | string} to
 */
export function curve(left, from, right, to) {
  const bend = (right - left) * 0.4;
  return `M${left} ${from}C${left + bend} ${from} ${right - bend} ${to} ${right} ${to}`;
}

/**
 * The height of a curve at x, or infinity beside it.
 * @param {number[]} ends
 * @param {number} x
 */
export function heightAt([left, from, right, to], x) {
  const share = (x - left) / (right - left);
  if (!(share >= 0 && share <= 1)) return Infinity;
  let t = share; // of the curve: x is a cubic of it, solved by Newton's method
  for (let n = 0; n < 4; n++) {
    const at = 1.2 * t * (1 - t) ** 2 + 1.8 * t * t * (1 - t) + t ** 3;
    const slope = 1.2 - 1.2 * t + 1.2 * t * t;
    t = Math.min(1, Math.max(0, t - (at - share) / slope));
  }
  return from + (to - from) * (3 * t * t - 2 * t ** 3);
}

/**
 * How far a point is from a bar, in px.
 * @param {number[]} bar
 * @param {number} x
 * @param {number} y
 */
export function distanceFromBar([left, top, width, height], x, y) {
  return Math.max(left - x, x - left - width, top - y, y - top - height, 0);
}

/**
 * The line or bar at a point; of lines that lie close together, rather a thick one.
 * @param {Mark[]} marks
 * @param {number} x
 * @param {number} y
 */
export function markAt(marks, x, y) {
  /** @type {Mark | null} */
  let nearest = null;
  let distance = 6;
  for (const mark of marks) {
    const away = mark.line
      ? Math.abs(heightAt(mark.line, x) - y) - 2.5 * mark.share
      : distanceFromBar(mark.bar ?? [], x, y);
    if (away < distance) [nearest, distance] = [mark, away];
  }
  return nearest;
}
