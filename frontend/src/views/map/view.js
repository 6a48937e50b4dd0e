// Map: the weights of one head, or another map of it, as a street map is shown: all of them from afar, each up close.
//
// OpenSeadragon moves and zooms it (window.js); its tiles are numbers, requested where they come into view, kept
// (tiles.js), and coloured here.

import { TILE_SIZE } from "../../protocol.js";
import { fillLegend } from "../../ui/legend.js";
import { areWeights, headOf, wordsOf } from "../../ui/maps.js";
import { listenToKeys, listenToSettings } from "./controls.js";
import { Labels } from "./labels.js";
import * as levels from "./levels.js";
import { mapPicture } from "./picture.js";
import { writeHint, writeReadOut } from "./read-out.js";
import { tileSourceOf } from "./tile-source.js";
import { TileStore } from "./tiles.js";
import { MapWindow } from "./window.js";

/** @import { App, Row, View } from "../../types.js" */
/** @import { Cursor } from "./labels.js" */
/** @import { Matrix } from "./levels.js" */

const CLOSE = 48; // px of a cell that was jumped to

/** @implements {View} */
export class MapView {
  /** @param {App} app */
  constructor(app) {
    this.app = app;
    this.chart = app.by("chart");
    /** OpenSeadragon, once it is loaded. @type {any} */
    this.library = null;
    /** @type {MapWindow | null} */
    this.window = null;
    /** @type {Matrix | null} */
    this.matrix = null;
    /** @type {Cursor | null} */
    this.cursor = null;
    this.recorded = ""; // the part of the map that `state.seen` has
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.repainting = undefined;
    this.tiles = new TileStore(app.request, (matrix) => matrix === this.matrix && this.repaintSoon());
    this.labels = new Labels(app, this.tiles);
    listenToKeys(this);
    listenToSettings(this);
  }

  scale() {
    const { reading, state } = this.app;
    return levels.scaleOf(state.scale, Math.max(reading.U, reading.columns.U));
  }

  /** @type {View["draw"]} */
  async draw(signal, isCurrent) {
    const { by, state, reading } = this.app;
    by("scale").value = this.scale();
    by("reduce").value = state.reduce;
    this.library ??= await this.app.options.library();
    if (this.matrix?.key !== levels.keyOf(reading, state)) {
      if (!(await this.open(signal, isCurrent))) return;
    } else if (this.matrix.paintedFor !== this.coloursNow()) await this.show(true);
    const { matrix } = this;
    if (!isCurrent() || !matrix) return;
    this.labels.fit(matrix);
    writeHint(this.app, matrix);
    await this.placeCursor(matrix, isCurrent);
    if (!isCurrent()) return;
    if ((state.seen?.join() ?? "") !== this.recorded && (state.seen || !state.at)) this.lookAt(state.seen);
    this.drawLegend();
    await this.readOut();
    this.drawLabels();
  }

  /**
   * Opens the matrix that is chosen, once the whole of it, the first thing to be seen, is here.
   * @param {AbortSignal} signal
   * @param {() => boolean} isCurrent
   */
  async open(signal, isCurrent) {
    const { app } = this;
    const before = this.matrix;
    const matrix = levels.makeMatrix(app.reading, app.state, app.visibleUnits("from"), app.visibleUnits("to"));
    this.matrix = matrix;
    app.by("for-reduce").hidden = matrix.top === 0 || Boolean(app.reading.pictured);
    await this.tiles.get(matrix, matrix.top, 0, 0, signal);
    if (!isCurrent()) {
      this.matrix = before?.key === matrix.key ? before : null;
      return false;
    }
    await this.show(before !== null && nameOfSides(before) === nameOfSides(matrix));
    return true;
  }

  /** What the colours of the tiles follow from, besides their numbers. */
  coloursNow() {
    return `${this.scale()} ${this.app.isDark()}`;
  }

  repaintSoon() {
    clearTimeout(this.repainting);
    this.repainting = setTimeout(() => {
      this.show(true);
      this.drawLegend();
    }, 150);
  }

  /**
   * Gives the matrix to OpenSeadragon; `stay` keeps what is seen where it is.
   * @param {boolean} stay
   */
  async show(stay) {
    const { app, matrix } = this;
    if (!matrix) return;
    this.window ??= this.makeWindow(matrix);
    matrix.paintedFor = this.coloursNow();
    matrix.version++;
    const source = tileSourceOf(this.library, matrix, this.tiles, {
      isCurrent: () => matrix === this.matrix,
      scale: () => this.scale(),
      isDark: app.isDark,
      failed: ({ message }) => app.showError(message),
    });
    await this.window.show(source, matrix, stay);
    this.drawLabels();
  }

