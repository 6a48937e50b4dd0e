// What the pointer, the keys and the form do in the view Compare.

import { closest, valueFrom } from "../../ui/dom.js";

/** @import { App } from "../../types.js" */
/** @import { CompareView } from "./view.js" */

/** @param {CompareView} view */
export function listenToLayers({ app }) {
  const { by } = app;
  by("after").addEventListener("input", (event) => app.select({ after: Number(valueFrom(event)) }, { replace: true }));
  by("similarities").addEventListener("click", async (event) => {
    const layer = closest(event, "[data-after]")?.dataset.after;
    if (layer === undefined) return;
    await app.select({ after: Number(layer) });
    /** @type {HTMLElement | undefined} */ (by("similarities").children[Number(layer)])?.focus();
  });
}

/** @param {CompareView} view */
export function listenToPointer(view) {
  const { by } = view.app;
  by("similarities").addEventListener("pointermove", (event) => {
    const pair = closest(event, "[data-pair]")?.dataset.pair;
    const layer = closest(event, "[data-after]")?.dataset.after;
    const [i, j] = pair?.split(" ").map(Number) ?? [];
    view.point(pair ? [i, j, Number(layer)] : null);
  });
  for (const id of /** @type {const} */ (["plane", "places"]))
    by(id).addEventListener("pointermove", (event) => {
      const place = closest(event, "[data-place]")?.dataset.place;
      view.point(place === undefined ? null : Number(place));
    });
  for (const id of /** @type {const} */ (["plane", "places", "similarities"]))
    by(id).addEventListener("pointerleave", () => view.point(null));
}

/** @param {App} app */
export function listenToForm(app) {
  const { by } = app;
  const compare = () => {
    const [word, texts] = [by("compare-word").value.trim(), by("compare-texts").value];
    if (!word) return app.showError("Type the word to compare.");
    app.select({ same: word, texts, after: null });
  };
  by("comparing").addEventListener("submit", (event) => {
    event.preventDefault();
    compare();
  });
  by("compare-texts").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) compare();
  });
}
