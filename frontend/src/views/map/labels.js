// What is drawn over the map: the words beside it, the numbers in its cells, the frame of the cell that is read out.

import { needsWhite } from "../../ui/colour.js";
import { clipped, numberInCell } from "../../ui/format.js";
import { classColour, contextOf } from "../../ui/paint.js";
import { visible } from "../../ui/words.js";
import { labelStep, levelSeen, rangeAt, scaleOf } from "./levels.js";

/** @import { App, Side } from "../../types.js" */
/** @import { Matrix, Seen } from "./levels.js" */
/** @import { TileStore } from "./tiles.js" */
/**
 * @typedef {{row: number, column: number, exact?: boolean}} Cursor the cell that is read out, as places among the units; exact: alone, whatever the zoom
 */

const LABEL = { row: 15, column: 20 }; // px that a label takes at least; those of columns slant
const CELL_WITH_NUMBER = 36; // px from which a cell carries its number

export class Labels {
  /** @param {App} app @param {TileStore} tiles */
  constructor(app, tiles) {
    this.app = app;
    this.tiles = tiles;
    this.chart = app.by("chart");
    this.margin = 0; // px for the words
    /** By font, width and text, what fits. @type {Map<string, string>} */
    this.fitted = new Map();
    /** @type {Map<string, string>} */
    this.colours = new Map();
  }

  font() {
    return `13px ${getComputedStyle(this.app.viewer).fontFamily}`;
  }

  /** @param {number} u @param {Side} side */
  nameOf(u, side) {
    const { columns } = this.app.reading;
    return visible((side === "to" ? columns : this.app.reading).units[u]);
  }

  /**
   * Makes room for the words beside the map.
   * @param {Matrix} matrix
   */
  fit({ units, across }) {
    const { app, chart } = this;
    const word = app.chosenRow();
    const width = chart.clientWidth;
    const context = contextOf(app.by("labels"));
    context.font = `600 ${this.font()}`; // as the chosen word has it
    /** @param {number} u @param {Side} side */
    const widthOf = (u, side) => context.measureText(clipped(this.nameOf(u, side), 24)).width;
    const widths = [
      ...units.slice(0, 400).map((u) => widthOf(u, "from")),
      ...across.slice(0, 400).map((u) => widthOf(u, "to")),
    ];
    const usual = Math.min(Math.max(30, ...widths), width < 500 ? 64 : 120);
    const chosen = word !== null && app.isVisible(word) ? Math.min(widthOf(word, "from"), width / 4) : 0; // whole, if it can be
    this.margin = Math.ceil(Math.max(usual, chosen)) + 14;
    chart.style.setProperty("--margin", `${this.margin}px`);
  }

  /** @param {Matrix} matrix @param {Seen} seen @param {Cursor | null} cursor */
  draw(matrix, seen, cursor) {
    const { margin, chart } = this;
    const [width, height] = [chart.clientWidth, chart.clientHeight];
    const context = this.clearedContext(height);
    this.drawWords(context, matrix, seen, width, height);
    context.save();
    context.beginPath();
    context.rect(margin, margin, width - margin, height - margin);
    context.clip();
    if (seen.unit >= CELL_WITH_NUMBER) this.drawNumbers(context, matrix, seen);
    if (cursor) this.drawFrame(context, matrix, seen, cursor);
    context.restore();
  }

  /**
   * The canvas, as fine as the screen.
   * @param {number} height px
   */
  clearedContext(height) {
    const canvas = this.app.by("labels");
    const sharp = devicePixelRatio;
    const [across, down] = [canvas.clientWidth, canvas.clientHeight].map((size) => Math.round(size * sharp));
    if (canvas.width !== across || canvas.height !== down) [canvas.width, canvas.height] = [across, down];
    const context = contextOf(canvas);
    context.setTransform(sharp, 0, 0, sharp, 0, 0);
    context.clearRect(0, 0, canvas.clientWidth, height);
    context.textBaseline = "middle";
    return context;
  }

  /**
   * The words at the left and the top.
   * @param {CanvasRenderingContext2D} context
   * @param {Matrix} matrix
   * @param {Seen} seen
   * @param {number} width
   * @param {number} height
   */
  drawWords(context, matrix, { left, top, unit }, width, height) {
    const { margin } = this;
    context.textAlign = "right";
    this.eachLabel(context, matrix, "from", unit, top, height - margin, LABEL.row, (text, place) =>
      context.fillText(text, margin - 8, margin + place),
    );
    context.textAlign = "left";
    this.eachLabel(context, matrix, "to", unit, left, width - margin, LABEL.column, (text, place) => {
      context.save();
      context.translate(margin + place, margin - 6);
      context.rotate(-Math.PI / 4);
      context.fillText(text, 0, 0);
      context.restore();
    });
  }

