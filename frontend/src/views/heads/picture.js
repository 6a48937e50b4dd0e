// The saved picture of the view Heads: all heads, their cells as rectangles, sharp in whatever draws it.

import { el } from "../../ui/dom.js";
import { captionOf, cellGrid, figure, rampKey } from "../../ui/figure.js";
import { capitalized } from "../../ui/format.js";
import { areWeights, chosenMap, headCount, headName, wordsOf } from "../../ui/maps.js";
import { inkOf } from "../../ui/paint.js";
import { wordsOfCell } from "./patterns.js";

/** @import { Drawing } from "../../types.js" */
/** @import { HeadsView } from "./view.js" */

const [SIZE, GAP, LEFT, TOP, NAME] = [72, 8, 52, 36, 18]; // px: a head, between heads, row and column titles, a head's name

/** @param {HeadsView} view */
export function headsPicture(view) {
  const { app } = view;
  const { attended, H, L } = app.reading;
  const layers = attended.length === L ? `all ${L}` : `those ${attended.length} of ${L}`;
  const which = attended.length === L ? "" : " that have attention";
  const { heads, signed } = chosenMap(app.reading, app.state);
  const words = wordsOf(app.state);
  const number = heads ? ` × ${H} heads` : "";
  const { title, caption } = captionOf(app, `${words.title} of ${layers} layers${number}${which}.`);
  const cell = wordsOfCell(app.reading, view.longest(), words.many);
  const notes = [
    "A row for each word that attends, a column for each that is attended to, in reading order.",
    `Colours are scaled separately for each ${heads ? "head" : "layer"}${view.isFirstExcluded() ? ", the first word set apart" : ""}.`,
    cell && `In a text of this length ${cell}.`,
    heads && "A name under a head: where at least half of its weight goes.",
  ];
  /** @type {[number, string][]} */
  const ends = signed
    ? [
        [0, "−largest"],
        [0.5, "0"],
        [1, "+largest"],
      ]
    : [
        [0, "0"],
        [1, "largest"],
      ];
  const legend = [rampKey(app, areWeights(app.state) ? "Weight" : capitalized(words.unit), ends, signed)];
  return figure(app, { title, caption, drawing: draw(view), legend, notes: [notes.filter(Boolean).join(" ")] });
}

/** @param {HeadsView} view @returns {Drawing} */
function draw(view) {
  const { app } = view;
  const { reading, state } = app;
  const { attended } = reading;
  const H = headCount(reading, state);
  const { ink, soft } = inkOf(app.viewer);
  const body = el("g", { "font-size": 11, fill: soft });
  /** @param {number} x @param {number} y @param {string} text */
  const write = (x, y, text, attributes = {}) => body.append(el("text", { x, y, ...attributes }, text));
  const hasHeads = chosenMap(reading, state).heads;
  write(LEFT, 11, hasHeads ? "head" : "all heads");
  write(0, 30, "layer");
  for (let h = 0; hasHeads && h < H; h++)
    write(LEFT + h * (SIZE + GAP) + SIZE / 2, 30, `${h}`, { "text-anchor": "middle", fill: ink });
  for (const [n, l] of attended.entries()) {
    const y = TOP + n * (SIZE + GAP + NAME);
    write(LEFT - 12, y + SIZE / 2 + 4, `${l}`, { "text-anchor": "end", fill: ink });
    for (let h = 0; h < H; h++) {
      const x = LEFT + h * (SIZE + GAP);
      const { cells, n: rows, m: columns, range } = view.cellsOf(l, h);
      const layout = { rows, columns, width: SIZE, height: SIZE, range };
      const group = el(
        "g",
        { transform: `translate(${x} ${y})` },
        el("title", {}, `Layer ${l}, ${headName(reading, state, h)}`),
      );
      group.append(cellGrid(app, cells, layout));
      body.append(group);
      write(x, y + SIZE + 13, view.nameOf(l, h));
    }
  }
  return { body, width: LEFT + H * (SIZE + GAP), height: TOP + attended.length * (SIZE + GAP + NAME) };
}
