// What the pointer and the keys do in the view Sentence.

import { closest, moveFocus, valueFrom } from "../../ui/dom.js";
import { capitalized } from "../../ui/format.js";
import { formatNumber, headName } from "../../ui/maps.js";
import { visible } from "../../ui/words.js";
import { markAt } from "./lines.js";
import { headAlone, toggledHeads } from "./selection.js";

/** @import { Direction, Side } from "../../types.js" */
/** @import { SentenceView } from "./view.js" */

/**
 * Pointing at a word shows its lines, a click holds it.
 * @param {SentenceView} view
 */
export function listenToColumns(view) {
  const { app } = view;
  for (const side of /** @type {Side[]} */ (["from", "to"])) {
    const column = app.by(side);
    /** @param {Event} event */
    const point = (event) => {
      const unit = closest(event, "[data-unit]")?.dataset.unit;
      if (unit !== undefined) view.point({ u: Number(unit), side });
    };
    /** @param {Event} event */
    const choose = (event) => {
      const gap = closest(event, "[data-gap]")?.dataset.gap;
      if (gap !== undefined) return view.openGap(side, Number(gap));
      const unit = closest(event, "[data-unit]")?.dataset.unit;
      if (unit === undefined) return;
      const isHeld = app.state.word === Number(unit) && app.state.side === side;
      app.select({ word: isHeld ? null : Number(unit), side, token: 0 });
    };
    column.addEventListener("pointerover", (event) => event.pointerType === "mouse" && point(event));
    column.addEventListener("pointerleave", () => view.pointed && view.point(null));
    column.addEventListener("focusin", (event) => closest(event, "*")?.matches(":focus-visible") && point(event));
    column.addEventListener("focusout", () => {
      view.pointed = null;
    });
    column.addEventListener("click", choose);
    column.addEventListener("keydown", (event) => {
      if (closest(event, "[data-gap]") && (event.key === "Enter" || event.key === " ")) {
        event.preventDefault();
        choose(event);
      } else moveFocus(event, /** @type {HTMLElement[]} */ ([...column.children]), { ArrowUp: -1, ArrowDown: 1 });
    });
  }
}

/**
 * Pointing at a line or a bar names its head, its words and its weight.
 * @param {SentenceView} view
 */
export function listenToLines(view) {
  const { app } = view;
  const lines = app.by("lines");
  lines.addEventListener("pointermove", (event) => {
    const box = lines.getBoundingClientRect();
    const isOnWord = closest(event, ".column");
    const mark = isOnWord ? null : markAt(view.marks, event.clientX - box.left, event.clientY - box.top);
    if (!mark) return app.tip.hide();
    const ends = [app.reading.units[mark.u], app.reading.columns.units[mark.v]];
    const [u, v] = ends.map((text) => visible(text).slice(0, 40));
    const name = capitalized(headName(app.reading, app.state, mark.h));
    app.tip.show(event.clientX, event.clientY - 8, `${name}: ${u} → ${v}, ${formatNumber(app.state)(mark.weight)}`);
  });
  lines.addEventListener("pointerleave", () => app.tip.hide());
}

/**
 * Heads, the share of the weight, the direction.
 * @param {SentenceView} view
 */
export function listenToSettings(view) {
  const { app } = view;
  const { by } = app;
  /** @param {Event} event */
  const headOf = (event) => {
    const head = closest(event, "[data-head]")?.dataset.head;
    return head === undefined ? null : Number(head);
  };
  by("swatches").addEventListener("click", (event) => {
    const h = headOf(event);
    // A double click is two clicks first, which undo each other.
    if (h !== null) app.select({ heads: toggledHeads(view.headsShown(), h) }, { replace: true });
  });
  by("swatches").addEventListener("dblclick", (event) => {
    const h = headOf(event);
    if (h !== null) app.select(headAlone(app.state.heads, h));
  });
  by("swatches").addEventListener("keydown", (event) => {
    const h = headOf(event);
    if (event.key !== "Enter" || !event.shiftKey || h === null) return;
    event.preventDefault();
    app.select(headAlone(app.state.heads, h));
  });
  by("mass").addEventListener("input", (event) => app.select({ mass: Number(valueFrom(event)) }, { replace: true }));
  by("direction").addEventListener("change", (event) =>
    app.select({ direction: /** @type {Direction} */ (valueFrom(event)) }),
  );
}
