// Heads: every head of every layer as a small picture, with the names of those that have a habit.

import { el, moveFocus, percent } from "./dom.js";
import { painted } from "./colour.js";

export function headsView(app) {
  const { by } = app;
  const grid = by("thumbs");
  let built = ""; // what the grid is for
  let shown = ""; // what the pictures were drawn for
  let layers = []; // by layer, the answer: {thumbs, shares, habits, named}
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
    for (let l = 0; l < reading.L; l++) {
      layers[l] ??= await app.ask({ what: "thumbs", layer: l, hide: state.hide }, signal);
      if (!stillWanted()) return;
      paint(l);
      say();
    }
  }

  function build() {
    const { L, H, id } = app.reading;
    built = id;
    grid.style.setProperty("--heads", H);
    const names = Array.from({ length: H }, (_, h) => el("span", { role: "columnheader", "aria-label": `Head ${h}` }, String(h)));
    const header = el("div", { role: "row" }, el("span", { class: "corner", role: "columnheader" }, "Layer"), ...names);
    const rows = Array.from({ length: L }, (_, l) => {
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
    const called = habit && habit.share >= layers[l].named ? habit.name : "";
    button.querySelector("small").textContent = called;
    button.setAttribute("aria-label", `Layer ${l}, head ${h}${called && `: ${called}`}`);
  }

  /** One layer's pictures, each head to its own largest weight. */
  function paint(l) {
    const { thumbs } = layers[l];
    const [H, n] = thumbs.shape;
    for (let h = 0; h < H; h++) {
      const cells = thumbs.data.subarray(h * n * n, (h + 1) * n * n);
      const picture = painted(cells, n, n, cells.reduce((a, b) => Math.max(a, b), 0), "linear", app.isDark());
      const button = thumb(l, h);
      button.replaceChild(picture, button.querySelector("canvas"));
      name(button);
    }
  }

  /** A head's habits, the largest share first: [{name, whom, share}]. */
  function habitsOf(l, h) {
    if (!layers[l]) return null;
    const { shares, habits } = layers[l];
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
    const list = habits
      .filter(({ share }) => share > 0.2)
      .slice(0, 2)
      .map(({ whom, share }, n) => `${n ? " and " : ""}${percent(share)} ${n ? "" : "of its weight goes "}to ${whom}`);
    node.textContent += `: ${list.join("") || "it spreads its weight widely"}.`;
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

  function picture(ink) {
    const { L, H } = app.reading;
    const [size, gap, left, top] = [72, 8, 34, 26];
    const [width, height] = [left + H * (size + gap), top + L * (size + gap + 12)];
    const svg = el("svg", { viewBox: `0 0 ${width} ${height}`, width, height });
    const write = (x, y, text, more = {}) => svg.append(el("text", { x, y, fill: ink, "font-size": 11, ...more }, text));
    for (let h = 0; h < H; h++) write(left + h * (size + gap) + size / 2, 16, `${h}`, { "text-anchor": "middle" });
    for (let l = 0; l < L; l++) {
      const y = top + l * (size + gap + 12);
      write(4, y + size / 2, `${l}`);
      for (let h = 0; h < H; h++) {
        const x = left + h * (size + gap);
        const href = thumb(l, h).querySelector("canvas").toDataURL();
        svg.append(el("image", { x, y, width: size, height: size, href, "image-rendering": "pixelated" }));
        write(x, y + size + 11, thumb(l, h).querySelector("small").textContent, { "font-size": 9 });
      }
    }
    return svg;
  }

  function table() {
    const names = Object.values(layers[0]?.habits ?? {});
    const rows = layers.flatMap(({ shares }, l) =>
      Array.from({ length: shares.shape[0] }, (_, h) => [l, h, ...shares.data.subarray(h * names.length, (h + 1) * names.length)]),
    );
    return [["layer", "head", ...names.map((name) => `share of weight to ${name}`)], ...rows];
  }

  return { draw, picture, table, forget: () => ((shown = ""), (built = "")) };
}
