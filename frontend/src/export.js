// Saving what is shown: a picture (PNG, or SVG for papers), its numbers (CSV), or all of the reading as one file (HTML).

import { parametersOf } from "./address.js";
import { visible } from "./words.js";

/** Saves a view: it gives its `picture` as SVG, and its `table` as rows, the first of them the names. */
export async function save(app, view, kind) {
  const name = fileName(app, kind);
  if (kind === "csv") return download(name, "text/csv;charset=utf-8", csv(await view.table()));
  if (kind === "html") return download(name, "text/html;charset=utf-8", await page(app));
  const svg = await drawn(view);
  if (kind === "svg") return download(name, "image/svg+xml", svg);
  download(name, "image/png", await pixelsOf(svg));
}

/** The whole reading as a page of its own, which opens as it is shown: written by Python, or the page itself. */
async function page(app) {
  if (app.options.frozen) return app.options.frozen(app.link());
  const { view, layer, head, word, same } = app.state;
  const { texts, ...rest } = app.comparison();
  const compared = { ...rest, texts: texts.split("\n").filter((text) => text.trim()) };
  const goesAlong = same || view === "compare" ? compared : undefined; // a comparison that was looked at
  const question = { type: "page", layer, head, word: word ?? undefined, link: app.link(), comparison: goesAlong };
  return (await app.ask(question)).html;
}

/** The view's picture as the text of an SVG file. */
async function drawn(view) {
  const svg = await view.picture();
  svg.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  const text = new XMLSerializer().serializeToString(svg);
  return (text.toWellFormed?.() ?? text).replace(NOT_XML, "\ufffd");
}

const NOT_XML = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g; // characters that no XML file may hold

/** The SVG as a PNG, twice as fine as the screen's pixels. */
async function pixelsOf(svg) {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
  await image.decode();
  const fine = Math.min(2, 16_000 / Math.max(image.width, image.height)); // browsers draw no larger pictures
  const canvas = document.createElement("canvas");
  canvas.width = Math.ceil(image.width * fine);
  canvas.height = Math.ceil(image.height * fine);
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

/** Rows as RFC 4180 has them. A cell that a spreadsheet would run as a formula is kept a text. */
export function csv(rows) {
  const cell = (value) => {
    if (typeof value === "number") return String(value);
    const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
    return /[",\r\n']/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return rows.map((row) => `${row.map(cell).join(",")}\r\n`).join("");
}

/** A name that says what is shown, and ends with a number of all that was chosen, so that no two pictures share one. */
function fileName(app, kind) {
  const { state, reading } = app;
  const asWords = (text, most) => (text.toLowerCase().match(/[\p{L}\p{N}\p{M}]+/gu) ?? []).slice(0, most).join("-").slice(0, 40);
  const { same, texts } = app.comparison();
  const isComparison = state.view === "compare" && kind !== "html";
  const subject = isComparison ? same ?? app.comparison().word : (reading?.text ?? "regard");
  const word = state.word === null || !reading ? "" : asWords(visible(reading.units[state.word]), 2);
  const where = {
    sentence: ["sentence", word, `layer-${state.layer}`, state.heads?.length === 1 && `head-${state.heads[0]}`],
    heads: ["heads"],
    map: ["map", `layer-${state.layer}`, `head-${state.head}`],
    walk: ["walk", word, `layer-${state.layer}`, `head-${state.head}`],
    compare: ["compare", state.after !== null && (state.after ? `layer-${state.after - 1}` : "before")],
  }[state.view];
  const chosen = `${parametersOf(state, reading)} ${app.isDark()} ${isComparison ? texts : `${reading?.id} ${reading?.text}`}`;
  const parts = [asWords(subject, 4) || "regard", ...(kind === "html" ? [] : where), checksum(chosen)];
  return `${parts.filter(Boolean).join("-")}.${kind}`;
}

/** Six letters of a text's FNV-1a hash. */
function checksum(text) {
  let hash = 0x811c9dc5;
  for (let n = 0; n < text.length; n++) hash = Math.imul(hash ^ text.charCodeAt(n), 0x01000193) >>> 0;
  return hash.toString(36).padStart(6, "0").slice(-6);
}

function download(name, type, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
