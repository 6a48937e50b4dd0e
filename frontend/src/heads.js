// Heads: every head of every layer as a small picture, with the names of those that have a habit.

import { el, fillSlots, listed, moveFocus, percent } from "./dom.js";
import { inkOf, painted, peakOf } from "./colour.js";
import { captionOf, cellGrid, colourScale, figure } from "./figure.js";

const THUMB = 64; // cells of a picture at most, as in view/tiles.py
const SAMPLED = 2048; // units from which on a picture's row is that of its first word, as in view/tiles.py

export function headsView(app) {
  const { by } = app;
  const grid = by("thumbs");
  let built = ""; // what the grid is for
  let shown = ""; // what the pictures were drawn for
  let layers = []; // by layer, the answer: {thumbnails, shares, patterns, threshold}
  let pointed = null;

  async function draw(signal, stillWanted) {
    const { state, reading } = app;
    if (built !== reading.id) build();
    const wanted = `${reading.id} ${state.hide}`;
    if (shown !== wanted) {
      layers = [];
      shown = wanted;
    }
    mark();
    say();
    explain();
    for (const l of reading.attended) {
      layers[l] ??= await app.ask({ type: "thumbnails", layer: l, hide: state.hide }, signal);
      if (!stillWanted()) return;
      paint(l);
      say();
    }
  }

  function build() {
    const { attended, H, id } = app.reading;
    built = id;
    grid.style.setProperty("--heads", H);
    const names = Array.from({ length: H }, (_, h) => el("span", { role: "columnheader", "aria-label": `Head ${h}` }, String(h)));
    const header = el("div", { role: "row" }, el("span", { class: "corner", role: "columnheader" }, "Layer"), ...names);
    const rows = attended.map((l) => {
      const row = el("div", { role: "row" }, el("span", { role: "rowheader" }, String(l)));
      for (let h = 0; h < H; h++)
        row.append(
          el("button", { type: "button", role: "gridcell", "data-layer": l, "data-head": h }, el("canvas"), el("small")),
        );
      return row;
    });
    grid.replaceChildren(header, ...rows);
  }

  const thumb = (l, h) => grid.querySelector(`[data-layer="${l}"][data-head="${h}"]`);

  function mark() {
    const { layer, head } = app.state;
    for (const button of grid.querySelectorAll("button")) {
      const chosen = button.dataset.layer === String(layer) && button.dataset.head === String(head);
      button.setAttribute("aria-selected", chosen);
      button.tabIndex = chosen ? 0 : -1;
      name(button);
    }
  }

  function name(button) {
    const [l, h] = [Number(button.dataset.layer), Number(button.dataset.head)];
    const habit = habitsOf(l, h)?.[0];
    const called = habit && habit.share >= layers[l].threshold ? habit.name : "";
    button.querySelector("small").textContent = called;
    button.setAttribute("aria-label", `Layer ${l}, head ${h}${called && `: ${called}`}`);
  }

  /** Where the first word sees only itself, it is no measure for the colours of the others. */
  const apart = () => app.reading.causal && app.isVisible(0);

  /** How many words a cell stands for on each side. */
  function wordsPerCell() {
    const { pictured } = app.reading;
    return 2 ** (pictured || Math.max(0, Math.ceil(Math.log2(app.visible().length / THUMB))));
  }

  /** What a cell of the pictures is. */
  function cellSays() {
    const words = wordsPerCell();
    if (words === 1) return "";
    if (app.reading.pictured) return `each cell is the mean of ${words} × ${words} weights`;
    const sampled = app.visible().length > SAMPLED ? ", and a row that of its first word" : "";
    return `each cell is the largest of ${words} × ${words} weights${sampled}`;
  }

  function explain() {
    const cell = cellSays();
    fillSlots(by("heads-hint"), {
      cell: cell && `; in a text of this length ${cell}`,
      apart: apart() ? ", the first word set apart: it sees only itself, and many heads park their weight on it" : "",
    });
  }

  /** One layer's pictures, each scaled to the largest weight of its head. */
  function paint(l) {
    const { thumbnails: thumbs } = layers[l];
    const [H, n] = thumbs.shape;
    for (let h = 0; h < H; h++) {
      const cells = thumbs.data.subarray(h * n * n, (h + 1) * n * n);
      const picture = painted(cells, n, n, peakOf(cells, n, n, apart()), "linear", app.isDark());
      const button = thumb(l, h);
      button.replaceChild(picture, button.querySelector("canvas"));
      name(button);
    }
  }

  /** A head's habits, the largest share first: [{name, whom, share}]. */
  function habitsOf(l, h) {
    if (!layers[l]) return null;
    const { shares, patterns: habits } = layers[l];
    const width = shares.shape[1];
    return Object.entries(habits)
      .map(([name, whom], n) => ({ name, whom, share: shares.data[h * width + n] }))
      .sort((a, b) => b.share - a.share);
  }

  /** Where a head looks, in a sentence. */
  function say() {
    const [l, h] = pointed ?? [app.state.layer, app.state.head];
    const habits = habitsOf(l, h);
    const node = by("heads-says");
    node.textContent = `Layer ${l}, head ${h}`;
    if (!habits) return;
    const list = habits.filter(({ share }) => share > 0.2).slice(0, 2);
    const places = listed(list.map(({ whom, share }, n) => [`${percent(share)} ${n ? "" : "of its weight goes "}to ${whom}`]));
    node.textContent += `: ${places.join("") || "no clear pattern"}.`;
  }

  const at = (event) => {
    const found = event.target.closest("button[data-head]")?.dataset;
    return found ? [Number(found.layer), Number(found.head)] : null;
  };
  grid.addEventListener("click", (event) => {
    const one = at(event);
    if (one) app.go({ view: "map", layer: one[0], head: one[1] });
  });
  for (const type of ["pointerover", "focusin"])
    grid.addEventListener(type, (event) => {
      pointed = at(event) ?? pointed;
      say();
    });
  for (const type of ["pointerleave", "focusout"])
    grid.addEventListener(type, () => {
      pointed = null;
      if (app.reading) say();
    });
  grid.addEventListener("keydown", (event) => {
    const { H } = app.reading;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -H, ArrowDown: H };
    moveFocus(event, [...grid.querySelectorAll("button")], steps);
  });

  // ── Saving ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** The reading, once all of its heads are drawn. */
  function complete() {
    if (!app.reading.attended.every((l) => layers[l])) throw new Error("the heads are still being drawn.");
    return app.reading;
  }

  /** All heads, their cells as rectangles: sharp in whatever draws it. */
  function picture() {
    const { attended, H, L } = complete();
    const [size, gap, left, top, low] = [72, 8, 52, 36, 18];
    const { ink, soft } = inkOf(app.viewer);
    const body = el("g", { "font-size": 11, fill: soft });
    const write = (x, y, text, more = {}) => body.append(el("text", { x, y, ...more }, text));
    write(left, 11, "head");
    write(0, 30, "layer");
    for (let h = 0; h < H; h++) write(left + h * (size + gap) + size / 2, 30, `${h}`, { "text-anchor": "middle", fill: ink });
    for (const [n, l] of attended.entries()) {
      const y = top + n * (size + gap + low);
      write(left - 12, y + size / 2 + 4, `${l}`, { "text-anchor": "end", fill: ink });
      for (let h = 0; h < H; h++) {
        const x = left + h * (size + gap);
        body.append(cellsOf(l, h, x, y, size));
        write(x, y + size + 13, thumb(l, h).querySelector("small").textContent);
      }
    }
    const drawing = { body, width: left + H * (size + gap), height: top + attended.length * (size + gap + low) };
    const { title, caption } = captionOf(app, `Attention weights of ${attended.length === L ? `all ${L}` : `those ${attended.length} of ${L}`} layers × ${H} heads${attended.length === L ? "" : " that have attention"}.`);
    const notes = [
      "A row for each word that attends, a column for each that is attended to, in reading order.",
      `Colours are scaled separately for each head${apart() ? ", the first word set apart" : ""}.`,
      cellSays() && `In a text of this length ${cellSays()}.`,
      "A name under a head: where at least half of its weight goes.",
    ];
    const scale = colourScale(app, "Weight", 1, "linear", false);
    return figure(app, { title, caption, drawing, legend: [scale], notes: [notes.filter(Boolean).join(" ")] });
  }

  /** The cells of a head: rectangles where they are few, or else an image of many px a cell, sharp in any program. */
  function cellsOf(l, h, x, y, size) {
    const { thumbnails: thumbs } = layers[l];
    const n = thumbs.shape[1];
    const cells = thumbs.data.subarray(h * n * n, (h + 1) * n * n);
    const group = el("g", { transform: `translate(${x} ${y})` }, el("title", {}, `Layer ${l}, head ${h}`));
    group.append(cellGrid(cells, n, n, size, size, peakOf(cells, n, n, apart()), "linear", app.isDark()));
    return group;
  }

  function table() {
    const { attended, H } = complete();
    const names = Object.values(layers[attended[0]].patterns);
    const sharesOf = (l, h) => layers[l].shares.data.subarray(h * names.length, (h + 1) * names.length);
    const rows = attended.flatMap((l) => Array.from({ length: H }, (_, h) => [l, h, ...sharesOf(l, h)]));
    return [["layer", "head", ...names.map((name) => `share of weight to ${name}`)], ...rows];
  }

  return { draw, picture, table, forget: () => ((shown = ""), (built = "")) };
}
