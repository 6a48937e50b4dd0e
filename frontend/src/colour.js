// Colours: of heads, of weights, and those of the style sheet for a canvas.

import { el } from "./dom.js";

/**
 * Twelve colours of heads for each theme, chosen so that any two differ for everybody: with usual sight by 20 (CIEDE2000)
 * or more, with deuteranopia by 13, with protanopia by 10, and each from the paper by a contrast of 3 or more.
 * tests/test_viewer.py computes it.
 */
const HEADS = {
  light: ["#0f00e1", "#5aa500", "#4b1e00", "#a578ff", "#ff4b96", "#0f4b3c", "#695a00", "#2d2d4b", "#0f69c3", "#963c78", "#96695a", "#5a9696"],
  dark: ["#ffb496", "#1e4bff", "#e1d2ff", "#b43c00", "#e15a78", "#3ca5ff", "#00a5a5", "#ffe100", "#69b400", "#0fffd2", "#5a694b", "#785a78"],
};
const DASHES = [null, "7 4", "2 3"]; // of lines: from the thirteenth head on the colours come again, broken

/** Gives a node the colour of a head. */
export function inHeadColour(node, h) {
  const [light, dark] = [HEADS.light, HEADS.dark].map((colours) => colours[h % colours.length]);
  node.classList.add("head");
  node.style.setProperty("--head", `light-dark(${light}, ${dark})`);
  node.style.setProperty("--on-head", `light-dark(${readable(light)}, ${readable(dark)})`);
  return node;
}

/** How the lines of a head are broken, so that those of equal colours differ. */
export const dashOf = (h) => DASHES[Math.floor(h / HEADS.light.length) % DASHES.length];

/** The colour of a head as it is shown now. */
export const headColour = (h, dark) => HEADS[dark ? "dark" : "light"][h % HEADS.light.length];

/** Black or white, whichever can be read on a colour. */
function readable(colour) {
  const [r, g, b] = [1, 3, 5].map((at) => (parseInt(colour.slice(at, at + 2), 16) / 255) ** 2.2);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 ? "#000" : "#fff";
}

/** 256 colours for weights, equal steps in perceived lightness (Oklab) from paper to ink, through one turn of hue. */
function makeRamp(dark) {
  return Array.from({ length: 256 }, (_, n) => {
    const t = n / 255;
    const lightness = dark ? 0.21 + 0.73 * t : 0.975 - 0.7 * t;
    const chroma = 0.012 + 0.115 * Math.sin(Math.PI * Math.min(1, 0.12 + 0.78 * t)) * Math.min(1, 6 * t);
    const hue = ((dark ? 290 - 185 * t : 105 + 185 * t) * Math.PI) / 180;
    return fromOklab(lightness, chroma * Math.cos(hue), chroma * Math.sin(hue));
  });
}

/** Oklab to sRGB bytes (Björn Ottosson, https://bottosson.github.io/posts/oklab). */
function fromOklab(L, a, b) {
  const l = (L + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (L - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (L - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const linear = [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
  return linear.map((x) =>
    Math.round(255 * Math.min(1, Math.max(0, x <= 0.0031308 ? 12.92 * x : 1.055 * x ** (1 / 2.4) - 0.055))),
  );
}

const ramps = { light: makeRamp(false), dark: makeRamp(true) };

/** The colours from weight 0 to the largest, each [red, green, blue]. */
export const ramp = (dark) => (dark ? ramps.dark : ramps.light);

const DECADES = 4; // of the logarithmic scale

/** A weight's place on the ramp, 0 to 1. */
export function shade(weight, most, scale) {
  if (!(weight > 0) || !(most > 0)) return 0;
  if (scale === "linear") return Math.min(1, weight / most);
  return Math.min(1, Math.max(0, 1 + Math.log10(weight / most) / DECADES));
}

/** The weight at a place of the ramp: the inverse. */
export const weightAt = (place, most, scale) =>
  scale === "linear" ? most * place : most * 10 ** (DECADES * (place - 1));

/** Cells as pixels, on a canvas of their own. */
export function painted(cells, rows, columns, most, scale, dark) {
  const image = new ImageData(columns, rows);
  const pixels = new Uint32Array(image.data.buffer);
  const colours = packed(dark);
  const peak = most > 0 ? most : 1;
  if (scale === "linear") {
    const factor = 255 / peak;
    for (let n = 0; n < cells.length; n++) pixels[n] = colours[Math.min(255, (cells[n] * factor + 0.5) | 0)];
  } else {
    const factor = 255 / DECADES / Math.LN10;
    const added = 255.5 - Math.log(peak) * factor;
    for (let n = 0; n < cells.length; n++) {
      const place = (Math.log(cells[n]) * factor + added) | 0; // −∞ and NaN become 0
      pixels[n] = colours[place < 0 ? 0 : place > 255 ? 255 : place];
    }
  }
  const canvas = el("canvas", { width: columns, height: rows });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** The ramp as 32-bit pixels, in the order of bytes of all machines that browsers run on. */
function packed(dark) {
  return Uint32Array.from(ramp(dark), ([r, g, b]) => (255 << 24) | (b << 16) | (g << 8) | r);
}

/** A colour of the style sheet as "red green blue", for a canvas. */
export function styleColour(parent, name) {
  const probe = el("span", { class: name });
  parent.append(probe);
  const context = el("canvas", { width: 1, height: 1 }).getContext("2d");
  context.fillStyle = getComputedStyle(probe).color;
  probe.remove();
  context.fillRect(0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data.slice(0, 3)].join(" ");
}

/** The colours of text and paper as they are shown now, for a picture that stands alone. */
export function inkOf(viewer) {
  const style = getComputedStyle(viewer);
  const probe = el("span", { class: "probe--soft" });
  viewer.append(probe);
  const soft = hex(getComputedStyle(probe).color);
  probe.remove();
  return { ink: hex(style.color), soft, paper: hex(style.backgroundColor) };
}

/**
 * The largest weight of a picture's cells. Where words see only those before them, the first sees only itself, and many
 * heads park their weight on it: with `apart`, the first row and column do not count, as long as there is more.
 */
export function peakOf(cells, rows, columns, apart = false) {
  let [peak, first] = [0, 0];
  for (let n = 0; n < cells.length; n++) {
    if (!(cells[n] > 0)) continue;
    if (apart && (n < columns || n % columns === 0)) first = Math.max(first, cells[n]);
    else if (cells[n] > peak) peak = cells[n];
  }
  return peak > 0 ? peak : first;
}

/** Any CSS colour as #rrggbb, for a picture that stands alone. */
export function hex(colour) {
  const context = el("canvas", { width: 1, height: 1 }).getContext("2d");
  context.fillStyle = colour;
  context.fillRect(0, 0, 1, 1);
  const [r, g, b] = context.getImageData(0, 0, 1, 1).data;
  return `#${[r, g, b].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}
