// The viewer: one reading, one selection that all views share, and the controls that change it.
//
// The modules of this folder are joined into one script by bundle.py, for a server, for a file and for a notebook
// alike; only where the answers come from differs. Letters as in the documentation: H heads, N tokens, U units (words
// and special tokens), D dim. l, h, i, u are a layer, a head, a token, a unit.

import { bytes, count, fillSelect, moveFocus, tooltip } from "./dom.js";
import { addText, keepText, keptText, parametersOf, selectionOf, VIEW_NAMES } from "./address.js";
import { TEXT_LIMIT } from "./protocol.js";
import { patient } from "./source.js";
import { weightMemory } from "./weights.js";
import { findWord } from "./words.js";
import { sentenceView } from "./sentence.js";
import { headsView } from "./heads.js";
import { mapView } from "./map.js";
import { walkView } from "./walk.js";
import { compareView } from "./compare.js";
import { save } from "./export.js";

const VIEWS = { sentence: sentenceView, heads: headsView, map: mapView, walk: walkView, compare: compareView };

/**
 * Brings the markup of viewer.html to life.
 *
 * root: the document or shadow root that holds it. source: who answers questions. options: `address`, whether the
 * selection is kept in the page's address; `reads`, whether other texts can be read; `frozen`, a page without Python;
 * `opening`, what is chosen at first, and in its `link` the address of what was shown when the page was saved.
 */
