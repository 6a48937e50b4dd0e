// What the browser keeps of the lesson: which exercises are solved. Where it may keep nothing, the page remembers.

/** @import { Kept } from "./types.js" */

const NAME = "regard lesson";

/** @returns {Kept} */
const nothing = () => ({ exercises: {}, whole: false, theme: null });

/** @param {unknown} value @returns {Kept} what is sound of it */
function sound(value) {
  const kept = nothing();
  if (typeof value !== "object" || value === null) return kept;
  const { exercises, whole, theme } = /** @type {Record<string, unknown>} */ (value);
  for (const [id, state] of Object.entries(exercises ?? {}))
    if (state === "right" || state === "tried") kept.exercises[id] = state;
  kept.whole = whole === true;
  if (theme === "light" || theme === "dark") kept.theme = theme;
  return kept;
}

/**
 * @param {() => Storage} open gives localStorage, or throws where it is not allowed
 */
export function openProgress(open = () => localStorage) {
  let kept = nothing();
  let lasts = true;
  /** @param {(storage: Storage) => void} action */
  const attempt = (action) => {
    try {
      action(open());
    } catch {
      lasts = false; // not allowed, or full
    }
  };
  attempt((storage) => {
    const text = storage.getItem(NAME);
    storage.setItem(NAME, text ?? "{}");
    try {
      kept = sound(JSON.parse(text ?? "{}"));
    } catch {
      kept = nothing(); // somebody else's text
    }
  });
  return {
    get kept() {
      return kept;
    },
    /** Whether it is still there after the page is closed. */
    get lasts() {
      return lasts;
    },
    /** @param {Partial<Kept>} change */
    keep(change) {
      kept = { ...kept, ...change };
      attempt((storage) => storage.setItem(NAME, JSON.stringify(kept)));
    },
    /** @param {string} id @param {"right" | "tried"} state */
    answered(id, state) {
      if (kept.exercises[id] !== "right") this.keep({ exercises: { ...kept.exercises, [id]: state } });
    },
    forget() {
      kept = { ...nothing(), theme: kept.theme, whole: kept.whole };
      attempt((storage) => storage.removeItem(NAME));
    },
  };
}

/** @typedef {ReturnType<typeof openProgress>} Progress */