  /**
   * Calls `write` for each word of an edge for which there is room.
   * @param {CanvasRenderingContext2D} context
   * @param {Matrix} matrix
   * @param {Side} side
   * @param {number} unit px
   * @param {number} first the unit at the beginning of the edge
   * @param {number} room px
   * @param {number} least px that a label takes
   * @param {(text: string, place: number) => void} write
   */
  eachLabel(context, { units, across }, side, unit, first, room, least, write) {
    const { app } = this;
    const named = side === "from" ? units : across;
    const isOneText = app.reading.columns === app.reading;
    const word = isOneText || app.state.side === side ? app.state.word : null;
    const font = this.font();
    const step = labelStep(unit, least);
    const from = Math.max(0, Math.floor(first / step) * step);
    for (let n = from; n < named.length && (n - first) * unit < room; n += step) {
      const place = (n + 0.5 - first) * unit;
      if (place < 0 || place > room) continue;
      const isChosen = step === 1 && named[n] === word;
      context.fillStyle = this.colour(isChosen ? "ink" : "soft");
      context.font = isChosen ? `600 ${font}` : font;
      write(this.fitting(context, this.nameOf(named[n], side), this.margin - 12), place);
    }
  }

  /**
   * A text, shortened to a width in px.
   * @param {CanvasRenderingContext2D} context
   * @param {string} text
   * @param {number} room
   */
  fitting(context, text, room) {
    const key = `${context.font} ${room} ${text}`;
    let fitted = this.fitted.get(key);
    if (fitted === undefined) {
      if (this.fitted.size > 5000) this.fitted.clear();
      fitted = clipped(text, 30);
      while (fitted.length > 1 && context.measureText(fitted).width > room)
        fitted = `${[...fitted].slice(0, -2).join("")}…`;
      this.fitted.set(key, fitted);
    }
    return fitted;
  }

  /** @param {CanvasRenderingContext2D} context @param {Matrix} matrix @param {Seen} seen */
  drawNumbers(context, matrix, { left, top, unit }) {
    const { app, margin, chart } = this;
    const [width, height] = [chart.clientWidth - margin, chart.clientHeight - margin];
    const scale = scaleOf(app.state.scale, Math.max(app.reading.U, app.reading.columns.U));
    const [range, dark] = [rangeAt(matrix, 0, scale), app.isDark()];
    context.font = `${unit > 60 ? 13 : 11}px ${getComputedStyle(app.viewer).fontFamily}`;
    context.textAlign = "center";
    for (let row = Math.max(0, Math.floor(top)); row < matrix.tall && (row - top) * unit < height; row++)
      for (
        let column = Math.max(0, Math.floor(left));
        column < matrix.wide && (column - left) * unit < width;
        column++
      ) {
        const weight = this.tiles.cellOf(matrix, 0, row, column);
        const text = weight === undefined ? "" : numberInCell(weight, range.peak);
        if (weight === undefined || !text) continue;
        context.fillStyle = needsWhite(weight, range, dark) ? "#ffffff" : "#111111";
        const [x, y] = [margin + (column + 0.5 - left) * unit, margin + (row + 0.5 - top) * unit];
        context.fillText(text, x, y);
      }
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {Matrix} matrix
   * @param {Seen} seen
   * @param {Cursor} cursor
   */
  drawFrame(context, matrix, { left, top, unit }, cursor) {
    const cell = 2 ** levelSeen(matrix, unit);
    const [row, column] = [cursor.row, cursor.column].map((place) => Math.floor(place / cell) * cell);
    const x = this.margin + (column - left) * unit;
    const y = this.margin + (row - top) * unit;
    const size = Math.max(5, cell * unit);
    const grow = 1.5;
    for (const [name, wide] of /** @type {const} */ ([
      ["paper", 4],
      ["accent", 2],
    ])) {
      context.strokeStyle = this.colour(name);
      context.lineWidth = wide;
      context.strokeRect(x - grow, y - grow, size + 2 * grow, size + 2 * grow);
    }
  }

  /**
   * A colour of the style sheet in the present theme.
   * @param {string} name
   */
  colour(name) {
    const key = `${name} ${this.app.isDark()}`;
    let colour = this.colours.get(key);
    if (colour === undefined) {
      colour = classColour(this.app.viewer, `probe--${name}`);
      this.colours.set(key, colour);
    }
    return colour;
  }
}
