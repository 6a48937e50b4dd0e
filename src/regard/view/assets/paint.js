// How things are put on the page: elements, numbers, colours, canvases.

/** An element. Children that are strings become text, never markup: nothing here parses HTML. */
function el(tag, attributes = {}, ...children) {
  const svg = ["svg", "g", "path", "rect", "text"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes))
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  node.append(...children);
  return node;
}

const byId = (id) => document.getElementById(id);

/** A word of the text within a sentence of ours, isolated: its script may run the other way. */
const quoted = (text) => el("q", {}, el("bdi", { dir: "auto" }, text));

/** Puts each value into the elements with its name in data-slot, and nothing where it has none. */
function fillSlots(root, values) {
  for (const slot of root.querySelectorAll("[data-slot]")) {
    const value = values[slot.dataset.slot] ?? "";
    slot.replaceChildren(...[typeof value === "function" ? value() : value].flat());
  }
}

/** A number as a reader sees it, with the exact one in its `value`. */
const shown = (number, digits = 3) => el("data", { value: number }, format(number, digits));

function format(number, digits = 3) {
  if (Number.isNaN(number)) return "–";
  return number
    .toFixed(digits)
    .replace(/^-(?=[0.]*$)/, "")
    .replace("-", "−");
}

const percent = (share) => `${(100 * share).toFixed(share < 0.095 ? 1 : 0)} %`;

// ── Colours ────────────────────────────────────────────────────────────────────────────────────────────────────────

const isDark = () =>
  (document.documentElement.dataset.theme ??
    (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

/** Gives a node the colour of a head: class "head" in reading.css makes it from a hue and a tone. */
function inHeadColour(node, h) {
  // Neighbouring heads lie 150° apart, and neighbouring hues differ in lightness. Twelve hues; more where needed.
  const hues = Math.max(12, HEADS + (HEADS % 2));
  let stride = Math.round((hues * 5) / 12);
  while (commonDivisor(stride, hues) > 1) stride++;
  const hue = (h * stride) % hues;
  node.classList.add("head");
  node.style.setProperty("--hue", 25 + (360 * hue) / hues);
  node.style.setProperty("--tone", hues > 12 ? (hue % 3) / 2 : hue % 2);
  return node;
}

const commonDivisor = (a, b) => (b ? commonDivisor(b, a % b) : a);

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
const ramp = () => (isDark() ? ramps.dark : ramps.light);

/** A colour of the style sheet as "red green blue", for a canvas. */
function styleColour(name) {
  const probe = el("span", { class: name });
  document.body.append(probe);
  const context = el("canvas", { width: 1, height: 1 }).getContext("2d");
  context.fillStyle = getComputedStyle(probe).color;
  probe.remove();
  context.fillRect(0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data.slice(0, 3)].join(" ");
}

// ── Canvases ───────────────────────────────────────────────────────────────────────────────────────────────────────

/** The largest weight between visible units: the dark end of the scale. */
function largest(all, visible) {
  let most = 0;
  for (const u of visible) for (const v of visible) most = Math.max(most, all[u * U + v]);
  return most;
}

/** A weight's place on the colour ramp, 0 to 1. The root makes small weights visible; the legend follows. */
const shade = (weight, most, root) => (most > 0 ? (root ? Math.sqrt(weight / most) : weight / most) : 0);

/** One pixel a weight, on a canvas of its own. Where they are more than `room`, a pixel is the largest of several. */
function pixels(all, visible, most, root, room = visible.length) {
  const n = Math.min(visible.length, room);
  const place = (k) => Math.floor((k * n) / visible.length);
  const peaks = new Float32Array(n * n);
  visible.forEach((u, y) =>
    visible.forEach((v, x) => {
      const pixel = place(y) * n + place(x);
      peaks[pixel] = Math.max(peaks[pixel], all[u * U + v]);
    }),
  );
  const image = new ImageData(n, n);
  const colours = ramp();
  peaks.forEach((weight, pixel) => {
    const [r, g, b] = colours[Math.round(255 * Math.min(1, shade(weight, most, root)))];
    image.data.set([r, g, b, 255], 4 * pixel);
  });
  const canvas = el("canvas", { width: n, height: n });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** A vector as bars up and down from a line, or as a row of cells. The pointer, or the arrow keys, tell its numbers. */
function strip(vector, name, colours, { cells = false, most = Math.max(...vector.map(Math.abs)) } = {}) {
  const n = vector.length;
  const [wide, high, gap] = cells ? [1, 1, 0] : n > 100 ? [4, 96, 1] : [24, 96, 4];
  const canvas = el("canvas", { class: cells ? "cells" : "bars", width: n * wide, height: high, role: "img" });
  const ends = [Math.min(...vector), Math.max(...vector)].map((number) => format(number));
  canvas.setAttribute("aria-label", `${name}: ${n} numbers from ${ends.join(" to ")}`);
  const context = canvas.getContext("2d");
  vector.forEach((number, d) => {
    const share = most > 0 ? Math.abs(number) / most : 0;
    context.fillStyle = `rgb(${number < 0 ? colours.minus : colours.plus} / ${cells ? share : 1})`;
    const length = cells ? 1 : Math.max(1, (share * high) / 2);
    context.fillRect(d * wide, cells ? 0 : number < 0 ? high / 2 : high / 2 - length, wide - gap, length);
  });

  let at = 0;
  const tell = (d) => {
    at = Math.min(n - 1, Math.max(0, d));
    const box = canvas.getBoundingClientRect();
    showTip(box.left + ((at + 0.5) * box.width) / n, box.top, `${name}, number ${at}: ${format(vector[at], 4)}`);
  };
  const point = (event) => {
    const box = canvas.getBoundingClientRect();
    tell(Math.floor(((event.clientX - box.left) / box.width) * n));
  };
  canvas.addEventListener("pointermove", point);
  canvas.addEventListener("pointerdown", point);
  canvas.addEventListener("pointerleave", hideTip);
  if (cells) return canvas; // so many in a table that stopping at each would be a burden
  canvas.tabIndex = 0;
  canvas.addEventListener("focus", () => canvas.matches(":focus-visible") && tell(at));
  canvas.addEventListener("blur", hideTip);
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    tell(at + step);
  });
  return canvas;
}

/** A line of text just above a point of the window, or below it where there is no room. */
function showTip(x, y, text) {
  const tip = byId("tip");
  tip.textContent = text;
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(8, Math.min(innerWidth - width - 8, x - width / 2))}px`;
  tip.style.top = `${y > height + 16 ? y - height - 8 : y + 56}px`;
}

function hideTip() {
  byId("tip").hidden = true;
}
