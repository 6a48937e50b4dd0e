// A decoder goes on with a text, token by token: each time it reads what there is, and predicts what comes next.

/** @import { Model } from "../model/types.js" */
/** @import { WrittenReply, WrittenToken } from "../protocol.js" */

/** @typedef {{max_tokens?: number, temperature?: number, seed?: number}} Drawing how the tokens are drawn, as in `WriteRequest` */
/** @typedef {{tokens: WrittenToken[], finished: WrittenReply["finished"], isStopped: boolean, reading?: string, error?: unknown, news: () => void}} Writing */

const WAIT = 200; // ms until a question for news is answered without any
const ANY = 1e9; // predictions: all of the vocabulary

export class Writings {
  constructor() {
    /** By their ids. @type {Writing[]} */
    this.begun = [];
  }

  /**
   * Begins to go on with a text; `keep` reads the whole at the end, and returns the id of its reading.
   * @param {Model} model
   * @param {string} text
   * @param {Drawing} drawing
   * @param {(whole: string) => Promise<string>} keep
   */
  begin(model, text, drawing, keep) {
    /** @type {Writing} */
    const writing = { tokens: [], finished: null, isStopped: false, news: () => {} };
    go(writing, model, text, drawing, keep).catch((error) => {
      writing.error = error;
      writing.news();
    });
    return { writing: String(this.begun.push(writing) - 1) };
  }

  /**
   * What is new since so many tokens.
   * @param {string} id
   * @param {number} since
   * @returns {Promise<WrittenReply>}
   */
  async written(id, since) {
    const writing = this.find(id);
    if (writing.tokens.length <= since && !writing.finished && !writing.error)
      await new Promise((done) => {
        writing.news = () => done(undefined);
        setTimeout(done, WAIT);
      });
    if (writing.error) throw writing.error;
    const { finished, reading } = writing;
    return { tokens: writing.tokens.slice(since), finished, progress: 0, ...(reading !== undefined && { reading }) };
  }

  /** @param {string} id */
  stop(id) {
    const writing = this.find(id);
    writing.isStopped = true;
    return { stopped: !writing.finished };
  }

  /** @param {string} id */
  find(id) {
    const writing = this.begun[Number(id)];
    if (!writing) throw new Error("This reply is no longer known: write it again.");
    return writing;
  }
}

/**
 * @param {Writing} writing
 * @param {Model} model
 * @param {string} text
 * @param {Drawing} drawing
 * @param {(whole: string) => Promise<string>} keep
 */
async function go(writing, model, text, { max_tokens: most = 256, temperature = 0, seed = 0 }, keep) {
  const random = randomNumbers(seed);
  const ends = /** @type {number[]} */ (model.config.end ?? []);
  let [whole, finished] = [text, /** @type {WrittenReply["finished"]} */ (null)];
  while (!finished) {
    if (writing.isStopped) finished = "interrupted";
    else if (writing.tokens.length >= most) finished = "length";
    else {
      const { id, decoder } = await model.read(whole);
      const count = decoder?.tokens.length ?? 0;
      const { ids, texts, probabilities } = await model.predict(id, null, count - 1, 1, temperature ? ANY : 1);
      const next = temperature ? drawn(probabilities[0], temperature, random()) : 0;
      if (ends.includes(ids[0][next])) finished = "end";
      else if (count >= model.config.positions) finished = "length";
      else {
        whole += texts[0][next];
        writing.tokens.push({ text: texts[0][next], probability: probabilities[0][next] });
        writing.news();
      }
    }
  }
  if (writing.tokens.length) writing.reading = await keep(whole);
  writing.finished = finished;
  writing.news();
}

/**
 * The place of a token that is drawn by its probability, to the power of 1 / temperature.
 * @param {number[]} probabilities
 * @param {number} temperature
 * @param {number} random from 0 to 1
 */
export function drawn(probabilities, temperature, random) {
  const powers = probabilities.map((probability) => (probability / probabilities[0]) ** (1 / temperature));
  let left = random * powers.reduce((a, b) => a + b, 0);
  const place = powers.findIndex((power) => {
    left -= power;
    return left < 0;
  });
  return place < 0 ? powers.length - 1 : place;
}

/**
 * Numbers from 0 to 1 that look random, the same for the same seed (mulberry32).
 * @param {number} seed
 */
function randomNumbers(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
