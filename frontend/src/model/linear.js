// Matrix products and the functions of a vector: what a layer is made of besides its attention.
//
// Sums are taken in double precision, as JavaScript counts; what is kept is float32.

const BLOCK = 64; // rows of the weights that stay in the cache while all vectors pass

/**
 * y = x Wᵀ + b for vectors x (n, inputs), with W (outputs, inputs) as PyTorch keeps it; (n, outputs).
 *
 * Four vectors and two rows at a time: eight sums, which stay in registers.
 * @param {ArrayLike<number>} x
 * @param {Float32Array} weight
 * @param {Float32Array | null} bias
 * @param {number} n
 */
export function linear(x, weight, bias, n) {
  const inputs = x.length / n;
  const outputs = weight.length / inputs;
  const y = new Float32Array(n * outputs);
  const padded = new Float64Array(Math.ceil(n / 4) * 4 * inputs);
  padded.set(x);
  for (let start = 0; start < outputs; start += BLOCK) {
    const stop = Math.min(outputs, start + BLOCK);
    for (let i = 0; i < n; i += 4) fourVectors(padded, weight, y, { inputs, outputs, n, i, start, stop });
  }
  if (bias) for (let i = 0; i < n; i++) for (let o = 0; o < outputs; o++) y[i * outputs + o] += bias[o];
  return y;
}

/**
 * The products of the vectors i to i + 3 with the rows from `start` to `stop`.
 * @param {Float64Array} x
 * @param {Float32Array} weight
 * @param {Float32Array} y
 * @param {{inputs: number, outputs: number, n: number, i: number, start: number, stop: number}} place
 */
function fourVectors(x, weight, y, { inputs, outputs, n, i, start, stop }) {
  const a = i * inputs;
  const b = a + inputs;
  const c = b + inputs;
  const d = c + inputs;
  const count = Math.min(4, n - i);
  const sums = new Float64Array(8);
  for (let o = start; o < stop; o += 2) {
    const u = o * inputs;
    const v = o + 1 < stop ? u + inputs : u;
    let [s0, s1, s2, s3, t0, t1, t2, t3] = [0, 0, 0, 0, 0, 0, 0, 0];
    for (let k = 0; k < inputs; k++) {
      const p = weight[u + k];
      const q = weight[v + k];
      const x0 = x[a + k];
      const x1 = x[b + k];
      const x2 = x[c + k];
      const x3 = x[d + k];
      s0 += p * x0;
      s1 += p * x1;
      s2 += p * x2;
      s3 += p * x3;
      t0 += q * x0;
      t1 += q * x1;
      t2 += q * x2;
      t3 += q * x3;
    }
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
    sums[4] = t0;
    sums[5] = t1;
    sums[6] = t2;
    sums[7] = t3;
    for (let row = 0; row < count; row++) {
      y[(i + row) * outputs + o] = sums[row];
      if (v !== u) y[(i + row) * outputs + o + 1] = sums[4 + row];
    }
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
