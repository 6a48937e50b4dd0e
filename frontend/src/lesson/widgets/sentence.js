// A sentence whose words can be edited, or change places.

import { el } from "../../ui/dom.js";

let made = 0;

/**
 * A text to edit, with texts to choose from. What is typed is read after a moment of rest.
 * @param {{label: string, text: string, texts?: string[], onText: (text: string) => void}} given
 */
export function sentence({ label, text, texts = [], onText }) {
  const id = `sentence-${++made}`;
  const input = el("input", {
    type: "text",
    id,
    value: text,
    autocomplete: "off",
    spellcheck: "false",
    maxlength: 120,
  });
  let last = text;
  /** @type {ReturnType<typeof setTimeout>} */
  let waiting;
  const tell = () => {
    clearTimeout(waiting);
    const now = input.value.trim();
    if (!now || now === last) return;
    last = now;
    onText(now);
  };
  input.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(tell, 400);
  });
  input.addEventListener("change", tell);
  const offers = texts.map((offer) => {
    const button = el("button", { type: "button", class: "quiet" }, offer);
    button.addEventListener("click", () => {
      input.value = offer;
      tell();
    });
    return button;
  });
  const node = el("div", { class: "sentence-input" }, el("label", { for: id }, label), input);
  if (offers.length) node.append(el("p", { class: "options", role: "group", "aria-label": "Texts to try" }, ...offers));
  return {
    node: /** @type {HTMLElement} */ (node),
    /** @param {string} changed */
    set(changed) {
      input.value = changed;
      last = changed;
    },
  };
}

/**
 * Words in a row, each with a button that exchanges it with the next.
 * @param {{label: string, words: string[], onSwap: (words: string[], at: number) => void}} given
 */
export function swapped({ label, words: first, onSwap }) {
  let words = first.slice();
  const list = el("ol", { class: "swapped", "aria-label": label });
  const says = el("p", { class: "unseen", role: "status" });
  const draw = () =>
    list.replaceChildren(
      ...words.map((word, n) => {
        const item = el("li", {}, el("bdi", {}, word));
        if (n === words.length - 1) return item;
        const button = el(
          "button",
          { type: "button", class: "quiet", "aria-label": `Swap ${word} and ${words[n + 1]}` },
          "⇄",
        );
        button.addEventListener("click", () => {
          [words[n], words[n + 1]] = [words[n + 1], words[n]];
          draw();
          /** @type {HTMLElement | null} */ (list.children[n].querySelector("button"))?.focus();
          says.textContent = `Now: ${words.join(" ")}`;
          onSwap(words.slice(), n);
        });
        item.append(button);
        return item;
      }),
    );
  draw();
  return {
    node: /** @type {HTMLElement} */ (el("div", {}, list, says)),
    /** @param {string[]} changed */
    set(changed) {
      words = changed.slice();
      draw();
    },
  };
}
