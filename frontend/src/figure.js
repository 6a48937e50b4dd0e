// A saved picture: the drawing, and around it all that a reader needs who sees the picture alone, as in a paper.

import { count, el, format } from "./dom.js";
import { inkOf, painted, ramp, shade, weightAt } from "./colour.js";
import { visible } from "./words.js";

const FAMILY = "system-ui, 'Noto Sans', 'DejaVu Sans', sans-serif";
const EDGE = 16; // px around everything
const WORD = 40; // letters of a word from which on it is shortened, and stands whole in a note

/** The width in px of a text; fonts differ between machines, so a tenth is added. */
export function widthOf(text, size, weight = 400) {
  pen ??= el("canvas").getContext("2d");
  pen.font = `${weight} ${size}px ${FAMILY}`;
  return 1.1 * pen.measureText(text).width;
}
let pen = null;

/** A text as lines of at most so many px; the last of `most` lines ends with an ellipsis where there is more. */
export function wrapped(text, room, size, { most = 40, weight = 400 } = {}) {
  const fits = (line) => widthOf(line, size, weight) <= room;
  const lines = [""];
  const longest = Math.ceil((most * room * 4) / size); // letters that could stand in so many lines
  for (const piece of text.replace(/\s+/g, " ").trim().slice(0, longest).split(/(?<= )/u)) {
    if (fits(lines.at(-1) + piece.trimEnd())) lines[lines.length - 1] += piece;
    else if (fits(piece.trimEnd())) lines.push(piece);
    else
      for (const letter of piece)
        if (fits(lines.at(-1) + letter)) lines[lines.length - 1] += letter;
        else lines.push(letter);
  }
  const kept = lines.map((line) => line.trim()).filter(Boolean);
  if (kept.length <= most) return kept;
  const last = [...kept[most - 1]];
  while (last.length > 1 && !fits(`${last.join("")}…`)) last.pop();
  return [...kept.slice(0, most - 1), `${last.join("").trim()}…`];
}

/** Words for a picture: long ones shortened, each with a note that has the whole of it. */
export function shortener() {
  const whole = new Map();
  return {
    name(text) {
      const shown = visible(text);
      if ([...shown].length <= WORD) return shown;
      const letters = [...shown];
      const short = `${letters.slice(0, WORD - 10).join("")}…${letters.slice(-8).join("")}`;
      whole.set(short, letters.length > 400 ? `${letters.slice(0, 400).join("")}… (${count(letters.length, "character")})` : shown);
      return short;
    },
    notes: () => [...whole].map(([short, text]) => `${short} stands for ${text}`),
  };
}

/**
 * The picture of a drawing: title, caption, the drawing, its legend, notes.
 *
 * drawing: {body, width, height}, an SVG group with its origin at its top left corner. caption: lines under the title.
 * legend: drawings of the same kind, one under the other. notes: sentences.
 */
