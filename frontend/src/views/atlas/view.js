// Atlas: a score of all heads as a heat map of layers by heads, the heads with the largest, and the proof that they do
// what it says. Each head leads to its map of the example.

import { fillSlots } from "../../ui/dom.js";
import { listed } from "../../ui/format.js";
import { fillLegend } from "../../ui/legend.js";
import { buildGrids, paintGrid } from "./cells.js";
import { listenToHeads, listenToScores } from "./controls.js";
import { aboutScore, headList, proofList } from "./details.js";
import { drawScores } from "./list.js";
import { atlasPicture, atlasTable } from "./picture.js";
import { chosenScore, headName, isFound, partName, rangeOf, rangeSays, rolesOf, saysOf, tablesOf } from "./scores.js";

/** @import { App, AtlasOfHeads, AtlasRow, Row, View } from "../../types.js" */
/** @import { Place } from "./scores.js" */

/** @implements {View} */
export class AtlasView {
  /** @param {App} app */
  constructor(app) {
    this.app = app;
    this.maps = app.by("score-maps");
    this.builtFor = ""; // the parts that the grids are for
    this.drawnFor = ""; // the score, and the colours
    /** The cells of the grids, and their heads. @type {Map<HTMLElement, Place>} */
    this.cells = new Map();
    /** The head under the pointer. @type {Place | null} */
    this.pointed = null;
    listenToScores(this);
    listenToHeads(this);
  }

  /** @returns {AtlasOfHeads} */
  atlas() {
    return /** @type {AtlasOfHeads} */ (this.app.start.atlas); // the view is drawn only where there is one
  }

  /** The name of the score that is shown. */
  score() {
    return chosenScore(this.atlas(), this.app.state.score);
  }

  /** @type {View["draw"]} */
  async draw() {
    const { by, isDark } = this.app;
    const [atlas, name, dark] = [this.atlas(), this.score(), isDark()];
    if (!name) return by("score-name").replaceChildren("No score was measured.");
    const tables = tablesOf(atlas, name);
    const wanted = JSON.stringify(tables.map(([part, table]) => [part, table.length, table[0]?.length]));
    if (this.builtFor !== wanted) this.build(wanted);
    if (this.drawnFor !== `${wanted} ${name} ${dark}`) {
      this.drawnFor = `${wanted} ${name} ${dark}`;
      drawScores(this);
      paintGrid(this);
      by("score-name").textContent = name;
      by("score-about").replaceChildren(...aboutScore(atlas, name));
      by("score-heads").replaceChildren(...headList(atlas, name));
      by("score-proofs").replaceChildren(...proofList(atlas, name));
      const unit = rangeSays(atlas.scores[name]) || name;
      fillLegend(by("score-legend"), rangeOf(atlas, name), dark, atlas.against === null ? unit : "change");
    }
    this.mark();
    this.writeHint();
  }

  /** @param {string} wanted */
  build(wanted) {
    this.builtFor = wanted;
    this.cells = buildGrids(this.maps, tablesOf(this.atlas(), this.score()));
  }

  /** The head that is chosen, in this view and in the others. @returns {Place} */
  chosen() {
    const { state, reading } = this.app;
    const tables = tablesOf(this.atlas(), this.score());
    const wanted = state.attention ?? reading?.attention ?? "";
    const [part, table] = tables.find(([name]) => name === wanted) ?? tables[0];
    return {
      part,
      layer: Math.min(state.layer, table.length - 1),
      head: Math.min(state.head, (table[0]?.length ?? 1) - 1),
    };
  }

  mark() {
    const chosen = JSON.stringify(this.chosen());
    for (const [cell, place] of this.cells) {
      const isChosen = JSON.stringify(place) === chosen;
      if (isChosen !== (cell.getAttribute("aria-selected") === "true")) cell.ariaSelected = String(isChosen);
      const isStop = isChosen || (place.part !== this.chosen().part && !place.layer && !place.head);
      if (isStop !== (cell.tabIndex === 0)) cell.tabIndex = isStop ? 0 : -1;
    }
    this.writeSummary();
  }

  /**
   * What is to be said of a head.
   * @param {Place} place
   */
  describe(place) {
    const [atlas, name] = [this.atlas(), this.score()];
    const { unit } = atlas.scores[name];
    const of = partName(place.part);
    const value = `${saysOf(atlas, name, place)}${unit === "nats" || unit === "tokens" ? ` ${unit}` : ""}`;
    return `${of && `${of}: `}${headName(place)}: ${value}${isFound(atlas, name, place) ? `, ${this.found()}` : ""}`;
  }

  /** A head that does what the score is about; of a difference, one that does it in just one of the models. */
  found() {
    return this.atlas().against === null ? "found" : "changed";
  }

  /**
   * The other scores by which a head is found.
   * @param {Place} place
   */
  others(place) {
    const atlas = this.atlas();
    const names = rolesOf(atlas, place).filter((name) => name !== this.score());
    return names.map((name) => `${name} ${saysOf(atlas, name, place)}`);
  }

  /** The head under the pointer, or the chosen one: its number, and what else it does. */
  writeSummary() {
    const place = this.pointed ?? this.chosen();
    const others = this.others(place);
    const also = others.length ? `Also ${this.found()}: ${listed(others.map((text) => [text])).join("")}.` : "";
    this.app.by("atlas-says").textContent = [`${this.describe(place)}.`, also, this.pictured(place)]
      .filter(Boolean)
      .join(" ");
  }

  /**
   * What the page lacks of a head's map.
   * @param {Place} place
   */
  pictured({ part, layer, head }) {
    const { reading } = this.app;
    if (!reading?.has || part !== (reading.attention ?? "") || !reading.attended.includes(layer)) return "";
    return reading.has(layer)?.includes(head) === false ? "This page holds a coarse picture of its map." : "";
  }

  writeHint() {
    const { app } = this;
    const { found_from: least } = this.atlas().scores[this.score()];
    fillSlots(app.by("atlas-hint"), {
      marks:
        least === null
          ? ""
          : `Framed and bold: ${this.found()}, ${this.atlas().against === null ? `from ${least} on` : `${least} or more in just one of the models`}.`,
      click: app.reading
        ? "Click a head, or press Enter, for its map of the example."
        : "This page holds no example text, and so no maps of the heads.",
    });
  }

  /**
   * Whether the page has a head's map of the example.
   * @param {Place} place
   */
  hasMap({ part }) {
    const { reading } = this.app;
    return Boolean(reading) && (part === (reading.attention ?? "") || reading.attentions.some((name) => name === part));
  }

  /**
   * Opens the map of a head, at a row of the example.
   * @param {Place} place
   * @param {AtlasRow | null} [row]
   */
  async open(place, row = null) {
    const { app } = this;
    const { layer, head, part } = place;
    app.tip.hide();
    this.pointed = null;
    if (!this.hasMap(place)) return app.select({ layer, head, attention: part || null });
    const anew = { word: null, side: /** @type {const} */ ("from"), token: 0, at: null, seen: null };
    if (part !== (app.reading.attention ?? "")) await app.select({ attention: part, ...anew }, { replace: true });
    const [unit, to] = [row?.unit ?? null, row?.attended[0]?.unit ?? null];
    const at = unit !== null && to !== null ? [unit, to] : null;
    return app.select({ ...anew, view: "map", map: "weights", layer, head, word: unit, at });
  }

  picture() {
    return atlasPicture(this);
  }

  /** @returns {Row[]} */
  table() {
    return atlasTable(this.atlas());
  }

  reset() {
    this.drawnFor = "";
  }
}
