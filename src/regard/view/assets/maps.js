// Heads: every head as a small picture. Map: one head, word by word.

// ── Heads ──────────────────────────────────────────────────────────────────────────────────────────────────────────

let thumbsShow = ""; // what the pictures were drawn for

async function drawHeads(stillWanted) {
  const grid = byId("thumbs");
  if (!grid.children.length) buildHeads(grid);
  for (const thumb of grid.querySelectorAll("button")) {
    const chosen = thumb.dataset.layer === String(state.layer) && thumb.dataset.head === String(state.head);
    thumb.setAttribute("aria-selected", chosen);
    thumb.tabIndex = chosen ? 0 : -1;
  }
  tellHead(byId("heads-says"), state.layer, state.head);

  const visible = visibleUnits();
  const root = byId("root").checked;
  const wanted = `${visible.join()} ${root} ${isDark()}`;
  if (thumbsShow === wanted) return;
  thumbsShow = "";
  let began = performance.now();
  for (let l = 0; l < layers.length; l++) {
    await open(l);
    for (let h = 0; h < HEADS; h++) {
      if (performance.now() - began > 30) {
        await new Promise((done) => setTimeout(done)); // let the page breathe
        began = performance.now();
      }
      if (!stillWanted()) return;
      const all = weights(l, h);
      const canvas = grid.querySelector(`[data-layer="${l}"][data-head="${h}"] canvas`);
      canvas.width = canvas.height = Math.round(canvas.clientWidth * devicePixelRatio);
      const picture = pixels(all, visible, largest(all, visible), root, canvas.width);
      const context = canvas.getContext("2d");
      context.imageSmoothingEnabled = false;
      context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    }
  }
  thumbsShow = wanted;
}

function buildHeads(grid) {
  grid.style.setProperty("--heads", HEADS);
  const names = Array.from({ length: HEADS }, (_, h) =>
    el("span", { role: "columnheader", "aria-label": `Head ${h}` }, h),
  );
  grid.append(el("div", { role: "row" }, el("span", { class: "corner", role: "columnheader" }, "Layer"), ...names));
  layers.forEach((_, l) => {
    const row = el("div", { role: "row" }, el("span", { role: "rowheader" }, String(l)));
    for (let h = 0; h < HEADS; h++)
      row.append(
        el(
          "button",
          { type: "button", role: "gridcell", "data-layer": l, "data-head": h, "aria-label": `Layer ${l}, head ${h}` },
          el("canvas"),
        ),
      );
    grid.append(row);
  });
}

/** Where a head looks, in a sentence: the habits that take most of its weight. */
function tellHead(node, l, h) {
  const all = weights(l, h);
  const shares = { "special tokens": 0, "the word itself": 0, "the word before": 0, "the word after": 0 };
  const names = { 0: "the word itself", "-1": "the word before", 1: "the word after" };
  for (let u = 0; u < U; u++)
    for (let v = 0; v < U; v++) {
      const name = units[v].special ? "special tokens" : names[v - u];
      if (name) shares[name] += all[u * U + v] / U;
    }
  const habits = Object.entries(shares)
    .filter(([, share]) => share > 0.2)
    .sort((a, b) => b[1] - a[1])
    .slice(0, 2);
  const list = habits.map(
    ([name, share], n) => `${n ? " and " : ""}${percent(share)} ${n ? "" : "of its weight goes "}to ${name}`,
  );
  node.replaceChildren(el("b", {}, `Layer ${l}, head ${h}`), `: ${list.join("") || "it spreads its weight widely"}.`);
}

const thumbAt = (event) => event.target.closest("button[data-head]")?.dataset;

byId("thumbs").addEventListener("click", (event) => {
  const thumb = thumbAt(event);
  if (thumb) go({ view: "map", layer: Number(thumb.layer), head: Number(thumb.head) });
});
for (const type of ["pointerover", "focusin"])
  byId("thumbs").addEventListener(type, async (event) => {
    const thumb = thumbAt(event);
    if (!thumb) return;
    await open(Number(thumb.layer));
    tellHead(byId("heads-says"), Number(thumb.layer), Number(thumb.head));
  });
byId("thumbs").addEventListener("pointerleave", () => tellHead(byId("heads-says"), state.layer, state.head));
byId("thumbs").addEventListener("keydown", (event) => {
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -HEADS, ArrowDown: HEADS };
  moveFocus(event, [...byId("thumbs").querySelectorAll("button")], steps);
});

// ── Map ────────────────────────────────────────────────────────────────────────────────────────────────────────────

const LABEL = 15; // px that a label takes at least
let cell = 0; // px
let at = null; // {row, column, of}: the cell that is read out, as places among these visible units

