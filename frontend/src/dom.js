// How things are put on the page: elements, numbers, groups of buttons, the line of text at the pointer.

const SVG = ["svg", "g", "path", "rect", "text", "tspan", "line", "circle", "image", "title"];

/** An element. Children that are strings become text, never markup: nothing here parses HTML. */
export function el(tag, attributes = {}, ...children) {
  const node = SVG.includes(tag)
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes))
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  node.append(...children);
  return node;
}

/** A word of the text within a sentence of ours, isolated: its script may run the other way. */
export const quoted = (text) => el("q", {}, el("bdi", { dir: "auto" }, clipped(text)));

/** Items as a sentence lists them: one, two and three. */
export const listed = (items) => items.flatMap((item, n) => [n === 0 ? "" : n === items.length - 1 ? " and " : ", ", ...item]);

/** At most 60 letters, with all the accents of each up to a number that a line can hold. */
export function clipped(text, most = 60) {
  if (text.length <= most) return text;
  const points = [...text.slice(0, 4 * most)].slice(0, most);
  return `${points.join("")}…`;
}

/** Puts each value into the elements with its name in data-slot, and nothing where it has none. */
export function fillSlots(root, values) {
  for (const slot of root.querySelectorAll("[data-slot]")) {
    const value = values[slot.dataset.slot] ?? "";
    slot.replaceChildren(...[typeof value === "function" ? value() : value].flat());
  }
}

/** The choices of a <select>, built anew only where they differ: an open menu must not change under the hand. */
export function fillSelect(select, choices) {
  const wanted = choices.map(([value, text]) => `${value} ${text}`).join("\n");
  if (select.dataset.holds === wanted) return;
  select.dataset.holds = wanted;
  select.replaceChildren(...choices.map(([value, text]) => el("option", { value }, String(text))));
}

// ── Numbers ────────────────────────────────────────────────────────────────────────────────────────────────────────

/** A number as a reader sees it, with the exact one in its `value`; `how` is a number of digits, or a function. */
export const shown = (number, how = 3) =>
  el("data", { value: number }, typeof how === "function" ? how(number) : format(number, how));

export function format(number, digits = 3) {
  if (Number.isNaN(number)) return "–";
  return number
    .toFixed(digits)
    .replace(/^-(?=[0.]*$)/, "")
    .replace("-", "−");
}

/** A weight, which may be very small. */
export function formatWeight(weight) {
  if (Number.isNaN(weight)) return "–";
  if (weight === 0 || weight >= 0.001) return weight.toFixed(4);
  const [digits, power] = weight.toExponential(1).split("e-");
  return `${digits}·10⁻${[...power].map((digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]).join("")}`;
}

export function percent(share) {
  if (share > 0 && share < 0.0005) return "below 0.1 %";
  return `${(100 * share).toFixed(share < 0.0995 && share !== 0 ? 1 : 0)} %`;
}

/** A bound on an error, as a decimal number: 7e−8 is “0.0000001”. */
export function bound(error) {
  if (!(error > 0)) return "0";
  return (10 ** Math.ceil(Math.log10(error) - 1e-9)).toFixed(Math.max(0, -Math.ceil(Math.log10(error) - 1e-9)));
}

export const count = (number, name) => `${number.toLocaleString("en")} ${name}${number === 1 ? "" : "s"}`;

export function bytes(number) {
  const steps = ["bytes", "kB", "MB", "GB"];
  let step = 0;
  while (number >= 1000 && step < 3) [number, step] = [number / 1000, step + 1];
  return `${number < 10 && step ? number.toFixed(1) : Math.round(number)} ${steps[step]}`;
}

// ── Keys and pointer ───────────────────────────────────────────────────────────────────────────────────────────────

/** Arrow keys within a group that is one stop of the Tab key. */
export function moveFocus(event, nodes, steps) {
  const step = steps[event.key];
  if (step === undefined) return;
  event.preventDefault();
  const at = nodes.indexOf(event.target.closest("button, [tabindex]")) + step;
  nodes[Math.min(nodes.length - 1, Math.max(0, at))]?.focus();
}

/** A line of text just above a point of the window, or below it where there is no room. */
export function tooltip(node) {
  return {
    show(x, y, text) {
      node.textContent = text;
      node.hidden = false;
      const { width, height } = node.getBoundingClientRect();
      node.style.left = `${Math.max(8, Math.min(innerWidth - width - 8, x - width / 2))}px`;
      node.style.top = `${y > height + 16 ? y - height - 8 : y + 56}px`;
    },
    hide() {
      node.hidden = true;
    },
  };
}

/** A vector as bars up and down from a line, or as a row of cells. The pointer, or the arrow keys, tell its numbers. */
export function strip(vector, name, colours, tip, { cells = false, most = Math.max(...vector.map(Math.abs)) } = {}) {
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
    tip.show(box.left + ((at + 0.5) * box.width) / n, box.top, `${name}, number ${at}: ${format(vector[at], 4)}`);
  };
  const point = (event) => {
    const box = canvas.getBoundingClientRect();
    tell(Math.floor(((event.clientX - box.left) / box.width) * n));
  };
  canvas.addEventListener("pointermove", point);
  canvas.addEventListener("pointerdown", point);
  canvas.addEventListener("pointerleave", () => tip.hide());
  if (cells) return canvas; // so many in a table that stopping at each would be a burden
  canvas.tabIndex = 0;
  canvas.addEventListener("focus", () => canvas.matches(":focus-visible") && tell(at));
  canvas.addEventListener("blur", () => tip.hide());
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    tell(at + step);
  });
  return canvas;
}
