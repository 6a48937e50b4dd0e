// Compare: one word in several texts. Its vectors in the plane, layer by layer, and how alike each two of them are.

import { clipped, count, el, format, quoted, shown } from "./dom.js";
import { ramp } from "./colour.js";
import { comparePicture } from "./compare-picture.js";

const EXAMPLE = [
  "He sat on the bank of the river.",
  "The bank lent her the money.",
  "They fished from the muddy bank.",
  "She opened an account at the bank.",
];

export function compareView(app) {
  const { by } = app;
  let found = null; // the answer: {word, places, clusters, left_out, similarity, plane}
  let asked = "";
  let pointed = null; // a place, or a pair [i, j]

  /** What is compared: an example, until somebody asks for something else. */
  app.comparison = () => {
    const { same, texts, model } = app.state;
    return { word: same ?? "bank", texts: texts ?? EXAMPLE.join("\n"), model: model ?? undefined };
  };

  async function draw(signal, stillWanted) {
    const { state, start } = app;
    by("comparing").hidden = !app.options.reads;
    if (start.compared) found = start.compared;
    else {
      const { word, texts, model } = app.comparison();
      if (by("compare-texts").value !== texts) by("compare-texts").value = texts;
      by("compare-word").value = word;
      const wanted = JSON.stringify([model, word, texts]);
      if (asked !== wanted) {
        found = null;
        by("comparison").hidden = true;
        by("compare-says").textContent = "See how context changes a word's meaning.";
        const list = texts.split("\n").filter((text) => text.trim());
        found = await app.ask({ type: "compare", model, word, texts: list }, signal);
        if (!stillWanted()) return;
        asked = wanted;
      }
    }
    pointed = null;
    show();
  }

  const layers = () => found.plane.shape[0];
  const after = () => Math.min(app.state.after ?? layers() - 1, layers() - 1); // of the hidden states: 0 is before the first layer
  const total = () => found.places.length;
  const similarity = (l, i, j) => found.similarity.data[(l * total() + i) * total() + j];
  const cluster = (i) => (found.clusters[1]?.includes(i) ? 1 : 0);

  function show() {
    by("comparison").hidden = false;
    by("after").max = layers() - 1;
    by("after").value = after();
    by("after-says").textContent = after() ? `${after() - 1}` : "none: as they enter";
    by("after").setAttribute("aria-valuetext", after() ? `after layer ${after() - 1}` : "before the first layer");
    drawPlane();
    by("places").replaceChildren(
      ...found.places.map((place, i) => {
        const text = el("bdi", { dir: "auto" }, ...marked(place, 120));
        return el("li", { class: `cluster-${cluster(i)}`, "data-place": i }, text);
      }),
    );
    by("similarities").replaceChildren(...Array.from({ length: layers() }, (_, l) => matrix(l)));
    by("compare-notes").replaceChildren(...notes().map((note) => el("p", {}, note)));
    say();
  }

  /** What a reader of the comparison must know beside it. */
  function notes() {
    const left = found.left_out ?? [];
    const places = left.slice(0, 3).map(({ reason }) => reason).join(" ");
    const more = left.length > 3 ? ` And ${left.length - 3} more.` : "";
    return [
      left.length ? `${count(left.length, "text")} left out: ${places}${more}` : "",
      app.reading?.causal ? `In this model a word sees only the words before it: what follows “${found.word}” does not change its vector.` : "",
      identical() ? "The vectors are the same in all places." : "",
    ].filter(Boolean);
  }

  /** Whether nothing tells the places apart after the last layer. */
  function identical() {
    const l = layers() - 1;
    return found.places.every((_, i) => found.places.every((_, j) => similarity(l, i, j) > 1 - 1e-6));
  }

  /** The text around a place, with the word in it marked. */
  function marked({ text, start, end }, room) {
    const from = Math.max(0, start - room / 2);
    const to = Math.min(text.length, end + room / 2);
    return [`${from ? "…" : ""}${text.slice(from, start)}`, el("mark", {}, text.slice(start, end)), `${text.slice(end, to)}${to < text.length ? "…" : ""}`];
  }

  /** A few words on each side of a place, for a label of so many characters. */
  function label({ text, start, end }, room) {
    const before = text.slice(0, start).trim().split(/\s+/).slice(-2).join(" ");
    const behind = text.slice(end).trim().split(/\s+/).slice(0, 2).join(" ");
    return clipped(`${before} ${text.slice(start, end)} ${behind}`.trim(), room);
  }

  // ── The plane ────────────────────────────────────────────────────────────────────────────────────────────────────

  const [WIDE, HIGH] = [720, 380];

  /** As wide as there is room, so that its labels can be read. */
  function drawPlane() {
    by("plane").replaceChildren(plane(Math.min(WIDE, Math.max(280, by("plane").clientWidth))));
  }

  /** The labels of the points for which there is room: the words around the place, or else its number, or nothing. */
  function labelsOf(at, wide) {
    const taken = at.map(([x, y]) => [x - 6, y - 6, x + 6, y + 6]);
    const free = ([left, top, right, bottom], i) =>
      left >= 2 && right <= wide - 2 && top >= 2 && bottom <= HIGH - 2 &&
      !taken.some((box, n) => n !== i && box[0] < right && box[2] > left && box[1] < bottom && box[3] > top);
    const labels = [];
    const order = at.map((_, i) => i).sort((a, b) => at[a][1] - at[b][1]);
    for (const short of [false, true])
      for (const i of order) {
        if (labels.some((placed) => placed.i === i)) continue;
        const [x, y] = at[i];
        const anchor = x > wide / 2 ? "end" : "start";
        const room = Math.min(34, Math.floor(((anchor === "end" ? x : wide - x) - 16) / 7.5));
        const text = short || room < 8 ? `${i + 1}` : label(found.places[i], room);
        const start = anchor === "end" ? x - 11 : x + 11;
        const width = 7.2 * text.length;
        for (const low of [4, 19, -11, 34, -26]) {
          const [left, right] = anchor === "end" ? [start - width, start] : [start, start + width];
          const box = [left, y + low - 12, right, y + low + 3];
          if (!free(box, i)) continue;
          taken.push(box);
          labels.push({ i, x: start, y: y + low, text, anchor });
          break;
        }
      }
    return labels;
  }

  function plane(wide) {
    const l = after();
    const reach = found.plane.data.reduce((most, x) => Math.max(most, Math.abs(x)), 1e-9);
    const scale = Math.min(wide / 3, HIGH / 2 - 36) / reach;
    const svg = el("svg", { viewBox: `0 0 ${wide} ${HIGH}`, role: "img", class: "points" });
    svg.setAttribute("aria-label", `The ${total()} places of “${found.word}” in the plane, ${by("after").getAttribute("aria-valuetext")}`);
    const at = found.places.map((_, i) => {
      const [x, y] = found.plane.data.subarray(2 * (l * total() + i), 2 * (l * total() + i) + 2);
      return [wide / 2 + x * scale, HIGH / 2 - y * scale];
    });
    for (const [i, [x, y]] of at.entries()) {
      const point = el("circle", { cx: x, cy: y, r: 6 });
      svg.append(el("g", { class: `cluster-${cluster(i)}`, "data-place": i }, point));
    }
    const groups = [...svg.children];
    for (const { i, x, y, text, anchor } of labelsOf(at, wide)) groups[i].append(el("text", { x, y, "text-anchor": anchor }, text));
    return svg;
  }

  // ── Similarity ───────────────────────────────────────────────────────────────────────────────────────────────────

  /** A layer's similarities as a small square; its button chooses the layer. */
  function matrix(l) {
    const n = total();
    const size = Math.max(54, Math.min(108, 18 * n));
    const svg = el("svg", { viewBox: `0 0 ${n} ${n}`, width: size, height: size, "aria-hidden": "true" });
    const colours = ramp(app.isDark());
    const least = leastSimilarity();
    const place = (alike) => (least < 1 ? (alike - least) / (1 - least) : 1);
    for (let i = 0; i < n; i++)
      for (let j = 0; j < n; j++) {
        const fill = `rgb(${colours[Math.round(255 * Math.min(1, Math.max(0, place(similarity(l, i, j)))))].join(",")})`;
        svg.append(el("rect", { x: j, y: i, width: 1.02, height: 1.02, fill, "data-pair": `${i} ${j}` }));
      }
    const name = l ? `after layer ${l - 1}` : "before the first layer";
    const mean = n > 1 ? (sum(l) - n) / (n * n - n) : 1;
    const button = el(
      "button",
      { type: "button", class: "similarity", "data-after": l, "aria-pressed": l === after() },
      svg,
      el("span", {}, l ? `${l - 1}` : "in"),
    );
    button.setAttribute("aria-label", `${name}: mean similarity ${format(mean, 2)}`);
    return button;
  }

  const leastSimilarity = () => found.similarity.data.reduce((a, b) => Math.min(a, b), 1);
  const sum = (l) => found.similarity.data.subarray(l * total() ** 2, (l + 1) * total() ** 2).reduce((a, b) => a + b, 0);

  function say() {
    const l = after();
    const when = l ? `after layer ${l - 1}` : "before the first layer";
    const node = by("compare-says");
    const places = (i) => `${i + 1}`;
    if (Array.isArray(pointed)) {
      const [i, j, layer] = pointed;
      const then = layer ? `after layer ${layer - 1}` : "before the first layer";
      node.replaceChildren(`Places ${places(i)} and ${places(j)}, ${then}: similarity `, shown(similarity(layer, i, j)), ".");
      return;
    }
    if (pointed !== null) return node.replaceChildren(`${places(pointed)}: “`, ...marked(found.places[pointed], 160), "”");
    let [least, two] = [2, [0, 0]];
    for (let i = 0; i < total(); i++)
      for (let j = 0; j < i; j++) if (similarity(l, i, j) < least) [least, two] = [similarity(l, i, j), [j, i]];
    node.replaceChildren(
      quoted(found.word),
      ` in ${total()} places, ${when}: the two that differ most are ${places(two[0])} and ${places(two[1])}, with a similarity of `,
      shown(least),
      ".",
    );
  }

  // ── Pointer, keys, controls ──────────────────────────────────────────────────────────────────────────────────────

  const go = (change) => app.go(change, { replace: true });
  by("after").addEventListener("input", (event) => go({ after: Number(event.target.value) }));
  by("similarities").addEventListener("click", (event) => {
    const layer = event.target.closest("[data-after]")?.dataset.after;
    if (layer !== undefined) {
      app.go({ after: Number(layer) }).then(() => by("similarities").children[layer]?.focus());
    }
  });
  by("similarities").addEventListener("pointermove", (event) => {
    const pair = event.target.dataset?.pair;
    const layer = event.target.closest("[data-after]")?.dataset.after;
    point(pair ? [...pair.split(" ").map(Number), Number(layer)] : null);
  });
  for (const id of ["plane", "places"])
    by(id).addEventListener("pointermove", (event) => {
      const place = event.target.closest("[data-place]")?.dataset.place;
      point(place === undefined ? null : Number(place));
    });
  for (const id of ["plane", "places", "similarities"]) by(id).addEventListener("pointerleave", () => point(null));

  function point(what) {
    if (JSON.stringify(what) === JSON.stringify(pointed) || !found) return;
    pointed = what;
    for (const node of app.viewer.querySelectorAll("#comparison [data-place]"))
      node.classList.toggle("pointed", Number(node.dataset.place) === pointed || (Array.isArray(pointed) && pointed.slice(0, 2).includes(Number(node.dataset.place))));
    say();
  }

  const compare = () => {
    const [word, texts] = [by("compare-word").value.trim(), by("compare-texts").value];
    if (!word) return app.tell("Type the word to compare.");
    app.go({ same: word, texts, after: null });
  };
  by("comparing").addEventListener("submit", (event) => {
    event.preventDefault();
    compare();
  });
  by("compare-texts").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) compare();
  });

  // ── Saving ───────────────────────────────────────────────────────────────────────────────────────────────────────

  function picture() {
    if (!found) throw new Error("there is nothing to be seen yet: compare a word first.");
    const colours = [0, 1].map((n) => {
      const probe = el("span", { class: `cluster-${n}` });
      by("comparison").append(probe);
      const colour = getComputedStyle(probe).color;
      probe.remove();
      return colour;
    });
    return comparePicture(app, { found, colours, cluster, after: after(), layers: layers(), plane: plane(WIDE), square: matrix, least: leastSimilarity(), notes: notes() });
  }

  function table() {
    if (!found) throw new Error("there is nothing to be seen yet: compare a word first.");
    const rows = [["after_layer", "place", "text", "x", "y", ...found.places.map((_, j) => `similarity to ${j + 1}`)]];
    for (let l = 0; l < layers(); l++)
      found.places.forEach((place, i) => {
        const at = 2 * (l * total() + i);
        const others = found.places.map((_, j) => similarity(l, i, j));
        rows.push([l - 1, i + 1, place.text, found.plane.data[at], found.plane.data[at + 1], ...others]);
      });
    return rows;
  }

  return { draw, picture, table, resize: () => found && drawPlane() };
}
