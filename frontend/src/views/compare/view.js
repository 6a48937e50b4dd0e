// Compare: one word in several texts. Its vectors in the plane, layer by layer, and how alike each two of them are.

import { dataElement, el, quoted } from "../../ui/dom.js";
import { comparedTexts } from "./compared-texts.js";
import { aroundPlace, Comparison, stateName } from "./comparison.js";
import { listenToForm, listenToLayers, listenToPointer } from "./controls.js";
import { comparePicture } from "./picture.js";
import { drawPlane, WIDE } from "./plane.js";
import { similarityButton } from "./similarity.js";

/** @import { App, Place, Row, View } from "../../types.js" */
/** @typedef {number | [i: number, j: number, layer: number] | null} Pointed a place, or two in a layer */

/** @implements {View} */
export class CompareView {
  /** @param {App} app */
  constructor(app) {
    this.app = app;
    /** @type {Comparison | null} */
    this.comparison = null;
    this.computedFor = ""; // what the comparison is of
    /** @type {Pointed} */
    this.pointed = null;
    listenToLayers(this);
    listenToPointer(this);
    listenToForm(app);
  }

  /** @type {View["draw"]} */
  async draw(signal, isCurrent) {
    const { by, start, options } = this.app;
    by("comparing").hidden = !options.reads;
    if (start.compared) this.comparison ??= new Comparison(start.compared);
    else if (!(await this.compute(signal, isCurrent))) return;
    this.pointed = null;
    this.show();
  }

  /** @param {AbortSignal} signal @param {() => boolean} isCurrent */
  async compute(signal, isCurrent) {
    const { app } = this;
    const { by } = app;
    const { word, texts, model } = comparedTexts(app.state);
    if (by("compare-texts").value !== texts) by("compare-texts").value = texts;
    by("compare-word").value = word;
    const wanted = JSON.stringify([model, word, texts]);
    if (this.computedFor === wanted && this.comparison) return true;
    this.comparison = null;
    by("comparison").hidden = true;
    by("compare-says").textContent = "See how context changes a word's meaning.";
    const list = texts.split("\n").filter((text) => text.trim());
    const reply = await app.request({ type: "compare", model, word, texts: list }, signal);
    if (!isCurrent()) return false;
    this.comparison = new Comparison(reply);
    this.computedFor = wanted;
    return true;
  }

  requireComparison() {
    if (!this.comparison) throw new Error("there is nothing to be seen yet: compare a word first.");
    return this.comparison;
  }

  /**
   * The hidden states that are shown: 0 are those before the first layer.
   * @param {Comparison} comparison
   */
  stateShown({ states }) {
    return Math.min(this.app.state.after ?? states - 1, states - 1);
  }

  show() {
    const { by, reading, isDark } = this.app;
    const comparison = this.requireComparison();
    const shown = this.stateShown(comparison);
    by("comparison").hidden = false;
    by("after").max = String(comparison.states - 1);
    by("after").value = String(shown);
    by("after-says").textContent = shown ? `${shown - 1}` : "none: as they enter";
    by("after").setAttribute("aria-valuetext", stateName(shown));
    this.drawPlane();
    const places = comparison.places.map((place, i) => {
      const text = el("bdi", { dir: "auto" }, ...markedPlace(place, 120));
      return el("li", { class: `cluster-${comparison.clusterOf(i)}`, "data-place": i }, text);
    });
    by("places").replaceChildren(...places);
    const squares = Array.from({ length: comparison.states }, (_, l) =>
      similarityButton(comparison, l, l === shown, isDark()),
    );
    by("similarities").replaceChildren(...squares);
    const notes = comparison.notes(reading?.causal ?? false);
    by("compare-notes").replaceChildren(...notes.map((note) => el("p", {}, note)));
    this.writeSummary();
  }

  /** As wide as there is room, so that its labels can be read. */
  drawPlane() {
    const { by } = this.app;
    const comparison = this.requireComparison();
    const wide = Math.min(WIDE, Math.max(280, by("plane").clientWidth));
    by("plane").replaceChildren(drawPlane(comparison, this.stateShown(comparison), wide));
  }

  writeSummary() {
    const comparison = this.requireComparison();
    const { pointed } = this;
    const summary = this.app.by("compare-says");
    if (Array.isArray(pointed)) {
      const [i, j, l] = pointed;
      const similarity = dataElement(comparison.similarity(l, i, j));
      return summary.replaceChildren(`Places ${i + 1} and ${j + 1}, ${stateName(l)}: similarity `, similarity, ".");
    }
    if (pointed !== null)
      return summary.replaceChildren(`${pointed + 1}: “`, ...markedPlace(comparison.places[pointed], 160), "”");
    const shown = this.stateShown(comparison);
    const { pair, similarity } = comparison.leastAlike(shown);
    summary.replaceChildren(
      quoted(comparison.word),
      ` in ${comparison.total} places, ${stateName(shown)}: the two that differ most are ${pair[0] + 1} and ${pair[1] + 1}, with a similarity of `,
      dataElement(similarity),
      ".",
    );
  }

  /** @param {Pointed} pointed */
  point(pointed) {
    if (!this.comparison || JSON.stringify(pointed) === JSON.stringify(this.pointed)) return;
    this.pointed = pointed;
    const places = Array.isArray(pointed) ? pointed.slice(0, 2) : [pointed];
    const nodes = /** @type {NodeListOf<HTMLElement>} */ (this.app.by("comparison").querySelectorAll("[data-place]"));
    for (const node of nodes) node.classList.toggle("pointed", places.includes(Number(node.dataset.place)));
    this.writeSummary();
  }

  picture() {
    const comparison = this.requireComparison();
    return comparePicture(this.app, comparison, this.stateShown(comparison));
  }

  /** @returns {Row[]} */
  table() {
    const comparison = this.requireComparison();
    const titles = comparison.places.map((_, j) => `similarity to ${j + 1}`);
    /** @type {Row[]} */
    const rows = [["after_layer", "place", "text", "x", "y", ...titles]];
    for (let l = 0; l < comparison.states; l++)
      comparison.places.forEach(({ text }, i) => {
        const similarities = comparison.places.map((_, j) => comparison.similarity(l, i, j));
        rows.push([l - 1, i + 1, text, ...comparison.point(l, i), ...similarities]);
      });
    return rows;
  }

  resize() {
    if (this.comparison) this.drawPlane();
  }
}

/**
 * The text around a place, with the word in it marked.
 * @param {Place} place
 * @param {number} room in characters
 */
function markedPlace(place, room) {
  const [before, word, behind] = aroundPlace(place, room);
  return [before, el("mark", {}, word), behind];
}
