// Walk: how one token became its context in one head. The sentences stand in reading.html; the numbers come from here.

const MANY = 24; // tokens; of a longer text, a table shows the most looked at
const FEW = 12;
let wholeTables = false;

function drawWalk() {
  const [l, h] = [state.layer, state.head];
  const u = state.word ?? firstWord();
  const i = units[u].tokens[Math.min(state.token, units[u].tokens.length - 1)];
  const { hidden, value } = ready[l];
  const known = knowsScores(l);
  for (const [id, exists] of Object.entries({
    "step-embedding": hidden,
    "step-vectors": known,
    "step-scores": known,
    "step-scaling": known,
    "step-softmax": known,
    "step-sum": known && value,
    "step-context": known && value,
    "step-end": known && !value,
    "step-weights": !known,
  }))
    byId(id).hidden = !exists;

  const colours = { plus: styleColour("plus"), minus: styleColour("minus") };
  const slots = { token: () => quoted(tokens[i].text), layer: l, head: h, ...partOfWord(u, i) };
  if (hidden) Object.assign(slots, embedding(l, i, colours));
  if (known) Object.assign(slots, scoring(l, h, i, colours));
  else
    slots.weightsOnly = table({ word: "", weight: "number" }, lookFrom(l, h, u), units, u, (weight) =>
      weightCell(weight),
    );
  if (known && value) Object.assign(slots, summing(l, h, i, colours));
  fillSlots(byId("walk"), slots);
}

function partOfWord(u, i) {
  const { text, tokens: parts } = units[u];
  return {
    part:
      parts.length > 1 ? [" It is token ", `${parts.indexOf(i) + 1} of ${parts.length} of `, quoted(text), "."] : "",
  };
}

function embedding(l, i, colours) {
  const x = vector(ready[l].hidden, 0, i);
  const origin = l ? "what the layers before made of it" : "the same in every sentence, but for its place";
  return { width: x.length, origin, x: strip(x, "x", colours) };
}

// ── Query, key, value; scores, softmax ─────────────────────────────────────────────────────────────────────────────

function scoring(l, h, i, colours) {
  const { query, key, value } = ready[l];
  const { scale, softcap, sinks, spans } = layers[l];
  const { scores, scaled, weights, sink } = look(l, h, i);
  const q = vector(query, h, i);
  const order = [...weights.keys()].sort((a, b) => weights[b] - weights[a]);
  const best = order[0];
  const power = (j) => ["e", el("sup", {}, format(scaled[j], 2))];
  const strongest = peak(tokens, (j) => vector(key, h, j));
  return {
    dim: q.length,
    query: strip(q, "query", colours),
    key: strip(vector(key, h, i), "key", colours),
    value: value && strip(vector(value, h, i), "value", colours),
    most: () => quoted(tokens[best].text),
    terms: [0, 1, 2].map((d) => `(${format(q[d], 2)} × ${format(vector(key, h, best)[d], 2)}) + `),
    score: () => shown(scores[best]),
    scale: () => format(scale, 4),
    root: Math.abs(scale * Math.sqrt(q.length) - 1) < 1e-5 ? `, 1 divided by √${q.length},` : "",
    softcap: softcap === null ? "" : ` A soft cap then bends them to stay between −${softcap} and ${softcap}.`,
    scaled: () => shown(scores[best] * scale),
    total: () => shown(weights.reduce((sum, weight) => sum + weight, 0)),
    sink: sinks ? [" The head's sink, a score that belongs to no token, takes ", shown(sink), "."] : "",
    unseen: spans ? " Where there is a dash the token may not look, and the weight is 0." : "",
    powers: () => [...power(best), " / (", ...order.slice(0, 3).flatMap((j) => [...power(j), " + "])],
    weight: () => shown(weights[best], 4),
    scores: table(
      { token: "", "its key": "wide", score: "number", scaled: "number", weight: "number" },
      weights,
      tokens,
      i,
      (weight, j) => [
        el(
          "td",
          { class: "wide" },
          strip(vector(key, h, j), `key of ${tokens[j].text}`, colours, { cells: true, most: strongest }),
        ),
        el("td", { class: "number" }, shown(scores[j], 2)),
        el("td", { class: "number" }, shown(scaled[j])),
        ...weightCell(weight),
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

// ── Weighted sum, context ──────────────────────────────────────────────────────────────────────────────────────────

function summing(l, h, i, colours) {
  const { value, output } = ready[l];
  const { weights } = look(l, h, i);
  const weighted = (j) => vector(value, h, j).map((number) => number * weights[j]);
  const context = new Float64Array(value.shape[2]);
  tokens.forEach((_, j) => weighted(j).forEach((number, d) => (context[d] += number)));
  const most = Math.max(peak(tokens, weighted), ...context.map(Math.abs));
  const cells = (numbers, name) => el("td", {}, strip(numbers, name, colours, { cells: true, most }));
  const slots = {
    values: table(
      { token: "", weight: "number", "weight × its value": "" },
      weights,
      tokens,
      i,
      (weight, j) => [
        el("td", { class: "number" }, shown(weight)),
        cells(weighted(j), `weight × value of ${tokens[j].text}`),
      ],
      el("tr", {}, el("th", { scope: "row" }, "sum"), el("td"), cells(context, "sum")),
    ),
    context: strip(context, "context", colours),
  };
  if (output) {
    const error = peak([0], () => context.map((number, d) => number - vector(output, h, i)[d]));
    const said = el("data", { value: error, id: "error" }, error.toExponential(0).replace("-", "−"));
    slots.check = [" The model itself computed the same numbers, to within ", said, "."];
  }
  return slots;
}

/** The largest magnitude among the vectors of all rows. */
const peak = (rows, vectorOf) => rows.reduce((most, _, j) => Math.max(most, ...vectorOf(j).map(Math.abs)), 0);

/** A row for each of `rows` in reading order; of many, the rows of the largest weights and a button for the rest. */
function table(columns, weights, rows, chosen, cellsOf, foot) {
  const order = [...weights.keys()];
  if (rows.length > MANY && !wholeTables) order.sort((a, b) => weights[b] - weights[a]).splice(FEW);
  const head = Object.entries(columns).map(([name, style]) => el("th", { scope: "col", class: style }, name));
  const body = order
    .sort((a, b) => a - b)
    .map((j) => {
      const name = el("th", { scope: "row" }, el("bdi", { dir: "auto" }, rows[j].text));
      return el("tr", { class: j === chosen && "chosen" }, name, ...cellsOf(weights[j], j));
    });
  const whole = el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body));
  if (foot) whole.append(el("tfoot", {}, foot));
  if (rows.length <= MANY) return whole;
  const label = wholeTables
    ? `Show the ${FEW} largest`
    : `Show all ${rows.length}; these ${FEW} have the largest weights`;
  const more = el("button", { type: "button", class: "quiet" }, label);
  more.addEventListener("click", () => {
    wholeTables = !wholeTables;
    drawWalk();
  });
  return [whole, more];
}
