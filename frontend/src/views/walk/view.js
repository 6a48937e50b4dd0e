// Walk: how one token became its context in one head. The sentences stand in viewer.html; the numbers come from here.

import { fillSlots } from "../../ui/dom.js";
import { columnTitle, mapRequest } from "../../ui/maps.js";
import { styleColour } from "../../ui/paint.js";
import { walkOf } from "./numbers.js";
import { walkPicture } from "./picture.js";
import { slotsOf } from "./slots.js";
import { listenToSteps, markStep } from "./steps.js";

/** @import { App, Row, View } from "../../types.js" */
/** @import { Walk } from "./numbers.js" */

/** @implements {View} */
export class WalkView {
  /** @param {App} app */
  constructor(app) {
    this.app = app;
    this.isAllShown = false; // whether the tables of a long text hold every token
    /** @type {Walk | null} */
    this.walk = null;
    this.drawnFor = ""; // what the page shows
    listenToSteps(app);
  }

  /** @type {View["draw"]} */
  async draw(signal, isCurrent) {
    const { app, isAllShown } = this;
    const { state, reading } = app;
    const [l, h] = [state.layer, state.head];
    const u = app.chosenRow() ?? app.defaultWord();
    const tokens = reading.tokensOf(u);
    const i = tokens[Math.min(state.token, tokens.length - 1)];
    const map = mapRequest(reading, state);
    const wanted = `${reading.id} ${map.map} ${map.target} ${l} ${h} ${i} ${isAllShown} ${app.isDark()}`;
    if (this.drawnFor !== wanted) {
      const reply = await app.request({ type: "walk", layer: l, head: h, ...map, token: i, all: isAllShown }, signal);
      if (!isCurrent()) return;
      this.walk = walkOf(reply, { l, h, u, i });
      this.fill(this.walk);
      this.drawnFor = wanted;
    }
    markStep(app, state.step);
  }

  /** @param {Walk} walk */
  fill(walk) {
    const { app } = this;
    const { steps, x, made } = walk;
    for (const [id, isThere] of Object.entries({
      "step-embedding": x,
      "step-norm": made?.norm,
      "step-vectors": steps,
      "step-rotation": made?.rotated,
      "step-scores": steps,
      "step-scaling": steps,
      "step-softmax": steps,
      "step-sum": steps?.sum,
      "step-context": steps?.sum,
      "step-end": steps && !steps.sum,
      "step-weights": !steps,
    }))
      app.by(/** @type {"step-embedding"} */ (id)).hidden = !isThere;
    for (const figure of app.by("step-vectors").querySelectorAll(".of-itself"))
      figure.toggleAttribute("hidden", !steps?.key);
    const colours = { plus: styleColour(app.viewer, "plus"), minus: styleColour(app.viewer, "minus") };
    const context = { app, colours, isAllShown: this.isAllShown, toggleAll: () => this.toggleAll() };
    fillSlots(app.by("walk"), slotsOf(walk, context));
  }

  toggleAll() {
    this.isAllShown = !this.isAllShown;
    this.app.draw();
  }

  requireWalk() {
    if (!this.walk) throw new Error("the walk is still being computed.");
    return this.walk;
  }

  picture() {
    return walkPicture(this.app, this.requireWalk());
  }

  /** @returns {Row[]} */
  table() {
    const { rows, weights, mapped, steps } = this.requireWalk();
    const { reading, state } = this.app;
    const names = steps ? reading.columns.tokens : reading.columns.units;
    const [keys, values] = [steps?.keys, steps?.sum?.values];
    /** @param {string} name @param {number[][]} [vectors] */
    const titles = (name, vectors) => (vectors ? vectors[0].map((_, d) => `${name} ${d}`) : []);
    /** @param {number | undefined} number */
    const orNothing = (number) => (Number.isFinite(number) ? /** @type {number} */ (number) : ""); // of a token that may not be seen
    return [
      [
        "place",
        "token",
        "score",
        "scaled",
        "weight",
        "weight_times_length",
        ...(mapped ? [columnTitle(reading, state)] : []),
        ...titles("key", keys),
        ...titles("value", values),
      ],
      ...rows.map((j, n) => [
        j,
        names[j],
        orNothing(steps?.scores[n]),
        orNothing(steps?.scaled[n]),
        weights[n],
        orNothing(steps?.sum?.carried[n]),
        ...(mapped ? [mapped[n]] : []),
        ...(keys?.[n] ?? []),
        ...(values?.[n] ?? []),
      ]),
    ];
  }

  reset() {
    this.drawnFor = "";
    this.isAllShown = false;
  }
}
