// What is under way, and what went wrong.

/** @import { App, Replies } from "../types.js" */

/** @typedef {keyof Replies | "map"} Activity a request, or one for which another map than the weights is made */
/** @type {Partial<Record<Activity, string>>} */
const ACTIVITIES = {
  read: "Reading the text",
  metadata: "Reading the text",
  thumbnails: "Drawing the heads",
  tile: "Computing the whole matrix once, for the zoomed-out view",
  predictions: "Predicting",
  compare: "Reading the texts",
  page: "Writing the file",
  ask: "Answering, then hiding one passage after the other",
  map: "Computing the map",
};

const SHOWN_FOR = 2000; // ms after the last report

export class Progress {
  /** @param {App["by"]} by */
  constructor(by) {
    this.by = by;
    /** The number of the job that is shown. @type {number | null} */
    this.job = null;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
  }

  /**
   * @param {Activity} type
   * @param {number | null} share that is done; null where it is not known, as while it waits for other work
   * @param {number} job
   * @param {string} [says] what is being done, where the reply says so
   */
  show(type, share, job, says) {
    const { by } = this;
    clearTimeout(this.timer);
    this.job = job;
    const state = share === null ? (says ? "" : "waiting for other work") : `${Math.floor(100 * share)} %`;
    by("progress-says").textContent = [says ?? ACTIVITIES[type] ?? "Computing", state].filter(Boolean).join(": ");
    if (share === null) by("progress-bar").removeAttribute("value");
    else by("progress-bar").value = share;
    by("progress").hidden = false;
    this.timer = setTimeout(() => this.hide(), SHOWN_FOR);
  }

  hide() {
    clearTimeout(this.timer);
    this.by("progress").hidden = true;
  }

  /** The job that is shown, once: it is about to be cancelled. */
  takeJob() {
    const { job } = this;
    this.job = null;
    return job;
  }
}
