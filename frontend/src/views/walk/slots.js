// What stands in the sentences of the walk.

import { dataElement, el, quoted } from "../../ui/dom.js";
import { bound, format, percent } from "../../ui/format.js";
import { chosenMap, formatNumber, unitOf, wordsOf } from "../../ui/maps.js";
import { strip } from "../../ui/strip.js";
import { visible } from "../../ui/words.js";
import { productTerms, softmaxTerms } from "./formulas.js";
import { peakOf } from "./numbers.js";
import { scoreTable, valueTable, weightTable } from "./tables.js";

/** @import { App } from "../../types.js" */
/** @import { SignColours } from "../../ui/strip.js" */
/** @import { Steps, Sum, Walk } from "./numbers.js" */
/** @typedef {{app: App, colours: SignColours, isAllShown: boolean, toggleAll: () => void}} Context */
/** @typedef {Record<string, any>} Slots */

/** @param {Walk} walk @param {Context} context @returns {Slots} */
export function slotsOf(walk, context) {
  const { steps } = walk;
  return {
    ...placeSlots(walk, context),
    ...(walk.x && embeddingSlots(walk, walk.x, context)),
    ...(steps && vectorSlots(walk, steps, context)),
    ...(steps && scoreSlots(walk, steps, context)),
    ...(steps?.sum && sumSlots(walk, steps, steps.sum, context)),
    ...(!steps && { weightsOnly: weightTable(walk, context) }),
  };
}

/** @param {Walk} walk @param {Context} context @returns {Slots} */
function placeSlots({ l, h, u, i }, { app: { reading } }) {
  const tokens = reading.tokensOf(u);
  const place = `${tokens.indexOf(i) + 1} of ${tokens.length} of `;
  const position = tokens.length > 1 ? [" It is token ", place, quoted(visible(reading.units[u])), "."] : "";
  return { token: () => quoted(visible(reading.tokens[i])), layer: l, head: h, position };
}

/** @param {Walk} walk @param {number[]} x @param {Context} context @returns {Slots} */
function embeddingSlots({ l, made }, x, { colours, app }) {
  const first = made?.rotated ? "the same in every sentence" : "the same in every sentence, but for its place";
  const before = l ? "what the layers before made of it" : first;
  return {
    width: x.length,
    origin:
      app.reading.attention === "cross" ? "what the self-attention of this layer, and all before, made of it" : before,
    x: strip(x, "x", colours, app.tip),
  };
}

/**
 * How query, key and value come from x, as far as it is known.
 * @param {Walk} walk
 * @param {Steps} steps
 * @param {Context} context
 * @returns {Slots}
 */
function vectorSlots({ made, normed, unrotated }, { query, key, sum }, { colours, app }) {
  const factor = made && Math.abs(made.factor - 1) > 1e-3 ? format(made.factor, 4) : "";
  const count = query.length;
  const input = made?.norm ? "the normed x" : "x";
  const isAcross = app.reading.attention === "cross";
  const sentences = [
    isAcross
      ? `A matrix that this head has learned turns ${input} into a query of ${count} numbers. Two others make a key and a value of what the encoder has made of each token of the source.`
      : `Three matrices that this head has learned turn ${input} into three vectors of ${count} numbers.`,
  ];
  if (made?.head_norm) sentences.push("Query and key are then normed again.");
  if (made && !made.rotated && factor) sentences.push(`The query is then multiplied by ${factor}.`);
  const received = `Three vectors of ${count} numbers, as the model's attention received them; how it makes them of x is not known here.`;
  return {
    making: made ? sentences.join(" ") : received,
    norm: made?.norm,
    normed: normed && strip(normed, "normed x", colours, app.tip),
    unrotated: unrotated && strip(unrotated, "query before the rotation", colours, app.tip),
    stretched: factor && ` Both are stretched by ${factor}.`,
    query: strip(query, "query", colours, app.tip),
    key: key && strip(key, "key", colours, app.tip),
    value: sum?.value && strip(sum.value, "value", colours, app.tip),
  };
}

