// The chat: a person writes a message, or a text to go on with, and the model its reply, token by token, until it ends
// or is stopped. Then the views show the reading of both.

import { COMPARED_TEXTS, REPLY_TOKENS, TEMPERATURE_LIMIT, TEXT_LIMIT } from "../../protocol.js";
import { el } from "../../ui/dom.js";
import { count } from "../../ui/format.js";
import { Reply } from "./reply.js";
import { endingOf, keyElements } from "./tokens.js";

/** @import { App, Source } from "../../types.js" */
/** @import { WrittenReply } from "../../protocol.js" */
/** @typedef {{text: string, reply: Reply, nodes: HTMLElement[]}} Turn */

const WORDS = {
  message: {
    open: "Chat with the model",
    name: "Chat with the model",
    label: "Message",
    placeholder: "Write a message to the model",
    send: "Send",
    missing: "There is no message: type one.",
    again: "New conversation",
  },
  text: {
    open: "Let the model go on",
    name: "What the model goes on with",
    label: "Text to go on with",
    placeholder: "Write the beginning of a text",
    send: "Go on",
    missing: "There is no text to go on with: type one.",
    again: "Clear",
  },
};

export class ChatPanel {
  /** @param {App} app @param {Source} source */
  constructor(app, source) {
    this.app = app;
    this.source = source;
    /** @type {Turn[]} */
    this.turns = [];
    /** Of the reply that is being written: its id, once the server has given it. @type {string | null} */
    this.writing = null;
    this.isBusy = false;
    this.isStopped = false;
    this.listen();
  }

  /** Whether the model replies to messages, goes on with texts, or writes nothing. */
  get kind() {
    return (this.app.options.reads && this.app.reading?.writes) || null;
  }

  /** Offers the chat where the model of the reading writes. */
  offer() {
    const { by } = this.app;
    const { kind } = this;
    by("open-chat").hidden = !kind;
    if (!kind) {
      if (!this.isBusy) this.show(false);
      return;
    }
    const words = WORDS[kind];
    by("open-chat").textContent = words.open;
    by("chat-name").textContent = words.name;
    by("for-message").textContent = words.label;
    by("message").placeholder = words.placeholder;
    by("send").textContent = words.send;
    by("new-chat").textContent = words.again;
  }

  /** @param {boolean} isOpen */
  show(isOpen) {
    const { by, options } = this.app;
    by("chat").hidden = !isOpen;
    by("ask").hidden = isOpen || !options.reads;
    by("open-chat").setAttribute("aria-expanded", String(isOpen));
  }

