// Arithmetic of the offline page: products of vectors, and the weights between units, pooled into cells.

/** @import { NumberArray } from "../types.js" */

/**
 * The whole numbers from one to before another.
 * @param {number} from
 * @param {number} to
 */
export const range = (from, to) => Array.from({ length: Math.max(0, to - from) }, (_, n) => from + n);

/** @param {ArrayLike<number>} a @param {ArrayLike<number>} b */
export function dot(a, b) {
  let sum = 0;
  for (let d = 0; d < a.length; d++) sum += a[d] * b[d];
  return sum;
}

/**
 * Cells of width × width weights between the units that are shown: their mean, or the largest by magnitude.
 * @param {ArrayLike<number>} all the weights, U × V
 * @param {number} V
 * @param {{from: number[], to: number[]}} shown units, as rows and as columns
 * @param {number} width
 * @param {number[]} rows of cells
 * @param {number[]} columns of cells
 * @param {boolean} largest
 * @returns {NumberArray}
 */
export function pooled(all, V, shown, width, rows, columns, largest) {
  const data = new Float32Array(rows.length * columns.length);
  rows.forEach((row, y) => {
    const down = shown.from.slice(row * width, (row + 1) * width);
    columns.forEach((column, x) => {
      const across = shown.to.slice(column * width, (column + 1) * width);
      let cell = 0;
      for (const u of down)
        for (const v of across) {
          const weight = all[u * V + v];
          if (!largest) cell += weight;
          else if (Number.isNaN(weight) || Math.abs(weight) > Math.abs(cell)) cell = weight;
        }
      data[y * columns.length + x] = largest ? cell : cell / (down.length * across.length);
    });
  });
  return { shape: [rows.length, columns.length], data };
}

/**
 * Cells of a coarser level from those of a picture, each the mean of its weights; those at the edge hold fewer.
 * @param {ArrayLike<number>} picture its rows × its columns
 * @param {number[]} sides how many rows and columns it has
 * @param {number[]} units that these stand for
 * @param {number} fine units of a picture's cell
 * @param {number} coarse units of a cell, as many or more
 * @param {number[]} rows of cells
 * @param {number[]} columns of cells
 * @returns {NumberArray}
 */
export function coarser(picture, sides, units, fine, coarse, rows, columns) {
  const [down, across] = sides.map((side, k) => range(0, side).map((n) => Math.min(fine, units[k] - n * fine)));
  /** @param {number} n @param {number} side */
  const inside = (n, side) => range((n * coarse) / fine, Math.min(side, ((n + 1) * coarse) / fine));
  const cells = rows.flatMap((y) =>
    columns.map((x) => {
      let [sum, area] = [0, 0];
      for (const a of inside(y, sides[0]))
        for (const b of inside(x, sides[1])) {
          sum += picture[a * sides[1] + b] * down[a] * across[b];
          area += down[a] * across[b];
        }
      return sum / area;
    }),
  );
  return { shape: [rows.length, columns.length], data: Float32Array.from(cells) };
}