/** @param {Walk} walk @param {Steps} steps @param {Context} context @returns {Slots} */
function scoreSlots(walk, steps, context) {
  const { rows, weights } = walk;
  const { query, keys, scores, scale, softcap, sink, adjusted, masked } = steps;
  const { tokens } = context.app.reading.columns;
  const best = rows.indexOf(steps.best);
  return {
    best: () => quoted(visible(tokens[steps.best])),
    terms: productTerms(query, keys[best]),
    score: () => dataElement(scores[best]),
    scale: () => format(scale, 4),
    root: Math.abs(scale * Math.sqrt(query.length) - 1) < 1e-5 ? `, 1 divided by √${query.length},` : "",
    softcap: [
      softcap === null ? "" : ` A soft cap then bends them to stay between −${softcap} and ${softcap}.`,
      adjusted ? " The model then adds a bias of its own, one for each pair of tokens." : "",
    ],
    scaled: () => dataElement(scores[best] * scale),
    total: () => dataElement(sink === null ? 1 : 1 - sink),
    sink: sink === null ? "" : [" The head's sink, a score that belongs to no token, takes ", dataElement(sink), "."],
    unseen: masked ? " Where there is a dash the token may not look, and the weight is 0." : "",
    powers: () => softmaxTerms(walk, steps, best, tokens.length),
    weight: () => dataElement(weights[best], 4),
    scores: scoreTable(walk, steps, context),
  };
}

/** @param {Walk} walk @param {Steps} steps @param {Sum} sum @param {Context} context @returns {Slots} */
function sumSlots(walk, steps, sum, context) {
  const { colours, app } = context;
  const weighted = sum.values.map((value, n) => value.map((number) => number * walk.weights[n]));
  const peak = Math.max(peakOf(weighted), peakOf([sum.context]));
  const projected = " once the layer's output matrix W_O has been applied to it, ‖v W_O‖";
  /** @type {Slots} */
  const slots = {
    values: valueTable(walk, sum, weighted, peak, context),
    projected: sum.projected ? projected : ", ‖v‖",
    carried: () => describeCarried(walk, steps, sum, app),
    mapped: () => describeMapped(walk, app),
    context: strip(sum.context, "context", colours, app.tip),
  };
  if (sum.error !== null) {
    const exact = el("data", { value: sum.error, id: "error" }, bound(sum.error));
    slots.check = [" The model itself computed the same numbers, to within ", exact, "."];
  }
  return slots;
}

/**
 * Which token adds most, and whether it is the one with the largest weight.
 * @param {Walk} walk
 * @param {Steps} steps
 * @param {Sum} sum
 * @param {App} app
 */
function describeCarried({ rows, weights }, { best }, { carried, total }, { reading }) {
  const heaviest = rows.indexOf(best);
  const longest = carried.indexOf(Math.max(...carried));
  const listed = carried.reduce((sum, length) => sum + length, 0);
  const { tokens } = reading.columns;
  const whole = rows.length < tokens.length ? total : listed;
  if (!(whole > 0) || heaviest < 0) return "";
  /** @param {number} n */
  const share = (n) => dataElement(carried[n] / whole, percent);
  /** @param {number} n */
  const weight = (n) => dataElement(weights[n], percent);
  /** @param {number} n */
  const name = (n) => quoted(visible(tokens[rows[n]]));
  if (heaviest === longest) {
    const adds = [" Here ", name(longest), " adds most: ", share(longest), " of all that is added, with "];
    return [...adds, weight(longest), " of the weight."];
  }
  const weighs = [" Here ", name(heaviest), " has the largest weight, ", weight(heaviest), ", and ", share(heaviest)];
  return [...weighs, " of all that is added; ", name(longest), " adds most, ", share(longest), "."];
}

/**
 * Which token gives most by the chosen map, where it is not the weights.
 * @param {Walk} walk
 * @param {App} app
 */
function describeMapped({ rows, mapped, mappedTotal }, { reading, state }) {
  if (!mapped || !mappedTotal || state.map === "value-weighted") return ""; // what the sentence before says
  const sizes = mapped.map(Math.abs);
  const n = sizes.indexOf(Math.max(...sizes));
  const heads = chosenMap(reading, state).heads ? "" : ", all heads together";
  return [
    ` By the map chosen, ${wordsOf(state).label}${heads}, `,
    quoted(visible(reading.columns.tokens[rows[n]])),
    " gives most: ",
    dataElement(mapped[n], formatNumber(state)),
    `, ${unitOf(state, mapped[n])}, `,
    dataElement(sizes[n] / mappedTotal, percent),
    " of all.",
  ];
}
