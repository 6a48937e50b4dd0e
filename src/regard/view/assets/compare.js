// Compare: one word in several texts. Its vectors in the plane, layer by layer, and how alike each two of them are.

import { clipped, el, format, quoted, shown } from "./dom.js";
import { hex, ramp } from "./colour.js";

const EXAMPLE = [
  "He sat on the bank of the river.",
  "The bank lent her the money.",
  "They fished from the muddy bank.",
  "She opened an account at the bank.",
];

export function compareView(app) {
  const { by } = app;
  let found = null; // the answer: {word, places, clusters, similarity, plane}
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
        by("compare-says").textContent = "A word, and texts that it stands in: how far does its company move it?";
        const list = texts.split("\n").filter((text) => text.trim());
        found = await app.ask({ what: "compare", model, word, texts: list }, signal);
        if (!stillWanted()) return;
        asked = wanted;
      }
    }
    pointed = null;
    show();
  }

  const layers = () => found.plane.shape[0];
  const after = () => Math.min(app.state.after ?? layers() - 1, layers() - 1); // of the hidden states: 0 is before the first layer
  const count = () => found.places.length;
  const similarity = (l, i, j) => found.similarity.data[(l * count() + i) * count() + j];
  const cluster = (i) => (found.clusters[1].includes(i) ? 1 : 0);

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
    say();
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

  function plane(wide) {
    const l = after();
    const reach = found.plane.data.reduce((most, x) => Math.max(most, Math.abs(x)), 1e-9);
    const scale = Math.min(wide / 3, HIGH / 2 - 36) / reach;
    const svg = el("svg", { viewBox: `0 0 ${wide} ${HIGH}`, role: "img", class: "points" });
    svg.setAttribute("aria-label", `The ${count()} places of “${found.word}” in the plane, ${by("after").getAttribute("aria-valuetext")}`);
    const at = found.places.map((_, i) => {
      const [x, y] = found.plane.data.subarray(2 * (l * count() + i), 2 * (l * count() + i) + 2);
      return [wide / 2 + x * scale, HIGH / 2 - y * scale];
    });
    const taken = []; // y of the labels, so that none lies on another
    const order = at.map((_, i) => i).sort((a, b) => at[a][1] - at[b][1]);
    for (const i of order) {
      const [x, y] = at[i];
      let low = y + 4;
      while (taken.some(([ox, oy]) => Math.abs(oy - low) < 15 && Math.abs(ox - x) < 200)) low += 15;
      taken.push([x, low]);
      const left = x > wide / 2;
      const room = Math.min(34, Math.floor(((left ? x : wide - x) - 16) / 7.5));
      const point = el("circle", { cx: x, cy: y, r: 6 });
      const words = el("text", { x: x + (left ? -11 : 11), y: low, "text-anchor": left ? "end" : "start" }, label(found.places[i], room));
      svg.append(el("g", { class: `cluster-${cluster(i)}`, "data-place": i }, point, words));
    }
    return svg;
  }

  // ── Similarity ───────────────────────────────────────────────────────────────────────────────────────────────────

  /** A layer's similarities as a small square; its button chooses the layer. */
  function matrix(l) {
    const n = count();
    const size = Math.max(54, Math.min(108, 18 * n));
    const svg = el("svg", { viewBox: `0 0 ${n} ${n}`, width: size, height: size, "aria-hidden": "true" });
    const colours = ramp(app.isDark());
    const least = found.similarity.data.reduce((a, b) => Math.min(a, b), 1);
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

  const sum = (l) => found.similarity.data.subarray(l * count() ** 2, (l + 1) * count() ** 2).reduce((a, b) => a + b, 0);

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
    for (let i = 0; i < count(); i++)
      for (let j = 0; j < i; j++) if (similarity(l, i, j) < least) [least, two] = [similarity(l, i, j), [j, i]];
    node.replaceChildren(
      quoted(found.word),
      ` in ${count()} places, ${when}: the two that differ most are ${places(two[0])} and ${places(two[1])}, with a similarity of `,
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
    if (!word) return app.tell("Which word is to be compared?");
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

  function picture(ink) {
    if (!found) throw new Error("there is nothing to be seen yet: compare a word first.");
    const svg = plane(WIDE);
    const size = 84;
    const per = Math.max(1, Math.floor(WIDE / (size + 10)));
    const height = HIGH + Math.ceil(layers() / per) * (size + 28);
    svg.setAttribute("viewBox", `0 0 ${WIDE} ${height}`);
    svg.setAttribute("width", WIDE);
    svg.setAttribute("height", height);
    const colours = [0, 1].map((n) => {
      const probe = el("span", { class: `cluster-${n}` });
      by("comparison").append(probe);
      const colour = hex(getComputedStyle(probe).color);
      probe.remove();
      return colour;
    });
    for (const group of svg.querySelectorAll("g")) group.setAttribute("fill", colours[group.classList.contains("cluster-1") ? 1 : 0]);
    for (const text of svg.querySelectorAll("text")) text.setAttribute("font-size", 13);
    for (let l = 0; l < layers(); l++) {
      const [x, y] = [(l % per) * (size + 10), HIGH + Math.floor(l / per) * (size + 28)];
      const small = matrix(l).querySelector("svg").cloneNode(true);
      for (const [name, value] of Object.entries({ x, y, width: size, height: size })) small.setAttribute(name, value);
      svg.append(small, el("text", { x, y: y + size + 14, fill: ink, "font-size": 12 }, l ? `after layer ${l - 1}` : "before"));
    }
    return svg;
  }

  function table() {
    if (!found) throw new Error("there is nothing to be seen yet: compare a word first.");
    const rows = [["after_layer", "place", "text", "x", "y", ...found.places.map((_, j) => `similarity to ${j + 1}`)]];
    for (let l = 0; l < layers(); l++)
      found.places.forEach((place, i) => {
        const at = 2 * (l * count() + i);
        const others = found.places.map((_, j) => similarity(l, i, j));
        rows.push([l - 1, i + 1, place.text, found.plane.data[at], found.plane.data[at + 1], ...others]);
      });
    return rows;
  }

  return { draw, picture, table, resize: () => found && drawPlane() };
}
