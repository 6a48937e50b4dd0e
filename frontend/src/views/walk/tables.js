// The tables of the walk: a row for each token that the reply lists, in reading order.

import { WALK_ROWS, WALK_TOKENS } from "../../protocol.js";
import { dataElement, el } from "../../ui/dom.js";
import { count } from "../../ui/format.js";
import { columnTitle, formatNumber, wordsOf } from "../../ui/maps.js";
import { strip } from "../../ui/strip.js";
import { visible } from "../../ui/words.js";
import { peakOf } from "./numbers.js";

/** @import { Steps, Sum, Walk } from "./numbers.js" */
/** @import { Context } from "./slots.js" */

/** @param {number} number @param {number} [digits] */
const numberCell = (number, digits) => el("td", { class: "number" }, dataElement(number, digits));

/**
 * A weight, with a bar of its length.
 * @param {number} weight
 */
function weightCell(weight) {
  const bar = el("span", { class: "weightbar" });
  bar.style.width = `${(100 * weight).toFixed(2)}%`;
  const track = el("span", { class: "track", "aria-hidden": "true" }, bar);
  return el("td", { class: "number weight" }, track, dataElement(weight, 4));
}

/**
 * The numbers of a map besides the weights, as a column: its title, and the cell of a row. None where it would repeat
 * the column of weight × length.
 * @param {Walk} walk
 * @param {Context} context
 * @returns {{title: Record<string, string>, cell: (n: number) => HTMLElement[]}}
 */
function mapColumn({ mapped, steps }, { app: { reading, state } }) {
  if (!mapped || (state.map === "value-weighted" && steps?.sum)) return { title: {}, cell: () => [] };
  const show = formatNumber(state);
  return {
    title: { [columnTitle(reading, state)]: "number" },
    cell: (n) => [el("td", { class: "number mapped" }, dataElement(mapped[n], show))],
  };
}

/**
 * Keys, scores and weights.
 * @param {Walk} walk
 * @param {Steps} steps
 * @param {Context} context
 */
export function scoreTable(walk, { keys, scores, scaled, sum }, context) {
  const { app, colours } = context;
  const { tokens } = app.reading.columns;
  const peak = peakOf(keys);
  const map = sum ? null : mapColumn(walk, context); // else it stands beside the values
  const columns = { token: "", "its key": "wide", score: "number", scaled: "number", weight: "number", ...map?.title };
  return table(walk, context, columns, tokens, walk.i, (n) => {
    const name = `key of ${visible(tokens[walk.rows[n]])}`;
    return [
      el("td", { class: "wide" }, strip(keys[n], name, colours, app.tip, { cells: true, peak })),
      numberCell(scores[n], 2),
      numberCell(scaled[n]),
      weightCell(walk.weights[n]),
      ...(map?.cell(n) ?? []),
    ];
  });
}

/**
 * Weighted values, and their sum.
 * @param {Walk} walk
 * @param {Sum} sum
 * @param {number[][]} weighted
 * @param {number} peak
 * @param {Context} context
 */
export function valueTable(walk, { carried, context: total }, weighted, peak, context) {
  const { app, colours } = context;
  const { tokens } = app.reading.columns;
  /** @param {number[]} vector @param {string} name */
  const cells = (vector, name) => el("td", {}, strip(vector, name, colours, app.tip, { cells: true, peak }));
  const map = mapColumn(walk, context);
  const numbers = { weight: "number", "weight × length": "number", ...map.title };
  const columns = { token: "", ...numbers, "weight × its value": "" };
  const whole = table(walk, context, columns, tokens, walk.i, (n) => [
    numberCell(walk.weights[n]),
    numberCell(carried[n]),
    ...map.cell(n),
    cells(weighted[n], `weight × value of ${visible(tokens[walk.rows[n]])}`),
  ]);
  const foot = el("tr", {}, el("th", { scope: "row" }, "sum of all"));
  foot.append(...Object.keys(numbers).map(() => el("td")), cells(total, "sum"));
  whole[0].append(el("tfoot", {}, foot));
  return whole;
}

/**
 * The weights between words, where nothing else is known.
 * @param {Walk} walk
 * @param {Context} context
 */
export function weightTable(walk, context) {
  const map = mapColumn(walk, context);
  const columns = { word: "", weight: "number", ...map.title };
  return table(walk, context, columns, context.app.reading.columns.units, walk.u, (n) => [
    weightCell(walk.weights[n]),
    ...map.cell(n),
  ]);
}

/**
 * The table, and below that of a long text a button for the other rows.
 * @param {Walk} walk
 * @param {Context} context
 * @param {Record<string, string>} columns their classes by name
 * @param {string[]} names of all tokens, or units
 * @param {number} chosen
 * @param {(n: number) => HTMLElement[]} cellsOf
 */
function table(walk, context, columns, names, chosen, cellsOf) {
  const { reading } = context.app;
  const head = Object.entries(columns).map(([name, style]) => el("th", { scope: "col", class: style || null }, name));
  const body = walk.rows.map((j, n) => {
    const isUnknown = names === reading.columns.tokens && reading.columns.unknown_tokens.includes(j);
    const word = el("bdi", { dir: "auto", class: isUnknown ? "unknown" : null }, visible(names[j]));
    const name = el("th", { scope: "row", title: isUnknown ? "not in the model's vocabulary" : null }, word);
    const isChosen = j === chosen && reading.columns === reading;
    return el("tr", { class: isChosen && "chosen" }, name, ...cellsOf(n));
  });
  const whole = el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body));
  return names.length <= WALK_TOKENS ? [whole] : [whole, moreButton(walk.rows.length, names.length, context)];
}

/** @param {number} listed @param {number} length of the text @param {Context} context */
function moreButton(listed, length, { isAllShown, toggleAll, app: { state } }) {
  const { many } = wordsOf(state);
  const rest = length <= WALK_ROWS ? `all ${length}` : `${WALK_ROWS.toLocaleString("en")} of ${count(length, "token")}`;
  const label = isAllShown
    ? `Show those with the largest ${many}`
    : `Show ${rest}; these ${listed} have the largest ${many}`;
  const button = el("button", { type: "button", class: "quiet" }, label);
  button.addEventListener("click", toggleAll);
  return button;
}
