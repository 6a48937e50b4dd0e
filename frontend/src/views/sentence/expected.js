// Beneath each token of a language model's text: how surprised the model was by it, and what it had expected.

import { PREDICTED_TOKENS } from "../../protocol.js";
import { closest, el, moveFocus } from "../../ui/dom.js";
import { count, percent } from "../../ui/format.js";
import { fillLegend } from "../../ui/legend.js";
import { inShade } from "../../ui/paint.js";
import { isRight, linesOf, natsOf, predictedIn, shortened, unitOfToken } from "../../ui/predictions.js";
import { visible } from "../../ui/words.js";

/** @import { App, Range } from "../../types.js" */
/** @import { Predicted } from "../../ui/predictions.js" */

/**
 * @typedef {object} Entry a token, and what was predicted in its place; `i` is that of none behind the last
 * @property {number} i
 * @property {Predicted | null} predicted null for the first, which nothing comes before
 */

export class ExpectedTokens {
  /** @param {App} app */
  constructor(app) {
    this.app = app;
    /** @type {Entry[]} */
    this.entries = [];
    this.drawnFor = "";
    this.listen();
  }

  /** @param {AbortSignal} signal @param {() => boolean} isCurrent */
  async draw(signal, isCurrent) {
    const { app } = this;
    const { by, reading, predictions } = app;
    const offer = reading.predictions;
    by("expected").hidden = !offer?.layers.length;
    if (!offer?.layers.length) return;
    const isNext = offer.kind === "next token";
    const first = predictions.blockOf(Math.max(0, this.chosen() - (isNext ? 1 : 0)));
    const drawn = `${reading.id} ${first} ${app.isDark()}`;
    if (drawn !== this.drawnFor) {
      const reply = await predictions.from(offer.layers[offer.layers.length - 1], first, signal);
      if (!isCurrent()) return;
      const predicted = reply.texts.map((_, n) => predictedIn(reply, n));
      this.entries = predicted.map((row, n) => ({ i: first + n + (isNext ? 1 : 0), predicted: row }));
      if (isNext && first === 0) this.entries.unshift({ i: 0, predicted: null });
      this.fill(isNext);
      this.drawnFor = drawn;
    }
    this.mark();
  }

  /** The chosen token, or the one that is shown while none is chosen. */
  chosen() {
    const { reading, state, chosenRow, defaultWord } = this.app;
    const tokens = reading.tokensOf(chosenRow() ?? defaultWord());
    return tokens[Math.min(state.token, tokens.length - 1)];
  }

  /** @param {boolean} isNext */
  fill(isNext) {
    const { app, entries } = this;
    const { by, reading } = app;
    const nats = entries.flatMap(({ i, predicted }) => (i < reading.N ? (predicted?.surprise ?? []) : []));
    /** @type {Range} */
    const range = { peak: Math.max(1, ...nats), scale: "linear", signed: false };
    by("expected-tokens").replaceChildren(...entries.map((entry, n) => this.button(entry, n, range)));
    by("expected-legend").hidden = !nats.length;
    fillLegend(by("expected-legend"), range, app.isDark(), "surprise: −log p of the token, in nats");
    by("expected-says").textContent = summaryOf(reading.N, entries, nats, isNext);
    const expected = isNext ? "what was expected in its place, or ✓ where it was the likeliest" : "the likeliest there";
    const seen = isNext ? "" : " The model had seen all tokens but those that are masked.";
    by("expected-hint").textContent =
      `Beneath each token: ${expected}. Point at one to see the likeliest, click to choose its word.${seen}`;
  }

