// What the keys and the controls do in the view Map.

import { valueFrom } from "../../ui/dom.js";
import { levelSeen } from "./levels.js";

/** @import { Scale, Selection } from "../../types.js" */
/** @import { MapView } from "./view.js" */

/** @type {Record<string, [down: number, across: number]>} */
const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/** @param {MapView} view */
export function listenToKeys(view) {
  view.app.by("cells").addEventListener("keydown", (event) => {
    const shown = view.seen();
    const { cursor } = view;
    if (!shown || !cursor || event.ctrlKey || event.metaKey || event.altKey) return;
    const { matrix, window, seen } = shown;
    /** @type {Record<string, () => void>} */
    const actions = {
      Home: () => view.moveTo(cursor.row, 0),
      End: () => view.moveTo(cursor.row, matrix.wide - 1),
      Enter: () => view.chooseRow(),
      "+": () => view.zoomBy(2),
      "=": () => view.zoomBy(2),
      "-": () => view.zoomBy(0.5),
      0: () => window.showAll(),
    };
    const arrow = ARROWS[event.key];
    if (arrow) {
      const [down, across] = arrow;
      const cell = 2 ** levelSeen(matrix, seen.unit);
      if (event.shiftKey) window.panBy(80 * across, 80 * down);
      else view.moveTo(cursor.row + down * cell, cursor.column + across * cell);
    } else if (actions[event.key]) actions[event.key]();
    else return;
    event.preventDefault();
  });
}

/** @param {MapView} view */
export function listenToSettings(view) {
  const { app } = view;
  const { by } = app;
  by("scale").addEventListener("change", (event) =>
    app.select({ scale: /** @type {Scale} */ (valueFrom(event)) }, { replace: true }),
  );
  by("reduce").addEventListener("change", (event) =>
    app.select({ reduce: /** @type {Selection["reduce"]} */ (valueFrom(event)) }, { replace: true }),
  );
  by("zoom-in").addEventListener("click", () => view.zoomBy(2));
  by("zoom-out").addEventListener("click", () => view.zoomBy(0.5));
  by("zoom-all").addEventListener("click", () => view.window?.showAll());
  by("jump").addEventListener("submit", (event) => {
    event.preventDefault();
    app.showError(null);
    try {
      jump(view);
    } catch (error) {
      app.showError(/** @type {Error} */ (error).message);
    }
  });
}

/**
 * Goes to the cell of two words that were typed. The same words again: the next of that name.
 * @param {MapView} view
 */
function jump({ app, matrix, cursor }) {
  if (!matrix || !cursor) return;
  const [from, to] = [app.by("jump-from").value, app.by("jump-to").value];
  const row = (from.trim() ? app.findWord(from, -1) : null) ?? matrix.units[cursor.row];
  const isOneText = app.reading.columns === app.reading;
  const after = app.state.at?.[0] === row ? app.state.at[1] : isOneText ? row - 1 : -1;
  const nearest = isOneText ? row : matrix.across[cursor.column];
  const column = (to.trim() ? app.findWord(to, after, "to") : null) ?? nearest;
  app.select({ at: [row, column], seen: null, word: row, side: "from", token: 0 });
}
