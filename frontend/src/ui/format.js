// Numbers and words as a reader sees them.

/** @param {number} number @param {number} [digits] */
export function format(number, digits = 3) {
  if (Number.isNaN(number)) return "–";
  return number
    .toFixed(digits)
    .replace(/^-(?=[0.]*$)/, "")
    .replace("-", "−");
}

/**
 * A weight, or another number that may be very small.
 * @param {number} weight
 */
export function formatWeight(weight) {
  const size = Math.abs(weight);
  if (Number.isNaN(weight) || size === 0 || size >= 0.001) return format(weight, 4);
  const [digits, power] = weight.toExponential(1).replace(/^-/, "−").split("e-");
  return `${digits}·10⁻${[...power].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(digit)]).join("")}`;
}

/** @param {number} share */
export function percent(share) {
  if (share > 0 && share < 0.0005) return "below 0.1 %";
  return `${(100 * share).toFixed(share < 0.0995 && share !== 0 ? 1 : 0)} %`;
}

/**
 * A number in its cell, with as many digits as the largest needs to have two; nothing where these would be zeros.
 * @param {number} number
 * @param {number} peak
 */
export function numberInCell(number, peak) {
  const digits = peak >= 100 ? 0 : peak >= 10 ? 1 : peak >= 0.1 ? 2 : peak >= 0.01 ? 3 : 4;
  return Math.abs(number) >= 0.5 * 10 ** -digits ? format(number, digits).replace(/^(−?)0\./, "$1.") : "";
}

/**
 * A bound on an error, as a decimal number: 7e−8 is “0.0000001”.
 * @param {number} error
 */
export function bound(error) {
  if (!(error > 0)) return "0";
  const power = Math.ceil(Math.log10(error) - 1e-9);
  return (10 ** power).toFixed(Math.max(0, -power));
}

/**
 * A number of things: “1 word”, “2 words”.
 * @param {number} number
 * @param {string} name
 */
export const count = (number, name) => `${number.toLocaleString("en")} ${name}${number === 1 ? "" : "s"}`;

/**
 * A size in bytes.
 * @param {number} size
 */
export function bytes(size) {
  const units = ["bytes", "kB", "MB", "GB"];
  let step = 0;
  let number = size;
  while (number >= 1000 && step < 3) [number, step] = [number / 1000, step + 1];
  return `${number < 10 && step ? number.toFixed(1) : Math.round(number)} ${units[step]}`;
}

/**
 * At most 60 letters, with all the accents of each up to a number that a line can hold.
 * @param {string} text
 */
export function clipped(text, length = 60) {
  if (text.length <= length) return text;
  const letters = [...text.slice(0, 4 * length)].slice(0, length);
  return `${letters.join("")}…`;
}

/**
 * Items as a sentence lists them: a, b and c.
 * @template T
 * @param {T[][]} items
 * @returns {(T | string)[]}
 */
export const listed = (items) =>
  items.flatMap((item, n) => [n === 0 ? "" : n === items.length - 1 ? " and " : ", ", ...item]);

/** @param {string} text */
export const capitalized = (text) => text.replace(/^./, (letter) => letter.toUpperCase());