  /**
   * @param {Entry} entry
   * @param {number} n
   * @param {Range} range
   */
  button(entry, n, range) {
    const { reading, isDark } = this.app;
    const { i, predicted } = entry;
    const isAfter = i >= reading.N;
    const likeliest = predicted ? shortened(predicted.likely[0].text) : "";
    const text = isAfter ? likeliest : visible(reading.tokens[i]).slice(0, 40);
    const note = isAfter ? "next" : predicted && isRight(predicted) ? "✓" : likeliest;
    const word = el("bdi", { dir: "auto" }, text);
    inShade(word, isAfter ? null : (predicted?.surprise ?? null), range, isDark());
    const label = this.linesOf(entry).join(", ");
    const attributes = { type: "button", "data-entry": n, class: isAfter && "after", "aria-label": label };
    return el("button", attributes, word, el("small", { dir: "auto" }, note || "\u00a0"));
  }

  /**
   * What is said of a token, a line each.
   * @param {Entry} entry
   */
  linesOf({ i, predicted }) {
    const { tokens, N } = this.app.reading;
    const name = i < N ? `“${visible(tokens[i]).slice(0, 40)}”` : "What comes next";
    if (!predicted) return [`${name}: nothing comes before it`];
    const { surprise } = predicted;
    if (i >= N) return [`${name}:`, ...linesOf(predicted)];
    if (surprise === null) return [`${name}, predicted there:`, ...linesOf(predicted)];
    return [`${name}: ${natsOf(surprise)}, ${percent(Math.exp(-surprise))}; expected:`, ...linesOf(predicted)];
  }

  mark() {
    const chosen = this.app.chosenRow() === null ? -1 : this.chosen();
    const buttons = this.buttons();
    const place = this.entries.findIndex(({ i }) => i === chosen);
    for (const [n, button] of buttons.entries()) {
      button.setAttribute("aria-pressed", String(n === place));
      button.tabIndex = n === Math.max(0, place) ? 0 : -1;
    }
  }

  /** @returns {HTMLButtonElement[]} */
  buttons() {
    return [...this.app.by("expected-tokens").querySelectorAll("button")];
  }

  listen() {
    const { app } = this;
    const strip = app.by("expected-tokens");
    /** @param {Event} event */
    const buttonOf = (event) => closest(event, "[data-entry]");
    /** @param {Event} event */
    const show = (event) => {
      const button = buttonOf(event);
      if (!button) return app.tip.hide();
      const { left, top, width } = button.getBoundingClientRect();
      app.tip.show(left + width / 2, top, this.linesOf(this.entries[Number(button.dataset.entry)]).join("\n"));
    };
    strip.addEventListener("pointerover", (event) => event.pointerType === "mouse" && show(event));
    strip.addEventListener("focusin", (event) => buttonOf(event)?.matches(":focus-visible") && show(event));
    for (const type of ["pointerleave", "focusout", "scroll"]) strip.addEventListener(type, () => app.tip.hide());
    strip.addEventListener("keydown", (event) => moveFocus(event, this.buttons(), { ArrowLeft: -1, ArrowRight: 1 }));
    strip.addEventListener("click", (event) => {
      const button = buttonOf(event);
      const i = button ? this.entries[Number(button.dataset.entry)].i : app.reading.N;
      if (i < app.reading.N) app.select({ ...unitOfToken(app.reading, i), side: "from" });
    });
  }
}

/**
 * @param {number} N
 * @param {Entry[]} entries
 * @param {number[]} nats
 * @param {boolean} isNext
 */
function summaryOf(N, entries, nats, isNext) {
  const what = nats.length ? "Surprise and expectation" : isNext ? "Expectation" : "Prediction";
  if (N > PREDICTED_TOKENS) {
    const [from, to] = [entries[0].i, Math.min(N - 1, entries[entries.length - 1].i)];
    return `${what}, token by token: tokens ${from} to ${to} of ${N.toLocaleString("en")}, around the chosen word`;
  }
  const mean = nats.reduce((total, number) => total + number, 0) / nats.length;
  const perplexity = nats.length ? `: perplexity ${Number(Math.exp(mean).toPrecision(3)).toLocaleString("en")}` : "";
  return `${what}, token by token${perplexity} (${count(N, "token")})`;
}
