// The saved picture of the view Heads: all heads, their cells as rectangles, sharp in whatever draws it.

import { el } from "../../ui/dom.js";
import { captionOf, cellGrid, figure, rampKey } from "../../ui/figure.js";
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
  const { title, caption } = captionOf(app, `Attention weights of ${layers} layers × ${H} heads${which}.`);
  const cell = wordsOfCell(app.reading, app.visibleUnits().length);
  const notes = [
    "A row for each word that attends, a column for each that is attended to, in reading order.",
    `Colours are scaled separately for each head${view.isFirstExcluded() ? ", the first word set apart" : ""}.`,
    cell && `In a text of this length ${cell}.`,
    "A name under a head: where at least half of its weight goes.",
  ];
  const legend = [
    rampKey(app, "Weight", [
      [0, "0"],
      [1, "largest"],
    ]),
  ];
  return figure(app, { title, caption, drawing: draw(view), legend, notes: [notes.filter(Boolean).join(" ")] });
}

/** @param {HeadsView} view @returns {Drawing} */
function draw(view) {
  const { app } = view;
  const { attended, H } = app.reading;
  const { ink, soft } = inkOf(app.viewer);
  const body = el("g", { "font-size": 11, fill: soft });
  /** @param {number} x @param {number} y @param {string} text */
  const write = (x, y, text, attributes = {}) => body.append(el("text", { x, y, ...attributes }, text));
  write(LEFT, 11, "head");
  write(0, 30, "layer");
  for (let h = 0; h < H; h++)
    write(LEFT + h * (SIZE + GAP) + SIZE / 2, 30, `${h}`, { "text-anchor": "middle", fill: ink });
  for (const [n, l] of attended.entries()) {
    const y = TOP + n * (SIZE + GAP + NAME);
    write(LEFT - 12, y + SIZE / 2 + 4, `${l}`, { "text-anchor": "end", fill: ink });
    for (let h = 0; h < H; h++) {
      const x = LEFT + h * (SIZE + GAP);
      const { cells, n: side, peak } = view.cellsOf(l, h);
      const layout = {
        rows: side,
        columns: side,
        width: SIZE,
        height: SIZE,
        peak,
        scale: /** @type {const} */ ("linear"),
      };
      const group = el("g", { transform: `translate(${x} ${y})` }, el("title", {}, `Layer ${l}, head ${h}`));
      group.append(cellGrid(app, cells, layout));
      body.append(group);
      write(x, y + SIZE + 13, view.nameOf(l, h));
    }
  }
  return { body, width: LEFT + H * (SIZE + GAP), height: TOP + attended.length * (SIZE + GAP + NAME) };
}
