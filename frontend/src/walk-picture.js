// The saved picture of the view Walk: every token that its table shows, with score, scaled score, weight and what it adds.

import { count, el, format } from "./dom.js";
import { headColour, inkOf } from "./colour.js";
import { captionOf, figure, shortener, widthOf } from "./figure.js";
import { visible } from "./words.js";

const [ROW, SIZE, NUMBER, BAR] = [26, 14, 86, 220]; // px: a row, a letter, a column of numbers, the longest bar

export function walkPicture(app, walk) {
  const { tokens, units } = app.reading;
  const { rows, scores, scaled, weights, values } = walk;
  const names = scores ? tokens : units;
  const words = shortener();
  const shown = rows.map((j) => words.name(names[j]));
  const first = Math.max(60, ...shown.map((text) => widthOf(text, SIZE, 600))) + 8;
  const lengths = values && (walk.carried ?? values.map((value, n) => weights[n] * Math.hypot(...value)));
  const columns = [
    scores && { name: "score", numbers: scores, digits: 3 },
    scores && { name: "scaled", numbers: scaled, digits: 3 },
    { name: "weight", numbers: weights, digits: 4 },
    lengths && { name: `weight × ${lengthIn(walk)}`, numbers: lengths, digits: 4 },
  ].filter(Boolean);
  const { ink, soft } = inkOf(app.viewer);
  const body = el("g", { "font-size": SIZE });
  const bars = first + NUMBER * columns.length + 16;
  columns.forEach(({ name }, n) =>
    body.append(el("text", { x: first + NUMBER * (n + 1), y: 14, "text-anchor": "end", "font-size": 12, fill: soft }, name)),
  );
  rows.forEach((j, n) => {
    const y = ROW * (n + 1) + 14;
    const chosen = scores ? j === walk.i : j === walk.u;
    body.append(el("text", { x: 0, y, fill: ink, "font-weight": chosen ? 700 : null }, shown[n]));
    columns.forEach(({ numbers, digits }, k) =>
      body.append(el("text", { x: first + NUMBER * (k + 1), y, "text-anchor": "end", fill: ink }, format(numbers[n], digits))),
    );
    const width = Math.max(0.5, BAR * weights[n]).toFixed(2);
    body.append(el("rect", { x: bars, y: y - 12, width, height: 14, fill: headColour(0, app.isDark()) }));
  });
  const drawing = { body, width: bars + BAR, height: ROW * (rows.length + 1) };
  const token = scores ? visible(tokens[walk.i]) : visible(units[walk.u]);
  const { title, caption } = captionOf(app, `Attention of “${words.name(token)}” in layer ${walk.l}, head ${walk.h}.`);
  return figure(app, { title, caption, drawing, notes: [notesOn(walk, names), ...words.notes()] });
}

/** The length that the weights are multiplied by: of the value as the layer's output matrix passes it on, or as it is. */
const lengthIn = ({ projected }) => (projected ? "‖v W_O‖" : "‖v‖");

function notesOn({ scores, scale, softcap, adjusted, masked, sink, rows, values, projected }, names) {
  const notes = [];
  if (scores) notes.push(`Score: query · key. Scaled: score × ${format(scale, 4)}${softcap === null ? "" : `, capped at ±${softcap}`}${adjusted ? ", and a bias of the model" : ""}.`);
  notes.push("Weight: softmax of the scaled scores, drawn as bars from 0 to 1.");
  if (values) notes.push(`Weight × ${lengthIn({ projected })}: how much of the output the token adds.`);
  if (masked) notes.push("A dash: the token may not look there.");
  if (sink > 0) notes.push(`The head's sink takes ${format(sink, 4)}.`);
  if (rows.length < names.length) notes.push(`Shown: ${rows.length} of ${count(names.length, "token")}, those with the largest weights.`);
  return notes.join(" ");
}