  /** @param {Matrix} matrix */
  makeWindow(matrix) {
    this.labels.fit(matrix);
    return new MapWindow(this.library, this.app.by("deep"), {
      moved: () => this.drawLabels(),
      settled: () => {
        this.drawLegend();
        this.noteWindow();
      },
      clicked: (point) => {
        this.pointAt(point);
        this.chooseRow();
      },
      pointed: (point) => this.pointAt(point),
    });
  }

  // ── What is seen ───────────────────────────────────────────────────────────────────────────────────────────────────

  /** The matrix, its window and what is seen of it; null where nothing is. */
  seen() {
    const { matrix, window } = this;
    return matrix && window && !window.isEmpty() ? { matrix, window, seen: window.seen(matrix.wide) } : null;
  }

  /** Notes in the address what part of the map is seen; nothing where it is all of it. */
  noteWindow() {
    const shown = this.seen();
    const { app } = this;
    if (!shown || app.state.view !== "map") return;
    app.state.seen = levels.windowOf(shown.seen, shown.window, shown.matrix);
    this.recorded = app.state.seen?.join() ?? "";
    app.note(true);
  }

  /**
   * Shows a part of the map: left, top and width in cells, or all of it.
   * @param {number[] | null} region
   */
  lookAt(region) {
    const { matrix, window } = this;
    this.recorded = region?.join() ?? "";
    if (!matrix || !window) return;
    if (!region) return window.showAll(true);
    const [left, top, width] = region.map((number) => number / matrix.wide);
    window.fit(left, top, width, width, true);
  }

  /**
   * Goes where a cell is seen up close.
   * @param {Matrix} matrix
   * @param {number} row
   * @param {number} column
   */
  jumpTo({ wide, tall }, row, column) {
    const { window } = this;
    if (!window) return;
    if (wide * CLOSE <= window.width && tall * CLOSE <= window.height) return window.showAll(true);
    const [width, height] = [window.width / CLOSE / wide, window.height / CLOSE / wide]; // in widths of the map
    window.fit((column + 0.5) / wide - width / 2, (row + 0.5) / wide - height / 2, width, height, true);
  }

  // ── The cursor ─────────────────────────────────────────────────────────────────────────────────────────────────────

  /** @param {Matrix} matrix @param {() => boolean} isCurrent */
  async placeCursor(matrix, isCurrent) {
    const { state, isVisible } = this.app;
    const { cursor } = this;
    if (state.at && isVisible(state.at[0], "from") && isVisible(state.at[1], "to")) {
      const [row, column] = [matrix.units.indexOf(state.at[0]), matrix.across.indexOf(state.at[1])];
      const hasMoved = cursor?.row !== row || cursor?.column !== column;
      this.cursor = { row, column, exact: true };
      if (hasMoved && !state.seen) this.jumpTo(matrix, row, column);
      return;
    }
    const word = this.app.chosenRow();
    const isRowChosen = word === null || (cursor && matrix.units[cursor.row] === word);
    if (cursor && cursor.row < matrix.tall && cursor.column < matrix.wide && isRowChosen) return;
    this.cursor = null;
    const first = await this.firstCell(matrix);
    if (isCurrent()) this.cursor ??= first; // unless the pointer was faster
  }

  /**
   * The row of the chosen word, and the word it attends to most.
   * @param {Matrix} matrix
   * @returns {Promise<Cursor>}
   */
  async firstCell({ units, across, wide }) {
    const { state, reading, defaultWord, chosenRow, weights } = this.app;
    const row = Math.max(0, units.indexOf(chosenRow() ?? defaultWord()));
    const ofWord = await weights.ofWord(state.layer, units[row], "from");
    /** @param {number} n */
    const weight = (n) => Math.abs(ofWord[headOf(reading, state) * reading.columns.U + across[n]]);
    let column = Number.isNaN(weight(0)) ? Math.min(row, wide - 1) : 0; // a long saved reading may not have this head's rows
    for (let n = 1; n < wide; n++) if (weight(n) > weight(column)) column = n;
    return { row, column, exact: chosenRow() !== null };
  }

  /** @param {{x: number, y: number}} point of the window */
  pointAt(point) {
    const shown = this.seen();
    if (!shown) return;
    const [row, column] = levels.unitsUnder(shown.seen, point);
    this.moveTo(row, column, false);
  }

  /**
   * @param {number} row
   * @param {number} column
   * @param {boolean} [follow] moves the map until the cell is seen
   */
  moveTo(row, column, follow = true) {
    if (!this.matrix) return;
    const { tall, wide } = this.matrix;
    const [r, c] = [Math.min(tall - 1, Math.max(0, row)), Math.min(wide - 1, Math.max(0, column))];
    this.cursor = { row: r, column: c };
    const shown = this.seen();
    if (follow && shown) {
      const { left, top, unit } = shown.seen;
      const dx = levels.shiftToShow(c, left, unit, shown.window.width);
      const dy = levels.shiftToShow(r, top, unit, shown.window.height);
      if (dx || dy) shown.window.panBy(dx, dy);
    }
    this.readOut();
    this.drawLabels();
  }

