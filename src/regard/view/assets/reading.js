// The page: one selection that all views share, kept in the address, and the controls that change it.

const VIEWS = { sentence: drawSentence, heads: drawHeads, map: drawMap, walk: drawWalk };
const allHeads = Array.from({ length: HEADS }, (_, h) => h);
const opening = reading.open;

const state = {
  view: "sentence",
  word: null, // the chosen unit
  side: "from", // the column of the sentence it was chosen in
  token: 0, // which of the word's tokens the walk follows
  layer: 0,
  head: 0, // of map and walk
  heads: new Set(allHeads), // of the sentence
  hide: false, // special tokens
  theme: null, // "light" or "dark" where the reader chose one
};

const isVisible = (u) => u !== null && !(state.hide && units[u].special);
const visibleUnits = () => [...units.keys()].filter(isVisible);
const firstWord = () =>
  Math.max(
    0,
    units.findIndex((unit) => !unit.special),
  );

// ── The address ────────────────────────────────────────────────────────────────────────────────────────────────────

function toHash() {
  const parts = new URLSearchParams({ view: state.view, layer: state.layer, head: state.head });
  parts.set("word", state.word ?? "none");
  if (state.side === "to") parts.set("side", "to");
  if (state.token) parts.set("token", state.token);
  if (state.heads.size < HEADS) parts.set("heads", [...state.heads].join("."));
  if (state.hide) parts.set("hide", 1);
  if (state.theme) parts.set("theme", state.theme);
  return `#${parts}`;
}

function fromHash() {
  const parts = new URLSearchParams(location.hash.slice(1));
  const number = (name, size, otherwise) => {
    const value = parts.has(name) ? Number(parts.get(name)) : NaN;
    return Number.isInteger(value) && value >= 0 && value < size ? value : otherwise;
  };
  state.view = parts.get("view") in VIEWS ? parts.get("view") : "sentence";
  state.word = number("word", U, parts.has("word") ? null : opening.word);
  state.side = parts.get("side") === "to" ? "to" : "from";
  state.token = number("token", tokens.length, 0);
  state.layer = number("layer", layers.length, opening.layer ?? 0);
  state.head = number("head", HEADS, opening.head ?? 0);
  const alone = parts.size === 0 && opening.head !== null ? [opening.head] : allHeads;
  const some = parts.get("heads")?.split(".").filter(Boolean).map(Number);
  state.heads = new Set(some ? allHeads.filter((h) => some.includes(h)) : alone);
  state.hide = parts.get("hide") === "1";
  state.theme = ["light", "dark"].includes(parts.get("theme")) ? parts.get("theme") : null;
}

/** Changes the selection, notes it in the address, and draws. */
function go(change, { replace = false } = {}) {
  Object.assign(state, change);
  if (state.hide && state.word !== null && units[state.word].special) state.word = null;
  try {
    history[replace ? "replaceState" : "pushState"](null, "", toHash());
  } catch {
    // A frame without an address of its own, as in some notebooks: the page works, the link does not.
  }
  draw();
}

addEventListener("popstate", () => {
  fromHash();
  draw();
});

// ── Drawing ────────────────────────────────────────────────────────────────────────────────────────────────────────

let turn = 0;

async function draw() {
  const mine = ++turn;
  if (state.theme) document.documentElement.dataset.theme = state.theme;
  else delete document.documentElement.dataset.theme;
  drawControls();
  for (const view in VIEWS) byId(view).hidden = view !== state.view;
  await open(state.layer);
  if (mine === turn) await VIEWS[state.view](() => mine === turn);
  if (mine === turn) document.body.dataset.drawn = toHash();
}

function drawControls() {
  document.body.dataset.view = state.view;
  for (const view in VIEWS) {
    const tab = byId(`tab-${view}`);
    tab.setAttribute("aria-selected", view === state.view);
    tab.tabIndex = view === state.view ? 0 : -1;
  }
  const visible = visibleUnits();
  const none = state.view === "sentence" ? [["none", visible.length > ALL_LINES ? "none" : "all"]] : [];
  fill("word", [...none, ...visible.map((u) => [u, units[u].text])]);
  byId("word").value = state.word ?? (state.view === "sentence" ? "none" : firstWord());
  const unit = units[state.word ?? firstWord()];
  fill(
    "token",
    unit.tokens.map((i, n) => [n, tokens[i].text]),
  );
  byId("token").value = Math.min(state.token, unit.tokens.length - 1);
  byId("token").parentNode.hidden = unit.tokens.length < 2;
  byId("layer").value = state.layer;
  byId("head").value = state.head;
  byId("hide").checked = state.hide;
  byId("theme").textContent = isDark() ? "Light" : "Dark";
  byId("theme").setAttribute("aria-label", `Use ${isDark() ? "light" : "dark"} colours`);
}

function fill(id, choices) {
  const wanted = choices.join("\n");
  if (byId(id).dataset.holds === wanted) return; // an open menu must not be rebuilt under the hand
  byId(id).dataset.holds = wanted;
  byId(id).replaceChildren(...choices.map(([value, text]) => el("option", { value }, text)));
}

// ── Controls ───────────────────────────────────────────────────────────────────────────────────────────────────────

const tabs = Object.keys(VIEWS).map((view) => byId(`tab-${view}`));
Object.keys(VIEWS).forEach((view) => byId(`tab-${view}`).addEventListener("click", () => go({ view })));
tabs[0].parentNode.addEventListener("keydown", (event) => {
  moveFocus(event, tabs, { ArrowLeft: -1, ArrowRight: 1 });
  if (event.key === "ArrowLeft" || event.key === "ArrowRight") document.activeElement.click();
});
byId("word").addEventListener("change", (event) => {
  const word = event.target.value === "none" ? null : Number(event.target.value);
  go({ word, side: "from", token: 0 });
  byId("from").querySelector(".chosen")?.scrollIntoView({ block: "center" });
});
for (const id of ["token", "layer", "head"])
  byId(id).addEventListener("change", (event) => go({ [id]: Number(event.target.value) }));
byId("hide").addEventListener("change", (event) => go({ hide: event.target.checked }));
byId("theme").addEventListener("click", () => go({ theme: isDark() ? "light" : "dark" }, { replace: true }));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
addEventListener("resize", () => state.view === "map" && ready[state.layer] && drawMap());

document.body.classList.toggle("long", U > ALL_LINES);
fill(
  "layer",
  layers.map((_, l) => [l, l]),
);
fill(
  "head",
  allHeads.map((h) => [h, h]),
);
byId("hide").parentNode.hidden = !units.some((unit) => unit.special);
const count = (name, number) => `${number} ${name}${number === 1 ? "" : "s"}`;
const words = units.filter((unit) => !unit.special).length;
const exactness = reading.bits === 32 ? "" : ` · numbers rounded to ${reading.bits} bits`;
byId("about").textContent =
  `${reading.model} · ${layers.length} layers × ${HEADS} heads · ${count("word", words)}, ${count("token", tokens.length)}${exactness}`;
byId("truncated").textContent = reading.truncated ?? "";
byId("truncated").hidden = !reading.truncated;

fromHash();
draw();
