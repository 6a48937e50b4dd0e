// Heads: every head of every layer as a small picture, with the names of those that follow a pattern.

import { peakOf } from "../../ui/colour.js";
import { closest, el, fillSlots, moveFocus } from "../../ui/dom.js";
import { capitalized } from "../../ui/format.js";
import { hiddenRequest } from "../../ui/hidden.js";
import { areWeights, chosenMap, headCount, headName, headOf, mapRequest, wordsOf } from "../../ui/maps.js";
import { painted } from "../../ui/paint.js";
import { describeHead, layerTitles, patternsOf, wordsOfCell } from "./patterns.js";
import { headsPicture } from "./picture.js";

/** @import { App, Range, Row, ThumbnailsReply, View } from "../../types.js" */

/** @implements {View} */
export class HeadsView {
  /** @param {App} app */
  constructor(app) {
    this.app = app;
    this.grid = app.by("thumbs");
    this.builtFor = ""; // the reading that the grid is for
    this.drawnFor = ""; // what the pictures were drawn for
    /** By layer. @type {ThumbnailsReply[]} */
    this.layers = [];
    /** The head under the pointer. @type {[layer: number, head: number] | null} */
    this.pointed = null;
    this.listen();
  }

  /** @type {View["draw"]} */
  async draw(signal, isCurrent) {
    const { state, reading } = this.app;
    const hidden = hiddenRequest(reading, state);
    const map = mapRequest(reading, state);
    if (this.builtFor !== `${reading.id} ${headCount(reading, state)}`) this.build();
    const wanted = `${reading.id} ${Object.values(hidden)} ${map.map} ${map.target}`;
    if (this.drawnFor !== wanted) {
      this.layers = [];
      this.drawnFor = wanted;
    }
    this.markChosen();
    this.writeSummary();
    this.writeHint();
    for (const l of reading.attended) {
      this.layers[l] ??= await this.app.request({ type: "thumbnails", layer: l, ...map, ...hidden }, signal);
      if (!isCurrent()) return;
      this.paint(l);
      this.writeSummary();
    }
  }

  build() {
    const { reading, state } = this.app;
    const { attended, id } = reading;
    const H = headCount(reading, state);
    const hasHeads = chosenMap(reading, state).heads;
    this.builtFor = `${id} ${H}`;
    this.grid.style.setProperty("--heads", String(H));
    const heads = Array.from({ length: H }, (_, h) => h);
    const names = heads.map((h) => {
      const name = capitalized(headName(reading, state, h));
      return el("span", { role: "columnheader", "aria-label": name }, hasHeads ? String(h) : "all heads");
    });
    const header = el("div", { role: "row" }, el("span", { class: "corner", role: "columnheader" }, "Layer"), ...names);
    const rows = attended.map((l) => {
      const cells = heads.map((h) => {
        const attributes = { type: "button", role: "gridcell", "data-layer": l, "data-head": h };
        return el("button", attributes, el("canvas"), el("small"));
      });
      return el("div", { role: "row" }, el("span", { role: "rowheader" }, String(l)), ...cells);
    });
    this.grid.replaceChildren(header, ...rows);
  }

  /** @returns {HTMLButtonElement[]} */
  buttons() {
    return [...this.grid.querySelectorAll("button")];
  }

  /** @param {number} l @param {number} h */
  buttonOf(l, h) {
    return /** @type {HTMLButtonElement} */ (this.grid.querySelector(`[data-layer="${l}"][data-head="${h}"]`));
  }

  markChosen() {
    const { reading, state } = this.app;
    const place = [state.layer, headOf(reading, state)].join();
    for (const button of this.buttons()) {
      const isChosen = [button.dataset.layer, button.dataset.head].join() === place;
      button.setAttribute("aria-selected", String(isChosen));
      button.tabIndex = isChosen ? 0 : -1;
      this.writeName(button);
    }
  }

  /**
   * Writes the name of a head's pattern under its picture.
   * @param {HTMLButtonElement} button
   */
  writeName(button) {
    const [l, h] = [Number(button.dataset.layer), Number(button.dataset.head)];
    const name = this.nameOf(l, h);
    const label = /** @type {HTMLElement} */ (button.querySelector("small"));
    label.textContent = name;
    const { reading, state } = this.app;
    button.setAttribute("aria-label", `Layer ${l}, ${headName(reading, state, h)}${name && `: ${name}`}`);
  }

  /**
   * The pattern of a head that gives it a name, or nothing.
   * @param {number} l
   * @param {number} h
   */
  nameOf(l, h) {
    const { reading, state } = this.app;
    if (!this.layers[l] || !chosenMap(reading, state).heads) return "";
    const [strongest] = patternsOf(this.layers[l], h);
    return strongest && strongest.share >= this.layers[l].threshold ? strongest.name : "";
  }

