// The steps of the walk, one of which may be marked.

import { closest } from "../../ui/dom.js";

/** @import { App } from "../../types.js" */

/**
 * The steps that are shown.
 * @param {App} app
 */
const stepsShown = ({ by }) => /** @type {HTMLElement[]} */ ([...by("steps").children]).filter((item) => !item.hidden);

/**
 * Marks a step, from 1 on; 0 marks none.
 * @param {App} app
 * @param {number} number
 * @param {boolean} [follow] scrolls there
 */
export function markStep(app, number, follow = false) {
  const { by } = app;
  const items = stepsShown(app);
  const step = Math.min(number, items.length);
  items.forEach((item, n) => {
    const isMarked = n === step - 1;
    item.classList.toggle("current", isMarked);
    if (isMarked) item.setAttribute("aria-current", "step");
    else item.removeAttribute("aria-current");
  });
  by("step-previous").disabled = step <= 1;
  by("step-next").disabled = step === items.length;
  by("step-says").textContent = step
    ? `Step ${step} of ${items.length}: ${items[step - 1].querySelector("h2")?.textContent}`
    : `${items.length} steps`;
  const isSmooth = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  if (follow && step) items[step - 1].scrollIntoView({ block: "start", behavior: isSmooth ? "smooth" : "instant" });
}

/** @param {App} app */
export function listenToSteps(app) {
  /** @param {number} number */
  const stepBy = (number) => {
    const step = Math.min(stepsShown(app).length, Math.max(1, app.state.step + number));
    app.select({ step }, { replace: true });
    markStep(app, step, true);
  };
  app.by("step-previous").addEventListener("click", () => stepBy(-1));
  app.by("step-next").addEventListener("click", () => stepBy(1));
  const page = /** @type {HTMLElement} */ (app.options.address ? document : app.viewer);
  page.addEventListener("keydown", (event) => {
    if (app.state.view !== "walk" || isTyping(event)) return;
    const number = { ArrowLeft: -1, ArrowRight: 1, PageUp: -1, PageDown: 1 }[event.key];
    if (!number || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    stepBy(number);
  });
}

/**
 * Whether a key belongs to the control it was pressed in.
 * @param {Event} event
 */
const isTyping = (event) =>
  event.target instanceof Element && closest(event, "*")?.matches("input, textarea, select, [role=tab]");
