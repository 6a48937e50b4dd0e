// A saved picture: the drawing, and around it all that a reader needs who sees the picture alone, as in a paper.

import { needsWhite, numberAt, rampColour, shade } from "./colour.js";
import { el } from "./dom.js";
import { count, format, numberInCell, percent } from "./format.js";
import { firstName, hidesFirst } from "./hidden.js";
import { aboutMap, areWeights } from "./maps.js";
import { contextOf, inkOf, painted } from "./paint.js";
import { textOf, visible } from "./words.js";

/** @import { App, Drawing, Range } from "../types.js" */
/** @typedef {ReturnType<typeof wordShortener>} WordShortener */

const FAMILY = "system-ui, 'Noto Sans', 'DejaVu Sans', sans-serif";
const EDGE = 16; // px around everything
const WORD = 40; // letters of a word from which on it is shortened, and stands whole in a note

/** @type {CanvasRenderingContext2D | undefined} */
let measuring;

/**
 * The width in px of a text; fonts differ between machines, so a tenth is added.
 * @param {string} text
 * @param {number} size
 */
export function widthOf(text, size, weight = 400) {
  measuring ??= contextOf(el("canvas"));
  measuring.font = `${weight} ${size}px ${FAMILY}`;
  return 1.1 * measuring.measureText(text).width;
}

/**
 * A text as lines of at most so many px; the last of `lines` lines ends with an ellipsis where there is more.
 * @param {string} text
 * @param {number} room px
 * @param {number} size px of a letter
 * @param {{lines?: number, weight?: number}} [options]
 */
export function wrapped(text, room, size, { lines: limit = 40, weight = 400 } = {}) {
  /** @param {string} line */
  const fits = (line) => widthOf(line, size, weight) <= room;
  const lines = [""];
  const longest = Math.ceil((limit * room * 4) / size); // letters that could stand in so many lines
  for (const piece of text
    .replace(/\s+/g, " ")
    .trim()
    .slice(0, longest)
    .split(/(?<= )/u)) {
    if (fits(lines[lines.length - 1] + piece.trimEnd())) lines[lines.length - 1] += piece;
    else if (fits(piece.trimEnd())) lines.push(piece);
    else
      for (const letter of piece)
        if (fits(lines[lines.length - 1] + letter)) lines[lines.length - 1] += letter;
        else lines.push(letter);
  }
  const kept = lines.map((line) => line.trim()).filter(Boolean);
  if (kept.length <= limit) return kept;
  const last = [...kept[limit - 1]];
  while (last.length > 1 && !fits(`${last.join("")}…`)) last.pop();
  return [...kept.slice(0, limit - 1), `${last.join("").trim()}…`];
}

/** Words for a picture: long ones shortened, each with a note that has the whole of it. */
export function wordShortener() {
  /** @type {Map<string, string>} */
  const whole = new Map();
  return {
    /** @param {string} text */
    name(text) {
      const shown = visible(text);
      const letters = [...shown];
      if (letters.length <= WORD) return shown;
      const short = `${letters.slice(0, WORD - 10).join("")}…${letters.slice(-8).join("")}`;
      const long = letters.length > 400;
      whole.set(short, long ? `${letters.slice(0, 400).join("")}… (${count(letters.length, "character")})` : shown);
      return short;
    },
    notes: () => [...whole].map(([short, text]) => `${short} stands for ${text}`),
  };
}

/**
 * The picture of a drawing: title, caption, the drawing, its legend, notes.
 * @param {App} app
 * @param {{title: string, caption: string[], drawing: Drawing, legend?: Drawing[], notes?: string[]}} content
 *   caption: lines under the title; legend: drawings of the same kind, under each other; notes: sentences
 * @returns {SVGSVGElement}
 */
