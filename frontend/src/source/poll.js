// Questions whose answers take long are asked again until there is one.

/** @import { Question, Source } from "../types.js" */

/**
 * Asks until there is an answer: what takes long is answered by the share that is done, and the number of its job.
 *
 * A job that somebody else cancelled, in another tab, is begun anew for those who still wait for it.
 * @param {Source} source
 * @param {(question: Question, share: number | null, job: number) => void} progress
 * @returns {Source}
 */
export function poll(source, progress) {
  return async (question, signal) => {
    let job;
    for (;;) {
      signal?.throwIfAborted();
      const answer = await source(job === undefined ? question : { ...question, job }, signal);
      const isCancelled = answer.cancelled === true;
      if (isCancelled && (!signal || signal.aborted)) throw new DOMException("Cancelled.", "AbortError");
      if (!("working" in answer) && !isCancelled) return answer;
      job = answer.job;
      if (job !== undefined) progress(question, answer.working, job);
    }
  };
}
