// Which words the columns of the view Sentence hold: of a long text those around the chosen one, and gaps.

import { WEIGHT_OF_A_LINE, WORDS_ACROSS, WORDS_AROUND } from "./limits.js";

/**
 * The units around one of them.
 * @param {number} u
 * @param {number[]} units
 */
export function windowAround(u, units) {
  const first = Math.max(0, Math.min(units.length - WORDS_AROUND, units.indexOf(u) - WORDS_AROUND / 2));
  return units.slice(first, first + WORDS_AROUND);
}

/**
 * The units around the gap that begins at u.
 * @param {number} u
 * @param {number[]} units
 */
export function windowAtGap(u, units) {
  const place =
    Math.max(
      0,
      units.findIndex((v) => v >= u),
    ) +
    WORDS_AROUND / 2;
  return windowAround(units[Math.min(units.length - 1, place)], units);
}

/**
 * The units with the largest weights, in reading order; null where no weight is known.
 * @param {ArrayLike<number>} mean
 * @param {number[]} units
 * @param {number} peak
 */
export function heaviest(mean, units, peak) {
  /** @param {number} u */
  const size = (u) => Math.abs(mean[u]);
  const heavy = units.filter((u) => size(u) >= (WEIGHT_OF_A_LINE / 10) * peak).sort((a, b) => size(b) - size(a));
  return heavy.length ? heavy.slice(0, WORDS_ACROSS).sort((a, b) => a - b) : null;
}

/**
 * A column: the listed units, with a number below 0 wherever so many of all units are left out.
 * @param {number[]} list
 * @param {number[]} units
 */
export function withGaps(list, units) {
  const places = new Map(units.map((u, n) => [u, n]));
  const column = [];
  let last = -1;
  for (const u of list) {
    const place = /** @type {number} */ (places.get(u));
    if (place - last > 1) column.push(last + 1 - place);
    column.push(u);
    last = place;
  }
  if (last < units.length - 1) column.push(last + 1 - units.length);
  return column;
}