export function figure(app, { title, caption, drawing, legend = [], notes = [] }) {
  const { ink, soft, paper } = inkOf(app.viewer);
  const inner = Math.ceil(Math.max(420, drawing.width, ...legend.map((key) => key.width)));
  const svg = el("svg", { "font-family": FAMILY, "font-size": 13, fill: ink });
  let y = EDGE;
  /** @param {string} text @param {number} size */
  const write = (text, size, attributes = {}) => {
    y += size + 3;
    svg.append(el("text", { x: EDGE, y, "font-size": size, ...attributes }, text));
    y += 4;
  };
  for (const line of wrapped(title, inner, 16, { lines: 3, weight: 600 })) write(line, 16, { "font-weight": 600 });
  for (const line of caption.flatMap((sentence) => wrapped(sentence, inner, 13))) write(line, 13, { fill: soft });
  y += 12;
  for (const { body, height } of [drawing, ...legend]) {
    svg.append(el("g", { transform: `translate(${EDGE} ${Math.round(y)})` }, body));
    y += height + 12;
  }
  for (const line of notes.flatMap((note) => wrapped(note, inner, 12))) write(line, 12, { fill: soft });
  const [width, height] = [inner + 2 * EDGE, Math.ceil(y + EDGE - 4)];
  for (const [name, value] of Object.entries({ width, height, viewBox: `0 0 ${width} ${height}` }))
    svg.setAttribute(name, value);
  svg.prepend(el("title", {}, `${title}. ${caption.join(" ")}`), el("rect", { width, height, fill: paper }));
  return svg;
}

const ATTENTION_SAYS = {
  encoder: "The encoder: words of the source attend to each other.",
  decoder: "The decoder: words of the target attend to those before them.",
  cross: "Cross-attention: words of the target attend to words of the source.",
};

/**
 * What is shown of a reading, as the title and the caption of its picture.
 * @param {App} app
 * @param {...string} facts
 */
export function captionOf(app, ...facts) {
  const { reading, state } = app;
  const caption = [...facts, `Model: ${reading.model}.`];
  if (!areWeights(state) && state.view !== "compare") caption.push(aboutMap(app));
  if (reading.second !== null) caption.push("Two texts, read together.");
  if (reading.reply !== null)
    caption.push(`The model wrote the reply, from “${visible(reading.units[reading.reply])}” on.`);
  if (reading.attention) caption.push(ATTENTION_SAYS[reading.attention]);
  const { columns } = reading;
  const texts = columns === reading ? [reading] : [columns, reading];
  if (state.hide && texts.some(({ special }) => special.size)) caption.push("Special tokens are hidden.");
  if (hidesFirst(reading, state)) {
    const share = `${percent(reading.first_share ?? 0)} of the attention, the mean over all layers and heads`;
    caption.push(`Hidden: ${firstName(reading)} which takes ${share}.`);
  }
  const unknown = texts.flatMap(({ unknown, special, units }) =>
    [...unknown].filter((u) => !special.has(u)).map((u) => visible(units[u])),
  );
  const more = unknown.length > 12 ? ` and ${unknown.length - 12} more` : "";
  if (unknown.length) caption.push(`Not in the model's vocabulary: ${unknown.slice(0, 12).join(", ")}${more}.`);
  return { title: (columns === reading ? reading.text : textOf(reading)) || "(an empty text)", caption };
}

/**
 * A bar of the ramp with labels under it.
 * @param {App} app
 * @param {string} name
 * @param {[number, string][]} ticks place from 0 to 1, label
 * @param {boolean} signed
 * @returns {Drawing}
 */
export function rampKey(app, name, ticks, signed) {
  const { ink, soft } = inkOf(app.viewer);
  const [wide, x0] = [256, Math.ceil(widthOf(name, 12)) + 14];
  const body = el("g", { "font-size": 12 }, el("text", { x: 0, y: 11, fill: soft }, name));
  for (let n = 0; n < 64; n++) {
    const fill = rampColour(n / 63, app.isDark(), signed);
    body.append(el("rect", { x: x0 + 4 * n, y: 0, width: 4.2, height: 12, fill }));
  }
  for (const [place, label] of ticks) {
    const anchor = place === 0 ? "start" : place === 1 ? "end" : "middle";
    body.append(el("text", { x: x0 + place * wide, y: 26, fill: ink, "text-anchor": anchor }, label));
  }
  return { body, width: x0 + wide, height: 28 };
}

/**
 * A scale of colours with numbers, from 0 to the largest, or on both sides of 0.
 * @param {App} app
 * @param {string} name
 * @param {Range} range
 */
export const rangeKey = (app, name, range) => rampKey(app, name, ticksOf(range), range.signed);

/**
 * Places on the ramp, and the numbers there.
 * @param {Range} range
 * @returns {[number, string][]}
 */
export const ticksOf = (range) =>
  (range.signed ? [0, 0.5, 1] : [0, 0.25, 0.5, 0.75, 1]).map((place) => [
    place,
    tickText(numberAt(place, range), range),
  ]);

