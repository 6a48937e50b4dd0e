// What stands above the views: the tabs, the facts of the reading, the word, token, layer and head that are chosen.

import { fillSelect } from "../ui/dom.js";
import { bytes, capitalized, clipped, count, percent } from "../ui/format.js";
import { canHideFirst, firstName, hidesFirst, takesMost } from "../ui/hidden.js";
import { ATTENTIONS, aboutMap, areWeights, chosenMap, wordsOf } from "../ui/maps.js";
import { textOf, visible } from "../ui/words.js";
import { aboutHead, factsOfAtlas, titleOfAtlas } from "../views/atlas/scores.js";
import { VIEW_NAMES } from "./selection.js";

/** @import { App, Reading, Selection, Words } from "../types.js" */

/** @param {App} app */
export function drawTheme({ by, viewer, options, isDark }) {
  const dark = isDark();
  viewer.dataset.theme = dark ? "dark" : "light";
  if (options.address) document.documentElement.dataset.theme = viewer.dataset.theme;
  by("theme").textContent = dark ? "Light" : "Dark";
  by("theme").setAttribute("aria-label", `Use ${dark ? "light" : "dark"} colours`);
}

/** @param {App} app @param {boolean} hasReading */
export function drawTabs({ by, viewer, state }, hasReading) {
  viewer.dataset.view = state.view;
  by("bar").hidden = !hasReading && state.view !== "compare";
  by("views").hidden = by("bar").hidden && state.view !== "atlas";
  for (const name of VIEW_NAMES) {
    const tab = by(/** @type {"tab-map"} */ (`tab-${name}`));
    tab.setAttribute("aria-selected", String(name === state.view));
    tab.tabIndex = name === state.view ? 0 : -1;
  }
}

/** @param {App} app */
export function drawFacts({ by, viewer, reading, options, state }) {
  viewer.classList.toggle("long", Math.max(reading.U, reading.columns.U) > 32);
  by("title").textContent = textOf(reading);
  by("title").classList.toggle(
    "unseen",
    Boolean(options.reads && !options.widget && (state.text !== null || !by("chat").hidden)),
  );
  by("about").textContent = factsOf(reading);
  by("memory").textContent = [memoryOf(reading), missingMapsOf(reading)].filter(Boolean).join(" ");
  by("details").hidden = !by("memory").textContent;
  by("note").textContent = [replyOf(reading), reading.note || unknownWordsOf(reading)].filter(Boolean).join(" ");
  by("note").hidden = !by("note").textContent;
  by("truncated").textContent = reading.truncated ?? "";
  by("truncated").hidden = !reading.truncated;
}

/**
 * What stands above an atlas, where a text stands above the other views.
 * @param {App} app
 */
export function drawAtlasFacts({ by, viewer, start: { atlas } }) {
  if (!atlas) return;
  viewer.classList.remove("long");
  by("title").textContent = titleOfAtlas(atlas);
  by("title").classList.remove("unseen");
  by("about").textContent = factsOfAtlas(atlas);
  by("note").textContent = atlas.note;
  by("note").hidden = !atlas.note;
  by("details").hidden = by("truncated").hidden = true;
  for (const id of /** @type {const} */ (["map-about", "first-about"])) by(id).hidden = true;
}

/** @param {Reading} reading */
export function factsOf(reading) {
  const { model, L, H, columns, exactness } = reading;
  /** @param {Words} words */
  const size = ({ U, N, special }) => `${count(U - special.size, "word")}, ${count(N, "token")}`;
  const sizes = columns === reading ? size(reading) : `${size(reading)}, looking at ${size(columns)}`;
  return [model, `${L} layers × ${H} heads`, sizes, exactness].filter(Boolean).join(" · ");
}

/**
 * Where the reply begins that the model wrote itself.
 * @param {Reading} reading
 */
const replyOf = ({ reply, units }) =>
  reply === null
    ? ""
    : `The model wrote the reply, which begins with “${visible(clipped(units[reply], 24))}”: a bar marks it in the view Sentence.`;

/**
 * What the reading takes, and what the server keeps: of use to few, so it is folded away.
 * @param {Reading} reading
 */
function memoryOf({ memory }) {
  if (!memory) return "";
  const taken = `This reading takes ${bytes(memory.reading)} of memory.`;
  if (!memory.used) return taken;
  const kept = `${count(memory.readings, "reading")}, in ${bytes(memory.used)} of the ${bytes(memory.limit)}`;
  return `${taken} The server keeps ${kept} that it may use.`;
}

/**
 * Which maps there are not, and why.
 * @param {Reading} reading
 */
