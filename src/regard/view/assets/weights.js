// What the page holds, and the weights as a function of it.
//
// The scripts of this folder are joined in the order that view/html.py names, into one module: what a file declares,
// the later ones use. Letters as in the documentation: H heads, G key/value heads, N tokens, U units (words and
// special tokens), D dim. l, h, i, u are a layer, a head, a token, a unit.

const reading = JSON.parse(document.getElementById("data").textContent);
const { tokens, units, layers, heads: HEADS } = reading;
const U = units.length;

// ── Decoding, one layer at a time ──────────────────────────────────────────────────────────────────────────────────

const ready = []; // ready[l]: {query, key, value, …}, each {shape, data: Float32Array}, once `open(l)` is done

async function open(l) {
  if (ready[l]) return;
  const arrays = {};
  for (const [name, carried] of Object.entries(layers[l]))
    if (carried?.shape) arrays[name] = { shape: carried.shape, data: await decode(carried) };
  ready[l] = arrays;
}

async function decode({ shape, float32, packed }) {
  if (float32 !== undefined) return new Float32Array(fromBase64(float32).buffer);
  // Steps of the channels, then the low bytes of all numbers, then the high bytes: see _packed in view/html.py.
  const inflated = new Blob([fromBase64(packed)]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  const buffer = await new Response(inflated).arrayBuffer();
  const [rows, width] = shape.slice(-2);
  const data = new Float32Array(shape.reduce((product, size) => product * size, 1));
  const steps = new Float32Array(buffer, 0, data.length / rows);
  const bytes = new Uint8Array(buffer, steps.byteLength);
  for (let n = 0; n < data.length; n++) {
    const code = ((bytes[data.length + n] << 24) >> 16) | bytes[n]; // the high byte brings the sign
    data[n] = code * steps[Math.floor(n / (rows * width)) * width + (n % width)];
  }
  return data;
}

function fromBase64(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let n = 0; n < bytes.length; n++) bytes[n] = binary.charCodeAt(n);
  return bytes;
}

// ── Tokens ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Whether the page can walk through a layer, or was only given its weights. */
const knowsScores = (l) => "query" in ready[l];

/** The vector of token i in head h; query heads may share a key or value head. */
function vector(array, h, i) {
  const [groups, rows, width] = array.shape;
  const g = Math.floor((h * groups) / HEADS);
  return array.data.subarray((g * rows + i) * width, (g * rows + i + 1) * width);
}

function dot(a, b) {
  let sum = 0;
  for (let d = 0; d < a.length; d++) sum += a[d] * b[d];
  return sum;
}

/** Token i as query over every key: scores, scaled (both NaN where it may not look), weights, and the sink's mass. */
function look(l, h, i) {
  const { scale, softcap, sinks, spans } = layers[l];
  const { query, key } = ready[l];
  const N = tokens.length;
  const [start, stop] = spans ? [Math.max(0, spans[0][i]), Math.min(N, spans[1][i])] : [0, N];
  const scores = new Float64Array(N).fill(NaN);
  const scaled = new Float64Array(N).fill(NaN);
  const weights = new Float64Array(N);
  const q = vector(query, h, i);

  let peak = sinks ? sinks[h] : -Infinity;
  for (let j = start; j < stop; j++) {
    scores[j] = dot(q, vector(key, h, j));
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

const unitOf = new Int32Array(tokens.length).fill(-1); // a token between two words belongs to no unit
units.forEach((unit, u) => unit.tokens.forEach((i) => (unitOf[i] = u)));

/** Unit u as query over all units: the mean over its tokens of the sums over theirs. */
function lookFrom(l, h, u) {
  if (!knowsScores(l)) return vector(ready[l].weights, h, u);
  const found = kept.get(`${l} ${h}`);
  if (found) return found.subarray(u * U, (u + 1) * U);
  const row = new Float32Array(U);
  for (const i of units[u].tokens) {
    const { weights } = look(l, h, i);
    weights.forEach((weight, j) => {
      if (unitOf[j] >= 0) row[unitOf[j]] += weight / units[u].tokens.length;
    });
  }
  return row;
}

const kept = new Map(); // "l h" → the U × U weights of a head, the latest used last
const KEEP = 16e6; // numbers: 64 MB

/** The weights of one head, U × U, row by row: the one place that knows where they come from. */
function weights(l, h) {
  const name = `${l} ${h}`;
  let all = kept.get(name);
  kept.delete(name);
  if (!all) {
    all = new Float32Array(U * U);
    for (let u = 0; u < U; u++) all.set(lookFrom(l, h, u), u * U);
  }
  kept.set(name, all);
  while (kept.size > 1 && kept.size * U * U > KEEP) kept.delete(kept.keys().next().value);
  return all;
}
