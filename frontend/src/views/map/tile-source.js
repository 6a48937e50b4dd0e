// The tiles of a matrix as OpenSeadragon asks for them: numbers, coloured here.

import { TILE_SIZE } from "../../protocol.js";
import { painted } from "../../ui/paint.js";
import { rangeAt, tileBounds } from "./levels.js";

/** @import { Scale } from "../../types.js" */
/** @import { Matrix } from "./levels.js" */
/** @import { TileStore } from "./tiles.js" */

/**
 * @param {any} OpenSeadragon
 * @param {Matrix} matrix
 * @param {TileStore} tiles
 * @param {{isCurrent: () => boolean, scale: () => Scale, isDark: () => boolean, failed: (error: Error) => void}} options
 */
export function tileSourceOf(OpenSeadragon, matrix, tiles, options) {
  const { tall, wide, top, floor, key, version } = matrix;
  const source = new OpenSeadragon.TileSource({
    width: wide,
    height: tall,
    tileSize: TILE_SIZE,
    tileOverlap: 0,
    minLevel: 0,
    maxLevel: top - floor,
  });
  // OpenSeadragon counts levels from the coarsest on, the map from the finest.
  if (floor) source.getLevelScale = (/** @type {number} */ level) => 2 ** (level - top);
  return Object.assign(source, {
    /** @param {number} level @param {number} x @param {number} y */
    getTileUrl: (level, x, y) => `${key} ${version} ${level} ${y} ${x}`,
    hasTransparency: () => false,
    /** @param {number} level @param {number} x @param {number} y @param {boolean} inTile */
    getTileBounds: (level, x, y, inTile) => new OpenSeadragon.Rect(...tileBounds(matrix, top - level, x, y, inTile)),
    /** @param {any} job */
    downloadTileStart(job) {
      const { level, x, y } = job.tile;
      if (!options.isCurrent()) return job.fail("The map has changed.");
      tiles.get(matrix, top - level, y, x).then(
        ({ data, rows, columns }) => {
          const range = rangeAt(matrix, top - level, options.scale());
          const canvas = painted(data, rows, columns, range, options.isDark());
          job.finish(canvas.getContext("2d"), null, "context2d");
        },
        (error) => {
          if (error.name !== "AbortError") options.failed(error);
          job.fail(error.message);
        },
      );
    },
    downloadTileAbort() {}, // the numbers, once computed, are of use later
  });
}