  listen() {
    const { by } = this.app;
    by("most").max = String(REPLY_TOKENS);
    by("temperature").max = String(TEMPERATURE_LIMIT);
    by("chat-levels").replaceChildren(...keyElements());
    by("open-chat").addEventListener("click", () => {
      this.show(true);
      by("message").focus();
    });
    by("leave-chat").addEventListener("click", () => {
      this.show(false);
      by("text").focus();
    });
    by("chatting").addEventListener("submit", (event) => {
      event.preventDefault();
      if (!this.isBusy) this.send();
    });
    by("message").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      by("chatting").requestSubmit();
    });
    by("stop").addEventListener("click", () => this.stop());
    by("new-chat").addEventListener("click", () => this.clear());
    by("temperature").addEventListener("input", () => this.showSeed());
    this.showSeed();
    addEventListener("pagehide", () => this.stop());
  }

  /** The seed matters only where tokens are drawn. */
  showSeed() {
    const { by } = this.app;
    by("seed").disabled = !(Number(by("temperature").value) > 0);
  }

  /** The messages until now: a person's and the model's by turns. */
  history() {
    const answered = this.turns.filter(({ reply }) => reply.text.trim());
    return this.kind === "message" ? answered.flatMap(({ text, reply }) => [text, reply.text]) : [];
  }

  /** Sends what stands in the box, and shows the reply as it is written, and what it attended to when it has ended. */
  async send() {
    const { app } = this;
    const { by } = app;
    const { kind } = this;
    const text = by("message").value;
    if (!kind) return;
    const problem = problemOf(text, WORDS[kind].missing, this.history().length);
    app.showError(problem);
    if (problem) return;
    const request = {
      type: /** @type {const} */ ("write"),
      texts: [...this.history(), text],
      model: app.state.model ?? undefined,
      max_tokens: Number(by("most").value),
      temperature: Number(by("temperature").value),
      seed: Number(by("seed").value),
    };
    const turn = this.begin(text, kind);
    this.setBusy(true);
    /** @type {WrittenReply | null} */
    let end = null;
    try {
      end = await this.write(request, turn.reply);
    } catch (error) {
      if (!turn.reply.tokens.length) this.withdraw(turn);
      app.showError(/** @type {Error} */ (error).message);
    }
    this.writing = null;
    this.setBusy(false);
    turn.reply.end();
    by("chat-says").textContent = this.turns.includes(turn)
      ? endingOf(turn.reply.tokens, end?.finished ?? null, request.max_tokens)
      : "";
    if (end?.reading) await this.open(end.reading);
  }

  /**
   * Asks for the tokens of a reply until it has ended; the last answer.
   * @param {import("../../types.js").RequestOf<"write">} request
   * @param {Reply} reply
   * @returns {Promise<WrittenReply>}
   */
  async write(request, reply) {
    const { app, source } = this;
    this.isStopped = false;
    this.writing = (await source(request)).writing;
    if (this.isStopped) this.stop(); // before the server had given it an id
    for (;;) {
      if (!app.viewer.isConnected) this.stop(); // the cell of a notebook was removed
      const news = await source({ type: "written", writing: this.writing, since: reply.tokens.length });
      reply.add(news.tokens);
      if (news.finished) return news;
      if (!this.isStopped) app.by("chat-says").textContent = progressOf(news, reply.tokens.length);
      app.by("chat-log").scrollTop = app.by("chat-log").scrollHeight;
    }
  }

  /** Stops the reply that is being written. */
  stop() {
    if (!this.isBusy) return;
    this.isStopped = true;
    if (this.writing !== null) this.source({ type: "stop", writing: this.writing }).catch(() => {}); // it ends unasked, too
  }

  /** Shows the reading of prompt and reply. @param {string} id */
  open(id) {
    const { app } = this;
    const view = app.state.view === "compare" ? "sentence" : app.state.view;
    return app.select({ id, text: null, pair: null, view, word: null, token: 0, side: "from", at: null, seen: null });
  }

  /**
   * The elements of a turn.
   * @param {string} text
   * @param {"message" | "text"} kind
   * @returns {Turn}
   */
  begin(text, kind) {
    const { by } = this.app;
    const reply = new Reply(this.app.tip);
    const said = el("span", { class: "said" }, text);
    const nodes =
      kind === "message"
        ? [
            el("p", { class: "person", dir: "auto" }, el("b", { class: "who" }, "You "), said),
            el("p", { class: "model", dir: "auto" }, el("b", { class: "who" }, "Model "), reply.node),
          ]
        : [el("p", { class: "model", dir: "auto" }, said, reply.node)];
    const turn = { text, reply, nodes };
    if (kind === "message") by("message").value = "";
    else this.clear();
    this.turns.push(turn);
    by("chat-log").append(...nodes);
    by("chat-log").hidden = by("chat-key").hidden = false;
    by("chat-log").scrollTop = by("chat-log").scrollHeight;
    by("chat-says").textContent = "The model reads the text …";
    return turn;
  }

  /** Takes back a message that could not be sent. @param {Turn} turn */
  withdraw(turn) {
    const { by } = this.app;
    for (const node of turn.nodes) node.remove();
    this.turns = this.turns.filter((other) => other !== turn);
    by("message").value ||= turn.text;
    by("chat-log").hidden = by("chat-key").hidden = !this.turns.length;
  }

  clear() {
    const { by } = this.app;
    this.turns = [];
    by("chat-log").replaceChildren();
    by("chat-log").hidden = by("chat-key").hidden = by("new-chat").hidden = true;
  }

  /** @param {boolean} isBusy */
  setBusy(isBusy) {
    const { by } = this.app;
    const hadFocus = this.app.root.activeElement === by(isBusy ? "send" : "stop");
    this.isBusy = isBusy;
    by("chat-log").setAttribute("aria-busy", String(isBusy)); // read out when it is complete
    by("send").hidden = isBusy;
    by("stop").hidden = !isBusy;
    by("new-chat").hidden = isBusy || !this.turns.length;
    by("leave-chat").disabled = isBusy;
    if (hadFocus) by(isBusy ? "stop" : "message").focus();
  }
}

/**
 * Why a text cannot be sent; null where it can.
 * @param {string} text
 * @param {string} missing
 * @param {number} before messages before it
 */
export function problemOf(text, missing, before) {
  if (!text.trim()) return missing;
  if (text.length > TEXT_LIMIT) {
    const [length, most] = [text.length, TEXT_LIMIT].map((number) => number.toLocaleString("en"));
    return `The message has ${length} characters, and the limit is ${most}.`;
  }
  if (before >= COMPARED_TEXTS) return `A conversation has ${COMPARED_TEXTS} messages at most: begin a new one.`;
  return null;
}

/**
 * What is under way.
 * @param {WrittenReply} news
 * @param {number} written tokens
 */
export function progressOf({ progress }, written) {
  if (progress === null) return "The model is writing elsewhere, in another tab perhaps: this waits until it is done.";
  if (written) return `${count(written, "token")} …`;
  return progress ? `The model reads the text: ${Math.floor(100 * progress)} %` : "The model reads the text …";
}
