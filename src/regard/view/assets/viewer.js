// The viewer: one reading, one selection that all views share, and the controls that change it.
//
// The modules of this folder are joined into one script by view/html.py, for a server, for a file and for a notebook
// alike; only where the answers come from differs. Letters as in the documentation: H heads, N tokens, U units (words
// and special tokens), D dim. l, h, i, u are a layer, a head, a token, a unit.

import { bytes, count, fillSelect, moveFocus, tooltip } from "./dom.js";
import { patient } from "./source.js";
import { sentenceView } from "./sentence.js";
import { headsView } from "./heads.js";
import { mapView } from "./map.js";
import { walkView } from "./walk.js";
import { compareView } from "./compare.js";
import { save } from "./export.js";

const VIEWS = { sentence: sentenceView, heads: headsView, map: mapView, walk: walkView, compare: compareView };
export const ALL = 64; // units up to which all weights of a layer are had at once, as in view/desk.py
const IN_ADDRESS = 2000; // characters of a text that a link carries with it
const KEEP = 24e6; // numbers that are remembered: 96 MB

/**
 * Brings the markup of viewer.html to life.
 *
 * root: the document or shadow root that holds it. source: who answers questions. options: `address`, whether the
 * selection is kept in the page's address; `reads`, whether other texts can be read; `frozen`, a page without Python;
 * `opening`, what is chosen at first.
 */