/**
 * A number of a colour scale.
 * @param {number} number
 * @param {Range} range
 */
export function tickText(number, { peak, scale, signed }) {
  const size = Math.abs(number);
  const sign = number < 0 ? "−" : signed && number > 0 ? "+" : "";
  if (scale === "linear" && peak >= 0.01) return sign + format(size, peak >= 100 ? 0 : peak >= 0.1 ? 2 : 3);
  return (
    sign + (size >= 0.01 || size === 0 ? String(Number(size.toPrecision(2))) : size.toExponential(0).replace("-", "−"))
  );
}

/**
 * Cells of weights as a drawing of width × height: rectangles where they are few, or else an image with so many px a
 * cell that it stays sharp in programs that smooth what they scale.
 * @param {App} app
 * @param {ArrayLike<number>} cells
 * @param {{rows: number, columns: number, width: number, height: number, range: Range}} layout
 */
export function cellGrid(app, cells, { rows, columns, width, height, range }) {
  const dark = app.isDark();
  if (rows * columns > 1600) {
    const picture = painted(cells, rows, columns, range, dark);
    const fine = Math.max(1, Math.ceil((4 * Math.max(width, height)) / Math.max(rows, columns)));
    const canvas = el("canvas", { width: columns * fine, height: rows * fine });
    const context = contextOf(canvas);
    context.imageSmoothingEnabled = false;
    context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    const href = canvas.toDataURL();
    return el("image", { width, height, href, preserveAspectRatio: "none", "image-rendering": "pixelated" });
  }
  const paths = cellPaths(rows, columns, (n) => rampColour(shade(cells[n], range), dark, range.signed));
  const transform = `scale(${width / columns} ${height / rows})`;
  const runs = [...paths].map(([fill, d]) => el("path", { d, fill }));
  return el("g", { transform, "shape-rendering": "crispEdges" }, ...runs);
}

/**
 * By colour, the runs of cells that have it, as the data of an SVG path.
 * @param {number} rows
 * @param {number} columns
 * @param {(n: number) => string} colourOf
 */
export function cellPaths(rows, columns, colourOf) {
  /** @type {Map<string, string>} */
  const paths = new Map();
  for (let row = 0; row < rows; row++)
    for (let from = 0, to = 0; from < columns; from = to) {
      const colour = colourOf(row * columns + from);
      for (to = from + 1; to < columns && colourOf(row * columns + to) === colour; to++);
      paths.set(colour, `${paths.get(colour) ?? ""}M${from} ${row}h${to - from}v1h${from - to}z`);
    }
  return paths;
}

/**
 * Numbers in their cells.
 * @param {number[][]} weights
 * @param {number} size px of a cell
 * @param {Range} range
 * @param {boolean} dark
 */
export function cellNumbers(weights, size, range, dark) {
  return weights.flatMap((line, y) =>
    line.flatMap((weight, x) => {
      const text = numberInCell(weight, range.peak);
      if (!text) return [];
      const fill = needsWhite(weight, range, dark) ? "#ffffff" : "#111111";
      const place = { x: (x + 0.5) * size, y: (y + 0.5) * size + 4, "text-anchor": "middle", "font-size": 11, fill };
      return [el("text", place, text)];
    }),
  );
}

/**
 * Coloured lines with their names, in as many rows as they need.
 * @param {App} app
 * @param {string} name
 * @param {{colour: string, text: string, dash?: string | null}[]} entries
 * @param {number} room px
 * @returns {Drawing}
 */
export function swatchKey(app, name, entries, room) {
  const { soft, ink } = inkOf(app.viewer);
  const body = el("g", { "font-size": 12 }, el("text", { x: 0, y: 11, fill: soft }, name));
  const first = Math.ceil(widthOf(name, 12)) + 10;
  let [x, y, width] = [first, 0, first];
  for (const { colour, text, dash } of entries) {
    const wide = 22 + Math.ceil(widthOf(text, 12)) + 10;
    if (x > first && x + wide > room) [x, y] = [first, y + 18];
    const line = { x1: x, x2: x + 16, y1: y + 7, y2: y + 7, stroke: colour, "stroke-width": 5 };
    body.append(el("line", { ...line, "stroke-dasharray": dash }));
    body.append(el("text", { x: x + 20, y: y + 11, fill: ink }, text));
    x += wide;
    width = Math.max(width, x);
  }
  return { body, width, height: y + 18 };
}
