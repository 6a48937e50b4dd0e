// The viewer: one reading, one selection that all views share, and the drawing of what is selected.

import { tooltip } from "../ui/dom.js";
import { isHidden } from "../ui/hidden.js";
import { mapProblem, mapRequest } from "../ui/maps.js";
import { findWord } from "../ui/words.js";
import { AtlasView } from "../views/atlas/view.js";
import { ChatPanel } from "../views/chat/panel.js";
import { CompareView } from "../views/compare/view.js";
import { HeadsView } from "../views/heads/view.js";
import { MapView } from "../views/map/view.js";
import { DocumentsPanel } from "../views/passages/panel.js";
import { PredictionsView } from "../views/predictions/view.js";
import { SentenceView } from "../views/sentence/view.js";
import { WalkView } from "../views/walk/view.js";
import { listenToControls } from "./controls.js";
import { save } from "./export.js";
import { Form } from "./form.js";
import { drawAtlasFacts, drawChoices, drawFacts, drawTabs, drawTheme } from "./header.js";
import { PredictionMemory } from "./predictions.js";
import { Progress } from "./progress.js";
import { Reader, wantedText } from "./reader.js";
import { addText, parametersOf, selectionOf, VIEW_NAMES, withinReading } from "./selection.js";
import { keptText } from "./storage.js";
import { WeightMemory } from "./weights.js";

/** @import { App, Options, Reading, SaveKind, Selection, Source, StartReply, View, ViewName } from "../types.js" */

/**
 * Brings the markup of viewer.html to life.
 * @param {Document | ShadowRoot} root holds it
 * @param {Source} source answers requests
 * @param {Options} options
 */
export async function mount(root, source, options) {
  const viewer = new Viewer(root, source, options);
  await viewer.open();
  return viewer;
}

/** @implements {App} */
class Viewer {
  /** @param {Document | ShadowRoot} root @param {Source} source @param {Options} options */
  constructor(root, source, options) {
    this.root = root;
    this.source = source;
    this.options = options;
    this.viewer = this.by("viewer");
    this.tip = tooltip(this.by("tip"));
    /** @type {Selection} */
    this.state = this.selectionOfAddress();
    /** Null until a text is read. @type {Reading} */
    this.reading = /** @type {any} */ (null);
    /** @type {StartReply} */
    this.start = { models: [], opening: null };
    /** Of the target that is chosen; null for the usual one. @type {string | null} */
    this.targetName = null;
    this.turn = 0; // of drawing
    /** @type {AbortController | null} */
    this.drawing = null;
    this.progress = new Progress(this.by);
    this.reader = new Reader(this, source, this.progress);
    this.weights = new WeightMemory(this);
    this.predictions = new PredictionMemory(this);
    this.form = new Form(this, this.reader);
    this.chat = new ChatPanel(this, source);
    this.documents = new DocumentsPanel(this);
    /** @type {Record<ViewName, View>} */
    this.views = {
      atlas: new AtlasView(this),
      sentence: new SentenceView(this),
      heads: new HeadsView(this),
      map: new MapView(this),
      walk: new WalkView(this),
      predictions: new PredictionsView(this),
      compare: new CompareView(this),
    };
    this.listen();
  }

  /** @type {App["by"]} */
  by = (id) => /** @type {any} */ (this.root.getElementById(id));

  /** @type {App["request"]} */
  request = (request, signal) => this.reader.request(request, signal);

  // ── Words ──────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** @type {App["isVisible"]} */
  isVisible = (u, side = "from") => {
    const { U, special } = side === "to" ? this.reading.columns : this.reading;
    return u !== null && u >= 0 && u < U && !isHidden(this.reading, this.state, u, special);
  };

  /** @type {App["visibleUnits"]} */
  visibleUnits = (side = "from") => {
    const { units } = side === "to" ? this.reading.columns : this.reading;
    return [...units.keys()].filter((u) => this.isVisible(u, side));
  };

  /**
   * The word that is shown while none is chosen: the first, or the last where words see only those before them.
   * @type {App["defaultWord"]}
   */
  defaultWord = () => {
    const { units, special, causal } = this.reading;
    const order = causal ? [...units.keys()].reverse() : [...units.keys()];
    return order.find((u) => !special.has(u) && this.isVisible(u)) ?? order.find((u) => this.isVisible(u)) ?? 0;
  };

