// Sentence: the words in two columns, and a line for each weight from the left to the right.

import { ALL } from "./viewer.js";
import { clipped, count, el, fillSlots, format, moveFocus, percent, quoted, shown } from "./dom.js";
import { hex, inHeadColour } from "./colour.js";

const ALL_LINES = 32; // up to so many words, the lines of all of them are drawn while none is chosen
const ALL_WORDS = 400; // up to so many words, both columns hold all
const NEAR = 100; // words around the chosen one that the left column holds of a longer text
const FAR = 120; // and as many words as these, those with the largest weights, the right one
const FAINT = 0.01; // a weight below this gets no line

export function sentenceView(app) {
  const { by } = app;
  let pointed = null; // {u, side: "from" | "to"} under the pointer; goes before what is held
  let held = ""; // what the columns hold
  let columns = { from: [], to: [] }; // units; a number below 0 stands for so many words left out
  let rowHeight = 0; // px
  let drawn = { lines: [] }; // what the lines show, for those who save it
  let wanted = 0;

  /** Whose lines are shown: the word under the pointer, or the held one, or null for all. */
  function picked() {
    const { state } = app;
    const pick = pointed ?? (state.word === null ? null : { u: state.word, side: state.side });
    return pick && app.isVisible(pick.u) ? pick : null;
  }

  /** The heads that are switched on; of a long frozen reading, those that its file has. */
  function headsShown() {
    const all = app.reading.has?.(app.state.layer) ?? Array.from({ length: app.reading.H }, (_, h) => h);
    return all.filter((h) => app.state.heads?.includes(h) ?? true);
  }

  async function draw(signal, stillWanted) {
    const { state, reading } = app;
    pointed = null;
    by("mass").value = state.mass;
    by("mass-says").textContent = `${state.mass} %`;
    by("for-direction").hidden = reading.second === null;
    by("direction").value = state.direction;
    drawSwatches();
    const weights = await numbers();
    if (!stillWanted()) return;
    fillColumns(weights);
    drawLines(weights);
  }

  /** The weights to draw, for the word that is picked: (H,U), or (H,U,U) for all words. */
  async function numbers() {
    const { state, reading } = app;
    const pick = picked();
    if (pick) return { pick, row: await app.look(state.layer, pick.u, pick.side) };
    return { pick, all: reading.U <= ALL ? await app.every(state.layer) : null };
  }

  // ── Columns ────────────────────────────────────────────────────────────────────────────────────────────────────────

  function fillColumns({ pick, row }) {
    const { reading, state } = app;
    const visible = app.visible();
    if (visible.length <= ALL_WORDS) columns = { from: visible, to: visible };
    else {
      const here = pick?.u ?? app.firstWord();
      const near = visible.indexOf(here);
      const first = Math.max(0, Math.min(visible.length - NEAR, near - NEAR / 2));
      const around = visible.slice(first, first + NEAR);
      let far = around;
      if (row) {
        const mean = meanOver(headsShown(), row, reading.U);
        far = visible.filter((u) => mean[u] >= FAINT / 10);
        far = far.sort((a, b) => mean[b] - mean[a]).slice(0, FAR);
        if (!far.length) far = [here];
        far.sort((a, b) => a - b);
      }
      const sides = pick?.side === "to" ? [far, around] : [around, far];
      columns = { from: withGaps(sides[0], visible), to: withGaps(sides[1], visible) };
    }
    const now = `${reading.id} ${columns.from} ${columns.to} ${reading.second}`;
    if (held === now) return;
    held = now;
    rowHeight = visible.length <= ALL_LINES ? 38 : 28;
    by("lines").style.setProperty("--row", `${rowHeight}px`);
    for (const side of ["from", "to"])
      by(side).replaceChildren(
        ...columns[side].map((u) => {
          if (u < 0) return el("span", { class: "gap" }, `⋮ ${count(-u, "word")}`);
          const kind = [reading.special.has(u) && "special", u === reading.second && "second"].filter(Boolean).join(" ");
          return el(
            "button",
            { type: "button", dir: "auto", "data-unit": u, class: kind || null },
            clipped(reading.units[u]),
          );
        }),
      );
  }

  /** With a number below 0 wherever words are left out. */
  function withGaps(some, visible) {
    const place = new Map(visible.map((u, n) => [u, n]));
    const found = [];
    let last = -1;
    for (const u of some) {
      const left = place.get(u) - last - 1;
      if (left) found.push(-left);
      found.push(u);
      last = place.get(u);
    }
    if (last < visible.length - 1) found.push(last + 1 - visible.length);
    return found;
  }

  function drawSwatches() {
    const { state, reading } = app;
    const box = by("swatches");
    if (box.children.length !== reading.H)
      box.replaceChildren(
        ...Array.from({ length: reading.H }, (_, h) =>
          inHeadColour(el("button", { type: "button", "data-head": h, title: `Head ${h}` }, String(h)), h, reading.H),
        ),
      );
    const here = reading.has?.(state.layer);
    for (const [h, swatch] of [...box.children].entries()) {
      swatch.setAttribute("aria-pressed", !state.heads || state.heads.includes(h));
      swatch.setAttribute("aria-label", `Head ${h}`);
      swatch.disabled = here ? !here.includes(h) : false;
    }
  }

  // ── Lines ──────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Whether the pair's direction that is chosen lets u look at v. */
  function lets(u, v) {
    const { direction } = app.state;
    const { second } = app.reading;
    if (direction === "all") return true;
    return direction === (u < second ? "a" : "b") + (v < second ? "a" : "b");
  }

  /** The lines of a head: [row on the left, row on the right, weight], those that make up the mass asked for. */
  function linesOf(h, { pick, row, all }) {
    const { U } = app.reading;
    const found = [];
    const add = (fixed, list, weightAt, lineOf) => {
      const shares = list.map((u, n) => [n, u < 0 || !lets(...lineOf(fixed, u)) ? 0 : weightAt(u)]);
      const total = shares.reduce((sum, [, weight]) => sum + weight, 0);
      let left = (total * app.state.mass) / 100;
      for (const [n, weight] of shares.sort((a, b) => b[1] - a[1])) {
        if (left <= 1e-9 || weight <= 0) break;
        left -= weight;
        found.push([fixed, n, weight]);
      }
    };
    if (pick?.side === "from")
      add(pick.u, columns.to, (v) => row[h * U + v], (u, v) => [u, v]);
    else if (pick)
      add(pick.u, columns.from, (u) => row[h * U + u], (v, u) => [u, v]);
    else if (all && columns.from.length <= ALL_LINES)
      for (const u of columns.from) add(u, columns.to, (v) => all[(h * U + u) * U + v], (a, v) => [a, v]);
    if (pick?.side === "to") return found.map(([v, n, weight]) => [n, columns.to.indexOf(v), weight]);
    return found.map(([u, n, weight]) => [columns.from.indexOf(u), n, weight]);
  }

  function drawLines(weights) {
    const { reading } = app;
    const { pick, row } = weights;
    const heads = headsShown();
    const lines = by("lines");
    lines.querySelector("svg")?.remove();
    markWords(pick);

    const height = Math.max(columns.from.length, columns.to.length) * rowHeight;
    const svg = el("svg", { "aria-hidden": "true", width: lines.clientWidth, height });
    const origin = lines.getBoundingClientRect();
    const left = by("from").getBoundingClientRect().right - origin.left + 6;
    const right = by("to").getBoundingClientRect().left - origin.left - 6;
    const middle = (n, place) => (n + 0.5) * rowHeight + place;
    const spread = Math.min(2, (0.5 * rowHeight) / heads.length); // px between the lines of two heads

    const bars = columns.to.map(() => by("to").getBoundingClientRect().right - origin.left + 12); // where the next goes
    const unit = lines.clientWidth - bars[0] - 48; // px for a mean weight of one
    const withBars = pick?.side === "from" && unit > 40;
    const mean = new Map();
    drawn = { lines: [], pick, heads };
    heads.forEach((h, k) => {
      const group = inHeadColour(el("g", { "data-head": h }), h, reading.H);
      const place = (k - (heads.length - 1) / 2) * spread;
      for (const [y, x, weight] of linesOf(h, weights)) {
        drawn.lines.push([h, columns.from[y], columns.to[x], weight]);
        if (weight >= FAINT) {
          const [from, to, bend] = [middle(y, place), middle(x, place), (right - left) * 0.4];
          const line = el("path", { d: `M${left} ${from}C${left + bend} ${from} ${right - bend} ${to} ${right} ${to}` });
          line.setAttribute("stroke-opacity", (weight ** 0.7).toFixed(3));
          line.setAttribute("stroke-width", (0.8 + 4 * weight).toFixed(2));
          group.append(line);
        }
        mean.set(x, (mean.get(x) ?? 0) + weight / heads.length);
        if (withBars) {
          const width = (weight / heads.length) * unit;
          if (width > 0.1) group.append(el("rect", { x: bars[x], y: middle(x, -7), width, height: 14 }));
          bars[x] += width;
        }
      }
      svg.append(group);
    });
    if (withBars)
      for (const [x, weight] of mean)
        if (weight >= FAINT / 2) svg.append(el("text", { x: bars[x] + 8, y: middle(x, 4) }, format(weight)));
    lines.append(svg);
    say(heads, weights);
  }

  function markWords(pick) {
    const { state } = app;
    for (const side of ["from", "to"]) {
      const words = [...by(side).querySelectorAll("button")];
      for (const [n, word] of words.entries()) {
        const u = Number(word.dataset.unit);
        const chosen = pick?.side === side && pick.u === u;
        word.classList.toggle("chosen", chosen);
        word.setAttribute("aria-pressed", state.word === u && state.side === side);
        word.tabIndex = (pick?.side === side ? chosen : n === 0) ? 0 : -1; // one stop a column; arrows do the rest
      }
    }
  }

  /** What the lines say, in words. */
  function say(heads, { pick, row, all }) {
    const { state, reading } = app;
    const { U, units } = reading;
    const whose = heads.length === 1 ? `head ${heads[0]}` : `the mean of ${heads.length} heads`;
    const says = by("sentence-says");
    by("sinks").hidden = true;
    if (!heads.length) return says.replaceChildren("No head is shown. Click one below.");
    if (pick === null) {
      const few = all && columns.from.length <= ALL_LINES;
      says.replaceChildren(
        few
          ? "Every word looks at every word: point at one to see its lines alone."
          : "A long text: point at a word to see its lines.",
      );
      if (few) {
        const rows = columns.from.map((u) => {
          const one = new Float32Array(reading.H * U);
          for (const h of heads) one.set(all.subarray((h * U + u) * U, (h * U + u + 1) * U), h * U);
          return meanOver(heads, one, U);
        });
        saySinks(rows);
      }
      return;
    }
    const mean = meanOver(heads, row, U);
    const most = app
      .visible()
      .filter((v) => (pick.side === "from" ? lets(pick.u, v) : lets(v, pick.u)))
      .sort((a, b) => mean[b] - mean[a])
      .slice(0, 3);
    const list = most.flatMap((v, n) => [n ? ", " : "", quoted(units[v]), " ", shown(mean[v])]);
    says.replaceChildren(
      quoted(units[pick.u]),
      pick.side === "from" ? " looks most at " : " is looked at most by ",
      ...list,
      ` (layer ${state.layer}, ${whose}).`,
    );
    if (pick.side === "from") saySinks([mean]);
  }

  /** Where special tokens and the first take most of the mass of these rows, one sentence says why. */
  function saySinks(rows) {
    const { reading } = app;
    const mass = new Map();
    for (const v of new Set([0, ...reading.special])) mass.set(v, rows.reduce((sum, row) => sum + row[v], 0));
    const share = [...mass.values()].reduce((sum, one) => sum + one, 0) / rows.length;
    const best = [...mass.keys()]
      .filter((v) => mass.get(v) > 0)
      .sort((a, b) => mass.get(b) - mass.get(a))
      .slice(0, 2);
    const where = best.flatMap((v, n) => [n ? " and " : "", quoted(reading.units[v])]);
    by("sinks").hidden = !(share >= 0.5);
    fillSlots(by("sinks"), { share: percent(share), where });
  }

  // ── Pointer and keys ───────────────────────────────────────────────────────────────────────────────────────────────

  /** The lines of what is pointed at: fetched where need be, and drawn if the pointer is still there. */
  async function point(to) {
    pointed = to;
    const mine = ++wanted;
    try {
      const weights = await numbers();
      if (mine === wanted && app.state.view === "sentence") drawLines(weights);
    } catch (error) {
      if (error.name !== "AbortError") app.tell(error.message);
    }
  }

  const long = () => columns.from !== columns.to;
  for (const side of ["from", "to"]) {
    const column = by(side);
    const unitAt = (event) => event.target.closest("[data-unit]")?.dataset.unit;
    const over = (event) => {
      const u = unitAt(event);
      if (u !== undefined && !long()) point({ u: Number(u), side });
    };
    column.addEventListener("pointerover", (event) => event.pointerType === "mouse" && over(event));
    column.addEventListener("pointerleave", () => pointed && point(null));
    column.addEventListener("focusin", (event) => event.target.matches(":focus-visible") && over(event));
    column.addEventListener("focusout", () => (pointed = null));
    column.addEventListener("click", (event) => {
      const u = unitAt(event);
      if (u === undefined) return;
      const same = app.state.word === Number(u) && app.state.side === side;
      app.go({ word: same ? null : Number(u), side, token: 0 });
    });
    column.addEventListener("keydown", (event) =>
      moveFocus(event, [...column.querySelectorAll("button")], { ArrowUp: -1, ArrowDown: 1 }),
    );
  }

  const toggled = (h) => {
    const heads = new Set(headsShown());
    if (!heads.delete(h)) heads.add(h);
    return { heads: [...heads].sort((a, b) => a - b) };
  };
  const alone = (h) => (app.state.heads?.length === 1 && app.state.heads[0] === h ? { heads: null } : { heads: [h], head: h });

  by("swatches").addEventListener("click", (event) => {
    const h = event.target.dataset.head;
    // A double click is two clicks first, which undo each other.
    if (h !== undefined) app.go(toggled(Number(h)), { replace: true });
  });
  by("swatches").addEventListener("dblclick", (event) => {
    if (event.target.dataset.head !== undefined) app.go(alone(Number(event.target.dataset.head)));
  });
  by("swatches").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !event.shiftKey || event.target.dataset.head === undefined) return;
    event.preventDefault();
    app.go(alone(Number(event.target.dataset.head)));
  });
  by("mass").addEventListener("input", (event) => app.go({ mass: Number(event.target.value) }, { replace: true }));
  by("direction").addEventListener("change", (event) => app.go({ direction: event.target.value }));

  // ── Saving ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** The two columns and their lines, as a picture that stands alone. */
  function picture() {
    const live = by("lines").querySelector("svg");
    const box = by("lines").getBoundingClientRect();
    const [width, height] = [Math.ceil(box.width), Number(live.getAttribute("height"))];
    const svg = el("svg", { viewBox: `0 0 ${width} ${height}`, width, height });
    for (const group of live.querySelectorAll("g")) {
      const copy = group.cloneNode(true);
      const colour = hex(getComputedStyle(group).color);
      copy.removeAttribute("style");
      for (const line of copy.querySelectorAll("path")) {
        line.setAttribute("stroke", colour);
        line.setAttribute("fill", "none");
      }
      for (const bar of copy.querySelectorAll("rect")) bar.setAttribute("fill", colour);
      svg.append(copy);
    }
    const soft = hex(getComputedStyle(by("about")).color);
    const ink = hex(getComputedStyle(app.viewer).color);
    for (const text of live.querySelectorAll(":scope > text"))
      svg.append(el("text", { x: text.getAttribute("x"), y: text.getAttribute("y"), fill: soft, "font-size": 13 }, text.textContent));
    for (const side of ["from", "to"])
      for (const word of by(side).children) {
        const at = word.getBoundingClientRect();
        const x = side === "from" ? at.right - box.left - 8 : at.left - box.left + 8;
        const attributes = { x, y: at.top - box.top + at.height / 2 + 6, fill: ink, "font-size": 18 };
        svg.append(el("text", { ...attributes, "text-anchor": side === "from" ? "end" : "start" }, word.textContent));
      }
    return svg;
  }

  const table = () => [
    ["layer", "head", "from", "from_word", "to", "to_word", "weight"],
    ...drawn.lines.map(([h, u, v, weight]) => [app.state.layer, h, u, app.reading.units[u], v, app.reading.units[v], weight]),
  ];

  return {
    draw,
    picture,
    table,
    forget: () => ((held = ""), (pointed = null)),
    resize: async () => app.viewer.dataset.drawn && drawLines(await numbers()),
  };
}

function meanOver(heads, row, U) {
  const mean = new Float64Array(U);
  for (const h of heads) for (let v = 0; v < U; v++) mean[v] += row[h * U + v] / heads.length;
  return mean;
}
