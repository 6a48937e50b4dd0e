// The cell that is read out, and what the rows of the map sum to, in sentences.

import { dataElement, fillSlots, quoted } from "../../ui/dom.js";
import { formatWeight } from "../../ui/format.js";
import { hidesFirst } from "../../ui/hidden.js";
import { areWeights, unitOf, wordsOf } from "../../ui/maps.js";
import { visible } from "../../ui/words.js";

/** @import { App } from "../../types.js" */
/** @import { Cursor } from "./labels.js" */
/** @import { Matrix } from "./levels.js" */

/**
 * @param {App} app
 * @param {Matrix} matrix
 * @param {Cursor} cursor
 * @param {number} level
 * @param {number} weight
 */
export function writeReadOut({ by, reading, state }, { units, across, tall, wide }, { row, column }, level, weight) {
  const cell = 2 ** level;
  /**
   * The words of a cell.
   * @param {number} place
   * @param {number[]} side
   * @param {string[]} texts
   */
  const words = (place, side, texts) => {
    /** @param {number} n */
    const word = (n) => quoted(visible(texts[side[Math.min(n, side.length - 1)]]));
    const first = Math.floor(place / cell) * cell;
    return cell === 1 ? [word(first)] : [word(first), " to ", word(first + cell - 1)];
  };
  const { many } = wordsOf(state);
  const kind = `${state.reduce === "max" ? "largest" : "mean"} of ${cell} × ${cell} ${many}, `;
  const [takes, take] = areWeights(state) ? [" attends to ", " attend to "] : [" takes from ", " take from "];
  by("map-says").replaceChildren(
    ...words(row, units, reading.units),
    cell === 1 ? takes : take,
    ...words(column, across, reading.columns.units),
    ": ",
    cell === 1 ? "" : kind,
    dataElement(weight, formatWeight),
    areWeights(state) ? "" : `, ${unitOf(state, weight)}`,
  );
  by("cell").setAttribute("aria-label", by("map-says").textContent ?? "");
  by("cell").setAttribute("aria-colindex", String(column + 1));
  by("cell-row").setAttribute("aria-rowindex", String(row + 1));
  by("cells").setAttribute("aria-rowcount", String(tall));
  by("cells").setAttribute("aria-colcount", String(wide));
}

/**
 * What the rows sum to.
 * @param {App} app
 * @param {Matrix} matrix
 */
export function writeHint({ by, reading, state }, { isFirstExcluded }) {
  const sums = !areWeights(state)
    ? `a number is ${wordsOf(state).is}`
    : hidesFirst(reading, state)
      ? "the rest of each row's weight is on the first token, which is hidden"
      : state.hide && reading.columns.special.size
        ? "the rest of each row's weight is on the special tokens, which are hidden"
        : reading.sinks
          ? "every row sums to one less what the head's sink takes"
          : "every row sums to one";
  const apart = " The first word sees only itself, so its row and column are left out of the scale of colours.";
  fillSlots(by("map-hint"), { sums, apart: isFirstExcluded ? apart : "" });
}