  /**
   * The chosen word as one that attends; null where none is, or where it is one of another text.
   * @type {App["chosenRow"]}
   */
  chosenRow = () => (this.state.side === "to" && this.reading.columns !== this.reading ? null : this.state.word);

  /**
   * The next unit after `after` with this text, or of this number; null for no text. Throws where there is none.
   * @type {App["findWord"]}
   */
  findWord = (text, after = -1, side = "from") => {
    const wanted = text.trim();
    if (!wanted) return null;
    const { units, special } = side === "to" ? this.reading.columns : this.reading;
    /** @param {number} u */
    const isThere = (u) => this.isVisible(u, side) || (u === 0 && !(this.state.hide && special.has(0)));
    const u = findWord(units, wanted, after, isThere);
    if (u >= 0) return u;
    if (/^\d+$/.test(wanted) && isThere(Number(wanted))) return Number(wanted);
    throw new Error(`There is no word “${wanted}” in the text.`);
  };

  // ── The selection, and the address ─────────────────────────────────────────────────────────────────────────────────

  selectionOfAddress() {
    const { address, opening = {} } = this.options;
    const fragment = address ? location.hash.slice(1) : "";
    const state = selectionOf(new URLSearchParams(fragment || (opening.link ?? "")), opening);
    const kept = state.text === null && state.id ? keptText(state.id) : null;
    if (!kept) return state;
    return { ...state, text: kept.text, pair: kept.pair ?? null, model: kept.model ?? state.model };
  }

  address() {
    const parameters = parametersOf(this.state, this.reading);
    if (this.options.reads) addText(parameters, this.state, this.reading, this.start.models[0]);
    return `#${parameters}`;
  }

  /**
   * The address of what is shown, without its text: what a saved page opens with.
   * @type {App["link"]}
   */
  link = () => String(parametersOf({ ...this.state, theme: this.isDark() ? "dark" : "light" }, this.reading));

  /** Changes the selection, notes it in the address, and draws. @type {App["select"]} */
  select = (change, { replace = false } = {}) => {
    Object.assign(this.state, change);
    if (this.reading) Object.assign(this.state, withinReading(this.state, this.reading));
    this.note(replace);
    return this.draw();
  };

  /** @type {App["note"]} */
  note = (replace = false) => {
    if (!this.options.address) return;
    const address = this.address();
    if (address === location.hash) return;
    try {
      history[replace ? "replaceState" : "pushState"](null, "", address);
    } catch {
      // A frame without an address of its own, as in some notebooks: the page works, the link does not.
    }
  };

  // ── Drawing ────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** @type {App["draw"]} */
  draw = async () => {
    const turn = ++this.turn;
    const isCurrent = () => turn === this.turn;
    this.drawing?.abort();
    this.drawing = new AbortController();
    delete this.viewer.dataset.drawn;
    drawTheme(this);
    this.showError(null);
    try {
      await this.drawSelection(this.drawing.signal, isCurrent);
    } catch (error) {
      const { name, message } = /** @type {Error} */ (error);
      if (name !== "AbortError" && isCurrent()) this.showError(message);
    }
    if (!isCurrent()) return;
    this.progress.hide();
    if (this.options.address) this.note(true);
    this.viewer.dataset.drawn = this.address();
  };

  /** @param {AbortSignal} signal @param {() => boolean} isCurrent */
  async drawSelection(signal, isCurrent) {
    const hasReading = await this.reader.read(signal, (reading) => this.show(reading));
    if (!isCurrent()) return;
    this.checkView(hasReading);
    drawTabs(this, hasReading);
    if (hasReading) {
      await this.checkMap(signal);
      if (!isCurrent()) return;
      if (this.options.reads) this.form.fill();
      this.chat.offer();
      this.documents.offer();
      drawFacts(this);
      drawChoices(this);
    }
    const { view } = this.state;
    if (view === "atlas") drawAtlasFacts(this);
    if (!hasReading && view !== "compare" && view !== "atlas") return;
    for (const name of VIEW_NAMES) this.by(name).hidden = name !== view;
    await this.views[view].draw(signal, isCurrent);
  }

  /**
   * There is an atlas only where a page holds one, and nothing but the atlas where it holds no text.
   * @param {boolean} hasReading
   */
  checkView(hasReading) {
    const { start, state } = this;
    if (!start.atlas && state.view === "atlas") state.view = "sentence";
    if (start.atlas && !hasReading) state.view = "atlas";
  }

