// A page without Python behind it: the answers of view/desk.py from what the page carries, the weights as a function of
// query and key. view/html.py writes `data`, and says what is in it.

const TILE = 256; // cells, as in view/tiles.py
const THUMB = 64;
const [WALK, FEW, ROWS] = [24, 12, 2048]; // tokens of a walk, as in view/desk.py
const KEEP = 16e6; // numbers of the heads' matrices that are kept: 64 MB

/** Who answers: the same questions as a server does. */
export function frozenSource(data) {
  const { card, layers, pictures } = data;
  const H = card.heads;
  const N = card.tokens.length;
  const U = card.units.length;
  const stops = [...card.first_tokens.slice(1), N];
  const unitOf = new Int32Array(N);
  card.first_tokens.forEach((first, u) => unitOf.fill(u, first, stops[u]));
  const special = new Set(card.special);
  const ready = []; // ready[l]: {query, key, value, …}, each {shape, data}, once it is open

  async function open(l) {
    ready[l] ??= (async () => {
      const arrays = {};
      for (const [name, carried] of Object.entries(layers[l]))
        if (carried?.shape) arrays[name] = { shape: carried.shape, data: await decode(carried) };
      return arrays;
    })();
    return ready[l];
  }

  /** The place of head h among those whose query and key the page carries, or −1. */
  const placeOf = (l, h) => (layers[l].heads ? layers[l].heads.indexOf(h) : h);

  // ── Tokens ─────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** The vector of token i in the h-th head; query heads may share a key or value head. */
  function vector(array, h, i, heads = H) {
    const [groups, rows, width] = array.shape;
    const g = Math.floor((h * groups) / heads);
    return array.data.subarray((g * rows + i) * width, (g * rows + i + 1) * width);
  }

  /** Token i as query over every key: scores, scaled (both NaN where it may not look), weights, and the sink's mass. */
  function look(layer, arrays, h, i) {
    const { scale, softcap, sinks, spans } = layer;
    const { query, key } = arrays;
    const place = layer.heads ? layer.heads.indexOf(h) : h;
    const heads = layer.heads?.length ?? H;
    const [start, stop] = spans ? [Math.max(0, spans[0][i]), Math.min(N, spans[1][i])] : [0, N];
    const scores = new Float64Array(N).fill(NaN);
    const scaled = new Float64Array(N).fill(NaN);
    const weights = new Float64Array(N);
    const q = vector(query, place, i, heads);

    let peak = sinks ? sinks[h] : -Infinity;
    for (let j = start; j < stop; j++) {
      scores[j] = dot(q, vector(key, place, j, heads));
      scaled[j] = scores[j] * scale;
      if (softcap !== null) scaled[j] = softcap * Math.tanh(scaled[j] / softcap);
      peak = Math.max(peak, scaled[j]);
    }
    let sink = sinks && start < stop ? Math.exp(sinks[h] - peak) : 0;
    let total = sink;
    for (let j = start; j < stop; j++) total += weights[j] = Math.exp(scaled[j] - peak);
    for (let j = start; j < stop; j++) weights[j] /= total;
    if (sink) sink /= total;
    return { scores, scaled, weights, sink };
  }

  // ── Units: words and special tokens ────────────────────────────────────────────────────────────────────────────────

  /** Unit u as query over all units: the mean over its tokens of the sums over theirs. */
  function lookFrom(l, arrays, h, u) {
    if (arrays.weights) return arrays.weights.data.subarray((h * U + u) * U, (h * U + u + 1) * U);
    const found = kept.get(`${l} ${h}`);
    if (found) return found.subarray(u * U, (u + 1) * U);
    const row = new Float32Array(U);
    const share = 1 / (stops[u] - card.first_tokens[u]);
    for (let i = card.first_tokens[u]; i < stops[u]; i++) {
      const { weights } = look(layers[l], arrays, h, i);
      for (let j = 0; j < N; j++) row[unitOf[j]] += weights[j] * share;
    }
    return row;
  }

  const kept = new Map(); // "l h" → the U × U weights of a head, the latest used last

  /** The weights of one head, U × U, row by row. */
  function matrix(l, arrays, h) {
    const name = `${l} ${h}`;
    let all = kept.get(name);
    kept.delete(name);
    if (!all) {
      all = new Float32Array(U * U);
      for (let u = 0; u < U; u++) all.set(lookFrom(l, arrays, h, u), u * U);
    }
    kept.set(name, all);
    while (kept.size > 1 && kept.size * U * U > KEEP) kept.delete(kept.keys().next().value);
    return all;
  }

  // ── Pictures ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Cells of 2ⁿ × 2ⁿ weights between the units that are shown. */
  function cells(all, width, shown, rows, columns, largest) {
    const found = new Float32Array(rows.length * columns.length);
    rows.forEach((row, y) => {
      const down = shown.slice(row * width, (row + 1) * width);
      columns.forEach((column, x) => {
        const across = shown.slice(column * width, (column + 1) * width);
        let sum = 0;
        for (const u of down)
          for (const v of across) {
            const weight = all[u * U + v];
            if (largest) sum = Math.max(sum, weight);
            else sum += weight;
          }
        found[y * columns.length + x] = largest ? sum : sum / (down.length * across.length);
      });
    });
    return { shape: [rows.length, columns.length], data: found };
  }

  const shownUnits = (hide) => [...card.units.keys()].filter((u) => !(hide && special.has(u)));
  const range = (from, to) => Array.from({ length: Math.max(0, to - from) }, (_, n) => from + n);

  let drawn = null; // the pictures of a long text: {side, data}

  async function picture(l, h) {
    drawn ??= decode(pictures.cells);
    const size = pictures.side ** 2;
    const place = card.attention_layers.indexOf(l) * H + h;
    return (await drawn).subarray(place * size, (place + 1) * size);
  }

  // ── Answers ────────────────────────────────────────────────────────────────────────────────────────────────────────

  const answers = {
    async start() {
      const compared = data.compared && { ...data.compared };
      for (const name of ["similarity", "plane"])
        if (compared) compared[name] = { shape: compared[name].shape, data: await decode(compared[name]) };
      return { models: [], opening: { reading: card.reading }, compares: Boolean(compared), compared };
    },

    async metadata() {
      return {
        ...card,
        has: (l) => layers[l].heads ?? null,
        floor: (l, h) => (pictures && (placeOf(l, h) < 0 || !pictures.fine) ? pictures.level : 0),
        pictured: pictures ? pictures.level : 0,
      };
    },

    async word_weights({ layer, word, side }) {
      const arrays = await open(layer);
      const row = new Float32Array(H * U).fill(NaN);
      for (let h = 0; h < H; h++) {
        if (placeOf(layer, h) < 0) continue;
        if (side === "from") row.set(lookFrom(layer, arrays, h, word), h * U);
        else {
          const all = U <= 4096 ? matrix(layer, arrays, h) : null;
          for (let u = 0; u < U; u++) row[h * U + u] = all ? all[u * U + word] : lookFrom(layer, arrays, h, u)[word];
        }
      }
      return { weights: { shape: [H, U], data: row } };
    },

    async layer_weights({ layer }) {
      const arrays = await open(layer);
      const all = new Float32Array(H * U * U);
      for (let h = 0; h < H; h++) all.set(matrix(layer, arrays, h), h * U * U);
      return { weights: { shape: [H, U, U], data: all } };
    },

    async thumbnails({ layer, hide }) {
      const { habits, named } = data;
      const shares = { shape: [H, Object.keys(habits).length], data: Float32Array.from(layers[layer].shares.flat(), (share) => share ?? NaN) };
      const thumbs = [];
      let n = 0;
      const arrays = pictures ? null : await open(layer);
      for (let h = 0; h < H; h++) {
        if (pictures) {
          n = pictures.side;
          thumbs.push(await picture(layer, h));
        } else {
          const shown = shownUnits(hide);
          const level = Math.max(0, Math.ceil(Math.log2(shown.length / THUMB)));
          n = Math.ceil(shown.length / 2 ** level);
          thumbs.push(cells(matrix(layer, arrays, h), 2 ** level, shown, range(0, n), range(0, n), true).data);
          if (h % 4 === 3) await new Promise((done) => setTimeout(done)); // let the page breathe
        }
      }
      const all = new Float32Array(H * n * n);
      thumbs.forEach((thumb, h) => all.set(thumb, h * n * n));
      return { thumbnails: { shape: [H, n, n], data: all }, shares, patterns: habits, threshold: named };
    },

    async tile({ layer, head, reduce, hide, level, row, column }) {
      const shown = shownUnits(hide);
      const width = 2 ** level;
      const count = Math.ceil(shown.length / width);
      const [rows, columns] = [row, column].map((n) => range(n * TILE, Math.min(count, (n + 1) * TILE)));
      if (pictures && level >= pictures.level) {
        // A picture's cell is the mean of its weights; those at the edge hold fewer.
        const cell = 2 ** pictures.level;
        const side = pictures.side;
        const whole = await picture(layer, head);
        const widths = range(0, side).map((n) => Math.min(cell, U - n * cell));
        const some = (n) => range((n * width) / cell, Math.min(side, ((n + 1) * width) / cell));
        const found = rows.flatMap((y) =>
          columns.map((x) => {
            let [sum, area] = [0, 0];
            for (const a of some(y))
              for (const b of some(x)) {
                sum += whole[a * side + b] * widths[a] * widths[b];
                area += widths[a] * widths[b];
              }
            return sum / area;
          }),
        );
        return { cells: { shape: [rows.length, columns.length], data: Float32Array.from(found) } };
      }
      const arrays = await open(layer);
      return { cells: cells(matrix(layer, arrays, head), width, shown, rows, columns, reduce === "max") };
    },

    async walk({ layer: l, head: h, token: i, all }) {
      const arrays = await open(l);
      const { scale, softcap, sinks } = layers[l];
      if (arrays.weights) {
        const weights = lookFrom(l, arrays, h, unitOf[i]);
        const rows = most(weights, all);
        return { rows, weights: taken(weights, rows), x: vectorOf(arrays.hidden, i) };
      }
      const place = placeOf(l, h);
      if (place < 0)
        throw new Error(`In a text this long the file holds the numbers of some heads only: in layer ${l} of ${layers[l].heads.join(", ") || "none"}.`);
      const heads = layers[l].heads?.length ?? H;
      const { query, key, value, output, hidden } = arrays;
      const { scores, scaled, weights, sink } = look(layers[l], arrays, h, i);
      const rows = most(weights, all);
      const one = (array) => array && { shape: [array.shape[2]], data: vector(array, place, i, heads) };
      const each = (array) => array && stacked(rows.map((j) => vector(array, place, j, heads)));
      const answer = {
        rows,
        best: weights.reduce((best, weight, j) => (weight > weights[best] ? j : best), 0),
        scale,
        softcap,
        adjusted: false,
        sink: sinks ? sink : null,
        masked: scores.some(Number.isNaN),
        error: null,
        made: layers[l].made,
        x: vectorOf(hidden, i),
        query: one(query),
        key: one(key),
        value: one(value),
        keys: each(key),
        values: each(value),
        scores: taken(scores, rows),
        scaled: taken(scaled, rows),
        weights: taken(weights, rows),
      };
      if (value) {
        const lengthOf = (j) => (arrays.lengths ? vector(arrays.lengths, place, j, heads)[0] : Math.hypot(...vector(value, place, j, heads)));
        const lengths = Float64Array.from({ length: N }, (_, j) => lengthOf(j));
        answer.projected = Boolean(arrays.lengths); // ‖v W_O‖, not ‖v‖
        answer.lengths = taken(lengths, rows);
        answer.carried = taken(weights.map((weight, j) => weight * lengths[j]), rows);
        answer.carried_total = weights.reduce((total, weight, j) => total + weight * lengths[j], 0);
        const context = new Float64Array(value.shape[2]);
        for (let j = 0; j < N; j++) vector(value, place, j, heads).forEach((number, d) => (context[d] += weights[j] * number));
        answer.context = { shape: [context.length], data: context };
        if (output) {
          const theirs = vector(output, place, i, heads);
          answer.error = context.reduce((error, number, d) => Math.max(error, Math.abs(number - theirs[d])), 0);
        }
      }
      return Object.fromEntries(Object.entries(answer).filter(([, part]) => part !== undefined));
    },

  };

  const vectorOf = (hidden, i) => hidden && { shape: [hidden.shape[2]], data: vector(hidden, 0, i, 1) };

  return async (question) => {
    const answer = answers[question.type];
    if (!answer) throw new Error("This page stands alone: it cannot read another text.");
    return answer(question);
  };
}

