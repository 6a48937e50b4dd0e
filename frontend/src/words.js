// Words of a text: how they are shown, and how one that was typed is found.

/** White space as signs, so that a token made of it can be seen. */
export const visible = (text) =>
  text === "" || /\S/u.test(text)
    ? text
    : text.replace(/./gsu, (space) => ({ "\n": "⏎", "\r": "␍", "\t": "⇥", " ": "␣", "\u00a0": "⍽" })[space] ?? "␣");

/** A text without the differences of typography: letter case, quotation marks, dashes, composed accents. */
export const plain = (text) =>
  text
    .normalize("NFKC")
    .toLowerCase()
    .replace(/[‘’‚‛′`´]/g, "'")
    .replace(/[“”„‟″«»]/g, '"')
    .replace(/[‐‑‒–—−]/g, "-")
    .replace(/\s+/g, " ")
    .trim();

/** The next unit after `after` that reads `wanted`, or begins a run of units that do; −1 where there is none. */
export function findWord(units, wanted, after, isVisible) {
  const joined = plain(wanted).replaceAll(" ", "");
  if (!joined) return -1;
  const texts = units.map((text) => plain(text).replaceAll(" ", ""));
  const startsRun = (u) => {
    let run = "";
    for (let v = u; v < texts.length && run.length < joined.length && isVisible(v); v++) run += texts[v];
    return run === joined;
  };
  const order = texts.map((_, n) => (after + 1 + n) % texts.length).filter(isVisible);
  return order.find((u) => texts[u] === joined) ?? order.find((u) => texts[u] && startsRun(u)) ?? -1;
}
