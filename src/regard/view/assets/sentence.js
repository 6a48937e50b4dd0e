// Sentence: the words in two columns, and a line for each weight from the left to the right.

const ALL_LINES = 32; // up to so many words, the lines of all of them are drawn while none is chosen
const FAINT = 0.01; // a weight below this gets no line

let pointed = null; // {u, side: "from" | "to"} under the pointer; goes before what is held
let inColumns = ""; // the units that the columns hold
let rowHeight = 0; // px

function drawSentence() {
  fillColumns();
  drawSwatches();
  drawLines();
}

/** Whose lines are shown: the word under the pointer, or the held one, or null for all. */
function picked() {
  const pick = pointed ?? (state.word === null ? null : { u: state.word, side: state.side });
  return pick && isVisible(pick.u) ? pick : null;
}

function fillColumns() {
  const visible = visibleUnits();
  if (inColumns === visible.join()) return;
  inColumns = visible.join();
  pointed = null;
  rowHeight = visible.length <= ALL_LINES ? 38 : 28;
  byId("lines").style.setProperty("--row", `${rowHeight}px`);
  for (const side of ["from", "to"]) {
    const words = visible.map((u) =>
      el(
        "button",
        { type: "button", dir: "auto", "data-unit": u, class: units[u].special && "special" },
        units[u].text,
      ),
    );
    byId(side).replaceChildren(...words);
  }
}

function drawSwatches() {
  const box = byId("swatches");
  if (!box.children.length)
    for (let h = 0; h < HEADS; h++) {
      const swatch = el("button", { type: "button", "data-head": h, title: `Head ${h}` }, String(h));
      box.append(inHeadColour(swatch, h));
    }
  for (const [h, swatch] of [...box.children].entries()) {
    swatch.setAttribute("aria-pressed", state.heads.has(h));
    swatch.setAttribute("aria-label", `Head ${h}`);
  }
}

function drawLines() {
  const l = state.layer;
  const visible = visibleUnits();
  const heads = [...state.heads];
  const pick = picked();
  const lines = byId("lines");
  lines.querySelector("svg")?.remove();
  markWords(pick, visible);

  const svg = el("svg", { "aria-hidden": "true", width: lines.clientWidth, height: visible.length * rowHeight });
  const origin = lines.getBoundingClientRect();
  const left = byId("from").getBoundingClientRect().right - origin.left + 6;
  const right = byId("to").getBoundingClientRect().left - origin.left - 6;
  const middle = (n, place) => (n + 0.5) * rowHeight + place;
  const spread = Math.min(2, (0.5 * rowHeight) / heads.length); // px between the lines of two heads

  const bars = visible.map(() => byId("to").getBoundingClientRect().right - origin.left + 12); // where the next goes
  const unit = lines.clientWidth - bars[0] - 48; // px for a mean weight of one
  const withBars = pick?.side === "from" && unit > 40;
  heads.forEach((h, k) => {
    const group = inHeadColour(el("g", { "data-head": h }), h);
    const place = (k - (heads.length - 1) / 2) * spread;
    for (const [y, x, weight] of weightsOf(l, h, pick, visible)) {
      if (weight >= FAINT) {
        const [from, to, bend] = [middle(y, place), middle(x, place), (right - left) * 0.4];
        const line = el("path", { d: `M${left} ${from}C${left + bend} ${from} ${right - bend} ${to} ${right} ${to}` });
        line.setAttribute("stroke-opacity", (weight ** 0.7).toFixed(3));
        line.setAttribute("stroke-width", (0.8 + 4 * weight).toFixed(2));
        group.append(line);
      }
      if (withBars) {
        const width = (weight / heads.length) * unit;
        if (width > 0.1) group.append(el("rect", { x: bars[x], y: middle(x, -7), width, height: 14 }));
        bars[x] += width;
      }
    }
    svg.append(group);
  });
  if (withBars) {
    const mean = meanOver(heads, (h) => lookFrom(l, h, pick.u));
    visible.forEach(
      (v, x) => mean[v] >= FAINT / 2 && svg.append(el("text", { x: bars[x] + 8, y: middle(x, 4) }, format(mean[v]))),
    );
  }
  lines.append(svg);
  tellSentence(l, heads, pick, visible);
}

function markWords(pick, visible) {
  for (const side of ["from", "to"])
    for (const [n, word] of [...byId(side).children].entries()) {
      const chosen = pick?.side === side && pick.u === visible[n];
      word.classList.toggle("chosen", chosen);
      word.setAttribute("aria-pressed", state.word === visible[n] && state.side === side);
      word.tabIndex = (pick?.side === side ? chosen : n === 0) ? 0 : -1; // one stop a column; arrows do the rest
    }
}

/** The weights to draw for one head, as [row on the left, row on the right, weight]. */
function weightsOf(l, h, pick, visible) {
  if (pick === null) {
    if (visible.length > ALL_LINES) return [];
    const all = weights(l, h);
    return visible.flatMap((u, y) => visible.map((v, x) => [y, x, all[u * U + v]]));
  }
  const at = visible.indexOf(pick.u);
  if (pick.side === "from") {
    const row = lookFrom(l, h, pick.u);
    return visible.map((v, x) => [at, x, row[v]]);
  }
  const all = weights(l, h);
  return visible.map((u, y) => [y, at, all[u * U + pick.u]]);
}