  /**
   * Sees to it that the chosen map and its target are there: what is not is said, and the usual is taken instead.
   * @param {AbortSignal} signal
   */
  async checkMap(signal) {
    const { reading, state } = this;
    const problem = mapProblem(reading, state);
    if (problem) state.map = "weights";
    this.showError(problem);
    this.targetName = null;
    const { target } = mapRequest(reading, state);
    if (!target || !this.options.reads) return; // a saved page has no other target than its own
    try {
      this.targetName = (await this.request({ type: "target", target }, signal)).name;
    } catch (error) {
      const { name, message } = /** @type {Error} */ (error);
      if (name === "AbortError") throw error;
      state.target = null;
      this.showError(`${message} The usual target is taken instead.`);
    }
  }

  /** @param {Reading} reading */
  show(reading) {
    this.reading = reading;
    for (const view of Object.values(this.views)) view.reset?.();
    Object.assign(this.state, withinReading(this.state, reading));
  }

  /** @type {App["isDark"]} */
  isDark = () => {
    const { jpThemeLight } = document.body.dataset;
    const ofNotebook = jpThemeLight === undefined ? null : jpThemeLight === "false" ? "dark" : "light";
    const theme = this.state.theme ?? ofNotebook;
    if (theme) return theme === "dark";
    return document.body.classList.contains("vscode-dark") || matchMedia("(prefers-color-scheme: dark)").matches;
  };

  /** @type {App["showError"]} */
  showError = (message) => {
    this.by("problem").textContent = message ?? "";
    this.by("problem").hidden = !message;
  };

  // ── Controls ───────────────────────────────────────────────────────────────────────────────────────────────────────

  listen() {
    listenToControls(this, (kind) => this.save(kind));
    this.by("cancel").addEventListener("click", () => this.cancel());
    new ResizeObserver(() => this.reading && this.views[this.state.view].resize?.()).observe(this.viewer);
    const bar = this.by("bar");
    new ResizeObserver(() => this.viewer.style.setProperty("--bar", `${bar.offsetHeight}px`)).observe(bar);
    if (this.options.address)
      addEventListener("popstate", () => {
        const { id } = this.state;
        this.state = this.selectionOfAddress();
        if (!this.options.reads) this.state.id = id; // a saved page holds one text, which its address does not name
        this.draw();
      });
  }

  /** @param {SaveKind} kind */
  async save(kind) {
    this.showError(null);
    try {
      await save(this, this.views[this.state.view], kind);
    } catch (error) {
      this.showError(`It could not be saved: ${/** @type {Error} */ (error).message}`);
    }
    this.progress.hide();
  }

  /** Cancels what is under way. */
  async cancel() {
    const job = this.progress.takeJob();
    if (this.documents.cancel(job)) return this.progress.hide();
    this.drawing?.abort();
    this.progress.hide();
    const isRead = this.reading?.wanted === wantedText(this.state);
    if (isRead || this.state.view === "compare") this.showError("Cancelled. Choose again what to look at.");
    else this.cancelReading();
    if (job !== null) await this.source({ type: "cancel", job });
  }

  /** Goes back to the reading before, so that no view starts the cancelled one again. */
  async cancelReading() {
    this.reader.cancelled = wantedText(this.state);
    if (!this.reading) return this.showError("Reading was cancelled. Press Read to start it again.");
    await this.select({ ...this.reading.requested, at: null, seen: null }, { replace: true });
    this.showError("Reading was cancelled, and the text before it is shown again. Press Read to start it again.");
  }

  // ── Opening ────────────────────────────────────────────────────────────────────────────────────────────────────────

  async open() {
    let failure = null;
    try {
      this.start = await this.source({ type: "start" });
    } catch (error) {
      failure = /** @type {Error} */ (error).message;
    }
    const { state, start } = this;
    if (state.text === null && state.id === null && start.opening) {
      const { text = null, pair = null, reading = null } = start.opening;
      Object.assign(state, { text, pair, id: reading });
    }
    this.form.open();
    this.by("tab-compare").hidden = start.compares === false;
    this.by("tab-atlas").hidden = !start.atlas;
    await this.draw();
    if (failure) this.showError(failure);
  }
}