function missingMapsOf({ maps }) {
  const sentences = maps.flatMap(({ name, missing }) => (missing ? `“${name}”: ${missing}` : []));
  return sentences.length ? `Maps that are not there: ${sentences.join(" ")}` : "";
}

/**
 * How much of the text the model has no tokens for.
 * @param {Reading} reading
 */
function unknownWordsOf({ unknown, special, U }) {
  const words = [...unknown].filter((u) => !special.has(u)).length;
  const all = U - special.size;
  return words
    ? `The model knows ${all - words} of ${count(all, "word")}: it cannot tell the underlined ones apart, because its vocabulary has no tokens for them.`
    : "";
}

/** @param {App} app */
export function drawChoices(app) {
  const { root, by, state, reading, defaultWord } = app;
  const { tokens, special, attended, H, columns } = reading;
  const { units } = state.side === "to" ? columns : reading;
  if (root.activeElement !== by("word")) by("word").value = state.word === null ? "" : units[state.word];
  const parts = reading.tokensOf(app.chosenRow() ?? defaultWord());
  fillSelect(
    by("token"),
    parts.map((i, n) => [n, tokens[i]]),
  );
  by("token").value = String(Math.min(state.token, parts.length - 1));
  by("token")
    .closest("label")
    ?.toggleAttribute("hidden", parts.length < 2);
  fillSelect(
    by("layer"),
    attended.map((l) => [l, l]),
  );
  const heads = chosenMap(reading, state).heads || state.view === "walk"; // which is always of one head
  fillSelect(by("head"), heads ? Array.from({ length: H }, (_, h) => [h, h]) : [[state.head, "all heads"]]);
  by("layer").value = String(state.layer);
  by("head").value = String(state.head);
  by("head").disabled = !heads;
  fillSelect(
    by("attention"),
    reading.attentions.map((name) => [name, ATTENTIONS[name]]),
  );
  by("attention").value = reading.attention ?? "";
  by("for-attention").hidden = reading.attentions.length < 2;
  drawMaps(by("map-name"), reading, state);
  by("for-target").hidden = !app.options.reads || !chosenMap(reading, state).target;
  if (root.activeElement !== by("target")) by("target").value = state.target ?? "";
  by("target").placeholder = reading.target ?? "";
  by("map-about").textContent = aboutMap(app);
  by("map-about").hidden = !by("map-about").textContent || state.view === "compare" || state.view === "predictions";
  drawFirst(app);
  drawOfAtlas(app);
  by("tab-predictions").hidden = !reading.predictions && state.view !== "predictions";
  by("hide").checked = state.hide;
  by("hide")
    .closest("label")
    ?.toggleAttribute("hidden", !(special.size + columns.special.size) || Boolean(reading.pictured));
}

/**
 * What the atlas says of the head that is shown, and the way back.
 * @param {App} app
 */
function drawOfAtlas({ by, start: { atlas }, state, reading }) {
  by("atlas-about").hidden = !atlas || state.view === "atlas" || state.view === "compare";
  if (!atlas) return;
  const hasHead = state.view === "map" || state.view === "walk";
  const place = { part: reading.attention ?? "", layer: state.layer, head: state.head };
  by("atlas-about-says").textContent = hasHead ? aboutHead(atlas, place) : "";
}

/**
 * What is said of a first token that takes most of the attention, or is hidden, and whether it is.
 * @param {App} app
 */
function drawFirst({ by, reading, state }) {
  const isHidden = hidesFirst(reading, state);
  by("hide-first").checked = isHidden;
  by("for-first").hidden = !canHideFirst(reading, state) || (state.hide && reading.special.has(0));
  by("first-about").hidden = by("for-first").hidden || !(isHidden || (takesMost(reading) && areWeights(state)));
  if (by("first-about").hidden) return;
  const share = `${percent(reading.first_share ?? 0)} of the attention, the mean over all layers and heads`;
  const hidden = "; it is hidden here, and all other weights stay as they are";
  by("first-says").textContent = capitalized(`${firstName(reading)} takes ${share}${isHidden ? hidden : ""}.`);
  by("first-switch").textContent = isHidden ? "Show it" : "Hide it";
}

/**
 * The maps to choose from; those that are not there say why when they are pointed at.
 * @param {HTMLSelectElement} select
 * @param {Reading} reading
 * @param {Selection} state
 */
function drawMaps(select, { maps }, state) {
  fillSelect(
    select,
    maps.map(({ name, missing }) => [name, wordsOf({ map: name }).label + (missing ? " (not here)" : "")]),
  );
  for (const [n, { missing }] of maps.entries()) {
    const option = select.options[n];
    option.disabled = missing !== null;
    option.title = missing ?? "";
  }
  select.value = state.map;
}
