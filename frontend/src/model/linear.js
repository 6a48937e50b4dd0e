// Matrix products and the functions of a vector: what a layer is made of besides its attention.
//
// Sums are taken in double precision, as JavaScript counts; what is kept is float32.

const BLOCK = 64; // rows of the weights that stay in the cache while all vectors pass

/**
 * y = x Wᵀ + b for vectors x (n, inputs), with W (outputs, inputs) as PyTorch keeps it; (n, outputs).
 * @param {ArrayLike<number>} x
 * @param {Float32Array} weight
 * @param {Float32Array | null} bias
 * @param {number} n
 */
export function linear(x, weight, bias, n) {
  const inputs = x.length / n;
  const outputs = weight.length / inputs;
  const y = new Float32Array(n * outputs);
  const vectors = new Float64Array(Math.ceil(n / 4) * 4 * inputs); // a multiple of four: the last may be zeros
  vectors.set(x);
  for (let start = 0; start < outputs; start += BLOCK)
    for (let i = 0; i < n; i += 4) multiply(vectors, weight, y, i, start, Math.min(outputs, start + BLOCK), n);
  if (bias) for (let i = 0; i < n; i++) for (let o = 0; o < outputs; o++) y[i * outputs + o] += bias[o];
  return y;
}

/**
 * The products of four vectors, from i on, with the rows from `start` to `stop`: two rows at a time, so that the eight
 * sums stay in registers.
 * @param {Float64Array} x
 * @param {Float32Array} weight
 * @param {Float32Array} y
 * @param {number} i
 * @param {number} start
 * @param {number} stop
 * @param {number} n
 */
function multiply(x, weight, y, i, start, stop, n) {
  const outputs = y.length / n;
  const inputs = weight.length / outputs;
  const a = i * inputs;
  const b = a + inputs;
  const c = b + inputs;
  const d = c + inputs;
  const last = Math.min(3, n - 1 - i);
  for (let o = start; o < stop; o += 2) {
    const u = o * inputs;
    const v = o + 1 < stop ? u + inputs : u;
    let s0 = 0;
    let s1 = 0;
    let s2 = 0;
    let s3 = 0;
    let t0 = 0;
    let t1 = 0;
    let t2 = 0;
    let t3 = 0;
    for (let k = 0; k < inputs; k++) {
      const p = weight[u + k];
      const q = weight[v + k];
      s0 += p * x[a + k];
      s1 += p * x[b + k];
      s2 += p * x[c + k];
      s3 += p * x[d + k];
      t0 += q * x[a + k];
      t1 += q * x[b + k];
      t2 += q * x[c + k];
      t3 += q * x[d + k];
    }
    let place = i * outputs + o;
    const step = v > u ? 1 : 0; // 0: the row is the last one, and both sums are the same
    y[place] = s0;
    y[place + step] = t0;
    if (last < 1) continue;
    place += outputs;
    y[place] = s1;
    y[place + step] = t1;
    if (last < 2) continue;
    place += outputs;
    y[place] = s2;
    y[place + step] = t2;
    if (last < 3) continue;
    place += outputs;
    y[place] = s3;
    y[place + step] = t3;
  }
}

/**
 * gain ⊙ (x − mean) / √(variance + ε) + shift, for each vector.
 * @param {Float32Array} x
 * @param {Float32Array} gain
 * @param {Float32Array} shift
 * @param {number} epsilon
 */
export function layerNorm(x, gain, shift, epsilon) {
  const dim = gain.length;
  const y = new Float32Array(x.length);
  for (let start = 0; start < x.length; start += dim) {
    let sum = 0;
    for (let d = 0; d < dim; d++) sum += x[start + d];
    const mean = sum / dim;
    let squares = 0;
    for (let d = 0; d < dim; d++) squares += (x[start + d] - mean) ** 2;
    const factor = 1 / Math.sqrt(squares / dim + epsilon);
    for (let d = 0; d < dim; d++) y[start + d] = (x[start + d] - mean) * factor * gain[d] + shift[d];
  }
  return y;
}

/**
 * gain ⊙ x / √(mean of squares + ε), for each vector.
 * @param {Float32Array} x
 * @param {Float32Array} gain
 * @param {number} epsilon
 */
export function rmsNorm(x, gain, epsilon) {
  const dim = gain.length;
  const y = new Float32Array(x.length);
  for (let start = 0; start < x.length; start += dim) {
    let squares = 0;
    for (let d = 0; d < dim; d++) squares += x[start + d] ** 2;
    const factor = 1 / Math.sqrt(squares / dim + epsilon);
    for (let d = 0; d < dim; d++) y[start + d] = x[start + d] * factor * gain[d];
  }
  return y;
}

/**
 * softmax of numbers, in place, in double precision; −∞ gives 0.
 * @param {Float64Array} numbers
 */
export function softmax(numbers) {
  let peak = -Infinity;
  for (let n = 0; n < numbers.length; n++) peak = Math.max(peak, numbers[n]);
  let total = 0;
  for (let n = 0; n < numbers.length; n++) {
    numbers[n] = Math.exp(numbers[n] - peak);
    total += numbers[n];
  }
  for (let n = 0; n < numbers.length; n++) numbers[n] /= total;
  return numbers;
}

/**
 * x + y, number by number.
 * @param {Float32Array} x
 * @param {Float32Array} y
 */
export function sum(x, y) {
  const total = new Float32Array(x.length);
  for (let n = 0; n < x.length; n++) total[n] = x[n] + y[n];
  return total;
}

/**
 * The place of the largest number, the first of equal ones.
 * @param {ArrayLike<number>} numbers
 */
export function largest(numbers) {
  let place = 0;
  for (let n = 1; n < numbers.length; n++) if (numbers[n] > numbers[place]) place = n;
  return place;
}
