// What the lines show, in sentences.

import { dataElement, el, fillSlots, quoted } from "../../ui/dom.js";
import { listed, percent } from "../../ui/format.js";
import { areWeights, headName, shownIn } from "../../ui/maps.js";
import { visible } from "../../ui/words.js";
import { meanOver, sidesOfWord, sum } from "./lines.js";

/** @import { App } from "../../types.js" */
/** @import { Pick } from "./lines.js" */
/** @import { Drawn } from "./view.js" */
/** @typedef {(u: number, v: number) => boolean} IsDirectionShown */

/**
 * How much of all the weight the lines carry that are on the screen.
 * @param {App} app
 * @param {Drawn} drawn
 * @param {number} carried
 */
export function writeShare(app, drawn, carried) {
  const whole = wholeOf(app, drawn);
  const share = percent(Math.min(1, carried / whole));
  const what = areWeights(app.state) ? "the weight" : "the whole";
  app.by("share-says").textContent = whole > 0 ? `The lines drawn carry ${share} of ${what}.` : "";
}

/**
 * All that lines could carry, as the mean over heads: of weights, one for each word; of a map, all magnitudes.
 * @param {App} app
 * @param {Drawn} drawn
 */
export function wholeOf({ state }, { pick, row, all, heads, columns, sides }) {
  if (!pick && !all) return 0;
  if (!pick && areWeights(state)) return columns.from.filter((u) => u >= 0).length;
  const [numbers, width] = pick ? [row ?? [], sidesOfWord(sides, pick.side).V] : [all ?? [], sides.U * sides.V];
  let whole = 0;
  for (const h of heads) for (let n = 0; n < width; n++) whole += Math.abs(numbers[h * width + n]) / heads.length;
  return whole;
}

/** @param {App} app @param {Drawn} drawn @param {IsDirectionShown} isDirectionShown */
export function writeSummary(app, drawn, isDirectionShown) {
  const { pick, heads, all, columns } = drawn;
  const summary = app.by("sentence-says");
  app.by("sinks").hidden = true;
  if (!heads.length) return summary.replaceChildren("No head is shown. Click one below.");
  if (pick) return writeWord(app, drawn, pick, isDirectionShown);
  summary.replaceChildren("Every word attends to every word it can see. Point at one to see its lines alone.");
  if (!all || !areWeights(app.state)) return;
  const { H } = app.reading;
  const { U, V } = drawn.sides;
  const rows = columns.from.map((u) => {
    const ofWord = new Float32Array(H * V);
    for (const h of heads) ofWord.set(all.subarray((h * U + u) * V, (h * U + u + 1) * V), h * V);
    return meanOver(heads, ofWord, V);
  });
  writeSinks(app, rows);
}

/**
 * The words that the picked one attends to most, or that attend to it.
 * @param {App} app
 * @param {Drawn} drawn
 * @param {Pick} pick
 * @param {IsDirectionShown} isDirectionShown
 */
function writeWord(app, { heads, mean }, pick, isDirectionShown) {
  if (!mean) return;
  const isFrom = pick.side === "from";
  const { reading, state } = app;
  const [own, others] = isFrom ? [reading, reading.columns] : [reading.columns, reading];
  const strongest = app
    .visibleUnits(isFrom ? "to" : "from")
    .filter((v) => (isFrom ? isDirectionShown(pick.u, v) : isDirectionShown(v, pick.u)) && mean[v])
    .sort((a, b) => Math.abs(mean[b]) - Math.abs(mean[a]))
    .slice(0, 3);
  const summary = app.by("sentence-says");
  if (!strongest.length) return summary.replaceChildren(...explainNoLines(app, pick));
  const whose = heads.length === 1 ? headName(reading, state, heads[0]) : `the mean of ${heads.length} heads`;
  const words = strongest.map((v) => {
    const word = el("bdi", { dir: "auto" }, visible(others.units[v]).slice(0, 60));
    return [el("q", { class: "bare" }, word), " (", dataElement(mean[v], shownIn(state)), ")"];
  });
  summary.replaceChildren(
    quoted(visible(own.units[pick.u])),
    verbOf(areWeights(state), isFrom),
    ...listed(words),
    `, in layer ${state.layer}, ${whose}.`,
  );
  if (isFrom && areWeights(state)) writeSinks(app, [mean]);
}

/** @param {boolean} isAttention weights, and no other map @param {boolean} isFrom */
function verbOf(isAttention, isFrom) {
  if (isAttention) return isFrom ? " attends mostly to " : " gets most attention from ";
  return isFrom ? " takes most from " : " gives most to ";
}

/**
 * Why a word has no lines: the direction that is chosen leaves its text out, or it may not look at anything.
 * @param {App} app
 * @param {Pick} pick
 */
function explainNoLines(app, { u, side }) {
  const { second, columns } = app.reading;
  const { units } = side === "to" ? columns : app.reading;
  const { direction } = app.state;
  const word = quoted(visible(units[u]));
  const isFrom = side === "from";
  const text = second === null || u < second ? "a" : "b";
  if (direction !== "all" && direction[isFrom ? 0 : 1] !== text) {
    const [mine, other] = text === "a" ? ["first", "second"] : ["second", "first"];
    const role = isFrom ? "attending" : "attended to";
    return [
      word,
      ` is in the ${mine} text, and the lines shown are of words of the ${other} ${role}. Choose another direction, or another word.`,
    ];
  }
  if (!areWeights(app.state)) return [word, isFrom ? " takes nothing from" : " gives nothing to", " the words shown."];
  return [word, isFrom ? " attends to none of the words shown." : " gets no attention from the words shown."];
}

/**
 * Where special tokens and the first take most of the weight of these rows, one sentence says why.
 * @param {App} app
 * @param {ArrayLike<number>[]} rows
 */
function writeSinks(app, rows) {
  const { by } = app;
  const { special, units } = app.reading.columns;
  const mass = new Map([...new Set([0, ...special])].map((v) => [v, rows.reduce((total, row) => total + row[v], 0)]));
  const share = sum([...mass.values()]) / rows.length;
  const heaviest = [...mass].filter(([, weight]) => weight > 0).sort((a, b) => b[1] - a[1]);
  const where = heaviest
    .slice(0, 2)
    .flatMap(([v], n) => [n ? " and " : "", el("q", { class: "bare" }, visible(units[v]).slice(0, 60))]);
  by("sinks").hidden = !(share >= 0.5);
  fillSlots(by("sinks"), { share: percent(share), where });
}
