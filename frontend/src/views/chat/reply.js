// A reply as it grows: a span for each piece of text, which the pointer or the arrow keys read out.

import { el } from "../../ui/dom.js";
import { pieceElement, piecesOf } from "./tokens.js";

/** @import { Tip } from "../../types.js" */
/** @import { WrittenToken } from "../../protocol.js" */

export class Reply {
  /** @param {Tip} tip */
  constructor(tip) {
    this.tip = tip;
    /** @type {WrittenToken[]} */
    this.tokens = [];
    this.shown = 0; // tokens that stand in the page
    this.place = -1; // of the piece that is read out
    /** @type {HTMLElement} */
    this.node = el("span", { class: "reply writing" });
    this.node.addEventListener("keydown", (event) => this.move(event));
    this.node.addEventListener(
      "focus",
      () => this.node.matches(":focus-visible") && this.read(Math.max(0, this.place)),
    );
    this.node.addEventListener("blur", () => this.leave());
  }

  get text() {
    return this.tokens.map(({ text }) => text).join("");
  }

  /** @param {WrittenToken[]} tokens */
  add(tokens) {
    this.tokens.push(...tokens);
    const { pieces, open } = piecesOf(this.tokens.slice(this.shown));
    this.node.append(...pieces.map(pieceElement));
    this.shown = this.tokens.length - open.length;
  }

  /** Nothing more will come: now it can be gone through. */
  end() {
    this.node.classList.remove("writing");
    if (!this.node.childElementCount) return;
    this.node.tabIndex = 0;
    this.node.setAttribute("role", "group");
    this.node.setAttribute("aria-label", "Reply: the arrow keys read out the probability of each token");
  }

  /** @param {KeyboardEvent} event */
  move(event) {
    const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    this.read(Math.min(this.node.childElementCount - 1, Math.max(0, this.place + step)));
  }

  /** @param {number} place */
  read(place) {
    this.leave();
    this.place = place;
    const piece = /** @type {HTMLElement} */ (this.node.children[place]);
    piece.classList.add("read-out");
    piece.scrollIntoView({ block: "nearest" });
    const { left, width, top } = piece.getClientRects()[0] ?? piece.getBoundingClientRect();
    this.tip.show(left + width / 2, top, piece.title);
  }

  leave() {
    this.node.querySelector(".read-out")?.classList.remove("read-out");
    this.tip.hide();
  }
}
