// The page without Python that reads any text: a model in a worker reads it, and the page answers as a saved one does.

import { COMPARED_PLACES, COMPARED_TEXTS, PREDICTED_TOKENS, PREDICTIONS } from "../protocol.js";
import { comparison, vectorsOf } from "./playground-compare.js";
import { dataOf, viewsOf } from "./playground-data.js";
import { placesOf } from "./playground-find.js";
import { Jobs } from "./playground-jobs.js";
import { PlaygroundModels } from "./playground-models.js";
import { patternShares } from "./playground-patterns.js";
import { Writings } from "./playground-writing.js";
import { OfflineReplies } from "./source.js";

/** @import { Model, OpenModel, Reading } from "../model/types.js" */
/** @import { ModelOffer, Source } from "../types.js" */
/** @import { View, Wanted } from "./playground-data.js" */
/** @import { Report } from "./playground-jobs.js" */

/** @typedef {{reading?: string, text?: string, pair?: string, model?: string, word?: string, texts?: string[], job?: number}} Fields of a request */
/** @typedef {{replies: Map<string, ComputedReplies>, first: ComputedReplies}} Kept */

const KEPT = 4; // readings that are kept; a text that was read before is read again
const ELSEWHERE = "This page cannot do that: regard serve can.";

/**
 * @param {ModelOffer[]} offers the models of the page, the usual one first
 * @param {OpenModel} open
 * @param {{text: string, pair: string | null} | null} opening what is read at first
 * @returns {Source}
 */
export function playgroundSource(offers, open, opening) {
  const playground = new Playground(new PlaygroundModels(offers, open), opening);
  return async ({ type, ...fields }) => playground.reply(type, fields);
}

class Playground {
  /** @param {PlaygroundModels} models @param {{text: string, pair: string | null} | null} opening */
  constructor(models, opening) {
    this.models = models;
    this.opening = opening;
    this.jobs = new Jobs();
    this.writings = new Writings();
    /** By its id, the latest used last. @type {Map<string, Kept>} */
    this.kept = new Map();
  }

  /** @param {string} type @param {any} fields @returns {Promise<any>} */
  async reply(type, fields) {
    if (type === "start") return { models: this.models.names, opening: this.opening, compares: true };
    if (type === "read") return this.read(fields);
    if (type === "compare") return this.compare(fields);
    if (type === "cancel") return { jobs: this.jobs.cancel(fields.job) };
    if (type === "write") return this.write(fields);
    if (type === "written") return this.writings.written(fields.writing, fields.since ?? 0);
    if (type === "stop") return this.writings.stop(fields.writing);
    const replies = this.repliesOf(fields.reading);
    if (type === "predictions") {
      const key = JSON.stringify([type, fields.reading, fields.layer, fields.first, fields.k]);
      return this.jobs.reply(key, fields.job !== undefined, () => replies.predictions(fields));
    }
    if (!ANSWERED.includes(type)) throw new Error(ELSEWHERE);
    return /** @type {any} */ (replies)[type](fields);
  }

  /**
   * The replies about a reading, which is known by its id, with the name of one of its attentions after a dot.
   * @param {string} [id]
   */
  repliesOf(id = "") {
    const [key, part = ""] = id.split(".");
    const kept = this.kept.get(key);
    if (!kept) throw Object.assign(new Error("This text has to be read again."), { status: 404 });
    this.kept.delete(key);
    this.kept.set(key, kept);
    return kept.replies.get(part) ?? kept.first;
  }

  /** @param {Fields} fields */
  async read({ text = "", pair, model, job }) {
    const wanted = { text, pair: pair ?? null, model: model ?? this.models.names[0] };
    const id = idOf(wanted);
    if (this.kept.has(id)) return this.repliesOf(id).metadata();
    this.jobs.cancelOthers(id); // the worker reads one text after the other
    return this.jobs.reply(id, job !== undefined, async (report, signal) => {
      const opened = await this.models.opened(wanted.model, report, signal);
      const options = { pair: wanted.pair, progress: (/** @type {number} */ share) => report(share) };
      const reading = await opened.read(text, options, signal);
      signal.throwIfAborted();
      this.keep(id, opened, reading, wanted);
      return this.repliesOf(id).metadata();
    });
  }

  /** @param {string} id @param {Model} model @param {Reading} reading @param {Wanted} wanted */
  keep(id, model, reading, wanted) {
    const views = viewsOf(reading);
    const offer = this.models.offer(wanted.model);
    const wrote = wanted.pair === null && views.length > 1;
    const facts = { id, model: model.name, exactness: offer.exactness, wrote, source: wanted };
    for (const { replies } of this.kept.values()) for (const { attention } of replies.values()) attention.kept.clear();
    const all = views.map((view) => new ComputedReplies(dataOf(view, facts), view, model, reading.id));
    this.kept.set(id, { replies: new Map(views.map(({ part }, n) => [part ?? "", all[n]])), first: all[0] });
    while (this.kept.size > KEPT) this.kept.delete(this.kept.keys().next().value ?? "");
  }

