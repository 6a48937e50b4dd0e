// Saving what is shown: a picture (PNG, or SVG for papers), its numbers (CSV), or all of the reading as one file (HTML).

import { el } from "../ui/dom.js";
import { mapRequest } from "../ui/maps.js";
import { contextOf } from "../ui/paint.js";
import { visible } from "../ui/words.js";
import { comparedTexts } from "../views/compare/compared-texts.js";
import { csv, fileName } from "./export-names.js";
import { parametersOf } from "./selection.js";

/** @import { App, SaveKind, View } from "../types.js" */

/** @param {App} app @param {View} view @param {SaveKind} kind */
export async function save(app, view, kind) {
  const name = nameOf(app, kind);
  if (kind === "csv") return download(name, "text/csv;charset=utf-8", csv(await view.table()));
  if (kind === "html") return download(name, "text/html;charset=utf-8", await page(app));
  const svg = serialized(await view.picture());
  download(name, kind === "svg" ? "image/svg+xml" : "image/png", kind === "svg" ? svg : await pixelsOf(svg));
}

/**
 * The whole reading as a page of its own, which opens as it is shown: written by Python, or the page itself.
 * @param {App} app
 */
async function page(app) {
  if (app.options.reopened) return app.options.reopened(app.link());
  const { view, layer, head, word, same } = app.state;
  const { texts, ...compared } = comparedTexts(app.state);
  const comparison = { ...compared, texts: texts.split("\n").filter((text) => text.trim()) };
  const isIncluded = same || view === "compare"; // a comparison that was looked at
  const request = { type: /** @type {const} */ ("page"), layer, head, word: word ?? undefined, link: app.link() };
  const { target } = mapRequest(app.reading, app.state);
  return (await app.request({ ...request, target, comparison: isIncluded ? comparison : undefined })).html;
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: these are the characters that no XML file may hold
const NOT_XML = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g;

/**
 * A picture as the text of an SVG file.
 * @param {SVGElement} svg
 */
function serialized(svg) {
  svg.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  /** @type {any} */
  const text = new XMLSerializer().serializeToString(svg);
  return (text.toWellFormed?.() ?? text).replace(NOT_XML, "\ufffd");
}

/**
 * The SVG as a PNG, twice as fine as the screen's pixels.
 * @param {string} svg
 * @returns {Promise<Blob>}
 */
async function pixelsOf(svg) {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
  await image.decode();
  const fine = Math.min(2, 16_000 / Math.max(image.width, image.height)); // browsers draw no larger pictures
  const canvas = el("canvas", { width: Math.ceil(image.width * fine), height: Math.ceil(image.height * fine) });
  contextOf(canvas).drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

/** @param {App} app @param {SaveKind} kind */
function nameOf(app, kind) {
  const { state, reading } = app;
  const { word, texts } = comparedTexts(state);
  const isComparison = state.view === "compare" && kind !== "html";
  const model = state.view === "atlas" && app.start.atlas?.model;
  const { units = [] } = (state.side === "to" ? reading?.columns : reading) ?? {};
  const shown = isComparison ? texts : `${reading?.id} ${reading?.text}`;
  return fileName(state, kind, {
    subject: model || (isComparison ? word : (reading?.text ?? "regard")),
    word: state.word === null || !reading ? "" : visible(units[state.word]),
    all: `${parametersOf(state, reading)} ${app.isDark()} ${shown}`,
  });
}

/** @param {string} name @param {string} type @param {Blob | string} content */
function download(name, type, content) {
  const blob = content instanceof Blob ? content : new Blob([content], { type });
  const link = el("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
