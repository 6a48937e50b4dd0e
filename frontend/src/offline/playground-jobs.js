// Work that takes a while, as a server does it: a request is answered by the share that is done until there is a reply.

const WAIT = 200; // ms until a request whose work takes longer is answered by its share

/** @typedef {(share: number | null, says?: string) => void} Report of the share that is done, and of what is being done */
/**
 * @typedef {object} Job
 * @property {number} number
 * @property {number | null} share that is done; null where it is not known
 * @property {string} [says] what is being done
 * @property {AbortController} abort
 * @property {Promise<Outcome>} outcome
 * @property {boolean} isDone
 */

/** @typedef {{value?: any, error?: any}} Outcome */

export class Jobs {
  constructor() {
    this.last = 0;
    /** By what they are about. @type {Map<string, Job>} */
    this.running = new Map();
  }

  /**
   * The result of some work or, where it takes longer, the share that is done and the number of its job.
   * @param {string} key what the work is about: who asks for the same shares it
   * @param {boolean} isAgain whether the request has been answered by a share before
   * @param {(report: Report, signal: AbortSignal) => Promise<any>} work
   */
  async reply(key, isAgain, work) {
    let job = this.running.get(key);
    if (!job || (job.isDone && !isAgain)) job = this.start(key, work);
    const outcome = await Promise.race([job.outcome, new Promise((done) => setTimeout(done, WAIT))]);
    if (!outcome) return { progress: job.share, says: job.says, job: job.number };
    if (this.running.get(key) === job) this.running.delete(key);
    if (!("error" in outcome)) return outcome.value;
    if (job.abort.signal.aborted) return { cancelled: true };
    throw outcome.error;
  }

  /**
   * @param {string} key
   * @param {(report: Report, signal: AbortSignal) => Promise<any>} work
   * @returns {Job}
   */
  start(key, work) {
    const abort = new AbortController();
    /** @type {Omit<Job, "outcome">} */
    const state = { number: ++this.last, share: null, abort, isDone: false };
    const outcome = work((share, says = state.says) => Object.assign(state, { share, says }), abort.signal)
      .then(
        (value) => ({ value }),
        (error) => ({ error }),
      )
      .finally(() => {
        state.isDone = true;
      });
    const job = Object.assign(state, { outcome });
    this.running.set(key, job);
    return job;
  }

  /**
   * Cancels a job, and returns how many were.
   * @param {number} number
   */
  cancel(number) {
    const found = [...this.running.values()].filter((job) => job.number === number && !job.isDone);
    for (const job of found) job.abort.abort();
    return found.length;
  }

  /**
   * Cancels the jobs about something else.
   * @param {string} key
   */
  cancelOthers(key) {
    for (const [other, job] of this.running) {
      if (other === key) continue;
      job.abort.abort();
      this.running.delete(other);
    }
  }
}