/** What the lines say, in words. */
function tellSentence(l, heads, pick, visible) {
  const whose = heads.length === 1 ? `head ${heads[0]}` : `the mean of ${heads.length} heads`;
  const says = byId("sentence-says");
  byId("sinks").hidden = true;
  if (!heads.length) return says.replaceChildren("No head is shown. Click one below.");
  if (pick === null) {
    says.replaceChildren("Every word looks at every word: point at one to see its lines alone.");
    if (visible.length > ALL_LINES) says.replaceChildren("A long text: point at a word to see its lines.");
    if (visible.length <= ALL_LINES) tellSinks(visible.map((u) => meanOver(heads, (h) => lookFrom(l, h, u))));
    return;
  }
  const mean = meanOver(heads, (h) =>
    pick.side === "from" ? lookFrom(l, h, pick.u) : weights(l, h).filter((_, n) => n % U === pick.u),
  );
  const most = [...visible].sort((a, b) => mean[b] - mean[a]).slice(0, 3);
  const list = most.flatMap((v, n) => [n ? ", " : "", quoted(units[v].text), " ", shown(mean[v])]);
  says.replaceChildren(
    quoted(units[pick.u].text),
    pick.side === "from" ? " looks most at " : " is looked at most by ",
    ...list,
    ` (layer ${l}, ${whose}).`,
  );
  if (pick.side === "from") tellSinks([mean]);
}

function meanOver(heads, row) {
  const mean = new Float64Array(U);
  for (const h of heads) row(h).forEach((weight, v) => (mean[v] += weight / heads.length));
  return mean;
}

/** Where special tokens and the first take most of the mass of these rows, one sentence says why. */
function tellSinks(rows) {
  const mass = units.map((unit, v) => (unit.special || v === 0 ? rows.reduce((sum, row) => sum + row[v], 0) : 0));
  const share = mass.reduce((sum, one) => sum + one, 0) / rows.length;
  const best = [...mass.keys()]
    .filter((v) => mass[v])
    .sort((a, b) => mass[b] - mass[a])
    .slice(0, 2);
  const where = best.flatMap((v, n) => [n ? " and " : "", quoted(units[v].text)]);
  byId("sinks").hidden = share < 0.5;
  fillSlots(byId("sinks"), { share: percent(share), where });
}

// ── Pointer and keys ───────────────────────────────────────────────────────────────────────────────────────────────

for (const side of ["from", "to"]) {
  const column = byId(side);
  const unitAt = (event) => event.target.closest("[data-unit]")?.dataset.unit;
  const point = (event) => {
    const u = unitAt(event);
    if (u === undefined) return;
    pointed = { u: Number(u), side };
    drawLines();
  };
  column.addEventListener("pointerover", (event) => event.pointerType === "mouse" && point(event));
  column.addEventListener("pointerleave", () => {
    pointed = null;
    drawLines();
  });
  column.addEventListener("focusin", (event) => event.target.matches(":focus-visible") && point(event));
  column.addEventListener("focusout", () => (pointed = null));
  column.addEventListener("click", (event) => {
    const u = unitAt(event);
    if (u === undefined) return;
    pointed = null;
    const held = state.word === Number(u) && state.side === side;
    go({ word: held ? null : Number(u), side, token: 0 });
  });
  column.addEventListener("keydown", (event) => moveFocus(event, [...column.children], { ArrowUp: -1, ArrowDown: 1 }));
}

/** Arrow keys within a group that is one stop of the Tab key. */
function moveFocus(event, nodes, steps) {
  const step = steps[event.key];
  if (step === undefined) return;
  event.preventDefault();
  const at = nodes.indexOf(document.activeElement) + step;
  nodes[Math.min(nodes.length - 1, Math.max(0, at))]?.focus();
}

const toggled = (h) => {
  const heads = new Set(state.heads);
  if (!heads.delete(h)) heads.add(h);
  return new Set([...heads].sort((a, b) => a - b));
};
const alone = (h) =>
  state.heads.size === 1 && state.heads.has(h) ? { heads: new Set(allHeads) } : { heads: new Set([h]), head: h };

byId("swatches").addEventListener("click", (event) => {
  const h = event.target.dataset.head;
  // A double click is two clicks first, which undo each other.
  if (h !== undefined) go({ heads: toggled(Number(h)) }, { replace: true });
});
byId("swatches").addEventListener("dblclick", (event) => {
  if (event.target.dataset.head !== undefined) go(alone(Number(event.target.dataset.head)));
});
byId("swatches").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !event.shiftKey || event.target.dataset.head === undefined) return;
  event.preventDefault();
  go(alone(Number(event.target.dataset.head)));
});
new ResizeObserver(() => state.view === "sentence" && ready[state.layer] && drawLines()).observe(byId("lines"));
