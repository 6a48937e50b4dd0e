// Sentence: the words in two columns, and a line for each weight from the left to the right.

import { LAYER_WEIGHTS_UNITS } from "../../protocol.js";
import { dashOf } from "../../ui/colour.js";
import { el } from "../../ui/dom.js";
import { hiddenRequest } from "../../ui/hidden.js";
import { areWeights, chosenMap, wordsOf } from "../../ui/maps.js";
import { inHeadColour } from "../../ui/paint.js";
import { fillColumn, markWords } from "./column-elements.js";
import { heaviest, windowAround, windowAtGap, withGaps } from "./columns.js";
import { listenToColumns, listenToLines, listenToSettings } from "./controls.js";
import { drawBars, drawCurves } from "./drawing.js";
import { ExpectedTokens } from "./expected.js";
import { WORDS_IN_COLUMN, WORDS_WITH_LINES } from "./limits.js";
import { isShown, largestOf, linesOf, meanOver, sidesOfWord } from "./lines.js";
import { sentencePicture } from "./picture.js";
import { writeShare, writeSummary } from "./summary.js";

/** @import { App, Row, Side, View } from "../../types.js" */
/** @import { Line, Mark, Pick, Sides, Weights } from "./lines.js" */

/**
 * What is on the screen, for those who save it or point at it.
 * @typedef {Weights & {heads: number[], columns: {from: number[], to: number[]}, sides: Sides, lines: Line[], mean: Float64Array | null}} Drawn
 */

/** @type {readonly Side[]} */
const SIDES = ["from", "to"];

/** @implements {View} */
export class SentenceView {
  /** @param {App} app */
  constructor(app) {
    this.app = app;
    /** @type {Pick | null} under the pointer; goes before the word that is held */
    this.pointed = null;
    /**
     * Units; a number below 0 stands for so many words left out.
     * @type {{from: number[], to: number[]}}
     */
    this.columns = { from: [], to: [] };
    /** What the columns were filled for. */
    this.filled = { from: "", to: "" };
    this.openedAt = ""; // the pick whose own column was opened at another place, without it
    this.rowHeight = 0; // px
    this.tallest = 0; // px: the longest column so far of this text
    const sides = { from: [], to: [], U: 0, V: 0 };
    /** @type {Drawn} */
    this.drawn = { pick: null, heads: [], columns: this.columns, sides, lines: [], mean: null, peak: 1 };
    /** @type {Mark[]} */
    this.marks = [];
    this.expected = new ExpectedTokens(app);
    this.pointings = 0; // so many times something was pointed at: of two answers that overtake each other the later counts
    listenToColumns(this);
    listenToLines(this);
    listenToSettings(this);
  }

  /** Whose lines are shown: the word under the pointer, the held one, the usual one of a long text, or null for all. */
  picked() {
    const { app } = this;
    const { word, side } = app.state;
    const pick = this.pointed ?? (word === null ? null : { u: word, side });
    if (pick && app.isVisible(pick.u, pick.side)) return pick;
    const { from, to, U, V } = this.sides();
    const isLong = Math.max(from.length, to.length) > WORDS_WITH_LINES || Math.max(U, V) > LAYER_WEIGHTS_UNITS;
    return isLong ? { u: app.defaultWord(), side: /** @type {Side} */ ("from") } : null;
  }

  /** The units that are visible in either column. @returns {Sides} */
  sides() {
    const { visibleUnits, reading } = this.app;
    return { from: visibleUnits("from"), to: visibleUnits("to"), U: reading.U, V: reading.columns.U };
  }

  /** The heads that are switched on; of a long saved reading, those whose numbers its file has; 0 for all together. */
  headsShown() {
    const { reading, state } = this.app;
    if (!chosenMap(reading, state).heads) return [0];
    const all = reading.has?.(state.layer) ?? Array.from({ length: reading.H }, (_, h) => h);
    return all.filter((h) => state.heads?.includes(h) ?? true);
  }

