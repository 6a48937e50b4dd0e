// Reading texts: the questions of the views, and the reading that they are about.

import { poll } from "../source/poll.js";
import { keepText, keptText } from "./storage.js";

/** @import { Answers, App, Card, QuestionOf, Reading, Selection, Source, TextSource } from "../types.js" */
/** @import { Progress } from "./progress.js" */

export class Reader {
  /** @param {App} app @param {Source} source @param {Progress} progress */
  constructor(app, source, progress) {
    this.app = app;
    this.poll = poll(source, ({ what }, share, job) => progress.show(what, share, job));
    /**
     * The text whose reading was cancelled: it is read again only when somebody asks for it.
     * @type {string | null}
     */
    this.cancelled = null;
    /**
     * The text that is read again, because the server was restarted.
     * @type {Promise<void> | null}
     */
    this.rereading = null;
  }

  /**
   * The answer to a question, which is about the reading that is shown unless it names another.
   * @template {keyof Answers} K
   * @param {QuestionOf<K>} question
   * @param {AbortSignal} [signal]
   * @returns {Promise<Answers[K]>}
   */
  async ask(question, signal) {
    const { app } = this;
    const asked = { reading: app.reading?.id, ...question };
    try {
      return await this.poll(asked, signal);
    } catch (error) {
      const isUnknown = /** @type {any} */ (error).status === 404;
      if (!isUnknown || !app.reading || asked.reading !== app.reading.id) throw error;
      this.rereading ??= this.readAgain().finally(() => {
        this.rereading = null;
      });
      await this.rereading;
      return this.poll({ ...asked, reading: app.reading.id }, signal);
    }
  }

  /** Reads the text that is shown once more, for a server that was restarted and does not know it. */
  async readAgain() {
    const { reading } = this.app;
    const { requested } = reading;
    const { text, pair, model } = requested.text === null ? (keptText(reading.id) ?? requested) : requested;
    if (text === null) throw new Error("The server no longer has this text. Paste the text, and press Read.");
    const card = await this.poll({ what: "read", text, pair: pair ?? undefined, model: model ?? undefined });
    reading.id = card.reading;
  }

  /**
   * Reads the text of the selection, or opens the reading that it names, unless it is the one that is shown. Returns
   * whether there is a reading.
   * @param {AbortSignal} signal
   * @param {(reading: Reading) => void} opened
   */
  async read(signal, opened) {
    const { app } = this;
    const { text, pair, model, id } = app.state;
    const wanted = wantedText(app.state);
    if (app.reading && app.reading.wanted === wanted) return true;
    if (wanted === null) return false;
    if (wanted === this.cancelled) throw new Error("Reading was cancelled. Press Read to start it again.");
    const question =
      text === null
        ? { what: /** @type {const} */ ("card"), reading: id }
        : { what: /** @type {const} */ ("read"), text, pair: pair ?? undefined, model: model ?? undefined };
    /** @type {Card} */
    let card;
    try {
      card = await this.poll(question, signal);
    } catch (error) {
      if (/** @type {any} */ (error).status !== 404) throw error;
      throw new Error("The server no longer has the text of this link. Paste the text, and press Read.");
    }
    const source = card.source ?? { text, pair, model }; // the server knows what it read, where a link has only its name
    Object.assign(app.state, { text: source.text ?? text, pair: source.pair ?? null, model: model ?? null });
    const requested = { text: app.state.text, pair: app.state.pair, model: app.state.model, id };
    const reading = readingOf(card, wantedText(app.state), requested);
    if (app.options.address && requested.text !== null) keepText(reading.id, requested);
    opened(reading);
    return true;
  }
}

/**
 * What a selection asks to be read, as a name: a text, or a reading that the server has.
 * @param {Pick<Selection, "text" | "pair" | "model" | "id">} state
 */
export const wantedText = ({ text, pair, model, id }) =>
  text === null ? id && JSON.stringify([id, model]) : JSON.stringify([text, pair, model]);

/**
 * The reading of a card.
 * @param {Card} card
 * @param {string | null} wanted
 * @param {TextSource} requested
 * @returns {Reading}
 */
export function readingOf(card, wanted, requested) {
  return {
    ...card,
    id: card.reading,
    wanted,
    requested,
    special: new Set(card.special),
    unknown: new Set(card.unknown ?? []),
    U: card.units.length,
    N: card.tokens.length,
    L: card.layers,
    H: card.heads,
    attended: card.attended ?? Array.from({ length: card.layers }, (_, l) => l),
    tokensOf: (u) => {
      const [first, stop] = [card.first[u], card.first[u + 1] ?? card.tokens.length];
      return Array.from({ length: stop - first }, (_, n) => first + n);
    },
  };
}
