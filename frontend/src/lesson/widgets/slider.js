// A number that can be moved, and choices of a few.

import { el } from "../../ui/dom.js";
import { format } from "../../ui/format.js";

let made = 0;

/**
 * @param {{label: string, min: number, max: number, step: number, value: number, say?: (value: number) => string, onInput: (value: number) => void}} given
 */
export function slider({ label, min, max, step, value, say = (number) => format(number, 2), onInput }) {
  const id = `slider-${++made}`;
  const input = el("input", { type: "range", id, min, max, step, value });
  const output = el("output", { for: id });
  const draw = () => {
    output.textContent = say(input.valueAsNumber);
    input.setAttribute("aria-valuetext", output.textContent);
  };
  input.addEventListener("input", () => {
    draw();
    onInput(input.valueAsNumber);
  });
  draw();
  return {
    node: /** @type {HTMLElement} */ (el("p", { class: "slider" }, el("label", { for: id }, label), input, output)),
    value: () => /** @type {number} */ (input.valueAsNumber),
    /** @param {number} changed */
    set(changed) {
      input.value = String(changed);
      draw();
    },
  };
}

/**
 * Buttons of which one is pressed.
 * @param {{label: string, options: string[], chosen?: number, onChoose: (n: number) => void}} given
 */
export function options({ label, options: names, chosen = 0, onChoose }) {
  const buttons = names.map((name, n) => {
    const button = el("button", { type: "button", class: "quiet", "aria-pressed": String(n === chosen) }, name);
    button.addEventListener("click", () => {
      set(n);
      onChoose(n);
    });
    return button;
  });
  /** @param {number} wanted */
  const set = (wanted) => {
    for (const [n, button] of buttons.entries()) button.setAttribute("aria-pressed", String(n === wanted));
  };
  const node = el("p", { class: "options", role: "group", "aria-label": label }, el("span", {}, label), ...buttons);
  return { node: /** @type {HTMLElement} */ (node), set };
}
