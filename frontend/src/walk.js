// Walk: how one token became its context in one head. The sentences stand in viewer.html; the numbers come from here.

import { bound, count, el, fillSlots, format, percent, quoted, shown, strip } from "./dom.js";
import { styleColour } from "./colour.js";
import { visible } from "./words.js";
import { walkPicture } from "./walk-picture.js";

const MANY = 24; // tokens; of a longer text, a table shows those with the largest weights
const MOST = 2048; // rows of a table

export function walkView(app) {
  const { by } = app;
  let all = false; // whether the tables of a long text hold every token
  let walk = null; // the answer: see view/desk.py; its arrays as lists of rows
  let said = ""; // what it was about

  async function draw(signal, stillWanted) {
    const { state, reading } = app;
    const [l, h] = [state.layer, state.head];
    const u = state.word ?? app.usualWord();
    const parts = reading.tokensOf(u);
    const i = parts[Math.min(state.token, parts.length - 1)];
    const wanted = `${reading.id} ${l} ${h} ${i} ${all} ${app.isDark()}`;
    if (said !== wanted) {
      const answer = await app.ask({ type: "walk", layer: l, head: h, token: i, all }, signal);
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
      "step-norm": walk.made?.norm,
      "step-vectors": known,
      "step-rotation": walk.made?.rotated,
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
    const part = parts.length > 1 ? [" It is token ", `${parts.indexOf(i) + 1} of ${parts.length} of `, quoted(visible(units[u])), "."] : "";
    const slots = { token: () => quoted(visible(tokens[i])), layer: l, head: h, part };
    if (walk.x) {
      const same = walk.made?.rotated ? "the same in every sentence" : "the same in every sentence, but for its place";
      const origin = l ? "what the layers before made of it" : same;
      Object.assign(slots, { width: walk.x.length, origin, x: strip(walk.x, "x", colours, app.tip) });
    }
    if (known) Object.assign(slots, making(colours), scoring(colours));
    else slots.weightsOnly = table({ word: "", weight: "number" }, units, u, (n) => weightCell(walk.weights[n]));
    if (known && walk.values) Object.assign(slots, summing(colours));
    fillSlots(by("walk"), slots);
  }

  // ── Query, key, value; scores, softmax ───────────────────────────────────────────────────────────────────────────

  /** How query, key and value come from x, as far as it is known. */
  function making(colours) {
    const { made, normed, unrotated, query } = walk;
    const stretched = made && Math.abs(made.factor - 1) > 1e-3 ? format(made.factor, 4) : "";
    const matrices = [`Three matrices that this head has learned turn ${made?.norm ? "the normed x" : "x"} into three vectors of ${query.length} numbers.`];
    if (made?.head_norm) matrices.push("Query and key are then normed again.");
    if (made && !made.rotated && stretched) matrices.push(`The query is then multiplied by ${stretched}.`);
    const received = `Three vectors of ${query.length} numbers, as the model's attention received them; how it makes them of x is not known here.`;
    return {
      making: made ? matrices.join(" ") : received,
      norm: made?.norm,
      normed: normed && strip(normed, "normed x", colours, app.tip),
      unrotated: unrotated && strip(unrotated, "query before the rotation", colours, app.tip),
      stretched: stretched && ` Both are stretched by ${stretched}.`,
    };
  }

  function scoring(colours) {
    const { i, query, key, value, keys, scores, scaled, weights, rows, scale, softcap, sink } = walk;
    const { tokens } = app.reading;
    const best = rows.indexOf(walk.best);
    const strongest = peak(keys);
    return {
      query: strip(query, "query", colours, app.tip),
      key: strip(key, "key", colours, app.tip),
      value: value && strip(value, "value", colours, app.tip),
      most: () => quoted(visible(tokens[walk.best])),
      terms: productTerms(query, keys[best]),
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
      powers: () => softmaxTerms(walk, best, tokens.length),
      weight: () => shown(weights[best], 4),
      scores: table(
        { token: "", "its key": "wide", score: "number", scaled: "number", weight: "number" },
        tokens,
        i,
        (n) => [
          el(
            "td",
            { class: "wide" },
            strip(keys[n], `key of ${visible(tokens[rows[n]])}`, colours, app.tip, { cells: true, most: strongest }),
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
    const carried = lengths();
    const slots = {
      values: table(
        { token: "", weight: "number", "weight × length": "number", "weight × its value": "" },
        tokens,
        i,
        (n) => [
          el("td", { class: "number" }, shown(weights[n])),
          el("td", { class: "number" }, shown(carried[n])),
          cells(weighted[n], `weight × value of ${visible(tokens[rows[n]])}`),
        ],
        el("tr", {}, el("th", { scope: "row" }, "sum of all"), el("td"), el("td"), cells(context, "sum")),
      ),
      projected: () => (walk.projected ? " once the layer's output matrix W_O has been applied to it, ‖v W_O‖" : ", ‖v‖"),
      carried: () => sayCarried(carried),
      context: strip(context, "context", colours, app.tip),
    };
    if (error !== undefined && error !== null) {
      const exact = el("data", { value: error, id: "error" }, bound(error));
      slots.check = [" The model itself computed the same numbers, to within ", exact, "."];
    }
    return slots;
  }

  /** Weight × length of the value, of each of the answer's rows: how much each token adds. */
  const lengths = () => walk.carried ?? walk.values.map((value, n) => walk.weights[n] * Math.hypot(...value));

  /** Where the token with the largest weight is not the one that adds most, a sentence says so. */
  function sayCarried(carried) {
    const { rows, weights, best } = walk;
    const { tokens } = app.reading;
    const listed = carried.reduce((total, length) => total + length, 0);
    const all = rows.length < tokens.length ? walk.carried_total : listed;
    const heaviest = rows.indexOf(best);
    const longest = carried.indexOf(Math.max(...carried));
    if (!(all > 0) || heaviest < 0) return "";
    const share = (n) => el("data", { value: carried[n] / all }, percent(carried[n] / all));
    const weight = (n) => el("data", { value: weights[n] }, percent(weights[n]));
    const name = (n) => quoted(visible(tokens[rows[n]]));
    if (heaviest === longest)
      return [" Here ", name(longest), " adds most: ", share(longest), " of all that is added, with ", weight(longest), " of the weight."];
    return [" Here ", name(heaviest), " has the largest weight, ", weight(heaviest), ", and ", share(heaviest), " of all that is added; ", name(longest), " adds most, ", share(longest), "."];
  }

  /** A row for each of the answer's rows, in reading order; of a long text, with a button for the rest. */
  function table(columns, names, chosen, cellsOf, foot) {
    const head = Object.entries(columns).map(([name, style]) => el("th", { scope: "col", class: style || null }, name));
    const { unknown_tokens: unknownTokens = [] } = app.reading;
    const body = walk.rows.map((j, n) => {
      const isUnknown = names === app.reading.tokens && unknownTokens.includes(j);
      const word = el("bdi", { dir: "auto", class: isUnknown ? "unknown" : null }, visible(names[j]));
      const name = el("th", { scope: "row", title: isUnknown ? "not in the model's vocabulary" : null }, word);
      return el("tr", { class: j === chosen && "chosen" }, name, ...cellsOf(n));
    });
    const whole = el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body));
    if (foot) whole.append(el("tfoot", {}, foot));
    return names.length <= MANY ? whole : [whole, moreButton(names.length)];
  }

  function moreButton(length) {
    const more = length <= MOST ? `all ${length}` : `${MOST.toLocaleString("en")} of ${count(length, "token")}`;
    const label = all ? "Show those with the largest weights" : `Show ${more}; these ${walk.rows.length} have the largest weights`;
    const button = el("button", { type: "button", class: "quiet" }, label);
    button.addEventListener("click", () => {
      all = !all;
      app.draw();
    });
    return button;
  }

  // ── Steps ────────────────────────────────────────────────────────────────────────────────────────────────────────

  const steps = () => [...by("steps").children].filter((item) => !item.hidden);

  /** Marks a step, from 1 on; 0 marks none. */
  function step(number, follow) {
    const items = steps();
    const now = Math.min(number, items.length);
    items.forEach((item, n) => {
      item.classList.toggle("current", n === now - 1);
      if (n === now - 1) item.setAttribute("aria-current", "step");
      else item.removeAttribute("aria-current");
    });
    by("step-previous").disabled = now <= 1;
    by("step-next").disabled = now === items.length;
    by("step-says").textContent = now
      ? `Step ${now} of ${items.length}: ${items[now - 1].querySelector("h2").textContent}`
      : `${items.length} steps`;
    const smooth = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (follow && now) items[now - 1].scrollIntoView({ block: "start", behavior: smooth ? "smooth" : "instant" });
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

  function numbers() {
    const { tokens } = app.reading;
    const { rows, scores, scaled, weights, keys, values } = walk;
    const carried = values ? lengths() : [];
    const wide = (name, list) => (list ? Array.from(list[0], (_, d) => `${name} ${d}`) : []);
    const all = (list, n) => (list ? [...list[n]] : []);
    const number = (list, n) => (Number.isFinite(list?.[n]) ? list[n] : ""); // a score that the token may not see is none
    return [
      ["place", "token", "score", "scaled", "weight", "weight_times_length", ...wide("key", keys), ...wide("value", values)],
      ...rows.map((j, n) => [j, (walk.scores ? tokens : app.reading.units)[j], number(scores, n), number(scaled, n), weights[n], number(carried, n), ...all(keys, n), ...all(values, n)]),
    ];
  }

  return { draw, picture: () => walkPicture(app, walk), table: numbers, forget: () => ((said = ""), (all = false)) };
}

/** The first products of query · key, as many as a line holds. */
function productTerms(query, key) {
  const terms = [...query].slice(0, 3).map((number, d) => `(${format(number, 2)} × ${format(key[d], 2)})`);
  return terms.join(" + ") + (query.length > 3 ? " + …" : "");
}

/** The softmax of the row with the largest weight: its power over the sum of the powers, the largest first. */
function softmaxTerms({ scaled, weights, rows, sink }, best, count) {
  const power = (n) => ["e", el("sup", {}, format(scaled[n], 2))];
  const seen = [...weights.keys()].filter((n) => !Number.isNaN(scaled[n])).sort((a, b) => weights[b] - weights[a]);
  const named = seen.slice(0, 3).flatMap((n, place) => [place ? " + " : "", ...power(n)]);
  const more = seen.length > 3 || rows.length < count || (sink !== null && sink > 0);
  return [...power(best), " / (", ...named, more ? " + …)" : ")"];
}

/** An array of one dimension as a list of numbers, one of two as a list of such lists. */
function rowsOf({ shape, data }) {
  if (shape.length === 1) return Array.from(data);
  const width = shape[shape.length - 1];
  return Array.from({ length: data.length / width }, (_, n) => Array.from(data.subarray(n * width, (n + 1) * width)));
}

/** The largest magnitude among the numbers of some vectors. */
const peak = (vectors) => vectors.reduce((most, vector) => vector.reduce((m, x) => Math.max(m, Math.abs(x)), most), 0);
