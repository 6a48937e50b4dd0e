// Walk: how one token became its context in one head. The sentences stand in viewer.html; the numbers come from here.

import { el, fillSlots, format, quoted, shown, strip } from "./dom.js";
import { hex, styleColour } from "./colour.js";

const MANY = 24; // tokens; of a longer text, a table shows the most looked at

export function walkView(app) {
  const { by } = app;
  let all = false; // whether the tables of a long text hold every token
  let walk = null; // the answer: see view/desk.py; its arrays as lists of rows
  let said = ""; // what it was about

  async function draw(signal, stillWanted) {
    const { state, reading } = app;
    const [l, h] = [state.layer, state.head];
    const u = state.word ?? app.firstWord();
    const parts = reading.tokensOf(u);
    const i = parts[Math.min(state.token, parts.length - 1)];
    const wanted = `${reading.id} ${l} ${h} ${i} ${all} ${app.isDark()}`;
    if (said !== wanted) {
      const answer = await app.ask({ what: "walk", layer: l, head: h, token: i, all }, signal);
      if (!stillWanted()) return;
      walk = Object.fromEntries(Object.entries(answer).map(([name, value]) => [name, value?.shape ? rowsOf(value) : value]));
      Object.assign(walk, { l, h, u, i });
      fill();
      said = wanted;
    }
    step(state.step, false);
  }

  function fill() {
    const { l, h, u, i } = walk;
    const { tokens, units } = app.reading;
    const known = "query" in walk;
    for (const [id, exists] of Object.entries({
      "step-embedding": walk.x,
      "step-vectors": known,
      "step-scores": known,
      "step-scaling": known,
      "step-softmax": known,
      "step-sum": known && walk.values,
      "step-context": known && walk.values,
      "step-end": known && !walk.values,
      "step-weights": !known,
    }))
      by(id).hidden = !exists;

    const colours = { plus: styleColour(app.viewer, "plus"), minus: styleColour(app.viewer, "minus") };
    const parts = app.reading.tokensOf(u);
    const part = parts.length > 1 ? [" It is token ", `${parts.indexOf(i) + 1} of ${parts.length} of `, quoted(units[u]), "."] : "";
    const slots = { token: () => quoted(tokens[i]), layer: l, head: h, part };
    if (walk.x) {
      const origin = l ? "what the layers before made of it" : "the same in every sentence, but for its place";
      Object.assign(slots, { width: walk.x.length, origin, x: strip(walk.x, "x", colours, app.tip) });
    }
    if (known) Object.assign(slots, scoring(colours));
    else slots.weightsOnly = table({ word: "", weight: "number" }, units, u, (n) => weightCell(walk.weights[n]));
    if (known && walk.values) Object.assign(slots, summing(colours));
    fillSlots(by("walk"), slots);
  }

  // ── Query, key, value; scores, softmax ───────────────────────────────────────────────────────────────────────────

  function scoring(colours) {
    const { i, query, key, value, keys, scores, scaled, weights, rows, scale, softcap, sink } = walk;
    const { tokens } = app.reading;
    const order = [...weights.keys()].sort((a, b) => weights[b] - weights[a]);
    const best = rows.indexOf(walk.best);
    const power = (n) => ["e", el("sup", {}, format(scaled[n], 2))];
    const strongest = peak(keys);
    return {
      dim: query.length,
      query: strip(query, "query", colours, app.tip),
      key: strip(key, "key", colours, app.tip),
      value: value && strip(value, "value", colours, app.tip),
      most: () => quoted(tokens[walk.best]),
      terms: [0, 1, 2]
        .filter((d) => d < query.length)
        .map((d) => `(${format(query[d], 2)} × ${format(keys[best][d], 2)}) + `),
      score: () => shown(scores[best]),
      scale: () => format(scale, 4),
      root: Math.abs(scale * Math.sqrt(query.length) - 1) < 1e-5 ? `, 1 divided by √${query.length},` : "",
      softcap: [
        softcap === null ? "" : ` A soft cap then bends them to stay between −${softcap} and ${softcap}.`,
        walk.adjusted ? " The model then adds a bias of its own, one for each pair of tokens." : "",
      ],
      scaled: () => shown(scores[best] * scale),
      total: () => shown(sink === null ? 1 : 1 - sink),
      sink: sink === null ? "" : [" The head's sink, a score that belongs to no token, takes ", shown(sink), "."],
      unseen: walk.masked ? " Where there is a dash the token may not look, and the weight is 0." : "",
      powers: () => [...power(best), " / (", ...order.slice(0, 3).flatMap((n) => [...power(n), " + "])],
      weight: () => shown(weights[best], 4),
      scores: table(
        { token: "", "its key": "wide", score: "number", scaled: "number", weight: "number" },
        tokens,
        i,
        (n) => [
          el(
            "td",
            { class: "wide" },
            strip(keys[n], `key of ${tokens[rows[n]]}`, colours, app.tip, { cells: true, most: strongest }),
          ),
          el("td", { class: "number" }, shown(scores[n], 2)),
          el("td", { class: "number" }, shown(scaled[n])),
          ...weightCell(weights[n]),
        ],
      ),
    };
  }

  function weightCell(weight) {
    const bar = el("span", { class: "weightbar" });
    bar.style.width = `${(100 * weight).toFixed(2)}%`;
    return [
      el("td", { class: "number weight" }, el("span", { class: "track", "aria-hidden": "true" }, bar), shown(weight, 4)),
    ];
  }

  // ── Weighted values, context ─────────────────────────────────────────────────────────────────────────────────────

  function summing(colours) {
    const { i, values, weights, rows, context, error } = walk;
    const { tokens } = app.reading;
    const weighted = values.map((value, n) => value.map((number) => number * weights[n]));
    const most = Math.max(peak(weighted), peak([context]));
    const cells = (numbers, name) => el("td", {}, strip(numbers, name, colours, app.tip, { cells: true, most }));
    const slots = {
      values: table(
        { token: "", weight: "number", "weight × its value": "" },
        tokens,
        i,
        (n) => [
          el("td", { class: "number" }, shown(weights[n])),
          cells(weighted[n], `weight × value of ${tokens[rows[n]]}`),
        ],
        el("tr", {}, el("th", { scope: "row" }, "sum of all"), el("td"), cells(context, "sum")),
      ),
      context: strip(context, "context", colours, app.tip),
    };
    if (error !== undefined && error !== null) {
      const exact = el("data", { value: error, id: "error" }, error.toExponential(0).replace("-", "−"));
      slots.check = [" The model itself computed the same numbers, to within ", exact, "."];
    }
    return slots;
  }

  /** A row for each of the answer's rows, in reading order; of a long text, with a button for the rest. */
  function table(columns, names, chosen, cellsOf, foot) {
    const head = Object.entries(columns).map(([name, style]) => el("th", { scope: "col", class: style || null }, name));
    const body = walk.rows.map((j, n) => {
      const name = el("th", { scope: "row" }, el("bdi", { dir: "auto" }, names[j]));
      return el("tr", { class: j === chosen && "chosen" }, name, ...cellsOf(n));
    });
    const whole = el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body));
    if (foot) whole.append(el("tfoot", {}, foot));
    if (names.length <= MANY) return whole;
    const more = Math.min(names.length, 2048);
    const label = all
      ? "Show those with the largest weights"
      : `Show ${more < names.length ? `${more} of ${names.length}` : `all ${names.length}`}; these ${walk.rows.length} have the largest weights`;
    const button = el("button", { type: "button", class: "quiet" }, label);
    button.addEventListener("click", () => {
      all = !all;
      app.draw();
    });
    return [whole, button];
  }

  // ── Steps ────────────────────────────────────────────────────────────────────────────────────────────────────────

  const steps = () => [...by("steps").children].filter((one) => !one.hidden);

  /** Marks a step, from 1 on; 0 marks none. */
  function step(number, follow) {
    const there = steps();
    const now = Math.min(number, there.length);
    there.forEach((one, n) => {
      one.classList.toggle("current", n === now - 1);
      if (n === now - 1) one.setAttribute("aria-current", "step");
      else one.removeAttribute("aria-current");
    });
    by("steps").classList.toggle("stepping", now > 0);
    by("step-previous").disabled = now <= 1;
    by("step-next").disabled = now === there.length;
    by("step-says").textContent = now
      ? `Step ${now} of ${there.length}: ${there[now - 1].querySelector("h2").textContent}`
      : `${there.length} steps`;
    if (follow && now) there[now - 1].scrollIntoView({ block: "start", behavior: "smooth" });
  }

  function stepBy(number) {
    const now = Math.min(steps().length, Math.max(1, app.state.step + number));
    app.go({ step: now }, { replace: true });
    step(now, true);
  }

  by("step-previous").addEventListener("click", () => stepBy(-1));
  by("step-next").addEventListener("click", () => stepBy(1));
  (app.options.address ? document : app.viewer).addEventListener("keydown", (event) => {
    if (app.state.view !== "walk" || event.target.matches?.("input, textarea, select, [role=tab]")) return;
    const number = { ArrowLeft: -1, ArrowRight: 1, PageUp: -1, PageDown: 1 }[event.key];
    if (!number || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    stepBy(number);
  });

  // ── Saving ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /** The tokens, their scores and their weights as bars. */
  function picture(ink) {
    const { tokens } = app.reading;
    const { rows, scores, scaled, weights } = walk;
    const row = 24;
    const [width, height] = [720, (rows.length + 2) * row];
    const svg = el("svg", { viewBox: `0 0 ${width} ${height}`, width, height });
    const write = (x, y, text, more = {}) => svg.append(el("text", { x, y, fill: ink, "font-size": 14, ...more }, text));
    const title = `“${tokens[walk.i]}” in layer ${walk.l}, head ${walk.h}`;
    write(10, 18, title, { "font-weight": 600 });
    const accent = hex(getComputedStyle(by("tab-walk")).borderBottomColor);
    const head = { "text-anchor": "end", "font-size": 12 };
    if (scores) ["score", "scaled"].forEach((name, n) => write(240 + 90 * n, row + 14, name, head));
    write(420, row + 14, "weight", head);
    rows.forEach((j, n) => {
      const y = (n + 2) * row + 14;
      write(10, y, tokens[j], { "font-weight": j === walk.i ? 600 : 400 });
      if (scores) [scores, scaled].forEach((list, k) => write(240 + 90 * k, y, format(list[n]), { "text-anchor": "end" }));
      write(420, y, format(weights[n], 4), { "text-anchor": "end" });
      svg.append(el("rect", { x: 440, y: y - 12, width: Math.max(0.5, 260 * weights[n]), height: 14, fill: accent }));
    });
    return svg;
  }

  function numbers() {
    const { tokens } = app.reading;
    const { rows, scores, scaled, weights, keys, values } = walk;
    const wide = (name, list) => (list ? Array.from(list[0], (_, d) => `${name} ${d}`) : []);
    const all = (list, n) => (list ? [...list[n]] : []);
    return [
      ["place", "token", "score", "scaled", "weight", ...wide("key", keys), ...wide("value", values)],
      ...rows.map((j, n) => [j, tokens[j], scores?.[n] ?? "", scaled?.[n] ?? "", weights[n], ...all(keys, n), ...all(values, n)]),
    ];
  }

  return { draw, picture, table: numbers, forget: () => ((said = ""), (all = false)) };
}

/** An array of one dimension as a list of numbers, one of two as a list of such lists. */
function rowsOf({ shape, data }) {
  if (shape.length === 1) return Array.from(data);
  const width = shape[shape.length - 1];
  return Array.from({ length: data.length / width }, (_, n) => Array.from(data.subarray(n * width, (n + 1) * width)));
}

/** The largest magnitude among the numbers of some vectors. */
const peak = (vectors) => vectors.reduce((most, vector) => vector.reduce((m, x) => Math.max(m, Math.abs(x)), most), 0);
