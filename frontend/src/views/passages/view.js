// An answer beside its sources: point at a sentence of the reply, and the passages that it came from light up; point at
// a passage, and the sentences that came from it do.

import { closest, el, moveFocus } from "../../ui/dom.js";
import { clipped, count } from "../../ui/format.js";
import { filesOf, isNeeded, litOf, piecesOf, sayingOf, sourcesOf } from "./answer.js";
import { MEASURES, meanings, numberCell, signed } from "./measures.js";

/** @import { AskReply as Answer } from "../../protocol.js" */
/** @import { Lit, Picked } from "./answer.js" */

const ROWS = 6; // of the table at once
const STEPS = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1 };

export class PassagesView {
  /**
   * Fills an element with an answer.
   * @param {HTMLElement} node
   * @param {Answer} answer
   */
  constructor(node, answer) {
    this.answer = answer;
    /** What is kept while nothing is pointed at. @type {Picked | null} */
    this.held = answer.sentences.length ? { kind: "sentence", index: 0 } : null;
    /** @type {Picked | null} */
    this.pointed = null;
    /** @type {HTMLElement[]} */
    this.sentences = [];
    /** By the index of the passage. @type {HTMLElement[]} */
    this.passages = [];
    this.evidence = el("div", { class: "evidence" });
    this.says = el("p", { class: "evidence-says", role: "status" });
    this.sources = this.sourcesColumn();
    node.replaceChildren(el("div", { class: "answer" }, this.replyColumn(), this.sources));
    this.listen(node);
    this.draw();
  }

  replyColumn() {
    const { answer } = this;
    const reply = el(
      "p",
      { class: "answer-reply", dir: "auto" },
      ...piecesOf(answer).map((piece) => this.piece(piece)),
    );
    const isEmpty = !answer.reply.trim();
    return el(
      "section",
      { class: "answered", "aria-label": "Reply" },
      el("h2", {}, "Reply"),
      isEmpty ? el("p", { class: "answer-reply" }, "The model wrote nothing.") : reply,
      answer.note ? el("p", { class: "note" }, answer.note) : "",
      this.says,
      this.evidence,
      answer.sentences.length ? meanings() : "",
    );
  }

  /** @param {{text: string, sentence: number | null}} piece */
  piece({ text, sentence }) {
    if (sentence === null) return text;
    const number = el("sup", { "aria-hidden": "true" }, String(sentence + 1));
    const attributes = { class: "end of-sentence", role: "button", tabindex: sentence === 0 ? 0 : -1 };
    const node = el("span", { ...attributes, "data-index": sentence }, text, number);
    this.sentences[sentence] = node;
    return node;
  }

  sourcesColumn() {
    const files = filesOf(this.answer).map(({ file, passages }) =>
      el("section", { "aria-label": file }, el("h3", {}, el("bdi", {}, file)), ...passages.map((n) => this.passage(n))),
    );
    const first = filesOf(this.answer)[0]?.passages[0];
    if (first !== undefined) this.passages[first].tabIndex = 0;
    const none = el("p", { class: "about" }, "There are no passages.");
    return el(
      "section",
      { class: "sources", "aria-label": "Sources" },
      el("h2", {}, "Sources"),
      ...(files.length ? files : [none]),
    );
  }

  /** @param {number} n */
  passage(n) {
    const { text, start, end } = this.answer.passages[n];
    const place = `characters ${start.toLocaleString("en")} to ${end.toLocaleString("en")}`;
    const node = el(
      "div",
      { class: "end of-passage", role: "button", tabindex: -1, "data-index": n },
      numbered(n, place),
      el("span", { class: "passage-text", dir: "auto" }, text),
      el("span", { class: "lit-says" }),
    );
    this.passages[n] = node;
    return node;
  }

  // ── What is picked ─────────────────────────────────────────────────────────────────────────────────────────────────

  /** @param {HTMLElement} node */
  listen(node) {
    node.addEventListener("pointerover", (event) => event.pointerType !== "touch" && this.point(pickedBy(event)));
    node.addEventListener("pointerleave", () => this.point(null));
    node.addEventListener("focusin", (event) => {
      const picked = pickedBy(event);
      if (picked && /** @type {Element} */ (event.target).matches(":focus-visible")) this.hold(picked);
    });
    node.addEventListener("click", (event) => {
      const picked = pickedBy(event) ?? pickedByRow(event);
      if (picked) this.hold(picked);
    });
    node.addEventListener("keydown", (event) => this.press(event));
  }

