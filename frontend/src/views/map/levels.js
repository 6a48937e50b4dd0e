// The levels of the map, and what part of it is seen: arithmetic alone.
//
// A unit is a pixel of the finest level, level 0; a cell of level n stands for 2ⁿ × 2ⁿ weights: see
// regard/viewer/tiles.py. A tile holds 256 × 256 cells.

import { TILE_SIZE } from "../../protocol.js";
import { hiddenRequest } from "../../ui/hidden.js";
import { chosenMap, headOf, mapRequest } from "../../ui/maps.js";

/** @import { Range, Reading, Scale, Selection } from "../../types.js" */

/**
 * The weights of one head as a map: a row for each unit that attends, a column for each that is attended to.
 * @typedef {object} Matrix
 * @property {string} key names it
 * @property {TileChoice} request with which its tiles are requested
 * @property {number[]} units those shown as rows
 * @property {number[]} across those shown as columns
 * @property {number} tall how many rows there are
 * @property {number} wide how many columns
 * @property {number} top the level at which one tile holds all
 * @property {number} floor the finest level that there is
 * @property {boolean} signed whether its numbers may be below 0
 * @property {boolean} isFirstExcluded the first word sees only itself: it is no measure for the colours of the others
 * @property {number[]} peaks by level, the largest number so far, by magnitude
 * @property {string} paintedFor the scale and theme of its colours
 * @property {number} version how many times it was given to OpenSeadragon
 */

/**
 * @typedef {{left: number, top: number, unit: number}} Seen the units at the left and top edge, with fractions, and px of a unit
 */

/** @typedef {{map: string, target?: string | null, layer: number, head: number, reduce: string, hide: boolean, hide_first: boolean}} TileChoice */

/** @param {Reading} reading @param {Selection} state @param {number[]} units @param {number[]} across @returns {Matrix} */
export function makeMatrix(reading, state, units, across) {
  const { layer, reduce } = state;
  const head = headOf(reading, state);
  const [tall, wide] = [units.length, across.length];
  const top = Math.max(0, Math.ceil(Math.log2(Math.max(tall, wide) / TILE_SIZE)), reading.pictured ?? 0);
  return {
    key: keyOf(reading, state),
    request: { ...mapRequest(reading, state), layer, head, reduce, ...hiddenRequest(reading, state) },
    units,
    across,
    tall,
    wide,
    top,
    floor: Math.min(reading.floor?.(layer, head) ?? 0, top),
    signed: chosenMap(reading, state).signed,
    isFirstExcluded: reading.causal && units[0] === 0,
    peaks: [],
    paintedFor: "",
    version: 0,
  };
}

/** @param {Reading} reading @param {Selection} state */
export function keyOf(reading, state) {
  const { map, target = "" } = mapRequest(reading, state);
  const hidden = Object.values(hiddenRequest(reading, state));
  return [reading.id, map, target, state.layer, headOf(reading, state), state.reduce, ...hidden].join(" ");
}

/**
 * The level whose cells are at least a pixel.
 * @param {Pick<Matrix, "top" | "floor">} matrix
 * @param {number} unit px
 */
export const levelSeen = ({ top, floor }, unit) => Math.min(top, Math.max(floor, Math.ceil(-Math.log2(unit) - 0.01)));

/**
 * What the colours of a level stand for: the last is that of the largest number that is known.
 * @param {Matrix} matrix
 * @param {number} level
 * @param {Scale} scale
 * @returns {Range}
 */
export const rangeAt = ({ peaks, top, signed }, level, scale) => ({
  peak: peaks[level] ?? peaks[top] ?? 1,
  scale,
  signed,
});

const LONG = 256; // words from which on small weights matter more than the differences of large ones

/**
 * The scale of the colours: the chosen one, or what fits the length of the text.
 * @param {Scale | null} chosen
 * @param {number} U
 * @returns {Scale}
 */
export const scaleOf = (chosen, U) => chosen ?? (U > LONG ? "log" : "linear");

/**
 * The row and column of units under a point of the window.
 * @param {Seen} seen
 * @param {{x: number, y: number}} point
 */
export const unitsUnder = ({ left, top, unit }, { x, y }) => [Math.floor(top + y / unit), Math.floor(left + x / unit)];

/**
 * By how many px a window must move for a unit to be inside.
 * @param {number} place
 * @param {number} first unit at the edge
 * @param {number} unit px
 * @param {number} room px
 */
export function shiftToShow(place, first, unit, room) {
  const [near, far] = [(place - first) * unit, (place + 1 - first) * unit];
  return near < 0 ? near : far > room ? far - room : 0;
}

/**
 * The cells of a level between two edges.
 * @param {number} first unit
 * @param {number} length in units
 * @param {number} cell units
 * @param {number} size of the map
 */
export function cellsBetween(first, length, cell, size) {
  const from = Math.max(0, Math.floor(first / cell));
  const to = Math.min(Math.ceil(size / cell), Math.ceil((first + length) / cell));
  return Array.from({ length: Math.max(0, to - from) }, (_, n) => from + n);
}

/**
 * How many units lie between two labels, a power of two.
 * @param {number} unit px
 * @param {number} least px that a label takes
 */
export const labelStep = (unit, least) => 2 ** Math.max(0, Math.ceil(Math.log2(least / unit)));

/**
 * The bounds of a tile on the map, which is 1 wide, or with `inTile` in the tile's own cells.
 * @param {Pick<Matrix, "tall" | "wide">} matrix
 * @param {number} level
 * @param {number} x
 * @param {number} y
 * @param {boolean} inTile
 */
export function tileBounds({ tall, wide }, level, x, y, inTile) {
  const [down, across] = [tall, wide].map((size) => Math.ceil(size / 2 ** level));
  const [left, top] = [x * TILE_SIZE, y * TILE_SIZE];
  const [width, height] = [Math.min(left + TILE_SIZE, across) - left, Math.min(top + TILE_SIZE, down) - top];
  if (inTile) return [0, 0, width, height];
  const cell = 2 ** level / wide;
  return [left * cell, top * cell, width * cell, height * cell];
}

/**
 * The part of the map in a window, as an address has it: null where it is all of it.
 * @param {Seen} seen
 * @param {{width: number, height: number}} window px
 * @param {Pick<Matrix, "tall" | "wide">} matrix
 */
export function windowOf({ left, top, unit }, { width, height }, { tall, wide }) {
  const [across, down] = [width / unit, height / unit];
  const beside = Math.min(across - wide, down - tall); // nothing, where all of it is seen
  const isAll = Math.abs(left) + Math.abs(top) + Math.abs(beside) < 0.01 * Math.max(tall, wide);
  return isAll ? null : [left, top, across].map((number) => Number(number.toFixed(2)));
}
