// Sentence: the words in two columns, and a line for each weight from the left to the right.

import { ALL } from "./weights.js";
import { count, el, fillSlots, format, listed, moveFocus, percent, quoted, shown } from "./dom.js";
import { dashOf, inHeadColour } from "./colour.js";
import { visible } from "./words.js";
import { sentencePicture } from "./sentence-picture.js";

const ALL_LINES = 32; // up to so many words, the lines of all of them are drawn while none is chosen
const ALL_WORDS = 400; // up to so many words, both columns hold all
const NEAR = 100; // words around the chosen one that its column holds of a longer text
const FAR = 120; // and as many words as these, those with the largest weights, the other one
export const FAINT = 0.01; // a weight below this gets no line

export function sentenceView(app) {
  const { by } = app;
  let pointed = null; // {u, side: "from" | "to"} under the pointer; goes before what is held
  let held = { from: "", to: "" }; // what the columns hold
  let columns = { from: [], to: [] }; // units; a number below 0 stands for so many words left out
  let rowHeight = 0; // px
  let opened = ""; // the pick whose own column was opened at another place, without it
  let tallest = 0; // px: the longest column so far of this text
  let drawn = { lines: [], heads: [], pick: null, mean: null }; // what is shown, for those who save it or point at it
  let marks = []; // the lines and bars on the screen, for the pointer
  let wanted = 0;

  /** Whose lines are shown: the word under the pointer, the held one, the usual one of a long text, or null for all. */
  function picked() {
    const { state } = app;
    const pick = pointed ?? (state.word === null ? null : { u: state.word, side: state.side });
    if (pick && app.isVisible(pick.u)) return pick;
    return app.visible().length > ALL_LINES || app.reading.U > ALL ? { u: app.usualWord(), side: "from" } : null;
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

  /** Of a long text, the picked word's column stays as it is if the word is in it; the other gets the largest weights. */
  function fillColumns({ pick, row }) {
    const units = app.visible();
    if (units.length <= ALL_WORDS) {
      setColumn("from", units);
      setColumn("to", units);
    } else {
      const other = pick.side === "from" ? "to" : "from";
      const isThere = columns[pick.side].includes(pick.u) || opened === nameOf(pick);
      const stays = held[pick.side].startsWith(heldFor()) && isThere;
      if (!stays) setColumn(pick.side, withGaps(windowAround(pick.u, units), units));
      setColumn(other, withGaps(strongest(row, units) ?? windowAround(pick.u, units), units));
    }
    rowHeight = units.length <= ALL_LINES ? 38 : 28;
    by("lines").style.setProperty("--row", `${rowHeight}px`);
    tallest = Math.max(tallest, ...["from", "to"].map((side) => columns[side].length * rowHeight));
    by("lines").style.minHeight = `${tallest}px`; // never less, or the page would move under the pointer
  }

  const nameOf = (pick) => `${pick.u} ${pick.side}`;
  const heldFor = () => `${app.reading.id} ${app.state.hide} `;

  function windowAround(u, units) {
    const first = Math.max(0, Math.min(units.length - NEAR, units.indexOf(u) - NEAR / 2));
    return units.slice(first, first + NEAR);
  }

  /** The words with the largest weights, in reading order; null where no weight is known. */
  function strongest(row, units) {
    const mean = meanOver(headsShown(), row, app.reading.U);
    const far = units.filter((u) => mean[u] >= FAINT / 10).sort((a, b) => mean[b] - mean[a]);
    return far.length ? far.slice(0, FAR).sort((a, b) => a - b) : null;
  }

  function setColumn(side, list) {
    columns[side] = list;
    const now = `${heldFor()}${list}`;
    if (held[side] === now) return;
    held[side] = now;
    let next = 0; // the unit after the last one that was placed
    by(side).replaceChildren(
      ...list.map((u) => {
        if (u < 0) return gap(-u, next);
        next = u + 1;
        return wordButton(u);
      }),
    );
  }

  function wordButton(u) {
    const { units, special, unknown, second } = app.reading;
    const kind = [special.has(u) && "special", unknown.has(u) && "unknown", u === second && "second"].filter(Boolean);
    const text = visible(units[u]);
    const title = unknown.has(u) ? `${text}: not in the model's vocabulary` : text.length > 14 ? text : null;
    return el("button", { type: "button", dir: "auto", "data-unit": u, class: kind.join(" ") || null, title: title?.slice(0, 300) }, text.slice(0, 300));
  }

  const gap = (left, next) =>
    el("span", { class: "gap", role: "button", tabindex: -1, "data-gap": next, title: "Show these words" }, `⋮ ${count(left, "word")}`);

  /** With a number below 0 wherever words are left out. */
  function withGaps(list, units) {
    const place = new Map(units.map((u, n) => [u, n]));
    const filled = [];
    let last = -1;
    for (const u of list) {
      const left = place.get(u) - last - 1;
      if (left) filled.push(-left);
      filled.push(u);
      last = place.get(u);
    }
    if (last < units.length - 1) filled.push(last + 1 - units.length);
    return filled;
  }

  /** Shows the words that a column left out, from one on. */
  function openGap(side, u) {
    const units = app.visible();
    const middle = Math.min(units.length - 1, Math.max(0, units.findIndex((v) => v >= u)) + NEAR / 2);
    const pick = picked();
    if (side === pick.side) opened = nameOf(pick);
    setColumn(side, withGaps(windowAround(units[middle], units), units));
    redraw();
  }

  function drawSwatches() {
    const { state, reading } = app;
    const box = by("swatches");
    if (box.children.length !== reading.H)
      box.replaceChildren(
        ...Array.from({ length: reading.H }, (_, h) => {
          const swatch = el("button", { type: "button", "data-head": h, title: `Head ${h}`, "data-dash": dashOf(h) }, String(h));
          return inHeadColour(swatch, h);
        }),
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

  /** The strongest lines of a head, [from, to, weight], up to the share of each word's weight that is asked for. */
  function linesOf(h, { pick, row, all }, units) {
    const { U } = app.reading;
    const lines = [];
    const add = (ends, weightAt) => {
      const weighed = units.map((u) => [...ends(u), weightAt(u)]).filter(([u, v, weight]) => weight > 0 && lets(u, v));
      let left = (weighed.reduce((sum, [, , weight]) => sum + weight, 0) * app.state.mass) / 100;
      for (const line of weighed.sort((a, b) => b[2] - a[2])) {
        if (left <= 1e-9) break;
        left -= line[2];
        lines.push(line);
      }
    };
    if (pick?.side === "from") add((v) => [pick.u, v], (v) => row[h * U + v]);
    else if (pick) add((u) => [u, pick.u], (u) => row[h * U + u]);
    else if (all) for (const u of units) add((v) => [u, v], (v) => all[(h * U + u) * U + v]);
    return lines;
  }

  function drawLines(weights) {
    const { pick, row } = weights;
    const heads = headsShown();
    const units = app.visible();
    const mean = row ? meanOver(heads, row, app.reading.U) : null;
    drawn = { pick, heads, columns, mean, lets, all: weights.all, row, lines: [] };
    for (const h of heads) for (const [u, v, weight] of linesOf(h, weights, units)) drawn.lines.push([h, u, v, weight]);
    marks = [];
    by("lines").querySelector("svg")?.remove();
    markWords(pick);
    const svg = el("svg", { "aria-hidden": "true", width: by("lines").clientWidth });
    svg.setAttribute("height", Math.max(columns.from.length, columns.to.length) * rowHeight);
    const drawnWeight = drawCurves(svg, heads);
    if (pick?.side === "from") drawBars(svg, heads, mean, row);
    by("lines").append(svg);
    sayShare(drawnWeight / heads.length, weights, mean);
    say(heads, weights, mean);
  }

  /** The curves, a group a head. Returns the weight that they carry. */
  function drawCurves(svg, heads) {
    const origin = by("lines").getBoundingClientRect();
    const left = by("from").getBoundingClientRect().right - origin.left + 6;
    const right = by("to").getBoundingClientRect().left - origin.left - 6;
    const rows = new Map(columns.from.map((u, n) => [u, n]));
    const places = new Map(columns.to.map((u, n) => [u, n]));
    const spread = Math.min(2, (0.5 * rowHeight) / heads.length); // px between the lines of two heads
    const bend = (right - left) * 0.4;
    const groups = new Map(heads.map((h) => [h, inHeadColour(el("g", { "data-head": h, "stroke-dasharray": dashOf(h) }), h)]));
    let carried = 0;
    for (const [h, u, v, weight] of drawn.lines) {
      if (weight < FAINT || !rows.has(u) || !places.has(v)) continue;
      const place = (heads.indexOf(h) - (heads.length - 1) / 2) * spread;
      const [from, to] = [rows.get(u), places.get(v)].map((n) => (n + 0.5) * rowHeight + place);
      const line = el("path", { d: `M${left} ${from}C${left + bend} ${from} ${right - bend} ${to} ${right} ${to}` });
      line.setAttribute("stroke-opacity", (weight ** 0.7).toFixed(3));
      line.setAttribute("stroke-width", (0.8 + 4 * weight).toFixed(2));
      groups.get(h).append(line);
      marks.push({ line: [left, from, right, to], h, u, v, weight });
      carried += weight;
    }
    svg.append(...groups.values());
    return carried;
  }

  /** The mean weight of each word on the right, as a bar with a piece for each head, whatever lines are hidden. */
  function drawBars(svg, heads, mean, row) {
    const { reading } = app;
    const start = by("to").getBoundingClientRect().right - by("lines").getBoundingClientRect().left + 12;
    const unit = by("lines").clientWidth - start - 48; // px for a mean weight of one
    if (unit <= 40) return;
    const groups = heads.map((h) => inHeadColour(el("g", { "data-head": h }), h));
    columns.to.forEach((v, n) => {
      if (v < 0 || !lets(drawn.pick.u, v)) return;
      const y = (n + 0.5) * rowHeight;
      let x = start;
      heads.forEach((h, k) => {
        const weight = row[h * reading.U + v];
        const width = (weight / heads.length) * unit;
        if (!(width > 0.1)) return;
        groups[k].append(el("rect", { x, y: y - 7, width, height: 14 }));
        marks.push({ bar: [x, y - 7, width, 14], h, u: drawn.pick.u, v, weight });
        x += width;
      });
      if (mean[v] >= FAINT / 2) svg.append(el("text", { x: x + 8, y: y + 4 }, format(mean[v])));
    });
    svg.append(...groups);
  }

  function markWords(pick) {
    const { state } = app;
    for (const side of ["from", "to"]) {
      const words = [...by(side).querySelectorAll("[data-unit]")];
      for (const [n, word] of words.entries()) {
        const u = Number(word.dataset.unit);
        const chosen = pick?.side === side && pick.u === u;
        word.classList.toggle("chosen", chosen);
        word.setAttribute("aria-pressed", state.word === u && state.side === side);
        word.tabIndex = (pick?.side === side ? chosen : n === 0) ? 0 : -1; // one stop a column; arrows do the rest
      }
    }
  }

  // ── What the lines say, in words ───────────────────────────────────────────────────────────────────────────────────

  /** How much of all the weight the lines carry that are on the screen. */
  function sayShare(carried, { pick, all }, mean) {
    const whole = pick ? sum(mean) : all ? drawn.columns.from.filter((u) => u >= 0).length : 0;
    by("share-says").textContent = whole > 0 ? `The lines drawn carry ${percent(Math.min(1, carried / whole))} of the weight.` : "";
  }

  function say(heads, { pick, row, all }, mean) {
    const { reading } = app;
    const says = by("sentence-says");
    by("sinks").hidden = true;
    if (!heads.length) return says.replaceChildren("No head is shown. Click one below.");
    if (pick) return sayWord(heads, pick, mean);
    says.replaceChildren("Every word attends to every word it can see. Point at one to see its lines alone.");
    const { U } = reading;
    const rows = columns.from.map((u) => {
      const ofWord = new Float32Array(reading.H * U);
      for (const h of heads) ofWord.set(all.subarray((h * U + u) * U, (h * U + u + 1) * U), h * U);
      return meanOver(heads, ofWord, U);
    });
    saySinks(rows);
  }

  function sayWord(heads, pick, mean) {
    const { units } = app.reading;
    const says = by("sentence-says");
    const most = app
      .visible()
      .filter((v) => (pick.side === "from" ? lets(pick.u, v) : lets(v, pick.u)) && mean[v] > 0)
      .sort((a, b) => mean[b] - mean[a])
      .slice(0, 3);
    if (!most.length) return says.replaceChildren(...nothing(pick));
    const whose = heads.length === 1 ? `head ${heads[0]}` : `the mean of ${heads.length} heads`;
    says.replaceChildren(
      quoted(visible(units[pick.u])),
      pick.side === "from" ? " attends mostly to " : " gets most attention from ",
      ...listed(most.map((v) => [el("q", { class: "bare" }, el("bdi", { dir: "auto" }, visible(units[v]).slice(0, 60))), " (", shown(mean[v], percent), ")"])),
      `, in layer ${app.state.layer}, ${whose}.`,
    );
    if (pick.side === "from") saySinks([mean]);
  }

  /** Why a word has no lines: the direction that is chosen leaves its text out, or it may not look at anything. */
  function nothing({ u, side }) {
    const { units, second } = app.reading;
    const { direction } = app.state;
    const word = quoted(visible(units[u]));
    const mine = u < second ? "a" : "b";
    if (direction !== "all" && direction[side === "from" ? 0 : 1] !== mine) {
      const name = { a: "first", b: "second" };
      const doing = side === "from" ? "attending" : "attended to";
      return [word, ` is in the ${name[mine]} text, and the lines shown are of words of the ${name[mine === "a" ? "b" : "a"]} ${doing}. Choose another direction, or another word.`];
    }
    return [word, side === "from" ? " attends to none of the words shown." : " gets no attention from the words shown."];
  }

  /** Where special tokens and the first take most of the mass of these rows, one sentence says why. */
  function saySinks(rows) {
    const { reading } = app;
    const mass = new Map();
    for (const v of new Set([0, ...reading.special])) mass.set(v, rows.reduce((total, row) => total + row[v], 0));
    const share = sum([...mass.values()]) / rows.length;
    const best = [...mass.keys()]
      .filter((v) => mass.get(v) > 0)
      .sort((a, b) => mass.get(b) - mass.get(a))
      .slice(0, 2);
    const where = best.flatMap((v, n) => [n ? " and " : "", el("q", { class: "bare" }, visible(reading.units[v]).slice(0, 60))]);
    by("sinks").hidden = !(share >= 0.5);
    fillSlots(by("sinks"), { share: percent(share), where });
  }

  // ── Pointer and keys ───────────────────────────────────────────────────────────────────────────────────────────────

  /** Draws the lines anew, between the columns as they are. */
  async function redraw() {
    drawLines(await numbers());
  }

  /** The lines of what is pointed at: fetched where need be, and drawn if the pointer is still there. */
  async function point(to) {
    pointed = to;
    const mine = ++wanted;
    try {
      const weights = await numbers();
      if (mine !== wanted || app.state.view !== "sentence") return;
      fillColumns(weights);
      drawLines(weights);
    } catch (error) {
      if (error.name !== "AbortError") app.tell(error.message);
    }
  }

  for (const side of ["from", "to"]) {
    const column = by(side);
    const unitAt = (event) => event.target.closest("[data-unit]")?.dataset.unit;
    const over = (event) => {
      const u = unitAt(event);
      if (u !== undefined) point({ u: Number(u), side });
    };
    const choose = (event) => {
      const left = event.target.closest("[data-gap]")?.dataset.gap;
      if (left !== undefined) return openGap(side, Number(left));
      const u = unitAt(event);
      if (u === undefined) return;
      const same = app.state.word === Number(u) && app.state.side === side;
      app.go({ word: same ? null : Number(u), side, token: 0 });
    };
    column.addEventListener("pointerover", (event) => event.pointerType === "mouse" && over(event));
    column.addEventListener("pointerleave", () => pointed && point(null));
    column.addEventListener("focusin", (event) => event.target.matches(":focus-visible") && over(event));
    column.addEventListener("focusout", () => (pointed = null));
    column.addEventListener("click", choose);
    column.addEventListener("keydown", (event) => {
      if (event.target.dataset.gap !== undefined && (event.key === "Enter" || event.key === " ")) {
        event.preventDefault();
        choose(event);
      } else moveFocus(event, [...column.children], { ArrowUp: -1, ArrowDown: 1 });
    });
  }

  /** The line or bar at a point of the drawing; of lines that lie close together, rather a thick one. */
  function markAt(x, y) {
    let [nearest, distance] = [null, 6];
    for (const mark of marks) {
      const off = mark.bar ? outside(mark.bar, x, y) : Math.abs(heightAt(mark.line, x) - y) - 2.5 * mark.weight;
      if (off < distance) [nearest, distance] = [mark, off];
    }
    return nearest;
  }

  by("lines").addEventListener("pointermove", (event) => {
    const box = by("lines").getBoundingClientRect();
    const onWord = event.target.closest(".column");
    const mark = onWord ? null : markAt(event.clientX - box.left, event.clientY - box.top);
    if (!mark) return app.tip.hide();
    const [u, v] = [mark.u, mark.v].map((unit) => visible(app.reading.units[unit]).slice(0, 40));
    app.tip.show(event.clientX, event.clientY - 8, `Head ${mark.h}: ${u} → ${v}, ${format(mark.weight)}`);
  });
  by("lines").addEventListener("pointerleave", () => app.tip.hide());

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

  const table = () => [
    ["layer", "head", "from", "from_word", "to", "to_word", "weight"],
    ...drawn.lines.map(([h, u, v, weight]) => [app.state.layer, h, u, app.reading.units[u], v, app.reading.units[v], weight]),
  ];

  return {
    draw,
    picture: () => sentencePicture(app, drawn),
    table,
    forget: () => ((held = { from: "", to: "" }), (pointed = null), (tallest = 0)),
    resize: () => app.viewer.dataset.drawn && redraw(),
  };
}

export function meanOver(heads, row, U) {
  const mean = new Float64Array(U);
  for (const h of heads) for (let v = 0; v < U; v++) mean[v] += row[h * U + v] / heads.length;
  return mean;
}

const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

/** How far a point is from a bar, in px. */
function outside([left, top, width, height], x, y) {
  return Math.max(left - x, x - left - width, top - y, y - top - height, 0);
}

/** The height of a curve at x, or infinity beside it. The curve is that of drawCurves. */
function heightAt([left, from, right, to], x) {
  const share = (x - left) / (right - left);
  if (!(share >= 0 && share <= 1)) return Infinity;
  let t = share;
  for (let n = 0; n < 4; n++) {
    const [at, slope] = [1.2 * t * (1 - t) ** 2 + 1.8 * t * t * (1 - t) + t ** 3, 1.2 - 1.2 * t + 1.2 * t * t];
    t = Math.min(1, Math.max(0, t - (at - share) / slope));
  }
  return from + (to - from) * (3 * t * t - 2 * t ** 3);
}
