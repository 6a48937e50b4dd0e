// An answer from documents, as `Answer.to_dict()` of Python has it, and what lights up when something in it is pointed at.
//
// Places are counted in characters as Python counts them: code points, not the units of JavaScript's strings.

import { format } from "../../ui/format.js";

/** @import { AnswerSentence as Sentence, AnswerSource as Source, AskReply as Answer } from "../../protocol.js" */
/** @typedef {{kind: "sentence" | "passage", index: number}} Picked what is pointed at, or held */
/** @typedef {{index: number, rank: number, strength: number, source: Source}} Lit the other end of a source, from 0 to 1 */

export const LIT_FROM = 0.1; // of the best score of a sentence, or of its largest knockout: what is below does not count

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
 * What the proof says of what is picked: which passage a sentence needed most, or which sentences needed a passage.
 * @param {Answer} answer
 * @param {Picked} picked
 */
export function sayingOf(answer, picked) {
  return picked.kind === "sentence" ? ofSentence(answer, picked.index) : ofPassage(answer, picked.index);
}

/** @param {Answer} answer @param {number} n */
function ofSentence({ sentences }, n) {
  const { sources } = sentences[n];
  const proven = sources.reduce((best, source) => (source.knockout > best.knockout ? source : best), sources[0]);
  if (!proven || proven.knockout <= 0)
    return `Sentence ${n + 1}: hiding any of the passages leaves it as likely as it was.`;
  const first = sources[0].passage;
  const differs = first === proven.passage ? "" : ` The ranking by attention has passage ${first + 1} first.`;
  const fall = `without it, its log-probability falls by ${format(proven.knockout, 2)} nats`;
  return `Sentence ${n + 1} needs passage ${proven.passage + 1} most: ${fall}.${differs}`;
}

/**
 * Whether a sentence needs a passage: its knockout counts beside the largest.
 * @param {Sentence} sentence
 * @param {number} passage
 */
export function isNeeded({ sources }, passage) {
  const own = sources.find((source) => source.passage === passage)?.knockout ?? 0;
  return own > 0 && own >= LIT_FROM * Math.max(...sources.map(({ knockout }) => knockout));
}

/** @param {Answer} answer @param {number} n */
function ofPassage({ sentences }, n) {
  const needing = sentences.flatMap((sentence, place) => (isNeeded(sentence, n) ? [place + 1] : []));
  if (!needing.length) return `Passage ${n + 1}: no sentence needs it.`;
  if (needing.length === 1) return `Passage ${n + 1}: sentence ${needing[0]} needs it.`;
  return `Passage ${n + 1}: sentences ${needing.slice(0, -1).join(", ")} and ${needing[needing.length - 1]} need it.`;
}
