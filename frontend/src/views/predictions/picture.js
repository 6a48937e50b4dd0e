// The saved picture of the view Predictions, and its table.

import { rampColour, readableOn, shade } from "../../ui/colour.js";
import { el } from "../../ui/dom.js";
import { captionOf, figure, rangeKey, widthOf, wordShortener } from "../../ui/figure.js";
import { clipped } from "../../ui/format.js";
import { inkOf } from "../../ui/paint.js";
import { isRight, shortened } from "../../ui/predictions.js";
import { RANGE } from "./range.js";

/** @import { Drawing, Row } from "../../types.js" */
/** @import { Cell, PredictionsView } from "./view.js" */

const [HIGH, LETTER, LEFT] = [22, 12, 44]; // px: a cell, a letter, the numbers of the layers
const LETTERS = 14; // of a predicted token

/** @param {PredictionsView} view */
export function lensPicture(view) {
  const { app } = view;
  const { reading, state } = app;
  const { layers, kind } = view.offer();
  const isNext = kind === "next token";
  const every = layers.length === reading.L ? `all ${reading.L} layers` : "the last layer";
  const what = isNext ? "what the model would expect after each token" : "what it would predict at each token";
  const { title, caption } = captionOf(app, `Logit lens of ${every}: ${what}, if it ended after the layer.`);
  const words = wordShortener();
  const whose = state.lens === "next" ? "the token that came next" : "the predicted token";
  const notes = ["A row for each layer, a column for each token of the text."];
  if (isNext)
    notes.push("Underlined: the token that came next was the likeliest; the last row has the tokens that came.");
  if (view.count() < reading.N)
    notes.push(`Tokens ${view.first} to ${view.first + view.count() - 1} of ${reading.N}, counted from 0.`);
  const drawing = draw(view, words, isNext);
  const legend = [rangeKey(app, `Probability of ${whose}`, RANGE)];
  return figure(app, { title, caption, drawing, legend, notes: [notes.join(" "), ...words.notes()] });
}

/**
 * @param {PredictionsView} view
 * @param {ReturnType<typeof wordShortener>} words
 * @param {boolean} isNext
 * @returns {Drawing}
 */
function draw(view, words, isNext) {
  const { app } = view;
  const { reading } = app;
  const { layers } = view.offer();
  const { ink, soft } = inkOf(app.viewer);
  const body = el("g", { "font-size": LETTER, fill: ink });
  /** @param {number} x @param {number} y @param {string} text */
  const write = (x, y, text, attributes = {}) =>
    body.append(el("text", { x, y: y + HIGH / 2 + 4, "text-anchor": "middle", ...attributes }, text));
  let x = LEFT;
  for (let i = view.first; i < view.first + view.count(); i++) {
    const texts = layers.map((l) => clipped(textOf(view, [l, i]), LETTERS));
    const names = [words.name(reading.tokens[i]), isNext && i + 1 < reading.N ? words.name(reading.tokens[i + 1]) : ""];
    const width = Math.ceil(Math.max(34, ...[...texts, ...names].map((text) => widthOf(text, LETTER, 600)))) + 8;
    write(x + width / 2, 0, names[0], { "font-weight": 600 });
    for (const [n, l] of layers.entries())
      body.append(cellAt(view, [l, i], texts[n], [x, (n + 1) * HIGH, width - 1], ink));
    write(x + width / 2, (layers.length + 1) * HIGH, names[1], { fill: soft });
    x += width;
  }
  write(0, 0, "layer", { fill: soft, "text-anchor": "start" });
  for (const [n, l] of layers.entries()) write(LEFT - 10, (n + 1) * HIGH, `${l}`, { fill: soft, "text-anchor": "end" });
  if (isNext) write(LEFT - 10, (layers.length + 1) * HIGH, "next", { fill: soft, "text-anchor": "end" });
  return { body, width: x, height: (layers.length + (isNext ? 2 : 1)) * HIGH };
}

/** @param {PredictionsView} view @param {Cell} cell */
function textOf(view, cell) {
  const predicted = view.predicted(cell);
  return predicted ? shortened(predicted.likely[0].text) : "";
}

/**
 * @param {PredictionsView} view
 * @param {Cell} cell
 * @param {string} text
 * @param {number[]} box left, top and width
 * @param {string} ink the colour of a text on paper
 */
function cellAt(view, cell, text, [x, y, width], ink) {
  const { app } = view;
  const [predicted, dark] = [view.predicted(cell), app.isDark()];
  const number = predicted && view.shadeOf(predicted);
  const group = el("g", {});
  if (number !== null) {
    const fill = rampColour(shade(number, RANGE), dark, false);
    group.append(el("rect", { x, y, width, height: HIGH - 1, fill }));
  }
  const fill = number === null ? ink : readableOn(number, RANGE, dark);
  const underlined = predicted && isRight(predicted) ? { "text-decoration": "underline", "font-weight": 700 } : {};
  const place = { x: x + width / 2, y: y + HIGH / 2 + 4, "text-anchor": "middle", fill, ...underlined };
  group.append(el("text", place, text));
  return group;
}

/**
 * The likeliest token at each token and layer, and the probability of the one that came next.
 * @param {PredictionsView} view
 * @returns {Row[]}
 */
export function lensTable(view) {
  const { tokens } = view.app.reading;
  const rows = view.offer().layers.flatMap((l) =>
    Array.from({ length: view.count() }, (_, n) => {
      const i = view.first + n;
      const predicted = view.predicted([l, i]);
      if (!predicted) return [];
      const { likely, surprise } = predicted;
      const came = surprise === null ? ["", ""] : [tokens[i + 1], Math.exp(-surprise)];
      return [l, i, tokens[i], likely[0].text, likely[0].probability, ...came];
    }),
  );
  const titles = ["layer", "token", "token_text", "predicted", "probability", "next_token", "probability_of_next"];
  return [titles, ...rows];
}