export function figure(app, { title, caption, drawing, legend = [], notes = [], least = 420 }) {
  const { ink, soft, paper } = inkOf(app.viewer);
  const inner = Math.ceil(Math.max(least, drawing.width, ...legend.map((key) => key.width)));
  const svg = el("svg", { "font-family": FAMILY, "font-size": 13, fill: ink });
  let y = EDGE;
  const write = (text, size, more = {}) => {
    y += size + 3;
    svg.append(el("text", { x: EDGE, y, "font-size": size, ...more }, text));
    y += 4;
  };
  for (const line of wrapped(title, inner, 16, { most: 3, weight: 600 })) write(line, 16, { "font-weight": 600 });
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

/** What is shown of a reading, as the title and the caption of its picture. */
export function captionOf(app, ...facts) {
  const { reading, state } = app;
  const hidden = state.hide && reading.special.size ? ["Special tokens are hidden."] : [];
  const unknown = [...reading.unknown].filter((u) => !reading.special.has(u));
  const named = unknown.slice(0, 12).map((u) => visible(reading.units[u]));
  const lacking = unknown.length ? [`Not in the model's vocabulary: ${named.join(", ")}${unknown.length > 12 ? ` and ${unknown.length - 12} more` : ""}.`] : [];
  const pair = reading.second === null ? [] : ["Two texts, read together."];
  return { title: reading.text || "(an empty text)", caption: [...facts, `Model: ${reading.model}.`, ...pair, ...hidden, ...lacking] };
}

/** A scale of colours: from 0 to the largest weight, with numbers. */
export function colourScale(app, name, most, scale = "linear", numbers = true) {
  const { ink, soft } = inkOf(app.viewer);
  const [wide, x0] = [256, Math.ceil(widthOf(name, 12)) + 14];
  const body = el("g", { "font-size": 12 }, el("text", { x: 0, y: 11, fill: soft }, name));
  const colours = ramp(app.isDark());
  for (let n = 0; n < 64; n++) {
    const fill = `rgb(${colours[Math.round((255 * n) / 63)].join(",")})`;
    body.append(el("rect", { x: x0 + 4 * n, y: 0, width: 4.2, height: 12, fill }));
  }
  const places = numbers ? [0, 0.25, 0.5, 0.75, 1] : [0, 1];
  for (const place of places) {
    const label = numbers ? tickText(weightAt(place, most, scale), most, scale) : place ? "largest" : "0";
    body.append(el("text", { x: x0 + place * wide, y: 26, fill: ink, "text-anchor": place === 0 ? "start" : place === 1 ? "end" : "middle" }, label));
  }
  return { body, width: x0 + wide, height: 28 };
}

/** A number of a colour scale. */
export function tickText(weight, most, scale) {
  if (scale === "linear" && most >= 0.01) return format(weight, 2);
  return weight >= 0.01 || weight === 0 ? String(Number(weight.toPrecision(2))) : weight.toExponential(0).replace("-", "−");
}

/**
 * Cells of weights as a drawing of width × height: rectangles where they are few, or else an image with so many px a
 * cell that it stays sharp in programs that smooth what they scale.
 */
export function cellGrid(cells, rows, columns, width, height, most, scale, dark) {
  if (rows * columns > 1600) {
    const picture = painted(cells, rows, columns, most, scale, dark);
    const fine = Math.max(1, Math.ceil((4 * Math.max(width, height)) / Math.max(rows, columns)));
    const canvas = el("canvas", { width: columns * fine, height: rows * fine });
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    return el("image", { width, height, href: canvas.toDataURL(), preserveAspectRatio: "none", "image-rendering": "pixelated" });
  }
  const colours = ramp(dark);
  const paths = new Map(); // colour → the runs of cells that have it
  for (let row = 0; row < rows; row++)
    for (let from = 0, to; from < columns; from = to) {
      const colour = (column) => colours[Math.round(255 * shade(cells[row * columns + column], most, scale))].join(",");
      for (to = from + 1; to < columns && colour(to) === colour(from); to++);
      paths.set(colour(from), `${paths.get(colour(from)) ?? ""}M${from} ${row}h${to - from}v1h${from - to}z`);
    }
  const transform = `scale(${width / columns} ${height / rows})`;
  const drawn = [...paths].map(([colour, d]) => el("path", { d, fill: `rgb(${colour})` }));
  return el("g", { transform, "shape-rendering": "crispEdges" }, ...drawn);
}

/** Coloured squares with their names, in as many rows as they need. */
export function swatchKey(app, name, entries, room) {
  const { soft, ink } = inkOf(app.viewer);
  const body = el("g", { "font-size": 12 }, el("text", { x: 0, y: 11, fill: soft }, name));
  const first = Math.ceil(widthOf(name, 12)) + 10;
  let [x, y, width] = [first, 0, first];
  for (const { colour, text, dash } of entries) {
    const wide = 22 + Math.ceil(widthOf(text, 12)) + 10;
    if (x > first && x + wide > room) [x, y] = [first, y + 18];
    body.append(el("line", { x1: x, x2: x + 16, y1: y + 7, y2: y + 7, stroke: colour, "stroke-width": 5, "stroke-dasharray": dash ?? null }));
    body.append(el("text", { x: x + 20, y: y + 11, fill: ink }, text));
    x += wide;
    width = Math.max(width, x);
  }
  return { body, width, height: y + 18 };
}
