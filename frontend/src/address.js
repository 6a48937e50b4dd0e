// The selection that all views share, and the address that a link carries it in.

export const VIEW_NAMES = ["sentence", "heads", "map", "walk", "compare"];
const IN_ADDRESS = 2000; // characters of a text that a link carries with it

/** What is chosen: by the parameters of an address, or where it says nothing, by `opening`. */
export function selectionOf(parts, opening) {
  const number = (name, otherwise) => {
    const value = parts.get(name);
    return value !== null && /^\d{1,9}$/.test(value) ? Number(value) : otherwise;
  };
  const choice = (name, choices, otherwise) => (choices.includes(parts.get(name)) ? parts.get(name) : otherwise);
  const numbers = (name) => parts.get(name)?.split(".").filter((digits) => /^\d{1,9}$/.test(digits)).map(Number) ?? null;
  const at = numbers("at");
  const seen = parts.get("seen")?.split("_").map(Number) ?? [];
  return {
    view: choice("view", VIEW_NAMES, opening.view ?? "sentence"),
    word: number("word", parts.has("word") ? null : (opening.word ?? null)),
    side: choice("side", ["to"], "from"), // the column of the sentence it was chosen in
    token: number("token", 0), // which of the word's tokens the walk follows
    step: number("step", 0), // of the walk
    layer: number("layer", opening.layer ?? 0),
    head: number("head", opening.head ?? 0), // of map and walk
    heads: parts.size ? numbers("heads") : (opening.heads ?? null), // of the sentence; null for all
    hide: parts.get("hide") === "1", // special tokens
    mass: Math.min(100, Math.max(10, number("mass", 100))), // percent of a word's weight that gets lines
    direction: choice("direction", ["aa", "ab", "ba", "bb"], "all"), // of a pair of texts
    scale: choice("scale", ["linear", "log"], null), // of the map's colours; null: by the length of the text
    reduce: choice("reduce", ["max"], "mean"), // what a cell of the map is when zoomed out
    at: at?.length === 2 ? at : null, // the cell of the map that is read out: its units
    seen: seen.length === 3 && seen.every(Number.isFinite) && seen[2] > 0 ? seen : null, // left, top, width of the map's window, in cells
    after: number("after", null), // the layer of the comparison
    same: parts.get("same"), // the word that is compared
    texts: parts.get("texts"), // in which
    theme: choice("theme", ["light", "dark"], null),
    text: parts.get("text"),
    pair: parts.get("pair"),
    model: parts.get("model"),
    id: parts.get("reading"),
  };
}

/** The parameters of an address for what is chosen in a reading, or null while there is none. */
export function parametersOf(state, reading) {
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
  if (state.seen) parts.set("seen", state.seen.join("_"));
  if (state.after !== null) parts.set("after", state.after);
  if (state.same) parts.set("same", state.same);
  if (state.texts && state.texts.length <= IN_ADDRESS) parts.set("texts", state.texts);
  if (state.theme) parts.set("theme", state.theme);
  return parts;
}

/** Adds the text to the parameters of an address: itself where it is short, or else the name of its reading. */
export function addText(parts, state, reading, usualModel) {
  const long = state.text === null || state.text.length + (state.pair ?? "").length > IN_ADDRESS;
  if (!long) {
    parts.set("text", state.text);
    if (state.pair) parts.set("pair", state.pair);
  } else if (reading?.id ?? state.id) parts.set("reading", reading?.id ?? state.id);
  if (state.model && state.model !== usualModel) parts.set("model", state.model);
}

// ── Texts too long for an address ──────────────────────────────────────────────────────────────────────────────────

const stored = (id) => `regard ${id}`;

/** Remembers what a reading was made of for as long as the tab lives, so that a reload can read it again. */
export function keepText(id, asked) {
  try {
    for (const name of Object.keys(sessionStorage))
      if (name.startsWith("regard ") && name !== stored(id) && sessionStorage.length > 8) sessionStorage.removeItem(name);
    sessionStorage.setItem(stored(id), JSON.stringify(asked));
  } catch {
    // No room, or a frame that may not store anything: the server still has the text, for a while.
  }
}

/** What a reading was made of, {text, pair, model}, or null. */
export function keptText(id) {
  try {
    const asked = JSON.parse(sessionStorage.getItem(stored(id)));
    return typeof asked?.text === "string" ? asked : null;
  } catch {
    return null;
  }
}