/** The text of a page's file, made to open with a link: what is shown now. */
export function reopening(file, opening, link) {
  const escaped = (sign) => `\\u${sign.charCodeAt(0).toString(16).padStart(4, "0")}`;
  const json = (value) => JSON.stringify(value).replace(/[<>&\u2028\u2029]/g, escaped); // as _json in view/html.py
  return file.replace(json(opening), () => json({ ...opening, link }));
}

/** The places of the tokens that a table shows: all of a short text, those with the largest weights of a longer one. */
function most(weights, all) {
  const rows = weights.length <= WALK ? WALK : all ? ROWS : FEW;
  return [...weights.keys()]
    .sort((a, b) => weights[b] - weights[a])
    .slice(0, rows)
    .sort((a, b) => a - b);
}

const taken = (numbers, rows) => ({ shape: [rows.length], data: Float64Array.from(rows, (j) => numbers[j]) });

function stacked(vectors) {
  const width = vectors[0].length;
  const data = new Float32Array(vectors.length * width);
  vectors.forEach((vector, n) => data.set(vector, n * width));
  return { shape: [vectors.length, width], data };
}

function dot(a, b) {
  let sum = 0;
  for (let d = 0; d < a.length; d++) sum += a[d] * b[d];
  return sum;
}

// ── Decoding ─────────────────────────────────────────────────────────────────────────────────────────────────────────

