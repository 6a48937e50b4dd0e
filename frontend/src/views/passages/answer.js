// An answer from documents, as `Answer.to_dict()` of Python has it, and what lights up when something in it is pointed at.
//
// Places are counted in characters as Python counts them: code points, not the units of JavaScript's strings.

/**
 * How much a sentence owes to a passage.
 * @typedef {object} Source
 * @property {number} passage its index
 * @property {number} attention
 * @property {number | null} logits
 * @property {number} knockout
 * @property {number} score by which sources are ranked
 */
/** @typedef {{file: string, start: number, end: number, text: string}} Passage */
/** @typedef {{text: string, start: number, end: number, log_probability: number, sources: Source[]}} Sentence */
/**
 * @typedef {object} Answer
 * @property {string} model
 * @property {string} question
 * @property {string} reply
 * @property {string} note
 * @property {Passage[]} passages
 * @property {Sentence[]} sentences
 */
/** @typedef {{kind: "sentence" | "passage", index: number}} Picked what is pointed at, or held */
/** @typedef {{index: number, rank: number, strength: number, source: Source}} Lit the other end of a source, from 0 to 1 */

export const LIT_FROM = 0.1; // of the best score of a sentence: what is below lights nothing up

/**
 * The reply as it is to be read: its sentences, with what stands between them.
 * @param {Answer} answer
 * @returns {{text: string, sentence: number | null}[]}
 */
export function piecesOf({ reply, sentences }) {
  const letters = [...reply];
  const pieces = [];
  let end = 0;
  for (const [n, sentence] of sentences.entries()) {
    if (sentence.start > end) pieces.push({ text: letters.slice(end, sentence.start).join(""), sentence: null });
    pieces.push({ text: letters.slice(sentence.start, sentence.end).join(""), sentence: n });
    end = sentence.end;
  }
  if (end < letters.length) pieces.push({ text: letters.slice(end).join(""), sentence: null });
  return pieces;
}

/**
 * The passages by their files, each in the order of the file.
 * @param {Answer} answer
 * @returns {{file: string, passages: number[]}[]}
 */
export function filesOf({ passages }) {
  /** @type {Map<string, number[]>} */
  const files = new Map();
  for (const [n, { file }] of passages.entries()) files.set(file, [...(files.get(file) ?? []), n]);
  return [...files].map(([file, all]) => ({
    file,
    passages: all.sort((a, b) => passages[a].start - passages[b].start),
  }));
}

/**
 * How strongly each source of a sentence counts: its score as a share of the best.
 * @param {Sentence} sentence
 * @returns {{rank: number, strength: number, source: Source}[]}
 */
export function ranked({ sources }) {
  const best = Math.max(0, ...sources.map(({ score }) => score));
  return sources.map((source, rank) => ({
    rank,
    strength: best > 0 ? Math.max(0, source.score) / best : 0,
    source,
  }));
}

/**
 * What belongs to what is picked: of a sentence its passages, best first; of a passage the sentences, in their order.
 * @param {Answer} answer
 * @param {Picked} picked
 * @returns {Lit[]}
 */
export function sourcesOf({ sentences }, { kind, index }) {
  if (kind === "sentence")
    return ranked(sentences[index]).map((source) => ({ ...source, index: source.source.passage }));
  return sentences.flatMap((sentence, n) =>
    ranked(sentence)
      .filter(({ source }) => source.passage === index)
      .map((source) => ({ ...source, index: n })),
  );
}

/** @param {Lit[]} sources */
export const litOf = (sources) => sources.filter(({ strength }) => strength >= LIT_FROM);

/**
 * Whether something else belongs to what is picked, in a sentence.
 * @param {Answer} answer
 * @param {Picked} picked
 */
export function sayingOf(answer, picked) {
  const lit = litOf(sourcesOf(answer, picked)).sort((a, b) => b.strength - a.strength);
  const name = `${picked.kind === "sentence" ? "Sentence" : "Passage"} ${picked.index + 1}`;
  const other = picked.kind === "sentence" ? "passage" : "sentence";
  if (!lit.length)
    return `${name}: ${picked.kind === "sentence" ? "it came from no passage" : "no sentence came from it"}.`;
  const all = lit.map(({ index }) => index + 1);
  const listed =
    all.length > 1 ? `${other}s ${all.slice(0, -1).join(", ")} and ${all[all.length - 1]}` : `${other} ${all[0]}`;
  if (picked.kind === "passage") return `${name}: ${listed} came from it.`;
  return `${name}: it came from ${listed}${all.length > 1 ? ", the most likely first" : ""}.`;
}