  /**
   * Whether the chosen direction shows u attending to v.
   * @param {number} u
   * @param {number} v
   */
  isDirectionShown(u, v) {
    return isShown(this.app.state.direction, this.app.reading.second, u, v);
  }

  /** @type {View["draw"]} */
  async draw(signal, isCurrent) {
    const { by, state, reading } = this.app;
    this.pointed = null;
    by("mass").value = String(state.mass);
    by("mass-says").textContent = `${state.mass} %`;
    by("mass-of").textContent = areWeights(state) ? "the weight" : "the whole";
    by("for-direction").hidden = reading.second === null;
    by("direction").value = state.direction;
    this.drawSwatches();
    const weights = await this.weights();
    if (!isCurrent()) return;
    this.fillColumns(weights);
    this.drawLines(weights);
    await this.expected.draw(signal, isCurrent);
  }

  /**
   * The weights to draw, for the word that is picked, or for all words.
   * @returns {Promise<Weights>}
   */
  async weights() {
    const { state, reading, weights } = this.app;
    const pick = this.picked();
    const isShort = Math.max(reading.U, reading.columns.U) <= LAYER_WEIGHTS_UNITS;
    const row = pick ? await weights.ofWord(state.layer, pick.u, pick.side) : undefined;
    const all = isShort && !(pick && areWeights(state)) ? await weights.ofLayer(state.layer) : null;
    const sides = all || !pick ? this.sides() : sidesOfWord(this.sides(), pick.side);
    return { pick, row, all: pick ? null : all, peak: this.peakOf(all ?? row, sides) };
  }

  /**
   * The number that the thickest line stands for: one, or the largest of the map, in a long text of the picked word.
   * @param {ArrayLike<number> | undefined} numbers
   * @param {Sides} sides
   */
  peakOf(numbers, sides) {
    if (areWeights(this.app.state) || !numbers) return 1;
    return largestOf(numbers, this.headsShown(), sides) || 1;
  }

  /**
   * Draws what is pointed at: fetched where need be, and drawn if the pointer is still there.
   * @param {Pick | null} pick
   */
  async point(pick) {
    this.pointed = pick;
    const pointing = ++this.pointings;
    try {
      const weights = await this.weights();
      if (pointing !== this.pointings || this.app.state.view !== "sentence") return;
      this.fillColumns(weights);
      this.drawLines(weights);
    } catch (error) {
      const { name, message } = /** @type {Error} */ (error);
      if (name !== "AbortError") this.app.showError(message);
    }
  }

  /** Draws the lines anew, between the columns as they are. */
  async redraw() {
    this.drawLines(await this.weights());
  }

  /**
   * Of a long text, the picked word's column stays as it is if the word is in it; the other gets the largest weights.
   * @param {Weights} weights
   */
  fillColumns({ pick, row, peak }) {
    const { app } = this;
    const sides = this.sides();
    const longest = Math.max(sides.from.length, sides.to.length);
    if (longest <= WORDS_IN_COLUMN || !pick || !row) for (const side of SIDES) this.setColumn(side, sides[side]);
    else {
      const { u, side } = pick;
      const other = side === "from" ? "to" : "from";
      const isThere = this.columns[side].includes(u) || this.openedAt === `${u} ${side}`;
      if (!(this.filled[side].startsWith(this.nameOfText()) && isThere))
        this.setColumn(side, withGaps(windowAround(u, sides[side]), sides[side]));
      const units = sides[other];
      const mean = meanOver(this.headsShown(), row, sidesOfWord(sides, side).V);
      this.setColumn(other, withGaps(heaviest(mean, units, peak) ?? windowAround(u, units), units));
    }
    this.rowHeight = longest <= WORDS_WITH_LINES ? 38 : 28;
    app.by("lines").style.setProperty("--row", `${this.rowHeight}px`);
    this.tallest = Math.max(this.tallest, ...SIDES.map((side) => this.columns[side].length * this.rowHeight));
    app.by("lines").style.minHeight = `${this.tallest}px`; // never less, or the page would move under the pointer
  }

