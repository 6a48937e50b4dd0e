// The form in which a text is typed.

import { TEXT_LIMIT } from "../protocol.js";
import { fillSelect } from "../ui/dom.js";

/** @import { Architecture } from "../model/types.js" */
/** @import { App, ViewName } from "../types.js" */
/** @import { Reader } from "./reader.js" */

/** What a second text is. @type {Record<Architecture, {add: string, remove: string, placeholder: string} | null>} */
const PAIRINGS = {
  encoder: {
    add: "Add a second text",
    remove: "Remove the second text",
    placeholder: "A second text, read together with the first",
  },
  decoder: null,
  "encoder-decoder": {
    add: "Write the target yourself",
    remove: "Let the model write the target",
    placeholder: "The target, in the place of the one that the model writes",
  },
};

export class Form {
  /** @param {App} app @param {Reader} reader */
  constructor(app, reader) {
    this.app = app;
    this.reader = reader;
    /** The reading whose text stands in the form. @type {string | null} */
    this.filledFor = null;
    this.listen();
  }

  /** Prepares the form for a page that can read texts. */
  open() {
    const { by, options, start, state } = this.app;
    by("ask").hidden = !options.reads;
    if (!options.reads) return;
    const labels = new Map(
      options.models?.map(({ name, label, architecture }) => [name, `${label} (${architecture})`]),
    );
    fillSelect(
      by("model"),
      start.models.map((name) => [name, labels.get(name) ?? name]),
    );
    by("for-model").hidden = start.models.length < 2;
    by("model").value = state.model ?? start.models[0];
    this.offerPair();
    if (state.text !== null) by("text").value = state.text;
    if (options.address) by("text").focus({ preventScroll: true });
  }

  /** Puts the text of the reading into the form. From there on it is the reader's, until another text is opened. */
  fill() {
    const { by, state, reading, start } = this.app;
    if (state.text === null) return; // a reading that came by its number: the text may be long
    if (this.filledFor !== reading.wanted) {
      by("text").value = state.text;
      by("pair").value = state.pair ?? "";
      this.showPair(state.pair !== null);
      this.filledFor = reading.wanted;
    }
    by("model").value = state.model ?? start.models[0];
    this.offerPair();
    document.title = `${reading.text.slice(0, 60)} · regard`;
    fitHeight(by("text"));
  }

  /** What a second text is to the chosen model, as far as the page knows: the target of a translation, or none at all. */
  get pairing() {
    const { by, options } = this.app;
    const offer = options.models?.find(({ name }) => name === by("model").value);
    return PAIRINGS[offer?.architecture ?? "encoder"];
  }

  /** Offers a second text where the chosen model reads one. */
  offerPair() {
    const { by } = this.app;
    const { pairing } = this;
    by("add-pair").hidden = !pairing;
    if (!pairing) return this.showPair(false);
    by("pair").placeholder = pairing.placeholder;
    this.showPair(!by("second").hidden);
  }

  /** @param {boolean} isThere */
  showPair(isThere) {
    const { by } = this.app;
    by("second").hidden = !isThere;
    by("add-pair").setAttribute("aria-expanded", String(isThere));
    const { remove, add } = this.pairing ?? { remove: "", add: "" };
    by("add-pair").textContent = isThere ? remove : add;
  }

  /**
   * Reads what stands in the form, in a view.
   * @param {ViewName} view
   */
  submit(view) {
    const { app } = this;
    const { by } = app;
    const { models } = app.start;
    const text = by("text").value;
    if (!text.trim()) return app.showError("There is no text to read: type or paste one.");
    if (text.length > TEXT_LIMIT) {
      const [length, most] = [text.length, TEXT_LIMIT].map((number) => number.toLocaleString("en"));
      return app.showError(`The text has ${length} characters, and the limit is ${most}.`);
    }
    const pair = !by("second").hidden && by("pair").value.trim() ? by("pair").value : null;
    const model = models.length ? by("model").value : null;
    this.reader.cancelled = null;
    app.select({ text, pair, model, id: null, view, word: null, token: 0, side: "from", at: null, seen: null });
  }

  listen() {
    const { app } = this;
    const { by } = app;
    by("ask").addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit(app.state.view === "compare" ? "sentence" : app.state.view);
    });
    by("model").addEventListener("change", () => {
      this.offerPair();
      if (by("text").value.trim()) this.submit(app.state.view);
      else app.select({ model: by("model").value });
    });
    for (const area of [by("text"), by("pair")]) {
      area.addEventListener("input", () => fitHeight(area));
      area.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
        event.preventDefault();
        by("ask").requestSubmit();
      });
    }
    by("add-pair").addEventListener("click", () => {
      this.showPair(Boolean(by("second").hidden));
      if (!by("second").hidden) by("pair").focus();
    });
  }
}

/**
 * Makes an area as high as its text, up to a limit.
 * @param {HTMLTextAreaElement} area
 */
function fitHeight(area) {
  area.style.height = "auto";
  area.style.height = `${Math.min(240, area.scrollHeight + 2)}px`;
}
