// The ways to answer an exercise: choose, give a number, draw weights, put in order.

import { el } from "../ui/dom.js";
import { rich } from "./prose.js";
import { drawnBars } from "./widgets/bars.js";

/** @import { Answer, ChoiceTask, NumberTask, OrderTask, Task, WeightsTask } from "./types.js" */
/** @typedef {{node: HTMLElement, answer: () => Answer, reset: () => void, focus: () => void}} Input */

/**
 * @param {string} id
 * @param {Task} task
 * @returns {Input}
 */
export function inputOf(id, task) {
  if (task.kind === "choice") return choiceInput(id, task);
  if (task.kind === "number") return numberInput(id, task);
  if (task.kind === "weights") return weightsInput(id, task);
  return orderInput(id, task);
}

/** @param {string} id @param {ChoiceTask} task @returns {Input} */
function choiceInput(id, { options }) {
  const buttons = options.map((_, value) => el("input", { type: "radio", name: id, value }));
  const node = el("fieldset", {
    class: "choices",
    "aria-labelledby": `${id}-question`,
    "aria-describedby": `${id}-rule`,
  });
  node.append(...buttons.map((button, n) => el("label", {}, button, el("span", {}, ...rich(options[n])))));
  return {
    node,
    answer: () => (buttons.some(({ checked }) => checked) ? buttons.findIndex(({ checked }) => checked) : null),
    reset: () => {
      for (const button of buttons) button.checked = false;
    },
    focus: () => buttons[0].focus(),
  };
}

/** @param {string} id @param {NumberTask} task @returns {Input} */
function numberInput(id, { unit }) {
  const input = el("input", { type: "text", inputmode: "decimal", autocomplete: "off", size: 8 });
  input.setAttribute("aria-labelledby", `${id}-question`);
  input.setAttribute("aria-describedby", `${id}-rule`);
  return {
    node: el("p", { class: "number-input" }, input, unit ? ` ${unit}` : ""),
    answer: () => input.value,
    reset: () => {
      input.value = "";
    },
    focus: () => input.focus(),
  };
}

/** @param {string} id @param {WeightsTask} task @returns {Input} */
function weightsInput(id, { words }) {
  const bars = drawnBars({ words, label: "Your weights", describedBy: `${id}-question ${id}-rule` });
  return { node: bars.node, answer: bars.weights, reset: bars.reset, focus: bars.focus };
}

/** @param {string} id @param {OrderTask} task @returns {Input} */
function orderInput(id, { items }) {
  const list = el("ol", { class: "order", "aria-labelledby": `${id}-question`, "aria-describedby": `${id}-rule` });
  const said = el("p", { class: "unseen", role: "status" });
  let order = items.map((_, place) => place);
  /** @param {number} from @param {number} step */
  const move = (from, step) => {
    const to = from + step;
    [order[from], order[to]] = [order[to], order[from]];
    draw();
    const buttons = list.children[to].querySelectorAll("button");
    const same = buttons[step < 0 ? 0 : 1];
    (same.disabled ? buttons[step < 0 ? 1 : 0] : same).focus();
    said.textContent = `${items[order[to]]} is now number ${to + 1} of ${items.length}.`;
  };
  const draw = () =>
    list.replaceChildren(
      ...order.map((place, n) => {
        const up = el(
          "button",
          { type: "button", class: "quiet", "aria-label": `${items[place]}: up`, disabled: n === 0 },
          "↑",
        );
        const last = n === items.length - 1;
        const down = el(
          "button",
          { type: "button", class: "quiet", "aria-label": `${items[place]}: down`, disabled: last },
          "↓",
        );
        up.addEventListener("click", () => move(n, -1));
        down.addEventListener("click", () => move(n, 1));
        return el("li", {}, el("span", {}, ...rich(items[place])), el("span", { class: "moves" }, up, down));
      }),
    );
  draw();
  return {
    node: el("div", {}, list, said),
    answer: () => order,
    reset: () => {
      order = items.map((_, place) => place);
      draw();
    },
    focus: () => list.querySelector("button:not(:disabled)")?.focus(),
  };
}
