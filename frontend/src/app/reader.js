// Reading texts: the requests of the views, and the reading that they are about.

import { poll } from "../source/poll.js";
import { keepText, keptText } from "./storage.js";

/** @import { Columns } from "../protocol.js" */
/** @import { App, MetadataReply, Replies, RequestOf, Reading, Selection, Source, TextSource, Words } from "../types.js" */
/** @import { Progress } from "./progress.js" */

export class Reader {
  /** @param {App} app @param {Source} source @param {Progress} progress */
  constructor(app, source, progress) {
    this.app = app;
    this.poll = poll(source, ({ type, map = "weights" }, share, job, says) =>
      progress.show(map === "weights" ? type : "map", share, job, says),
    );
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
   * The reply to a request, which is about the reading that is shown unless it names another.
   * @template {keyof Replies} K
   * @param {RequestOf<K>} request
   * @param {AbortSignal} [signal]
   * @returns {Promise<Replies[K]>}
   */
  async request(request, signal) {
    const { app } = this;
    const named = { reading: app.reading?.id, ...request };
    try {
      return await this.poll(named, signal);
    } catch (error) {
      const isUnknown = /** @type {any} */ (error).status === 404;
      if (!isUnknown || !app.reading || named.reading !== app.reading.id) throw error;
      this.rereading ??= this.readAgain().finally(() => {
        this.rereading = null;
      });
      await this.rereading;
      return this.poll({ ...named, reading: app.reading.id }, signal);
    }
  }

  /** Reads the text that is shown once more, for a server that was restarted and does not know it. */
  async readAgain() {
    const { reading } = this.app;
    const { requested } = reading;
    const { text, pair, model } = requested.text === null ? (keptText(textId(reading.id)) ?? requested) : requested;
    if (text === null) throw new Error("The server no longer has this text. Paste the text, and press Read.");
    const metadata = await this.poll({ type: "read", text, pair: pair ?? undefined, model: model ?? undefined });
    reading.id = attentionId(metadata.reading, reading.attention);
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
    if (app.reading && app.reading.wanted === wanted) {
      await this.readAttention(app.reading, signal, opened);
      return true;
    }
    if (wanted === null) return false;
    if (wanted === this.cancelled) throw new Error("Reading was cancelled. Press Read to start it again.");
    const request =
      text === null
        ? { type: /** @type {const} */ ("metadata"), reading: id }
        : { type: /** @type {const} */ ("read"), text, pair: pair ?? undefined, model: model ?? undefined };
    /** @type {MetadataReply} */
    let metadata;
    try {
      metadata = await this.poll(request, signal);
    } catch (error) {
      if (/** @type {any} */ (error).status !== 404) throw error;
      throw new Error("The server no longer has the text of this link. Paste the text, and press Read.");
    }
    const source = metadata.source ?? { text, pair, model }; // the server knows what it read, where a link has only its name
    Object.assign(app.state, { text: source.text ?? text, pair: source.pair ?? null, model: model ?? null });
    const requested = { text: app.state.text, pair: app.state.pair, model: app.state.model, id };
    const reading = readingOf(metadata, wantedText(app.state), requested);
    if (app.options.address && requested.text !== null) keepText(textId(reading.id), requested);
    if (!(await this.readAttention(reading, signal, opened))) opened(reading);
    return true;
  }

  /**
   * Opens the attention that is chosen, where a reading has several, unless it is the one that is there. Returns whether
   * it did.
   * @param {Reading} reading
   * @param {AbortSignal} signal
   * @param {(reading: Reading) => void} opened
   */
  async readAttention(reading, signal, opened) {
    const { attention } = this.app.state;
    if (!attention || attention === reading.attention) return false;
    if (!reading.attentions.some((name) => name === attention)) {
      this.app.state.attention = null; // of another reading
      return false;
    }
    const metadata = await this.poll({ type: "metadata", reading: attentionId(reading.id, attention) }, signal);
    opened(readingOf(metadata, reading.wanted, reading.requested));
    return true;
  }
}

/**
 * The id of a reading without the name of one of its attentions.
 * @param {string} id
 */
const textId = (id) => id.split(".")[0];

/**
 * The id of one of a reading's attentions.
 * @param {string} id
 * @param {string | null} attention
 */
const attentionId = (id, attention) => (attention ? `${textId(id)}.${attention}` : id);

/**
 * What a selection asks to be read, as a name: a text, or a reading that the server has.
 * @param {Pick<Selection, "text" | "pair" | "model" | "id">} state
 */
export const wantedText = ({ text, pair, model, id }) =>
  text === null ? id && JSON.stringify([id, model]) : JSON.stringify([text, pair, model]);

/**
 * The reading of a metadata.
 * @param {MetadataReply} metadata
 * @param {string | null} wanted
 * @param {TextSource} requested
 * @returns {Reading}
 */
export function readingOf(metadata, wanted, requested) {
  /** @type {Reading} */
  const reading = {
    ...metadata,
    ...wordsOf(metadata),
    id: metadata.reading,
    wanted,
    requested,
    columns: /** @type {any} */ (null),
    L: metadata.layers,
    H: metadata.heads,
    attended: metadata.attention_layers ?? Array.from({ length: metadata.layers }, (_, l) => l),
  };
  reading.columns = metadata.columns ? wordsOf(metadata.columns) : reading;
  return reading;
}

/**
 * Words as rows or columns.
 * @param {Columns & {second?: number | null, reply?: number | null}} words
 * @returns {Words}
 */
function wordsOf({
  text,
  units,
  special,
  unknown,
  first_tokens: first,
  tokens,
  unknown_tokens,
  second = null,
  reply = null,
}) {
  return {
    text,
    units,
    tokens,
    unknown_tokens,
    second,
    reply,
    special: new Set(special),
    unknown: new Set(unknown ?? []),
    U: units.length,
    N: tokens.length,
    tokensOf: (u) => Array.from({ length: (first[u + 1] ?? tokens.length) - first[u] }, (_, n) => first[u] + n),
  };
}
