// What the controls above and below the views do.

import { closest, moveFocus, valueFrom } from "../ui/dom.js";
import { hidesFirst } from "../ui/hidden.js";
import { VIEW_NAMES } from "./selection.js";

/** @import { App, SaveKind } from "../types.js" */

/** @param {App} app @param {(kind: SaveKind) => void} save */
export function listenToControls(app, save) {
  const { by } = app;
  listenToTabs(app);
  listenToWord(app);
  by("token").addEventListener("change", (event) => app.select({ token: Number(valueFrom(event)) }));
  by("layer").addEventListener("change", (event) => app.select({ layer: Number(valueFrom(event)) }));
  by("head").addEventListener("change", (event) => app.select({ head: Number(valueFrom(event)) }));
  by("attention").addEventListener("change", (event) =>
    app.select({ attention: valueFrom(event), word: null, side: "from", token: 0, at: null, seen: null }),
  );
  by("map-name").addEventListener("change", (event) => app.select({ map: valueFrom(event) }));
  by("target").addEventListener("change", () => app.select({ target: by("target").value.trim() || null }));
  by("hide").addEventListener("change", () => app.select({ hide: by("hide").checked }));
  by("hide-first").addEventListener("change", () => app.select({ hideFirst: by("hide-first").checked }));
  by("first-switch").addEventListener("click", () => app.select({ hideFirst: !hidesFirst(app.reading, app.state) }));
  by("theme").addEventListener("click", () =>
    app.select({ theme: app.isDark() ? "light" : "dark" }, { replace: true }),
  );
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => app.draw());
  by("exports").addEventListener("click", (event) => {
    const kind = closest(event, "[data-kind]")?.dataset.kind;
    if (kind) save(/** @type {SaveKind} */ (kind));
  });
}

/** @param {App} app */
function listenToTabs({ root, by, select }) {
  const tabs = VIEW_NAMES.map((view) => by(/** @type {"tab-map"} */ (`tab-${view}`)));
  for (const [n, view] of VIEW_NAMES.entries()) tabs[n].addEventListener("click", () => select({ view }));
  tabs[0].parentElement?.addEventListener("keydown", (event) => {
    moveFocus(
      event,
      tabs.filter((tab) => !tab.hidden),
      { ArrowLeft: -1, ArrowRight: 1 },
    );
    if (event.key === "ArrowLeft" || event.key === "ArrowRight")
      /** @type {HTMLElement | null} */ (root.activeElement)?.click();
  });
}

/** @param {App} app */
function listenToWord(app) {
  const input = app.by("word");
  /** @param {number} after the next word of that name behind this one */
  const choose = (after) => {
    try {
      const word = app.findWord(input.value, after);
      if (word !== app.state.word) app.select({ word, side: "from", token: 0 });
    } catch (error) {
      app.showError(/** @type {Error} */ (error).message);
    }
  };
  input.addEventListener("keydown", (event) => event.key === "Enter" && choose(app.state.word ?? -1));
  input.addEventListener("change", () => {
    const { word } = app.state;
    const { units } = app.state.side === "to" ? app.reading.columns : app.reading;
    if (input.value !== (word === null ? "" : units[word])) choose(-1);
  });
}
