// Predictions: what a language model would expect at each token if it ended after each of its layers, as a heat map of
// layers by tokens, the predicted token written in the cell.

import { PREDICTED_TOKENS } from "../../protocol.js";
import { dataElement, el, fillSlots, quoted } from "../../ui/dom.js";
import { listed, percent } from "../../ui/format.js";
import { fillLegend } from "../../ui/legend.js";
import { inShade } from "../../ui/paint.js";
import { isRight, natsOf, predictedIn, shortened } from "../../ui/predictions.js";
import { visible } from "../../ui/words.js";
import { listenToGrid, listenToSettings } from "./controls.js";
import { lensPicture, lensTable } from "./picture.js";
import { RANGE } from "./range.js";

/** @import { PredictionsOffer, PredictionsReply } from "../../protocol.js" */
/** @import { App, Row, View } from "../../types.js" */
/** @import { Predicted } from "../../ui/predictions.js" */
/** @typedef {[layer: number, token: number]} Cell */

/** @implements {View} */
export class PredictionsView {
  /** @param {App} app */
  constructor(app) {
    this.app = app;
    this.grid = app.by("lens");
    this.first = 0; // of the tokens that are shown
    this.builtFor = ""; // what the grid is for
    /** By layer. @type {PredictionsReply[]} */
    this.layers = [];
    /** The cell that is chosen; a layer without attention cannot be chosen in the other views. @type {Cell} */
    this.cell = [0, 0];
    this.followed = ""; // the selection that the cell follows
    this.revealed = ""; // the selection for which the grid was scrolled
    /** The cell under the pointer. @type {Cell | null} */
    this.pointed = null;
    listenToGrid(this);
    listenToSettings(this);
  }

  /** @returns {PredictionsOffer} */
  offer() {
    const { reading } = this.app;
    const missing =
      reading.attention === "encoder"
        ? "An encoder predicts nothing: choose the decoder as the attention that is shown."
        : `${reading.model} predicts no tokens.`;
    return reading.predictions ?? { kind: "next token", layers: [], missing };
  }

  /** @type {View["draw"]} */
  async draw(signal, isCurrent) {
    const { by, state, reading, predictions } = this.app;
    const { layers, missing } = this.offer();
    by("lens-shown").hidden = !layers.length;
    by("lens-missing").hidden = !missing;
    by("lens-missing").textContent = missing ?? "";
    if (!layers.length) return by("lens-says").replaceChildren();
    this.follow();
    const [, token] = this.cell;
    this.first = predictions.blockOf(token);
    by("lens-colour").value = state.lens;
    const wanted = `${reading.id} ${this.first}`;
    if (this.builtFor !== wanted) this.build(wanted);
    this.writeAround();
    this.mark();
    if (this.followed !== this.revealed) this.reveal();
    for (const l of layers) {
      this.layers[l] ??= await predictions.from(l, this.first, signal);
      if (!isCurrent()) return;
      this.paint(l);
      if (l === this.cell[0]) this.writeSummary();
    }
  }

  /** Follows the layer and the token that are chosen elsewhere. */
  follow() {
    const { reading, state, chosenRow, defaultWord } = this.app;
    const { layers } = this.offer();
    const tokens = reading.tokensOf(chosenRow() ?? defaultWord());
    const token = tokens[Math.min(state.token, tokens.length - 1)];
    const chosen = `${reading.id} ${state.layer} ${token}`;
    if (chosen === this.followed) return;
    this.followed = chosen;
    this.cell = [layers.includes(state.layer) ? state.layer : layers[layers.length - 1], token];
  }

  /** How many tokens are shown. */
  count() {
    return Math.min(PREDICTED_TOKENS, this.app.reading.N - this.first);
  }

  /** @param {string} wanted */
  build(wanted) {
    const { reading } = this.app;
    const { layers, kind } = this.offer();
    this.builtFor = wanted;
    this.layers = [];
    this.grid.style.setProperty("--tokens", String(this.count()));
    const tokens = Array.from({ length: this.count() }, (_, n) => this.first + n);
    /** @param {number} i */
    const nameOf = (i) => (i < reading.N ? visible(reading.tokens[i]).slice(0, 40) : "");
    const titles = tokens.map((i) => el("span", { role: "columnheader", dir: "auto", title: nameOf(i) }, nameOf(i)));
    const corner = el("span", { class: "corner", role: "columnheader" }, "Layer");
    const rows = layers.map((l) => {
      const attributes = { type: "button", role: "gridcell", "data-layer": l, dir: "auto" };
      const cells = tokens.map((i) => el("button", { ...attributes, "data-token": i }));
      return el("div", { role: "row" }, el("span", { role: "rowheader" }, String(l)), ...cells);
    });
    if (kind === "next token") {
      const came = tokens.map((i) => el("span", { role: "gridcell", class: "came", dir: "auto" }, nameOf(i + 1)));
      rows.push(el("div", { role: "row" }, el("span", { role: "rowheader" }, "next"), ...came));
    }
    this.grid.replaceChildren(el("div", { role: "row", class: "head-row" }, corner, ...titles), ...rows);
  }

  /** @returns {HTMLButtonElement[]} */
  buttons() {
    return [...this.grid.querySelectorAll("button")];
  }