  nameOfText() {
    const { reading, state } = this.app;
    return `${reading.id} ${Object.values(hiddenRequest(reading, state))} `;
  }

  /** @param {Side} side @param {number[]} column */
  setColumn(side, column) {
    this.columns[side] = column;
    const name = `${this.nameOfText()}${column}`;
    if (this.filled[side] === name) return;
    this.filled[side] = name;
    fillColumn(this.app.by(side), side === "to" ? this.app.reading.columns : this.app.reading, column);
  }

  /**
   * Shows the words that a column left out, from u on.
   * @param {Side} side
   * @param {number} u
   */
  openGap(side, u) {
    const units = this.app.visibleUnits(side);
    const pick = this.picked();
    if (pick && side === pick.side) this.openedAt = `${pick.u} ${pick.side}`;
    this.setColumn(side, withGaps(windowAtGap(u, units), units));
    this.redraw();
  }

  drawSwatches() {
    const { by, state, reading } = this.app;
    const box = by("swatches");
    const { heads: hasHeads, signed } = chosenMap(reading, state);
    box.hidden = !hasHeads;
    box.classList.toggle("plain", signed); // colours are those of the signs
    if (box.children.length !== reading.H) {
      const heads = Array.from({ length: reading.H }, (_, h) => {
        const attributes = { type: "button", "data-head": h, title: `Head ${h}`, "data-dash": dashOf(h) };
        return inHeadColour(el("button", attributes, String(h)), h);
      });
      box.replaceChildren(...heads);
    }
    const available = reading.has?.(state.layer);
    for (const [h, swatch] of [...box.children].entries()) {
      swatch.setAttribute("aria-pressed", String(!state.heads || state.heads.includes(h)));
      swatch.setAttribute("aria-label", `Head ${h}`);
      swatch.toggleAttribute("disabled", available ? !available.includes(h) : false);
    }
  }

  /** @param {Weights} weights */
  drawLines(weights) {
    const { app, columns } = this;
    const { by } = app;
    const { pick, row } = weights;
    const heads = this.headsShown();
    const sides = this.sides();
    const mean = pick && row ? meanOver(heads, row, sidesOfWord(sides, pick.side).V) : null;
    const lines = linesOf(weights, heads, sides, app.state.mass, (u, v) => this.isDirectionShown(u, v));
    this.drawn = { ...weights, heads, columns, sides, lines, mean };
    by("lines").querySelector("svg")?.remove();
    for (const side of SIDES) markWords(by(side), side, pick, app.state);
    const svg = el("svg", { "aria-hidden": "true", width: by("lines").clientWidth });
    svg.setAttribute("height", Math.max(columns.from.length, columns.to.length) * this.rowHeight);
    const curves = drawCurves(svg, this);
    const bars = pick?.side === "from" ? drawBars(svg, this) : [];
    this.marks = [...curves, ...bars];
    by("lines").append(svg);
    const carried = curves.reduce((total, { weight }) => total + Math.abs(weight), 0);
    writeShare(app, this.drawn, carried / heads.length);
    writeSummary(app, this.drawn, (u, v) => this.isDirectionShown(u, v));
  }

  picture() {
    return sentencePicture(this.app, this.drawn, (u, v) => this.isDirectionShown(u, v));
  }

  /** @returns {Row[]} */
  table() {
    const { state, reading } = this.app;
    const { units } = reading;
    const { heads: hasHeads } = chosenMap(reading, state);
    return [
      ["layer", "head", "from", "from_word", "to", "to_word", areWeights(state) ? "weight" : wordsOf(state).label],
      ...this.drawn.lines.map(([h, u, v, number]) => [
        state.layer,
        hasHeads ? h : "all",
        u,
        units[u],
        v,
        reading.columns.units[v],
        number,
      ]),
    ];
  }

  reset() {
    this.filled = { from: "", to: "" };
    this.pointed = null;
    this.tallest = 0;
    this.expected.drawnFor = "";
  }

  resize() {
    if (this.app.viewer.dataset.drawn) this.redraw();
  }
}
