// Requests whose replies take long are sent again until there is one.

/** @import { Request, Source } from "../types.js" */

/**
 * Sends a request until there is a reply: what takes long is answered by the share that is done, and the number of its
 * job; by a page that computes, also by what is being done.
 *
 * A job that somebody else cancelled, in another tab, is begun anew for those who still wait for it.
 * @param {Source} source
 * @param {(request: Request, share: number | null, job: number, says?: string) => void} progress
 * @returns {Source}
 */
export function poll(source, progress) {
  return async (request, signal) => {
    let job;
    for (;;) {
      signal?.throwIfAborted();
      const reply = await source(job === undefined ? request : { ...request, job }, signal);
      const isCancelled = reply.cancelled === true;
      if (isCancelled && (!signal || signal.aborted)) throw new DOMException("Cancelled.", "AbortError");
      if (!("progress" in reply) && !isCancelled) return reply;
      job = reply.job;
      if (job !== undefined) progress(request, reply.progress, job, reply.says);
    }
  };
}