  /** Where the first word sees only itself, it is no measure for the colours of the others. */
  isFirstExcluded() {
    return this.app.reading.causal && this.app.isVisible(0);
  }

  /** How many words are visible, on the longer side. */
  longest() {
    return Math.max(this.app.visibleUnits("from").length, this.app.visibleUnits("to").length);
  }

  writeHint() {
    const { reading, state } = this.app;
    const { heads, signed } = chosenMap(reading, state);
    const cell = wordsOfCell(reading, this.longest(), wordsOf(state).many);
    const apart = ", the first word set apart: it sees only itself, and many heads park their weight on it";
    fillSlots(this.app.by("heads-hint"), {
      what: heads ? "head" : "layer",
      unit: areWeights(state) ? "" : `; a number is ${wordsOf(state).is}`,
      cell: cell && `; in a text of this length ${cell}`,
      signs: signed ? ", blue below 0 and orange above" : "",
      apart: this.isFirstExcluded() ? apart : "",
    });
  }

  /**
   * The cells of a head's picture, n × m, and what their colours stand for.
   * @param {number} l
   * @param {number} h
   * @returns {{cells: Float32Array | Float64Array, n: number, m: number, range: Range}}
   */
  cellsOf(l, h) {
    const { data, shape } = this.layers[l].thumbnails;
    const [, n, m] = shape;
    const cells = data.subarray(h * n * m, (h + 1) * n * m);
    const { signed } = chosenMap(this.app.reading, this.app.state);
    return { cells, n, m, range: { peak: peakOf(cells, m, this.isFirstExcluded()), scale: "linear", signed } };
  }

  /**
   * Paints a layer's pictures, each scaled to the largest weight of its head.
   * @param {number} l
   */
  paint(l) {
    const { reading, state } = this.app;
    for (let h = 0; h < headCount(reading, state); h++) {
      const { cells, n, m, range } = this.cellsOf(l, h);
      const button = this.buttonOf(l, h);
      const canvas = /** @type {HTMLCanvasElement} */ (button.querySelector("canvas"));
      canvas.replaceWith(painted(cells, n, m, range, this.app.isDark()));
      this.writeName(button);
    }
  }

  /** Where the head under the pointer looks, or the chosen one. */
  writeSummary() {
    const { reading, state } = this.app;
    const [l, h] = this.pointed ?? [state.layer, headOf(reading, state)];
    const isKnown = this.layers[l] && chosenMap(reading, state).heads;
    const where = isKnown ? `: ${describeHead(patternsOf(this.layers[l], h))}` : "";
    this.app.by("heads-says").textContent = `Layer ${l}, ${headName(reading, state, h)}${where}.`;
  }

  listen() {
    const { app, grid } = this;
    /** @param {Event} event @returns {[number, number] | null} */
    const headOf = (event) => {
      const data = closest(event, "button[data-head]")?.dataset;
      return data ? [Number(data.layer), Number(data.head)] : null;
    };
    grid.addEventListener("click", (event) => {
      const place = headOf(event);
      if (!place) return;
      const head = chosenMap(app.reading, app.state).heads ? place[1] : app.state.head;
      app.select({ view: "map", layer: place[0], head });
    });
    for (const type of ["pointerover", "focusin"])
      grid.addEventListener(type, (event) => {
        this.pointed = headOf(event) ?? this.pointed;
        this.writeSummary();
      });
    for (const type of ["pointerleave", "focusout"])
      grid.addEventListener(type, () => {
        this.pointed = null;
        if (app.reading) this.writeSummary();
      });
    grid.addEventListener("keydown", (event) => {
      const H = headCount(app.reading, app.state);
      moveFocus(event, this.buttons(), { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -H, ArrowDown: H });
    });
  }

  requireAll() {
    if (!this.app.reading.attended.every((l) => this.layers[l])) throw new Error("the heads are still being drawn.");
  }

  picture() {
    this.requireAll();
    return headsPicture(this);
  }

  /** @returns {Row[]} */
  table() {
    this.requireAll();
    const { attended, H } = this.app.reading;
    const names = layerTitles(this.layers[attended[0]]);
    /** @param {number} l @param {number} h */
    const sharesOf = (l, h) => this.layers[l].shares.data.subarray(h * names.length, (h + 1) * names.length);
    const rows = attended.flatMap((l) => Array.from({ length: H }, (_, h) => [l, h, ...sharesOf(l, h)]));
    return [["layer", "head", ...names.map((name) => `share of weight to ${name}`)], ...rows];
  }

  reset() {
    this.drawnFor = "";
    this.builtFor = "";
  }
}