  /** @param {KeyboardEvent} event */
  press(event) {
    const picked = pickedBy(event);
    if (!picked) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.hold(picked);
    } else moveFocus(event, this.inOrder(picked.kind), STEPS);
  }

  /** The sentences, or the passages as they stand in the page. @param {Picked["kind"]} kind */
  inOrder(kind) {
    if (kind === "sentence") return this.sentences;
    return filesOf(this.answer).flatMap(({ passages }) => passages.map((n) => this.passages[n]));
  }

  /** @param {Picked | null} picked */
  point(picked) {
    if (isSame(picked, this.pointed)) return;
    this.pointed = picked;
    this.draw();
  }

  /** @param {Picked} picked */
  hold(picked) {
    this.held = picked;
    this.pointed = null;
    for (const [kind, nodes] of /** @type {const} */ ([
      ["sentence", this.sentences],
      ["passage", this.passages],
    ]))
      if (kind === picked.kind) for (const [n, node] of nodes.entries()) node.tabIndex = n === picked.index ? 0 : -1;
    this.draw();
  }

  // ── Drawing ────────────────────────────────────────────────────────────────────────────────────────────────────────

  draw() {
    const { answer } = this;
    const picked = this.pointed ?? this.held;
    const sources = picked ? sourcesOf(answer, picked) : [];
    const lit = litOf(sources);
    this.mark(this.sentences, "sentence", picked, lit);
    this.mark(this.passages, "passage", picked, lit);
    this.says.textContent = picked ? sayingOf(answer, picked) : "";
    this.evidence.replaceChildren(...(picked && sources.length ? [this.table(picked, sources)] : []));
    if (picked?.kind === "sentence" && lit.length) this.bringIntoView(this.passages[lit[0].index]);
  }

  /**
   * Marks what is picked, and lights what belongs to it, by colour, by a bar and in words.
   * @param {HTMLElement[]} nodes
   * @param {Picked["kind"]} kind
   * @param {Picked | null} picked
   * @param {Lit[]} lit
   */
  mark(nodes, kind, picked, lit) {
    const { held } = this;
    const strengths = new Map(picked?.kind === kind ? [] : lit.map((one) => [one.index, one]));
    for (const [n, node] of nodes.entries()) {
      const light = strengths.get(n);
      node.classList.toggle("picked", picked?.kind === kind && picked.index === n);
      node.classList.toggle("lit", light !== undefined);
      node.style.setProperty("--strength", String(light?.strength ?? 0));
      node.setAttribute("aria-pressed", String(held?.kind === kind && held.index === n));
      const says = node.querySelector(".lit-says");
      if (says) says.textContent = light ? `${signed(light.source.knockout)} nats` : "";
    }
  }

  /** @param {Picked} picked @param {Lit[]} sources */
  table(picked, sources) {
    const other = picked.kind === "sentence" ? "passage" : "sentence";
    const titles = MEASURES.map(({ title, unit }) =>
      el("th", { class: "number", scope: "col" }, title, el("small", {}, unit)),
    );
    const head = el("tr", {}, el("th", { scope: "col" }, other === "passage" ? "Passage" : "Sentence"), ...titles);
    const rows = sources.slice(0, ROWS).map((lit) => this.row(picked, lit));
    const left = sources.length - rows.length;
    const more = left > 0 ? `${count(left, other)} more, ranked below; point at one for its numbers.` : "";
    return el(
      "div",
      {},
      el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows)),
      more ? el("p", { class: "about" }, more) : "",
    );
  }

  /** @param {Picked} picked @param {Lit} lit */
  row(picked, { index, source }) {
    const { sentences, passages } = this.answer;
    const isPassage = picked.kind === "sentence";
    const sentence = sentences[isPassage ? picked.index : index];
    const text = (isPassage ? passages : sentences)[index].text.replace(/\s+/g, " ");
    const name = el("th", { scope: "row" }, numbered(index), el("bdi", { dir: "auto" }, clipped(text, 48)));
    const kind = isNeeded(sentence, source.passage) ? "counts" : null;
    const attributes = { "data-other": isPassage ? "passage" : "sentence", "data-index": index, class: kind };
    return el("tr", attributes, name, ...MEASURES.map((measure) => numberCell(source, measure.name)));
  }

  /** Scrolls the column of sources, where it scrolls, and never the page. @param {HTMLElement} node */
  bringIntoView(node) {
    const column = this.sources;
    const [top, bottom] = [node.offsetTop, node.offsetTop + node.offsetHeight];
    if (top < column.scrollTop || bottom > column.scrollTop + column.clientHeight)
      column.scrollTo({ top: Math.max(0, top - column.clientHeight / 3), behavior: "smooth" });
  }
}

/** The number of a sentence or a passage. @param {number} index @param {string | null} [title] */
const numbered = (index, title = null) => el("span", { class: "passage-number", title }, String(index + 1));

/**
 * The sentence or passage of an event.
 * @param {Event} event
 * @returns {Picked | null}
 */
function pickedBy(event) {
  const node = closest(event, ".end");
  return node && { kind: node.matches(".of-sentence") ? "sentence" : "passage", index: Number(node.dataset.index) };
}

/**
 * The sentence or passage of a row of the table.
 * @param {Event} event
 * @returns {Picked | null}
 */
function pickedByRow(event) {
  const row = closest(event, "tr[data-other]");
  return row && { kind: /** @type {Picked["kind"]} */ (row.dataset.other), index: Number(row.dataset.index) };
}

/** @param {Picked | null} one @param {Picked | null} other */
const isSame = (one, other) => one?.kind === other?.kind && one?.index === other?.index;