export async function mount(root, source, options = {}) {
  const by = (id) => root.getElementById(id);
  const viewer = by("viewer");
  const opening = { view: "sentence", word: null, layer: 0, head: 0, heads: null, ...options.opening };
  const known = new Map(); // "layer unit side" → weights (H,U), the latest used last
  let remembered = 0;
  let turn = 0;
  let cancelling = null; // AbortController of what is being drawn
  let filled = null; // the reading whose text stands in the form
  let working = null; // the timer that takes the progress away

  const app = {
    root,
    by,
    viewer,
    options,
    tip: tooltip(by("tip")),
    state: {},
    reading: null,
    start: null,
    ask,
    go,
    draw,
    look,
    every,
    find,
    tell,
    isDark,
    isVisible: (u) => u !== null && u >= 0 && u < app.reading.U && !(app.state.hide && app.reading.special.has(u)),
    visible: () => [...app.reading.units.keys()].filter(app.isVisible),
    firstWord: () => Math.max(0, app.reading.units.findIndex((_, u) => !app.reading.special.has(u))),
  };
  const views = {};

  // ── Questions ────────────────────────────────────────────────────────────────────────────────────────────────────

  const asking = patient(source, showProgress);

  /** The answer to a question; those about a reading name it themselves. */
  async function ask(question, signal) {
    return asking({ reading: app.reading?.id, ...question }, signal);
  }

  /** The weights (H,U) from or to a unit in a layer, remembered. */
  async function look(l, u, side) {
    const { H, U, id } = app.reading;
    if (U <= ALL && side === "from") {
      const all = await every(l);
      return Float32Array.from({ length: H * U }, (_, n) => all[(Math.floor(n / U) * U + u) * U + (n % U)]);
    }
    return remember(`${id} ${l} ${u} ${side}`, async () =>
      (await ask({ what: "look", layer: l, word: u, side })).weights.data,
    );
  }

  /** All weights (H,U,U) of a layer, of a short text. */
  function every(l) {
    return remember(`${app.reading.id} ${l}`, async () => (await ask({ what: "all", layer: l })).weights.data);
  }

  async function remember(key, get) {
    const found = known.get(key) ?? (await get());
    if (!known.delete(key)) remembered += found.length;
    known.set(key, found);
    while (remembered > KEEP && known.size > 1) {
      const [oldest, numbers] = known.entries().next().value;
      known.delete(oldest);
      remembered -= numbers.length;
    }
    return found;
  }

  /** The next unit after `after` with this text, or of this number. */
  function find(text, after = -1) {
    const { units, U } = app.reading;
    const wanted = text.trim().normalize("NFC").toLowerCase();
    if (!wanted) return null;
    for (let n = 1; n <= U; n++) {
      const u = (after + n) % U;
      if (units[u].normalize("NFC").toLowerCase() === wanted && app.isVisible(u)) return u;
    }
    if (/^\d+$/.test(wanted) && app.isVisible(Number(wanted))) return Number(wanted);
    throw new Error(`There is no word “${text.trim()}” in the text.`);
  }

  // ── The selection, and the address ───────────────────────────────────────────────────────────────────────────────

  function toHash() {
    const { state, reading } = app;
    const parts = new URLSearchParams({ view: state.view });
    if (reading) {
      parts.set("layer", state.layer);
      parts.set("head", state.head);
      parts.set("word", state.word ?? "none");
    }
    if (state.side === "to") parts.set("side", "to");
    if (state.token) parts.set("token", state.token);
    if (state.step) parts.set("step", state.step);
    if (state.heads) parts.set("heads", state.heads.join("."));
    if (state.hide) parts.set("hide", 1);
    if (state.mass < 100) parts.set("mass", state.mass);
    if (state.direction !== "all") parts.set("direction", state.direction);
    if (state.scale) parts.set("scale", state.scale);
    if (state.reduce !== "mean") parts.set("reduce", state.reduce);
    if (state.at) parts.set("at", state.at.join("."));
    if (state.after !== null) parts.set("after", state.after);
    if (state.same) parts.set("same", state.same);
    if (state.texts && state.texts.length <= IN_ADDRESS) parts.set("texts", state.texts);
    if (state.theme) parts.set("theme", state.theme);
    if (options.reads && state.text !== null) {
      if (state.text.length + (state.pair ?? "").length <= IN_ADDRESS) {
        parts.set("text", state.text);
        if (state.pair) parts.set("pair", state.pair);
        if (state.model && state.model !== app.start.models[0]) parts.set("model", state.model);
      } else if (reading) parts.set("reading", reading.id);
    }
    return `#${parts}`;
  }

  function fromHash() {
    const parts = new URLSearchParams(options.address ? location.hash.slice(1) : "");
    const number = (name, otherwise) => {
      const value = parts.get(name);
      return value !== null && /^\d{1,9}$/.test(value) ? Number(value) : otherwise;
    };
    const one = (name, choices, otherwise) => (choices.includes(parts.get(name)) ? parts.get(name) : otherwise);
    const numbers = (name) => parts.get(name)?.split(".").filter((part) => /^\d{1,9}$/.test(part)).map(Number) ?? null;
    const at = numbers("at");
    app.state = {
      view: one("view", Object.keys(VIEWS), opening.view),
      word: number("word", parts.has("word") ? null : opening.word),
      side: one("side", ["to"], "from"), // the column of the sentence it was chosen in
      token: number("token", 0), // which of the word's tokens the walk follows
      step: number("step", 0), // of the walk
      layer: number("layer", opening.layer ?? 0),
      head: number("head", opening.head ?? 0), // of map and walk
      heads: parts.size ? numbers("heads") : opening.heads, // of the sentence; null for all
      hide: parts.get("hide") === "1", // special tokens
      mass: Math.min(100, Math.max(10, number("mass", 100))), // percent of a word's weight that gets lines
      direction: one("direction", ["aa", "ab", "ba", "bb"], "all"), // of a pair of texts
      scale: one("scale", ["linear", "log"], null), // of the map's colours; null: by the length of the text
      reduce: one("reduce", ["max"], "mean"), // what a cell of the map is from afar
      at: at?.length === 2 ? at : null, // the cell of the map that is read out: its units
      after: number("after", null), // the layer of the comparison
      same: parts.get("same"), // the word that is compared
      texts: parts.get("texts"), // in which
      theme: one("theme", ["light", "dark"], null),
      text: parts.get("text"),
      pair: parts.get("pair"),
      model: parts.get("model"),
      id: parts.get("reading"),
    };
  }

  /** Brings a selection that came by the address, or from another reading, within what there is. */
  function settle() {
    const { state, reading } = app;
    const within = (value, size) => (value !== null && value < size ? value : null);
    state.word = within(state.word, reading.U);
    state.layer = within(state.layer, reading.L) ?? 0;
    state.head = within(state.head, reading.H) ?? 0;
    state.heads = state.heads?.filter((h) => h < reading.H) ?? null;
    if (state.heads?.length === reading.H) state.heads = null;
    if (state.at?.some((u) => u >= reading.U)) state.at = null;
    if (reading.pictured) [state.hide, state.reduce] = [false, "mean"]; // its pictures are as they are
    if (state.hide && reading.special.has(state.word)) state.word = null;
    if (reading.second === null) state.direction = "all";
  }

  /** Changes the selection, notes it in the address, and draws. */
  function go(change, { replace = false } = {}) {
    Object.assign(app.state, change);
    if (app.reading) settle();
    note(replace);
    return draw();
  }

  function note(replace) {
    if (!options.address) return;
    const hash = toHash();
    if (hash === location.hash) return;
    try {
      history[replace ? "replaceState" : "pushState"](null, "", hash);
    } catch {
      // A frame without an address of its own, as in some notebooks: the page works, the link does not.
    }
  }

  // ── Reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Reads the text of the state, or opens the reading that it names, unless it is the one that is shown. */
  async function read() {
    const { state } = app;
    const [text, pair, model] = [state.text, state.pair ?? undefined, state.model ?? undefined];
    const wanted = text === null ? state.id : JSON.stringify([text, pair, model]);
    if (app.reading && app.reading.wanted === wanted) return true;
    if (wanted === null) return false;
    let card;
    try {
      card = await asking(
        text === null ? { what: "card", reading: state.id } : { what: "read", text, pair, model },
        cancelling.signal,
      );
    } catch (error) {
      if (error.status === 404) state.id = null; // the server was started anew
      throw error;
    }
    const special = new Set(card.special);
    app.reading = {
      ...card,
      id: card.reading,
      wanted,
      special,
      U: card.units.length,
      N: card.tokens.length,
      L: card.layers,
      H: card.heads,
      tokensOf: (u) => {
        const stop = card.first[u + 1] ?? card.tokens.length;
        return Array.from({ length: stop - card.first[u] }, (_, n) => card.first[u] + n);
      },
    };
    for (const view of Object.values(views)) view.forget?.();
    settle();
    return true;
  }

  // ── Drawing ──────────────────────────────────────────────────────────────────────────────────────────────────────

  async function draw() {
    const mine = ++turn;
    cancelling?.abort();
    cancelling = new AbortController();
    const { signal } = cancelling;
    delete viewer.dataset.drawn;
    drawTheme();
    tell(null);
    try {
      const there = await read();
      if (mine !== turn) return;
      drawControls(there);
      const view = app.state.view;
      if (there || view === "compare") {
        for (const name in VIEWS) by(name).hidden = name !== view;
        await views[view].draw(signal, () => mine === turn);
      }
    } catch (error) {
      if (error.name !== "AbortError" && mine === turn) tell(error.message);
    }
    if (mine !== turn) return;
    hideProgress();
    if (options.address) note(true);
    viewer.dataset.drawn = toHash();
  }

  function isDark() {
    const { jpThemeLight } = document.body.dataset;
    const chosen = app.state.theme ?? (jpThemeLight === undefined ? null : jpThemeLight === "false" ? "dark" : "light");
    if (chosen) return chosen === "dark";
    return document.body.classList.contains("vscode-dark") || matchMedia("(prefers-color-scheme: dark)").matches;
  }

  function drawTheme() {
    const dark = isDark();
    viewer.dataset.theme = dark ? "dark" : "light";
    if (options.address) document.documentElement.dataset.theme = viewer.dataset.theme;
    by("theme").textContent = dark ? "Light" : "Dark";
    by("theme").setAttribute("aria-label", `Use ${dark ? "light" : "dark"} colours`);
  }

  function drawControls(there) {
    const { state, reading } = app;
    viewer.dataset.view = state.view;
    by("bar").hidden = by("views").hidden = !there && state.view !== "compare";
    for (const name in VIEWS) {
      const tab = by(`tab-${name}`);
      tab.setAttribute("aria-selected", name === state.view);
      tab.tabIndex = name === state.view ? 0 : -1;
    }
    if (!there) return;
    const { units, tokens, special } = reading;
    viewer.classList.toggle("long", reading.U > 32);
    if (options.reads) fillForm();
    by("title").textContent = reading.text.replace(/\s+/g, " ");
    by("about").textContent = about();
    by("truncated").textContent = reading.truncated ?? "";
    by("truncated").hidden = !reading.truncated;
    by("sampled").hidden = reading.U <= 2048;

    const u = state.word ?? app.firstWord();
    if (root.activeElement !== by("word")) by("word").value = state.word === null ? "" : units[state.word];
    const parts = reading.tokensOf(u);
    fillSelect(by("token"), parts.map((i, n) => [n, tokens[i]]));
    by("token").value = Math.min(state.token, parts.length - 1);
    by("token").parentNode.hidden = parts.length < 2;
    fillSelect(by("layer"), Array.from({ length: reading.L }, (_, l) => [l, l]));
    fillSelect(by("head"), Array.from({ length: reading.H }, (_, h) => [h, h]));
    by("layer").value = state.layer;
    by("head").value = state.head;
    by("hide").checked = state.hide;
    by("hide").parentNode.hidden = !special.size || Boolean(reading.pictured);
  }

  function about() {
    const { model, L, H, U, N, special, memory, exactness } = app.reading;
    const parts = [model, `${L} layers × ${H} heads`, `${count(U - special.size, "word")}, ${count(N, "token")}`];
    if (exactness) parts.push(exactness);
    if (memory) {
      parts.push(`${bytes(memory.reading)} in memory`);
      if (memory.kept) parts.push(`${count(memory.readings, "reading")} kept, ${bytes(memory.kept)} of ${bytes(memory.limit)}`);
    }
    return parts.join(" · ");
  }

  function fillForm() {
    const { state, reading } = app;
    if (state.text === null) return; // a reading that came by its number: the text may be long
    if (filled !== reading.wanted) {
      by("text").value = state.text;
      by("pair").value = state.pair ?? "";
      showPair(state.pair !== null);
      filled = reading.wanted; // from here on it is the reader's, until another text is opened
    }
    by("model").value = state.model ?? app.start.models[0];
    document.title = `${reading.text.slice(0, 60)} · regard`;
    fit(by("text"));
  }

  // ── What is under way, and what went wrong ───────────────────────────────────────────────────────────────────────

  const DOING = {
    read: "Reading the text",
    card: "Reading the text",
    thumbs: "Drawing the heads",
    tile: "Computing the whole matrix once, for the view from afar",
    compare: "Reading the texts",
    page: "Writing the file",
  };

  let job = null; // the number of what is under way

  function showProgress(question, share, number) {
    clearTimeout(working);
    job = number;
    const says = DOING[question.what] ?? "Computing";
    by("progress-says").textContent =
      share === null ? `${says}: waiting for other work` : `${says}: ${Math.floor(100 * share)} %`;
    if (share === null) by("progress-bar").removeAttribute("value");
    else by("progress-bar").value = share;
    by("progress").hidden = false;
    working = setTimeout(hideProgress, 2000);
  }

  function hideProgress() {
    clearTimeout(working);
    by("progress").hidden = true;
  }

  function tell(message) {
    by("problem").textContent = message ?? "";
    by("problem").hidden = !message;
  }

  by("cancel").addEventListener("click", async () => {
    cancelling?.abort();
    hideProgress();
    tell("Cancelled. Choose again what to look at.");
    if (job !== null) await source({ what: "cancel", job });
    job = null;
  });

  // ── Controls ─────────────────────────────────────────────────────────────────────────────────────────────────────

  const tabs = Object.keys(VIEWS).map((view) => by(`tab-${view}`));
  Object.keys(VIEWS).forEach((view) => by(`tab-${view}`).addEventListener("click", () => go({ view })));
  tabs[0].parentNode.addEventListener("keydown", (event) => {
    const shown = tabs.filter((tab) => !tab.hidden);
    moveFocus(event, shown, { ArrowLeft: -1, ArrowRight: 1 });
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") root.activeElement.click();
  });
  const chooseWord = (event) => {
    try {
      const word = find(by("word").value, event.key === "Enter" ? (app.state.word ?? -1) : -1);
      if (word !== app.state.word) go({ word, side: "from", token: 0 });
    } catch (error) {
      tell(error.message);
    }
  };
  by("word").addEventListener("keydown", (event) => event.key === "Enter" && chooseWord(event));
  by("word").addEventListener("change", (event) => {
    const { state, reading } = app;
    if (by("word").value !== (state.word === null ? "" : reading.units[state.word])) chooseWord(event);
  });
  for (const id of ["token", "layer", "head"])
    by(id).addEventListener("change", (event) => go({ [id]: Number(event.target.value) }));
  by("hide").addEventListener("change", (event) => go({ hide: event.target.checked }));
  by("theme").addEventListener("click", () => go({ theme: isDark() ? "light" : "dark" }, { replace: true }));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  by("exports").addEventListener("click", async (event) => {
    const { kind } = event.target.dataset;
    if (!kind) return;
    tell(null);
    try {
      await save(app, views[app.state.view], kind);
    } catch (error) {
      tell(`It could not be saved: ${error.message}`);
    }
    hideProgress();
  });

  const fit = (area) => {
    area.style.height = "auto";
    area.style.height = `${Math.min(240, area.scrollHeight + 2)}px`;
  };

  function showPair(there) {
    by("second").hidden = !there;
    by("add-pair").setAttribute("aria-expanded", there);
    by("add-pair").textContent = there ? "One text" : "A pair of texts";
  }

  by("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = by("text").value;
    if (!text.trim()) return tell("There is no text to read: type or paste one.");
    if (text.length > app.start.limit)
      return tell(`The text has ${text.length.toLocaleString("en")} characters, and the limit is ${app.start.limit.toLocaleString("en")}.`);
    const pair = !by("second").hidden && by("pair").value.trim() ? by("pair").value : null;
    const view = app.state.view === "compare" ? "sentence" : app.state.view;
    go({ text, pair, model: by("model").value, id: null, view, word: null, token: 0, side: "from", at: null });
  });
  for (const id of ["text", "pair"]) {
    by(id).addEventListener("input", () => fit(by(id)));
    by(id).addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      by("ask").requestSubmit();
    });
  }
  by("add-pair").addEventListener("click", () => {
    showPair(by("second").hidden);
    if (!by("second").hidden) by("pair").focus();
  });
  new ResizeObserver(() => app.reading && views[app.state.view].resize?.()).observe(viewer);
  if (options.address)
    addEventListener("popstate", () => {
      fromHash();
      draw();
    });

  // ── Opening ──────────────────────────────────────────────────────────────────────────────────────────────────────

  for (const [name, view] of Object.entries(VIEWS)) views[name] = view(app);
  fromHash();
  try {
    app.start = await source({ what: "start" });
  } catch (error) {
    app.start = { models: [], limit: 0, first: null };
    tell(error.message);
  }
  const { state, start } = app;
  if (state.text === null && state.id === null && start.first) {
    state.text = start.first.text ?? null;
    state.pair = start.first.pair ?? null;
    state.id = start.first.reading ?? null;
  }
  by("ask").hidden = !options.reads;
  by("title").hidden = options.reads && !options.widget;
  if (options.reads) {
    fillSelect(by("model"), start.models.map((name) => [name, name]));
    by("for-model").hidden = start.models.length < 2;
    if (state.text !== null) by("text").value = state.text;
    if (options.address) by("text").focus({ preventScroll: true });
  }
  by("tab-compare").hidden = start.compares === false;
  await draw();
  return app;
}

