// Colours of heads and of weights.

/** @import { Range } from "../types.js" */

/**
 * Twelve colours of heads for each theme, chosen so that any two differ for everybody: with usual sight by 20 (CIEDE2000)
 * or more, with deuteranopia by 13, with protanopia by 10, and each from the paper by a contrast of 3 or more.
 * tests/test_view_page.py computes it.
 */
export const HEADS = {
  light: [
    ...["#0f00e1", "#5aa500", "#4b1e00", "#a578ff", "#ff4b96", "#0f4b3c"],
    ...["#695a00", "#2d2d4b", "#0f69c3", "#963c78", "#96695a", "#5a9696"],
  ],
  dark: [
    ...["#ffb496", "#1e4bff", "#e1d2ff", "#b43c00", "#e15a78", "#3ca5ff"],
    ...["#00a5a5", "#ffe100", "#69b400", "#0fffd2", "#5a694b", "#785a78"],
  ],
};
const DASHES = [null, "7 4", "2 3"]; // of lines: from the thirteenth head on the colours repeat, with dashes

/**
 * The dashes of a head's lines, by which lines of equal colours differ.
 * @param {number} h
 */
export const dashOf = (h) => DASHES[Math.floor(h / HEADS.light.length) % DASHES.length];

/** @param {number} h @param {boolean} dark */
export const headColour = (h, dark) => HEADS[dark ? "dark" : "light"][h % HEADS.light.length];

/**
 * Black or white, whichever can be read on a colour.
 * @param {string} colour as #rrggbb
 */
export function readable(colour) {
  const [r, g, b] = [1, 3, 5].map((at) => (Number.parseInt(colour.slice(at, at + 2), 16) / 255) ** 2.2);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 ? "#000" : "#fff";
}

/**
 * 256 colours for weights, equal steps in perceived lightness (Oklab) from paper to ink, through one turn of hue.
 * @param {boolean} dark
 */
function makeRamp(dark) {
  return Array.from({ length: 256 }, (_, n) => {
    const t = n / 255;
    const lightness = dark ? 0.21 + 0.73 * t : 0.975 - 0.7 * t;
    const chroma = 0.012 + 0.115 * Math.sin(Math.PI * Math.min(1, 0.12 + 0.78 * t)) * Math.min(1, 6 * t);
    const hue = ((dark ? 290 - 185 * t : 105 + 185 * t) * Math.PI) / 180;
    return fromOklab(lightness, chroma * Math.cos(hue), chroma * Math.sin(hue));
  });
}

/**
 * Oklab to sRGB bytes (Björn Ottosson, https://bottosson.github.io/posts/oklab).
 * @param {number} L
 * @param {number} a
 * @param {number} b
 */
export function fromOklab(L, a, b) {
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

const MIDDLE = 128; // the colour of 0 where numbers have signs

/**
 * 256 colours for numbers with signs: from blue, below 0, by paper to orange, which everybody can tell apart.
 * @param {boolean} dark
 */
function makeDiverging(dark) {
  return Array.from({ length: 256 }, (_, n) => {
    const t = Math.max(-1, (n - MIDDLE) / (255 - MIDDLE));
    const size = Math.abs(t);
    const lightness = dark ? 0.21 + 0.55 * size : 0.975 - 0.47 * size;
    const chroma = 0.145 * size ** 0.8;
    const hue = ((t < 0 ? 258 : 52) * Math.PI) / 180;
    return fromOklab(lightness, chroma * Math.cos(hue), chroma * Math.sin(hue));
  });
}

const ramps = { light: makeRamp(false), dark: makeRamp(true) };
const diverging = { light: makeDiverging(false), dark: makeDiverging(true) };

/**
 * The colours from 0 to the largest weight, or from −peak to peak, each [red, green, blue].
 * @param {boolean} dark
 * @param {boolean} signed
 */
export const ramp = (dark, signed) => (signed ? diverging : ramps)[dark ? "dark" : "light"];

/**
 * The ramp's colour at a place from 0 to 1, as CSS has it.
 * @param {number} place
 * @param {boolean} dark
 * @param {boolean} signed
 */
export const rampColour = (place, dark, signed) => `rgb(${ramp(dark, signed)[Math.round(255 * place)].join(",")})`;

/**
 * Black or white, whichever can be read on the colour of a number.
 * @param {number} number
 * @param {Range} range
 * @param {boolean} dark
 */
export function readableOn(number, range, dark) {
  const bytes = ramp(dark, range.signed)[Math.round(255 * shade(number, range))];
  return readable(`#${bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("")}`);
}

export const DECADES = 4; // of the logarithmic scale

/**
 * A number's place on the ramp, 0 to 1.
 * @param {number} number
 * @param {Range} range
 */
export function shade(number, { peak, scale, signed }) {
  const size = Math.abs(number);
  if (!(size > 0) || !(peak > 0)) return signed ? 0.5 : 0;
  const share = Math.min(1, scale === "linear" ? size / peak : Math.max(0, 1 + Math.log10(size / peak) / DECADES));
  if (signed) return 0.5 + (Math.sign(number) * share) / 2;
  return number > 0 ? share : 0;
}

/**
 * The number at a place of the ramp: the inverse of `shade`.
 * @param {number} place
 * @param {Range} range
 * @returns {number}
 */
export function numberAt(place, { peak, scale, signed }) {
  if (signed) return Math.sign(place - 0.5) * numberAt(Math.abs(2 * place - 1), { peak, scale, signed: false });
  return scale === "linear" ? peak * place : peak * 10 ** (DECADES * (place - 1));
}

/**
 * Whether white can be read on the colour of a number.
 * @param {number} number
 * @param {Range} range
 * @param {boolean} dark
 */
export function needsWhite(number, range, dark) {
  const place = shade(number, range);
  if (range.signed) return Math.abs(2 * place - 1) > (dark ? 0.6 : 0.75) !== dark;
  return place > 0.5 !== dark;
}

/**
 * The largest number of a picture's cells, by magnitude. Where words see only those before them, the first sees only itself, and many
 * heads park their weight on it: `withoutFirst` leaves the first row and column out, as long as there is more.
 * @param {ArrayLike<number>} cells
 * @param {number} columns
 * @param {boolean} [withoutFirst]
 */
export function peakOf(cells, columns, withoutFirst = false) {
  let [peak, first] = [0, 0];
  for (let n = 0; n < cells.length; n++) {
    const size = Math.abs(cells[n]);
    if (!(size > 0)) continue;
    if (withoutFirst && (n < columns || n % columns === 0)) first = Math.max(first, size);
    else if (size > peak) peak = size;
  }
  return peak > 0 ? peak : first;
}
