// Elements of the page. Strings become text, never markup: nothing here parses HTML.

import { clipped, format } from "./format.js";

const SVG = ["svg", "g", "path", "rect", "text", "tspan", "line", "circle", "image", "title"];

/** @typedef {Record<string, string | number | boolean | null | undefined>} Attributes */
/** @typedef {Node | string} Child */

/**
 * An element; attributes that are null, undefined or false are left out.
 * @param {string} tag
 * @param {Attributes} [attributes]
 * @param {...Child} children
 * @returns {any}
 */
export function el(tag, attributes = {}, ...children) {
  const node = SVG.includes(tag)
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes))
    if (value !== null && value !== undefined && value !== false)
      node.setAttribute(name, value === true ? "" : String(value));
  node.append(...children);
  return node;
}

/**
 * A word of the text within a sentence of the page, isolated: its script may run the other way.
 * @param {string} text
 */
export const quoted = (text) => el("q", {}, el("bdi", { dir: "auto" }, clipped(text)));

/**
 * A number, with the exact one in its `value`; `how` is a number of digits, or a function.
 * @param {number} number
 * @param {number | ((number: number) => string)} [how]
 */
export const dataElement = (number, how = 3) =>
  el("data", { value: number }, typeof how === "function" ? how(number) : format(number, how));

/**
 * Puts each value into the elements with its name in data-slot, and nothing where there is no value.
 * @param {ParentNode} root
 * @param {Record<string, any>} values
 */
export function fillSlots(root, values) {
  for (const slot of /** @type {NodeListOf<HTMLElement>} */ (root.querySelectorAll("[data-slot]"))) {
    const value = values[slot.dataset.slot ?? ""] ?? "";
    slot.replaceChildren(...[typeof value === "function" ? value() : value].flat());
  }
}

/**
 * The choices of a <select>, built anew only where they differ: an open menu must not change under the hand.
 * @param {HTMLSelectElement} select
 * @param {[string | number, string | number][]} choices
 */
export function fillSelect(select, choices) {
  const wanted = choices.map(([value, text]) => `${value} ${text}`).join("\n");
  if (select.dataset.holds === wanted) return;
  select.dataset.holds = wanted;
  select.replaceChildren(...choices.map(([value, text]) => el("option", { value }, String(text))));
}

/**
 * The nearest element around an event's target that matches a selector.
 * @param {Event} event
 * @param {string} selector
 */
export const closest = (event, selector) =>
  /** @type {HTMLElement | null} */ (/** @type {Element} */ (event.target).closest(selector));

/**
 * The value of a control that changed.
 * @param {Event} event
 */
export const valueFrom = (event) => /** @type {HTMLInputElement | HTMLSelectElement} */ (event.target).value;

/**
 * Arrow keys within a group that is one stop of the Tab key.
 * @param {KeyboardEvent} event
 * @param {HTMLElement[]} nodes
 * @param {Record<string, number>} steps by key
 */
export function moveFocus(event, nodes, steps) {
  const step = steps[event.key];
  if (step === undefined) return;
  event.preventDefault();
  const focused = closest(event, "button, [tabindex]");
  const place = (focused ? nodes.indexOf(focused) : -1) + step;
  nodes[Math.min(nodes.length - 1, Math.max(0, place))]?.focus();
}

/**
 * A line of text just above a point of the window, or below it where there is no room.
 * @param {HTMLElement} node
 * @returns {import("../types.js").Tip}
 */
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
