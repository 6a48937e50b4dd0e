// Saving what is shown: a picture (PNG, or SVG for papers), its numbers (CSV), or all of the reading as one file (HTML).

import { hex } from "./colour.js";

/** Saves a view: it gives its `picture` as SVG, and its `table` as rows, the first of them the names. */
export async function save(app, view, kind) {
  const name = fileName(app, kind);
  if (kind === "csv") return download(name, "text/csv;charset=utf-8", csv(await view.table()));
  if (kind === "html") return download(name, "text/html;charset=utf-8", await page(app));
  const svg = await drawn(app, view);
  if (kind === "svg") return download(name, "image/svg+xml", svg);
  download(name, "image/png", await pixelsOf(svg));
}

/** The whole reading as a page of its own: written by Python, or, in such a page, the page itself. */
async function page(app) {
  if (app.options.frozen) return app.options.frozen;
  const { view, layer, head, word, same } = app.state;
  const { texts, ...rest } = app.comparison();
  const compared = { ...rest, texts: texts.split("\n").filter((text) => text.trim()) };
  const shown = same || view === "compare"; // a comparison goes along where one was looked at
  return (await app.ask({ what: "page", layer, head, word: word ?? undefined, same: shown ? compared : undefined })).html;
}

/** The view's picture as the text of an SVG file, on paper of the theme's colour. */
async function drawn(app, view) {
  const style = getComputedStyle(app.viewer);
  const svg = await view.picture(hex(style.color));
  svg.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  svg.setAttribute("font-family", "system-ui, 'Noto Sans', 'DejaVu Sans', sans-serif");
  const paper = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  for (const [name, value] of Object.entries({ width: "100%", height: "100%", fill: hex(style.backgroundColor) }))
    paper.setAttribute(name, value);
  svg.prepend(paper);
  return new XMLSerializer().serializeToString(svg);
}

/** The SVG as a PNG, twice as fine as the screen's pixels. */
async function pixelsOf(svg) {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
  await image.decode();
  const fine = Math.min(2, 8000 / Math.max(image.width, image.height));
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

function fileName({ state, reading }, kind) {
  const words = (reading?.text ?? state.same ?? "regard").toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? ["regard"];
  const where = kind === "html" ? "" : `-${state.view}`;
  return `${words.slice(0, 4).join("-").slice(0, 40)}${where}.${kind}`;
}

function download(name, type, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
