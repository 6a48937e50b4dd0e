// The form in which a person asks a question about documents; the answer stands beside its sources.

import { COMPARED_TEXTS, TEXT_LIMIT } from "../../protocol.js";
import { el } from "../../ui/dom.js";
import { PassagesView } from "./view.js";

/** @import { App } from "../../types.js" */
/** @typedef {{name: string, text: string}} Document */

export class DocumentsPanel {
  /** @param {App} app */
  constructor(app) {
    this.app = app;
    /** Ends the wait for the answer. @type {AbortController | null} */
    this.waiting = null;
    this.listen();
  }

  /** Offers the form where the model of the reading replies to messages. */
  offer() {
    const { by, options, reading } = this.app;
    const isOffered = options.reads && reading?.writes === "message";
    by("open-documents").hidden = !isOffered;
    if (!isOffered && !this.waiting) this.show(false);
  }

  /** @param {boolean} isOpen */
  show(isOpen) {
    const { by, viewer, options } = this.app;
    if (by("documents").hidden === !isOpen) return;
    by("documents").hidden = !isOpen;
    by("ask").hidden = isOpen || !options.reads;
    by("open-documents").setAttribute("aria-expanded", String(isOpen));
    viewer.dataset.panel = isOpen ? "documents" : ""; // the views are of another text
  }

  listen() {
    const { by } = this.app;
    by("open-documents").addEventListener("click", () => {
      this.show(true);
      by("question").focus();
    });
    by("leave-documents").addEventListener("click", () => {
      this.waiting?.abort();
      this.show(false);
      by("text").focus();
    });
    by("question").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      by("asking").requestSubmit();
    });
    by("asking").addEventListener("submit", (event) => {
      event.preventDefault();
      if (!this.waiting) this.ask();
    });
  }

  async ask() {
    const { app } = this;
    const { by } = app;
    const question = by("question").value;
    this.waiting = new AbortController();
    app.showError(null);
    by("answer").replaceChildren();
    by("answer").setAttribute("aria-busy", "true");
    try {
      const documents = await documentsOf([...(by("files").files ?? [])], by("document").value);
      const problem = problemOf(question, documents);
      if (problem) throw new Error(problem);
      const answer = await app.request(
        {
          type: "ask",
          question,
          texts: documents.map(({ text }) => text),
          names: documents.map(({ name }) => name),
          by: by("divide").value,
          model: app.state.model ?? undefined,
        },
        this.waiting.signal,
      );
      await app.draw(); // what was under way is not any more
      const node = el("div");
      by("answer").replaceChildren(node);
      new PassagesView(node, answer);
    } catch (error) {
      const { name, message } = /** @type {Error} */ (error);
      app.showError(name === "AbortError" ? "Cancelled. Press Ask to start it again." : message);
    }
    by("answer").removeAttribute("aria-busy");
    this.waiting = null;
  }

  /**
   * Cancels the question that is under way; whether there was one.
   * @param {number | null} job
   */
  cancel(job) {
    if (!this.waiting) return false;
    this.waiting.abort();
    if (job !== null) this.app.request({ type: "cancel", job }).catch(() => {});
    return true;
  }
}

/**
 * The texts of files, or the one that was pasted, with their names. Throws for a file that is no text.
 * @param {{name: string, arrayBuffer: () => Promise<ArrayBuffer>}[]} files
 * @param {string} pasted
 * @returns {Promise<Document[]>}
 */
export async function documentsOf(files, pasted) {
  const documents = pasted.trim() ? [{ name: "pasted text", text: pasted }] : [];
  for (const file of files) {
    const bytes = await file.arrayBuffer();
    try {
      documents.push({ name: file.name, text: new TextDecoder("utf-8", { fatal: true }).decode(bytes) });
    } catch {
      throw new Error(`“${file.name}” is no text in UTF-8: convert it, or choose another file.`);
    }
  }
  return documents;
}

/**
 * Why a question cannot be asked; null where it can.
 * @param {string} question
 * @param {Document[]} documents
 */
export function problemOf(question, documents) {
  if (!question.trim()) return "There is no question: type one.";
  if (!documents.length) return "There is no document: paste a text, or choose files.";
  if (documents.length > COMPARED_TEXTS)
    return `There are ${documents.length} documents, and the limit is ${COMPARED_TEXTS}.`;
  for (const { name, text } of documents) {
    if (!text.trim()) return `“${name}” is empty.`;
    if (text.includes("\0")) return `“${name}” is a binary file, and no text.`;
    if (text.length > TEXT_LIMIT) {
      const [length, most] = [text.length, TEXT_LIMIT].map((number) => number.toLocaleString("en"));
      return `“${name}” has ${length} characters, and the limit is ${most}.`;
    }
  }
  return null;
}