export async function mount(root, source, options = {}) {
  const by = (id) => root.getElementById(id);
  const viewer = by("viewer");
  const opening = options.opening ?? {};
  let turn = 0;
  let cancelling = null; // AbortController of what is being drawn
  let cancelled = null; // the text whose reading was cancelled: it is read again only when somebody asks for it
  let rereading = null; // the promise of a text that is read again, because the server was started anew
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
    note,
    link,
    find,
    tell,
    isDark,
    isVisible: (u) => u !== null && u >= 0 && u < app.reading.U && !(app.state.hide && app.reading.special.has(u)),
    visible: () => [...app.reading.units.keys()].filter(app.isVisible),
    usualWord,
  };
  Object.assign(app, weightMemory(app));
  const views = {};

  // ── Questions ────────────────────────────────────────────────────────────────────────────────────────────────────

  const asking = patient(source, showProgress);

  /** The answer to a question; those about a reading name it themselves. */
  async function ask(question, signal) {
    const asked = { reading: app.reading?.id, ...question };
    try {
      return await asking(asked, signal);
    } catch (error) {
      if (error.status !== 404 || !app.reading || asked.reading !== app.reading.id) throw error;
      rereading ??= readAgain().finally(() => (rereading = null));
      await rereading;
      return asking({ ...asked, reading: app.reading.id }, signal);
    }
  }

  /** Reads the text that is shown once more, for a server that was started anew and does not know it. */
  async function readAgain() {
    const { id, asked } = app.reading;
    const { text, pair, model } = asked.text === null ? (keptText(id) ?? asked) : asked;
    if (text === null) throw new Error("The server no longer has this text. Paste the text, and press Read.");
    const card = await asking({ type: "read", text, pair: pair ?? undefined, model: model ?? undefined });
    app.reading.id = card.reading;
  }

  /** The word that is shown while none is chosen: the first, or the last where words see only those before them. */
  function usualWord() {
    const { units, special, causal } = app.reading;
    const order = causal ? [...units.keys()].reverse() : [...units.keys()];
    return order.find((u) => !special.has(u) && app.isVisible(u)) ?? order.find(app.isVisible) ?? 0;
  }

  /** The next unit after `after` with this text, or of this number. */
  function find(text, after = -1) {
    const wanted = text.trim();
    if (!wanted) return null;
    const u = findWord(app.reading.units, wanted, after, app.isVisible);
    if (u >= 0) return u;
    if (/^\d+$/.test(wanted) && app.isVisible(Number(wanted))) return Number(wanted);
    throw new Error(`There is no word “${wanted}” in the text.`);
  }

  // ── The selection, and the address ───────────────────────────────────────────────────────────────────────────────

  function toHash() {
    const parts = parametersOf(app.state, app.reading);
    if (options.reads) addText(parts, app.state, app.reading, app.start.models[0]);
    return `#${parts}`;
  }

  /** The address of what is shown, without its text: what a saved page opens with. */
  function link() {
    return String(parametersOf({ ...app.state, theme: isDark() ? "dark" : "light" }, app.reading));
  }

  function fromHash() {
    const hash = options.address ? location.hash.slice(1) : "";
    app.state = selectionOf(new URLSearchParams(hash || (opening.link ?? "")), opening);
    const kept = app.state.text === null && app.state.id ? keptText(app.state.id) : null;
    if (kept) Object.assign(app.state, { text: kept.text, pair: kept.pair ?? null, model: kept.model ?? app.state.model });
  }

  /** Brings a selection that came by the address, or from another reading, within what there is. */
  function settle() {
    const { state, reading } = app;
    const within = (value, size) => (value !== null && value < size ? value : null);
    state.word = within(state.word, reading.U);
    if (!reading.attended.includes(state.layer)) state.layer = reading.attended[0];
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

  /** What the state asks to be read, as a name: a text, or a reading that the server has. */
  function wantedText() {
    const { text, pair, model, id } = app.state;
    return text === null ? id && JSON.stringify([id, model]) : JSON.stringify([text, pair, model]);
  }

  /** Reads the text of the state, or opens the reading that it names, unless it is the one that is shown. */
  async function read() {
    const { text, pair, model, id } = app.state;
    const wanted = wantedText();
    if (app.reading && app.reading.wanted === wanted) return true;
    if (wanted === null) return false;
    if (wanted === cancelled) throw new Error("Reading was cancelled. Press Read to start it again.");
    const question =
      text === null
        ? { type: "metadata", reading: id }
        : { type: "read", text, pair: pair ?? undefined, model: model ?? undefined };
    let card;
    try {
      card = await asking(question, cancelling.signal);
    } catch (error) {
      if (error.status !== 404) throw error;
      throw new Error("The server no longer has the text of this link. Paste the text, and press Read.");
    }
    const made = card.source ?? { text, pair, model }; // the server knows what it read, where a link has only its name
    Object.assign(app.state, { text: made.text ?? text, pair: made.pair ?? null, model: model ?? null });
    open(card, wantedText(), { text: app.state.text, pair: app.state.pair, model: app.state.model, id });
    return true;
  }

  /** A card becomes the reading that is shown. */
  function open(card, wanted, asked) {
    app.reading = {
      ...card,
      id: card.reading,
      wanted,
      asked,
      special: new Set(card.special),
      unknown: new Set(card.unknown ?? []),
      U: card.units.length,
      N: card.tokens.length,
      L: card.layers,
      H: card.heads,
      attended: card.attention_layers ?? Array.from({ length: card.layers }, (_, l) => l), // the layers that have attention
      tokensOf: (u) => {
        const stop = card.first_tokens[u + 1] ?? card.tokens.length;
        return Array.from({ length: stop - card.first_tokens[u] }, (_, n) => card.first_tokens[u] + n);
      },
    };
    if (options.address && asked.text !== null) keepText(card.reading, asked);
    for (const view of Object.values(views)) view.forget?.();
    settle();
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
        for (const name of VIEW_NAMES) by(name).hidden = name !== view;
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
    for (const name of VIEW_NAMES) {
      const tab = by(`tab-${name}`);
      tab.setAttribute("aria-selected", name === state.view);
      tab.tabIndex = name === state.view ? 0 : -1;
    }
    if (!there) return;
    const { units, tokens, special } = reading;
    viewer.classList.toggle("long", reading.U > 32);
    if (options.reads) fillForm();
    by("title").textContent = reading.text.replace(/\s+/g, " ");
    by("title").classList.toggle("unseen", options.reads && !options.widget && state.text !== null);
    by("about").textContent = about();
    drawDetails();
    drawNote();
    by("truncated").textContent = reading.truncated ?? "";
    by("truncated").hidden = !reading.truncated;

    const u = state.word ?? usualWord();
    if (root.activeElement !== by("word")) by("word").value = state.word === null ? "" : units[state.word];
    const parts = reading.tokensOf(u);
    fillSelect(by("token"), parts.map((i, n) => [n, tokens[i]]));
    by("token").value = Math.min(state.token, parts.length - 1);
    by("token").parentNode.hidden = parts.length < 2;
    fillSelect(by("layer"), reading.attended.map((l) => [l, l]));
    fillSelect(by("head"), Array.from({ length: reading.H }, (_, h) => [h, h]));
    by("layer").value = state.layer;
    by("head").value = state.head;
    by("hide").checked = state.hide;
    by("hide").parentNode.hidden = !special.size || Boolean(reading.pictured);
  }

  function about() {
    const { model, L, H, U, N, special, exactness } = app.reading;
    const facts = [model, `${L} layers × ${H} heads`, `${count(U - special.size, "word")}, ${count(N, "token")}`];
    return [...facts, exactness].filter(Boolean).join(" · ");
  }

  /** What the reading takes, and what the server keeps: of use to few, so it is folded away. */
  function drawDetails() {
    const { memory } = app.reading;
    by("details").hidden = !memory;
    if (!memory) return;
    const lines = [`This reading takes ${bytes(memory.reading)} of memory.`];
    if (memory.used)
      lines.push(`The server keeps ${count(memory.readings, "reading")}, in ${bytes(memory.used)} of the ${bytes(memory.limit)} that it may use.`);
    by("memory").textContent = lines.join(" ");
  }

  /** Says how much of the text the model has no tokens for, or what else of it cannot be seen here. */
  function drawNote() {
    const { unknown, special, U, note } = app.reading;
    const words = [...unknown].filter((u) => !special.has(u)).length;
    const all = U - special.size;
    const known = `The model knows ${all - words} of ${count(all, "word")}: it cannot tell the underlined ones apart, because its vocabulary has no tokens for them.`;
    by("note").textContent = note || (words ? known : "");
    by("note").hidden = !by("note").textContent;
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
    thumbnails: "Drawing the heads",
    tile: "Computing the whole matrix once, for the zoomed-out view",
    compare: "Reading the texts",
    page: "Writing the file",
  };

  let job = null; // the number of what is under way

  function showProgress(question, share, number) {
    clearTimeout(working);
    job = number;
    const says = DOING[question.type] ?? "Computing";
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
    const number = job;
    job = null;
    cancelling?.abort();
    hideProgress();
    if (app.reading?.wanted === wantedText() || app.state.view === "compare") tell("Cancelled. Choose again what to look at.");
    else cancelReading();
    if (number !== null) await source({ type: "cancel", job: number });
  });

  /** Goes back to the reading before, so that no view starts the cancelled one again. */
  function cancelReading() {
    cancelled = wantedText();
    if (!app.reading) return tell("Reading was cancelled. Press Read to start it again.");
    go({ ...app.reading.asked, at: null, seen: null }, { replace: true }).then(() =>
      tell("Reading was cancelled, and the text before it is shown again. Press Read to start it again."),
    );
  }

  // ── Controls ─────────────────────────────────────────────────────────────────────────────────────────────────────

  const tabs = VIEW_NAMES.map((view) => by(`tab-${view}`));
  VIEW_NAMES.forEach((view) => by(`tab-${view}`).addEventListener("click", () => go({ view })));
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
    by("add-pair").textContent = there ? "Remove the second text" : "Add a second text";
  }

  /** Reads what stands in the form, in a view. */
  function submit(view) {
    const text = by("text").value;
    if (!text.trim()) return tell("There is no text to read: type or paste one.");
    if (text.length > TEXT_LIMIT)
      return tell(`The text has ${text.length.toLocaleString("en")} characters, and the limit is ${TEXT_LIMIT.toLocaleString("en")}.`);
    const pair = !by("second").hidden && by("pair").value.trim() ? by("pair").value : null;
    const model = app.start.models.length ? by("model").value : null;
    cancelled = null;
    go({ text, pair, model, id: null, view, word: null, token: 0, side: "from", at: null, seen: null });
  }

  by("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    submit(app.state.view === "compare" ? "sentence" : app.state.view);
  });
  by("model").addEventListener("change", () => {
    if (by("text").value.trim()) submit(app.state.view);
    else go({ model: by("model").value });
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
  new ResizeObserver(() => viewer.style.setProperty("--bar", `${by("bar").offsetHeight}px`)).observe(by("bar"));
  if (options.address)
    addEventListener("popstate", () => {
      fromHash();
      draw();
    });

  // ── Opening ──────────────────────────────────────────────────────────────────────────────────────────────────────

  for (const [name, view] of Object.entries(VIEWS)) views[name] = view(app);
  fromHash();
  let failure = null;
  try {
    app.start = await source({ type: "start" });
  } catch (error) {
    app.start = { models: [], opening: null };
    failure = error.message;
  }
  const { state, start } = app;
  if (state.text === null && state.id === null && start.opening) {
    state.text = start.opening.text ?? null;
    state.pair = start.opening.pair ?? null;
    state.id = start.opening.reading ?? null;
  }
  by("ask").hidden = !options.reads;
  if (options.reads) {
    fillSelect(by("model"), start.models.map((name) => [name, name]));
    by("for-model").hidden = start.models.length < 2;
    by("model").value = state.model ?? start.models[0];
    if (state.text !== null) by("text").value = state.text;
    if (options.address) by("text").focus({ preventScroll: true });
  }
  by("tab-compare").hidden = start.compares === false;
  await draw();
  if (failure) tell(failure);
  return app;
}