function drawMap() {
  const visible = visibleUnits();
  const all = weights(state.layer, state.head);
  const [full, root] = [byId("full").checked, byId("root").checked];
  const most = full ? 1 : largest(all, visible);
  const labels = Math.min(120, widest(visible));
  const room = byId("map").clientWidth - 1.8 * labels - 16; // labels on the left, and the tilted ones run out on the right
  cell = Math.max(3, Math.min(60, Math.floor(room / visible.length)));
  const size = cell * visible.length;

  const heat = byId("heat");
  const sharp = Math.min(devicePixelRatio, 4000 / size);
  heat.width = heat.height = Math.round(size * sharp);
  heat.style.width = heat.style.height = `${size}px`;
  const context = heat.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(pixels(all, visible, most, root), 0, 0, heat.width, heat.height);
  if (cell >= 34) writeNumbers(context, all, visible, sharp, (weight) => shade(weight, most, root));

  const every = Math.ceil(LABEL / cell);
  for (const [box, axis] of [
    [byId("across"), "left"],
    [byId("down"), "top"],
  ])
    box.replaceChildren(
      ...visible.flatMap((u, n) => {
        if (n % every) return [];
        const label = el("span", { class: u === state.word && "chosen" }, el("bdi", { dir: "auto" }, units[u].text));
        label.style[axis] = `${(n + 0.5) * cell}px`;
        return [label];
      }),
    );
  for (const [name, length] of Object.entries({ size, cell, labels }))
    byId("chart").style.setProperty(`--${name}`, `${length}px`);
  drawLegend(most, root);
  const stays = at && at.of === visible.join() && (visible[at.row] === state.word || !isVisible(state.word));
  if (!stays) at = { ...firstCell(all, visible), of: visible.join() };
  readOut();
}

/** The width of the widest label, in px. */
function widest(visible) {
  const context = el("canvas").getContext("2d");
  context.font = getComputedStyle(byId("down")).font;
  return Math.ceil(Math.max(...visible.map((u) => context.measureText(units[u].text).width))) + 8;
}

/** The chosen word and whom it looks at most. */
function firstCell(all, visible) {
  const row = Math.max(0, visible.indexOf(state.word));
  const weightAt = (column) => all[visible[row] * U + visible[column]];
  const column = visible.reduce((best, _, n) => (weightAt(n) > weightAt(best) ? n : best), 0);
  return { row, column };
}

function writeNumbers(context, all, visible, sharp, shadeOf) {
  context.font = `${11 * sharp}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  const [paper, ink] = isDark() ? ["#101114", "#f4f2ee"] : ["#ffffff", "#1d1d1f"];
  visible.forEach((u, y) =>
    visible.forEach((v, x) => {
      const weight = all[u * U + v];
      if (weight < 0.005) return;
      context.fillStyle = shadeOf(weight) > 0.5 ? paper : ink;
      context.fillText(format(weight, 2).replace(/^0/, ""), (x + 0.5) * cell * sharp, (y + 0.5) * cell * sharp);
    }),
  );
}

function drawLegend(most, root) {
  const colours = ramp();
  const bar = el("canvas", { width: 256, height: 1 });
  const context = bar.getContext("2d");
  colours.forEach((colour, n) => {
    context.fillStyle = `rgb(${colour.join(" ")})`;
    context.fillRect(n, 0, 1, 1);
  });
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((place) => {
    const tick = el("span", {}, format(most * (root ? place ** 2 : place), 2));
    tick.style.left = `${100 * place}%`;
    return tick;
  });
  byId("legend").replaceChildren(bar, ...ticks);
  byId("legend").setAttribute("aria-label", `Colours from 0 to ${format(most, 2)}`);
}

/** Both words and the weight of the cell under the pointer, or where the arrow keys are. */
function readOut() {
  const visible = visibleUnits();
  const [u, v] = [visible[at.row], visible[at.column]];
  const weight = weights(state.layer, state.head)[u * U + v];
  byId("map-says").replaceChildren(quoted(units[u].text), " looks at ", quoted(units[v].text), ": ", shown(weight, 4));
  byId("cursor").style.transform = `translate(${at.column * cell}px, ${at.row * cell}px)`;
  byId("cell").setAttribute("aria-label", byId("map-says").textContent);
  byId("cell").setAttribute("aria-colindex", at.column + 1);
  byId("cursor").setAttribute("aria-rowindex", at.row + 1);
  for (const name of ["aria-rowcount", "aria-colcount"]) byId("cells").setAttribute(name, visible.length);
}

function moveTo(row, column) {
  const last = visibleUnits().length - 1;
  const within = (place) => Math.min(last, Math.max(0, place));
  at = { ...at, row: within(row), column: within(column) };
  readOut();
}

const cellAt = (event) => {
  const box = byId("heat").getBoundingClientRect();
  return [Math.floor((event.clientY - box.top) / cell), Math.floor((event.clientX - box.left) / cell)];
};
const chooseRow = () => go({ word: visibleUnits()[at.row], side: "from", token: 0 });

byId("heat").addEventListener("pointermove", (event) => moveTo(...cellAt(event)));
byId("heat").addEventListener("click", (event) => {
  moveTo(...cellAt(event));
  chooseRow();
});
byId("cells").addEventListener("keydown", (event) => {
  const moves = {
    ArrowUp: [at.row - 1, at.column],
    ArrowDown: [at.row + 1, at.column],
    ArrowLeft: [at.row, at.column - 1],
    ArrowRight: [at.row, at.column + 1],
    Home: [at.row, 0],
    End: [at.row, Infinity],
  };
  if (event.key === "Enter") return chooseRow();
  if (!moves[event.key]) return;
  event.preventDefault();
  moveTo(...moves[event.key]);
  byId("cursor").scrollIntoView({ block: "nearest", inline: "nearest" });
});
for (const id of ["full", "root"]) byId(id).addEventListener("change", drawMap);
byId("root").checked = U > 40; // in a long text nearly all weights are small