  /** Chooses the word of the cursor's row. */
  chooseRow() {
    const { cursor, matrix } = this;
    if (!cursor || !matrix) return;
    const [row, column] = [matrix.units[cursor.row], matrix.across[cursor.column]];
    this.app.select({ word: row, side: "from", token: 0, at: [row, column] });
  }

  /** @param {number} factor */
  zoomBy(factor) {
    const { cursor, matrix, window } = this;
    if (!matrix || !window) return;
    window.zoomBy(factor, cursor && [(cursor.column + 0.5) / matrix.wide, (cursor.row + 0.5) / matrix.wide]);
  }

  // ── What is drawn over it, and beside it ───────────────────────────────────────────────────────────────────────────

  drawLabels() {
    const shown = this.seen();
    if (shown && !this.app.by("map").hidden) this.labels.draw(shown.matrix, shown.seen, this.cursor);
  }

  drawLegend() {
    const { app, matrix } = this;
    if (!matrix) return;
    const shown = this.seen();
    const level = shown ? levels.levelSeen(matrix, shown.seen.unit) : matrix.top;
    const range = levels.rangeAt(matrix, level, this.scale());
    fillLegend(app.by("legend"), range, app.isDark(), wordsOf(app.state).unit);
  }

  /** Both words and the weight of the cell under the pointer, or where the arrow keys are. */
  async readOut() {
    const { cursor, matrix, app } = this;
    if (!matrix || !cursor) return;
    const shown = this.seen();
    const level = !cursor.exact && shown ? levels.levelSeen(matrix, shown.seen.unit) : matrix.floor;
    const [r, c] = [cursor.row, cursor.column].map((place) => Math.floor(place / 2 ** level));
    try {
      await this.tiles.get(matrix, level, Math.floor(r / TILE_SIZE), Math.floor(c / TILE_SIZE));
    } catch (error) {
      const { name, message } = /** @type {Error} */ (error);
      if (name !== "AbortError") app.showError(message);
      return;
    }
    const isSame = this.cursor?.row === cursor.row && this.cursor.column === cursor.column;
    if (matrix !== this.matrix || !isSame) return;
    writeReadOut(app, matrix, cursor, level, this.tiles.cellOf(matrix, level, r, c) ?? Number.NaN);
  }

  // ── Saving ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** The cells that are seen, rows and columns as numbers of cells. */
  async cellsSeen() {
    const shown = this.seen();
    if (!shown) throw new Error("the map is not drawn yet.");
    const { chart, labels, tiles } = this;
    const { matrix, seen } = shown;
    const { left, top, unit } = seen;
    const level = levels.levelSeen(matrix, unit);
    const cell = 2 ** level;
    const rows = levels.cellsBetween(top, (chart.clientHeight - labels.margin) / unit, cell, matrix.tall);
    const columns = levels.cellsBetween(left, (chart.clientWidth - labels.margin) / unit, cell, matrix.wide);
    for (const row of new Set(rows.map((n) => Math.floor(n / TILE_SIZE))))
      for (const column of new Set(columns.map((n) => Math.floor(n / TILE_SIZE))))
        await tiles.get(matrix, level, row, column);
    const weights = rows.map((row) => columns.map((column) => tiles.cellOf(matrix, level, row, column) ?? Number.NaN));
    return { matrix, level, cell, rows, columns, weights };
  }

  async picture() {
    return mapPicture(this.app, await this.cellsSeen(), this.scale());
  }

  /** @returns {Promise<Row[]>} */
  async table() {
    const { matrix, cell, rows, columns, weights } = await this.cellsSeen();
    const { reading } = this.app;
    /** @param {number} n */
    const name = (n) => reading.units[matrix.units[n * cell]];
    /** @param {number} n */
    const titleOf = (n) => reading.columns.units[matrix.across[n * cell]];
    const { label } = wordsOf(this.app.state);
    const corner = areWeights(this.app.state) ? "from \\ to" : `${label}, from \\ to`;
    return [[corner, ...columns.map(titleOf)], ...rows.map((n, y) => [name(n), ...weights[y]])];
  }

  reset() {
    this.matrix = null;
    this.cursor = null;
    this.recorded = "";
    this.tiles.clear();
  }

  resize() {
    if (!this.matrix) return;
    this.labels.fit(this.matrix);
    this.drawLabels();
  }
}

/** @param {Matrix} matrix */
const nameOfSides = ({ units, across }) => `${units} ${across}`;