async function decode({ shape, float32, packed, logarithms }) {
  if (float32 !== undefined) return new Float32Array(fromBase64(float32).buffer);
  const inflated = new Blob([fromBase64(packed ?? logarithms)]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  const buffer = await new Response(inflated).arrayBuffer();
  const data = new Float32Array(shape.reduce((product, size) => product * size, 1));
  if (logarithms !== undefined) {
    // 16 bits a number, low bytes first: 0, or one of the steps of its logarithm. See _logarithms in view/html.py.
    const codes = new Uint8Array(buffer);
    for (let n = 0; n < data.length; n++) {
      const code = codes[n] | (codes[data.length + n] << 8);
      data[n] = code ? 2 ** ((code - 65535) / 2048) : 0;
    }
    return data;
  }
  // Steps of the channels, then the low bytes of all numbers, then the high bytes: see _packed in view/html.py.
  const [rows, width] = shape.slice(-2);
  const steps = new Float32Array(buffer, 0, data.length / rows);
  const bytes = new Uint8Array(buffer, steps.byteLength);
  for (let n = 0; n < data.length; n++) {
    const code = ((bytes[data.length + n] << 24) >> 16) | bytes[n]; // the high byte brings the sign
    data[n] = code * steps[Math.floor(n / (rows * width)) * width + (n % width)];
  }
  return data;
}

export function fromBase64(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let n = 0; n < bytes.length; n++) bytes[n] = binary.charCodeAt(n);
  return bytes;
}