  /** @param {Cell} cell @returns {HTMLButtonElement | null} */
  buttonOf([l, i]) {
    return this.grid.querySelector(`[data-layer="${l}"][data-token="${i}"]`);
  }

  /**
   * What a layer predicts at a token; null while it is not known.
   * @param {Cell} cell
   * @returns {Predicted | null}
   */
  predicted([l, i]) {
    const n = i - this.first;
    return this.layers[l] && n >= 0 && n < this.count() ? predictedIn(this.layers[l], n) : null;
  }

  /**
   * The probability that the colour of a cell stands for; null where it is not known.
   * @param {Predicted} predicted
   */
  shadeOf({ likely, surprise }) {
    if (this.app.state.lens === "predicted") return likely[0].probability;
    return surprise === null ? null : Math.exp(-surprise);
  }

  /** @param {number} l */
  paint(l) {
    const dark = this.app.isDark();
    for (const button of /** @type {NodeListOf<HTMLButtonElement>} */ (
      this.grid.querySelectorAll(`[data-layer="${l}"]`)
    )) {
      const predicted = this.predicted([l, Number(button.dataset.token)]);
      if (!predicted) continue;
      button.textContent = shortened(predicted.likely[0].text);
      button.classList.toggle("right", isRight(predicted));
      inShade(button, this.shadeOf(predicted), RANGE, dark);
    }
  }

  /** What stands around the grid. */
  writeAround() {
    const { by, reading, state, isDark } = this.app;
    const { kind } = this.offer();
    const isKnown = kind === "next token" && reading.causal; // whether the model had not seen what came next
    const [from, to] = [this.first, this.first + this.count()];
    by("lens-window").hidden = reading.N <= PREDICTED_TOKENS;
    by("lens-range").textContent = `tokens ${from} to ${to - 1} of ${reading.N.toLocaleString("en")}`;
    by("lens-earlier").disabled = from === 0;
    by("lens-later").disabled = to === reading.N;
    by("lens-colour").options[1].disabled = !isKnown;
    const whose = state.lens === "next" ? "the token that came next" : "the predicted token";
    fillLegend(by("lens-legend"), RANGE, isDark(), `probability of ${whose}`);
    fillSlots(by("lens-hint"), {
      what: kind === "next token" ? "what the model would expect after it" : "what it would predict in its place",
      right: isKnown
        ? " Underlined: the token that came next was the likeliest. The last row has the tokens that came."
        : "",
    });
  }

  mark() {
    const chosen = this.buttonOf(this.cell);
    for (const button of this.buttons()) {
      button.setAttribute("aria-selected", String(button === chosen));
      button.tabIndex = button === chosen ? 0 : -1;
    }
    this.writeSummary();
  }

  /** Scrolls the grid, and not the page, to the chosen cell. */
  reveal() {
    const [grid, cell] = [this.grid, this.buttonOf(this.cell)];
    if (!cell) return;
    const [outer, inner] = [grid.getBoundingClientRect(), cell.getBoundingClientRect()];
    const [beside, above] = [60, 40]; // px: the numbers of the layers, the tokens
    if (inner.left < outer.left + beside || inner.right > outer.right)
      grid.scrollLeft += inner.left - outer.left - (outer.width + beside - inner.width) / 2;
    if (inner.top < outer.top + above || inner.bottom > outer.bottom)
      grid.scrollTop += inner.top - outer.top - (outer.height + above - inner.height) / 2;
    this.revealed = this.followed;
  }

  /** What the layer under the pointer, or the chosen one, predicts there. */
  writeSummary() {
    const cell = this.pointed ?? this.cell;
    const predicted = this.predicted(cell);
    if (!predicted) return;
    const { by, reading } = this.app;
    const [l, i] = cell;
    const isNext = this.offer().kind === "next token";
    const words = predicted.likely.map(({ text, probability }) => [
      quoted(visible(text)),
      " (",
      dataElement(probability, percent),
      ")",
    ]);
    const layer = l === reading.L - 1 ? `Layer ${l}, the model itself, ` : `Layer ${l}, `;
    const where = [`${layer}${isNext ? "after" : "at"} `, quoted(visible(reading.tokens[i])), ": "];
    const came =
      predicted.surprise === null || i + 1 >= reading.N
        ? ["."]
        : [". It was ", quoted(visible(reading.tokens[i + 1])), `: ${natsOf(predicted.surprise)} of surprise.`];
    by("lens-says").replaceChildren(...where, ...listed(words), ...came);
  }

  /**
   * Goes to the tokens before or after those that are shown.
   * @param {number} step
   */
  turn(step) {
    const { reading, select } = this.app;
    const token = Math.min(reading.N - 1, Math.max(0, this.first + step * PREDICTED_TOKENS));
    this.pointed = null;
    this.followed = ""; // the cell is that of the word
    const word = reading.first_tokens.findLastIndex((first) => first <= token);
    select({ word, token: token - reading.first_tokens[word], side: "from" });
  }

  requireAll() {
    if (!this.offer().layers.every((l) => this.layers[l])) throw new Error("the predictions are still being made.");
  }

  picture() {
    this.requireAll();
    return lensPicture(this);
  }

  /** @returns {Row[]} */
  table() {
    this.requireAll();
    return lensTable(this);
  }

  reset() {
    this.builtFor = "";
    this.followed = "";
    this.pointed = null;
  }
}
