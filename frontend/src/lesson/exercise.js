// An exercise: predict, then see. The form asks, grades, says why, shows the real thing, and may be tried again.

import { el } from "../ui/dom.js";
import { format, percent } from "../ui/format.js";
import { grade, rule } from "./grade.js";
import { inputOf } from "./inputs.js";
import { rich } from "./prose.js";
import { comparedBars } from "./widgets/bars.js";

/** @import { Answer, Child, Task } from "./types.js" */

/** @type {Record<Task["kind"], string>} */
const KINDS = {
  choice: "Predict",
  number: "Predict the number",
  weights: "Draw the weights",
  order: "Put in order",
};

/**
 * @param {string} id
 * @param {Task} task
 * @param {(state: "right" | "tried") => void} answered
 * @returns {HTMLElement}
 */
export function exerciseForm(id, task, answered) {
  const name = el("h3", { id: `${id}-name` }, KINDS[task.kind]);
  const question = el("p", { class: "question", id: `${id}-question` }, ...rich(task.question));
  const input = inputOf(id, task);
  const says = el("p", { class: "says", role: "status" });
  const seen = el("div", { class: "seen", hidden: true });
  const check = el("button", { type: "submit", class: "main" }, "Check");
  const again = el("button", { type: "reset", class: "quiet", hidden: true }, "Try again");
  const form = el("form", {
    class: "exercise",
    id: `exercise-${id}`,
    "data-kind": task.kind,
    "aria-labelledby": `${name.id} ${question.id}`,
  });
  form.noValidate = true;
  form.append(name, question, input.node, el("p", { class: "hint", id: `${id}-rule` }, rule(task)));
  form.append(el("p", { class: "buttons" }, check, again), says, seen);
  form.addEventListener("submit", (/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    const answer = input.answer();
    const { state, says: verdict } = grade(task, answer);
    form.dataset.state = state;
    says.replaceChildren(verdict);
    if (state === "unanswered") return;
    says.append(" ", ...rich(rightAnswer(task)));
    seen.replaceChildren(...realThing(task, answer));
    [seen.hidden, again.hidden] = [false, false];
    answered(state === "right" ? "right" : "tried");
  });
  form.addEventListener("reset", (/** @type {Event} */ event) => {
    event.preventDefault();
    input.reset();
    delete form.dataset.state;
    says.replaceChildren();
    [seen.hidden, again.hidden] = [true, true];
    input.focus();
  });
  return form;
}

/**
 * The right answer in a sentence.
 * @param {Task} task
 */
function rightAnswer(task) {
  if (task.kind === "choice") return `It is: ${task.options[task.right]}.`.replace(/\.\.$/, ".");
  if (task.kind === "number")
    return `It is ${format(task.right, task.digits ?? 2)}${task.unit ? ` ${task.unit}` : ""}.`;
  if (task.kind === "order") return `It is: ${task.right.map((place) => task.items[place]).join(", ")}.`;
  const most = task.right.indexOf(Math.max(...task.right));
  return `Most goes to “${task.words[most]}”: ${percent(task.right[most])}.`;
}

/**
 * @param {Task} task
 * @param {any} answer
 * @returns {Child[]}
 */
function realThing(task, answer) {
  const given = task.kind === "number" && typeof answer === "string" ? Number.NaN : answer;
  const bars = task.kind === "weights" ? [comparedBars(task.words, answer, task.right)] : [];
  return [...bars, el("p", {}, ...rich(task.why(given))), ...(task.show?.(given) ?? [])];
}
