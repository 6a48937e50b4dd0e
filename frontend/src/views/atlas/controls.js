// What the pointer and the keys do in the view Atlas.

import { closest, moveFocus } from "../../ui/dom.js";
import { placeOf } from "./cells.js";
import { topOf } from "./scores.js";

/** @import { AtlasView } from "./view.js" */

/** @param {AtlasView} view */
export function listenToScores({ app }) {
  const list = app.by("scores");
  list.addEventListener("click", (event) => {
    const score = closest(event, "[data-score]")?.dataset.score;
    if (score !== undefined) app.select({ score });
  });
  list.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 };
    moveFocus(event, [...list.querySelectorAll("button")], steps);
  });
  app.by("atlas-back").addEventListener("click", () => app.select({ view: "atlas" }));
}

/** @param {AtlasView} view */
export function listenToHeads(view) {
  const { app, maps } = view;
  maps.addEventListener("click", (event) => {
    const place = placeOf(view, event);
    if (place) view.open(place);
  });
  for (const type of ["pointerover", "focusin"])
    maps.addEventListener(type, (event) => {
      const place = placeOf(view, event);
      if (!place) return;
      view.pointed = place;
      view.writeSummary();
      const box = /** @type {Element} */ (event.target).getBoundingClientRect();
      app.tip.show(box.left + box.width / 2, box.top, [view.describe(place), ...view.others(place)].join("\nalso "));
    });
  for (const type of ["pointerleave", "focusout"])
    maps.addEventListener(type, () => {
      view.pointed = null;
      app.tip.hide();
      if (app.state.view === "atlas") view.writeSummary();
    });
  maps.addEventListener("keydown", (event) => {
    const grid = closest(event, "[role='grid']");
    if (event.key === "Escape") app.tip.hide();
    if (!grid) return;
    /** @type {HTMLElement[]} */
    const cells = [...grid.querySelectorAll("button")];
    const H = Number(grid.style.getPropertyValue("--heads"));
    moveFocus(event, cells, { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -H, ArrowDown: H });
  });
  app.by("score-heads").addEventListener("click", (event) => {
    const { part, place } = closest(event, "[data-place]")?.dataset ?? {};
    if (part === undefined) return;
    const { layer, head, row } = topOf(view.atlas(), view.score(), part)[Number(place)];
    view.open({ part, layer, head }, row);
  });
}
