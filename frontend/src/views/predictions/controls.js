// What the pointer, the keys and the settings do in the view Predictions.

import { closest, moveFocus, valueFrom } from "../../ui/dom.js";
import { unitOfToken } from "../../ui/predictions.js";

/** @import { Selection } from "../../types.js" */
/** @import { Cell, PredictionsView } from "./view.js" */

/** @param {PredictionsView} view */
export function listenToGrid(view) {
  const { app, grid } = view;
  /** @param {Event} event @returns {Cell | null} */
  const cellOf = (event) => {
    const data = closest(event, "button[data-layer]")?.dataset;
    return data ? [Number(data.layer), Number(data.token)] : null;
  };
  grid.addEventListener("click", (event) => {
    const cell = cellOf(event);
    if (!cell) return;
    const [layer, token] = cell;
    const { attended } = app.reading;
    const place = unitOfToken(app.reading, token);
    view.cell = cell;
    view.revealed = view.followed = `${app.reading.id} ${attended.includes(layer) ? layer : app.state.layer} ${token}`;
    app.select({ ...(attended.includes(layer) ? { layer } : {}), ...place, side: "from" });
  });
  for (const type of ["pointerover", "focusin"])
    grid.addEventListener(type, (event) => {
      view.pointed = cellOf(event) ?? view.pointed;
      view.writeSummary();
    });
  for (const type of ["pointerleave", "focusout"])
    grid.addEventListener(type, () => {
      view.pointed = null;
      if (app.reading) view.writeSummary();
    });
  grid.addEventListener("keydown", (event) => {
    const n = view.count();
    moveFocus(event, view.buttons(), { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -n, ArrowDown: n });
  });
}

/** @param {PredictionsView} view */
export function listenToSettings(view) {
  const { app } = view;
  const { by } = app;
  by("lens-colour").addEventListener("change", (event) =>
    app.select({ lens: /** @type {Selection["lens"]} */ (valueFrom(event)) }, { replace: true }),
  );
  by("lens-earlier").addEventListener("click", () => view.turn(-1));
  by("lens-later").addEventListener("click", () => view.turn(1));
}
