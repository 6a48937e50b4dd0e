// The saved picture of the view Map: the cells that are seen, with their words.

import { count, el, format } from "./dom.js";
import { inkOf, shade } from "./colour.js";
import { captionOf, cellGrid, colourScale, figure, shortener, widthOf } from "./figure.js";

const [ROOM, SIZE, LABEL] = [720, 12, 16]; // px: the matrix at most, a letter, between two labels

/** The cells of a level of the map, as map.js has them: {cell, rows, columns, weights, units, most, scale, apart}. */
export function mapPicture(app, { cell, rows, columns, weights, units, most, scale, apart }) {
  const { state, reading } = app;
  const { ink } = inkOf(app.viewer);
  const size = Math.max(ROOM / 256 / 2, Math.min(36, ROOM / Math.max(rows.length, columns.length)));
  const [wide, high] = [size * columns.length, size * rows.length];
  const words = shortener();
  const [perRow, perColumn] = [Math.ceil(LABEL / size), Math.ceil((LABEL * Math.SQRT2) / size)];
  const labelled = (cells, every) => cells.flatMap((n, place) => (place % every ? [] : [{ place, text: words.name(reading.units[units[n * cell]]) }]));
  const [down, across] = [labelled(rows, perRow), labelled(columns, perColumn)];
  const longest = (labels) => Math.max(10, ...labels.map(({ text }) => widthOf(text, SIZE)));
  const left = Math.ceil(longest(down)) + 10;
  const top = Math.ceil(longest(across) / Math.SQRT2) + 16;
  const body = el("g", { "font-size": SIZE, fill: ink });
  const grid = el("g", { transform: `translate(${left} ${top})` });
  grid.append(cellGrid(weights.flat(), rows.length, columns.length, wide, high, most, scale, app.isDark()));
  if (size >= 28 && cell === 1) grid.append(...numbers(weights, size, most, scale, app.isDark()));
  body.append(grid);
  for (const { place, text } of down)
    body.append(el("text", { x: left - 6, y: top + (place + 0.5) * size + 4, "text-anchor": "end" }, text));
  for (const { place, text } of across)
    body.append(el("text", { transform: `translate(${left + (place + 0.5) * size} ${top - 6}) rotate(-45)` }, text));
  const slant = Math.max(0, ...across.map(({ place, text }) => (place + 0.5) * size + widthOf(text, SIZE) / Math.SQRT2 - wide));
  const drawing = { body, width: left + wide + Math.ceil(slant) + 6, height: top + high };
  const { title, caption } = captionOf(app, `Attention weights of layer ${state.layer}, head ${state.head}.`);
  const legend = [colourScale(app, scale === "log" ? "Weight (logarithmic)" : "Weight", most, scale)];
  return figure(app, { title, caption, drawing, legend, notes: [notesOn(), ...words.notes()] });

  function notesOn() {
    const notes = ["Rows attend, columns are attended to."];
    if (cell > 1) notes.push(`Each cell is the ${state.reduce === "max" ? "largest" : "mean"} of ${cell} × ${cell} weights.`);
    if (cell > 1 || perRow > 1 || perColumn > 1) notes.push("A word stands beside the first of those that it labels.");
    const cells = Math.ceil(units.length / cell);
    if (rows.length < cells || columns.length < cells) {
      const range = (list) => `${list[0] * cell} to ${Math.min(units.length, (list.at(-1) + 1) * cell) - 1}`;
      notes.push(`A part of ${count(units.length, "word")}: rows ${range(rows)}, columns ${range(columns)}, counted from 0.`);
    }
    if (apart) notes.push("The first word's row and column are left out of the scale of colours.");
    return notes.join(" ");
  }
}

/** The weights as numbers in their cells. */
function numbers(weights, size, most, scale, dark) {
  return weights.flatMap((line, y) =>
    line.flatMap((weight, x) => {
      if (!(weight >= 0.005)) return [];
      const fill = shade(weight, most, scale) > 0.5 !== dark ? "#ffffff" : "#111111";
      const place = { x: (x + 0.5) * size, y: (y + 0.5) * size + 4, "text-anchor": "middle", "font-size": 11, fill };
      return [el("text", place, format(weight, 2).replace(/^0/, ""))];
    }),
  );
}
