// The numbers of the map's tiles: requested once, kept while there is room.

import { TILE_SIZE } from "../../protocol.js";
import { peakOf } from "../../ui/colour.js";

/** @import { App } from "../../types.js" */
/** @import { Matrix } from "./levels.js" */
/** @typedef {{data: Float32Array | Float64Array, rows: number, columns: number}} Tile */

const KEPT = 160; // tiles: 42 MB

export class TileStore {
  /**
   * @param {App["request"]} request
   * @param {(matrix: Matrix) => void} peakGrew called where a tile holds a larger number than its level had before
   */
  constructor(request, peakGrew) {
    this.request = request;
    this.peakGrew = peakGrew;
    /** The tiles, the latest used last. @type {Map<string, Tile>} */
    this.tiles = new Map();
    /** Those requested. @type {Map<string, Promise<Tile>>} */
    this.coming = new Map();
  }

  /**
   * A tile.
   * @param {Matrix} matrix
   * @param {number} level
   * @param {number} row
   * @param {number} column
   * @param {AbortSignal} [signal]
   * @returns {Promise<Tile>}
   */
  get(matrix, level, row, column, signal) {
    const name = nameOf(matrix, level, row, column);
    const tile = this.tiles.get(name);
    if (tile) {
      this.tiles.delete(name);
      this.tiles.set(name, tile);
      return Promise.resolve(tile);
    }
    let coming = this.coming.get(name);
    if (!coming) {
      coming = this.load(matrix, level, row, column, signal);
      this.coming.set(name, coming);
      coming.catch(() => {}).finally(() => this.coming.delete(name));
    }
    return coming;
  }

  /**
   * @param {Matrix} matrix
   * @param {number} level
   * @param {number} row
   * @param {number} column
   * @param {AbortSignal} [signal]
   */
  async load(matrix, level, row, column, signal) {
    const { cells } = await this.request({ type: "tile", ...matrix.request, level, row, column }, signal);
    const tile = { data: cells.data, rows: cells.shape[0], columns: cells.shape[1] };
    this.tiles.set(nameOf(matrix, level, row, column), tile);
    while (this.tiles.size > KEPT) this.tiles.delete(this.tiles.keys().next().value ?? "");
    const peak = peakOf(tile.data, tile.columns, matrix.isFirstExcluded && !row && !column);
    const before = matrix.peaks[level];
    if (!(peak <= before)) {
      matrix.peaks[level] = peak;
      if (before !== undefined) this.peakGrew(matrix);
    }
    return tile;
  }

  /**
   * The number of a cell, if its tile is here.
   * @param {Matrix} matrix
   * @param {number} level
   * @param {number} row
   * @param {number} column
   */
  cellOf(matrix, level, row, column) {
    const tile = this.tiles.get(nameOf(matrix, level, Math.floor(row / TILE_SIZE), Math.floor(column / TILE_SIZE)));
    return tile?.data[(row % TILE_SIZE) * tile.columns + (column % TILE_SIZE)];
  }

  clear() {
    this.tiles = new Map();
    this.coming = new Map();
  }
}

/** @param {Matrix} matrix @param {number} level @param {number} row @param {number} column */
const nameOf = ({ key }, level, row, column) => `${key} ${level} ${row} ${column}`;
