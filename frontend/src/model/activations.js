// The activations of feed-forward networks, in place: GELU as PyTorch computes it, its tanh form, ReLU and SiLU.

const STEPS = 64; // of the table of Φ, per unit
const RANGE = 8; // beyond which Φ is 0 or 1 to float32

/**
 * Φ(x), the distribution function of the standard normal, and its derivative φ(x), at steps of 1/64 from −8 to 8.
 *
 * Φ(x) = ½ + φ(x) Σ_n x^(2n+1) / (1 · 3 · 5 ⋯ (2n+1)), whose terms all have one sign: nothing cancels.
 */
const NORMAL = new Float64Array(2 * (2 * RANGE * STEPS + 1));
for (let n = 0; n <= 2 * RANGE * STEPS; n++) {
  const x = n / STEPS - RANGE;
  const density = Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI);
  let [term, total] = [x, 0];
  for (let odd = 3; total + term !== total; odd += 2) {
    total += term;
    term *= (x * x) / odd;
  }
  NORMAL[2 * n] = 0.5 + density * total;
  NORMAL[2 * n + 1] = density;
}

/**
 * Φ(x), by the cubic that has the values and the derivatives of the table: exact to 2 · 10⁻¹⁰.
 * @param {number} x
 */
export function normal(x) {
  if (!(x > -RANGE)) return Number.isNaN(x) ? x : 0;
  if (x >= RANGE) return 1;
  const at = (x + RANGE) * STEPS;
  const n = Math.floor(at);
  const t = at - n;
  const [low, lowSlope, high, highSlope] = [NORMAL[2 * n], NORMAL[2 * n + 1], NORMAL[2 * n + 2], NORMAL[2 * n + 3]];
  const [slope, next] = [lowSlope / STEPS, highSlope / STEPS];
  const rise = high - low;
  return low + t * (slope + t * (3 * rise - 2 * slope - next + t * (slope + next - 2 * rise)));
}

/** x Φ(x) = ½ x (1 + erf(x / √2)). @param {Float32Array} x */
function gelu(x) {
  for (let n = 0; n < x.length; n++) x[n] *= normal(x[n]);
}

/** ½ x (1 + tanh(√(2/π) (x + 0.044715 x³))). @param {Float32Array} x */
function geluByTanh(x) {
  const factor = Math.sqrt(2 / Math.PI);
  for (let n = 0; n < x.length; n++) x[n] *= 0.5 * (1 + Math.tanh(factor * (x[n] + 0.044715 * x[n] ** 3)));
}

/** max(x, 0). @param {Float32Array} x */
function relu(x) {
  for (let n = 0; n < x.length; n++) if (x[n] < 0) x[n] = 0;
}

/** x / (1 + e⁻ˣ). @param {Float32Array} x */
function silu(x) {
  for (let n = 0; n < x.length; n++) x[n] /= 1 + Math.exp(-x[n]);
}

/** By the names that configurations use; each changes its argument. @type {Record<string, (x: Float32Array) => void>} */
export const ACTIVATIONS = { gelu, gelu_new: geluByTanh, relu, silu };