  /** @param {Fields & import("./playground-writing.js").Drawing} fields */
  async write({ texts = [], model: asked, ...drawing }) {
    const [text, name] = [texts.at(-1) ?? "", asked ?? this.models.names[0]];
    const model = await this.models.opened(name, () => {}, new AbortController().signal);
    return this.writings.begin(model, text, drawing, async (whole) => {
      const wanted = { text: whole, pair: null, model: name, prompt: text.length };
      const id = idOf(wanted);
      this.keep(id, model, await model.read(whole), wanted);
      return id;
    });
  }

  /** @param {Fields} fields */
  async compare({ word = "", texts = [], model, job }) {
    if (texts.length > COMPARED_TEXTS)
      throw new Error(`There are ${texts.length} texts, and at most ${COMPARED_TEXTS} can be compared.`);
    const name = model ?? this.models.names[0];
    return this.jobs.reply(JSON.stringify(["compare", name, word, texts]), job !== undefined, async (report, signal) =>
      compared(await this.models.opened(name, report, signal), word, texts, report, signal),
    );
  }
}

const ANSWERED = ["metadata", "word_weights", "layer_weights", "thumbnails", "tile", "walk"];

/** The replies of a saved page, and what such a page holds ready but this one computes when it is asked for. */
class ComputedReplies extends OfflineReplies {
  /** @param {import("./attention.js").Data} data @param {View} view @param {Model} model @param {number} id of the reading in its worker */
  constructor(data, view, model, id) {
    super(data);
    this.view = view;
    this.model = model;
    this.id = id;
    /** By layer. @type {Promise<number[][]>[]} */
    this.shares = [];
  }

  /** @param {number} l */
  sharesOf(l) {
    const { pass, source } = this.view;
    this.shares[l] ??= this.attention
      .open(l)
      .then((arrays) => patternShares(this.attention, arrays, l, pass.tokens, (source ?? pass).tokens));
    return this.shares[l];
  }

  /** @param {{layer?: number, first?: number, k?: number}} request */
  async predictions({ layer, first = 0, k = PREDICTIONS }) {
    if (!this.data.metadata.predictions) throw new Error(`${this.model.name} predicts no tokens.`);
    const count = Math.min(PREDICTED_TOKENS, this.view.pass.tokens.length - first);
    const predicted = await this.model.predict(this.id, layer ?? null, first, count, k);
    const { texts, probabilities, surprise } = predicted;
    return {
      texts,
      probabilities: {
        shape: [count, probabilities[0]?.length ?? 0],
        data: Float32Array.from(probabilities.flat()),
      },
      surprise: { shape: [count], data: Float32Array.from(surprise, (nats) => nats ?? Number.NaN) },
    };
  }
}

/**
 * A word in several texts.
 * @param {Model} model
 * @param {string} word
 * @param {string[]} texts
 * @param {Report} report
 * @param {AbortSignal} signal
 */
async function compared(model, word, texts, report, signal) {
  /** @type {import("../protocol.js").Place[]} */
  const places = [];
  /** @type {import("../protocol.js").LeftOut[]} */
  const leftOut = [];
  const vectors = [];
  for (const [n, text] of texts.entries()) {
    report(n / texts.length);
    const reading = await model.read(text, {}, signal);
    signal.throwIfAborted();
    const pass = reading.encoder ?? reading.decoder;
    if (!pass) continue;
    try {
      for (const { start, end, tokens } of placesOf(pass, word)) {
        places.push({ text: pass.text, start, end });
        vectors.push(vectorsOf(pass, tokens));
      }
    } catch (error) {
      leftOut.push({ text: n, reason: /** @type {Error} */ (error).message });
    }
    if (places.length > COMPARED_PLACES)
      throw new Error(`“${word}” occurs more than ${COMPARED_PLACES} times, the most that can be compared.`);
  }
  if (!places.length) throw new Error(leftOut[0]?.reason ?? "There are no texts to compare: type two or more.");
  if (places.length < 2) throw new Error(`“${word}” occurs only once. A comparison needs two places or more.`);
  return { word, places, left_out: leftOut, ...comparison(vectors) };
}

/**
 * The id of a reading: the same text, pair and model have the same.
 * @param {Wanted} wanted
 */
function idOf({ text, pair, model, prompt }) {
  const bytes = new TextEncoder().encode(JSON.stringify([model, text, pair, prompt]));
  return [0x811c9dc5, 0x1b873593]
    .map((start) => {
      let hash = start; // FNV-1a, from two beginnings
      for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
      return hash.toString(16).padStart(8, "0");
    })
    .join("");
}
