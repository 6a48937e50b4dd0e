// Matrix products and the functions of a vector: what a layer is made of besides its attention.
//
// Sums are taken in double precision, as JavaScript counts; what is kept is float32.

/**
 * y = x Wᵀ + b for vectors x (n, inputs), with W (outputs, inputs) as PyTorch keeps it; (n, outputs).
 *
 * JavaScript multiplies and adds one number at a time, and that is what bounds it: 4.3 GFLOP/s at 2.4 GHz, whether or
 * not the weights are taken in blocks that stay in the cache.
 * @param {ArrayLike<number>} x
 * @param {Float32Array} weight
 * @param {Float32Array | null} bias
 * @param {number} n
 */
export function linear(x, weight, bias, n) {
  const outputs = (weight.length * n) / x.length;
  const y = new Float32Array(n * outputs);
  const vectors = new Float64Array(x); // which is what the products are computed with
  for (let i = 0; i < n; i += 2) multiply(vectors, weight, y, n, i, Math.min(n - 1, i + 1));
  if (bias) for (let i = 0; i < n; i++) for (let o = 0; o < outputs; o++) y[i * outputs + o] += bias[o];
  return y;
}

/**
 * The products of two vectors, i and j, with all rows: four rows at a time, so that the eight sums stay in registers.
 * Where there is no second vector, or no fourth row, the last one is taken again.
 * @param {Float64Array} x
 * @param {Float32Array} weight
 * @param {Float32Array} y
 * @param {number} n
 * @param {number} i
 * @param {number} j
 */
function multiply(x, weight, y, n, i, j) {
  const outputs = y.length / n;
  const inputs = x.length / n;
  const a = i * inputs;
  const b = j * inputs;
  for (let o = 0; o < outputs; o += 4) {
    const o1 = Math.min(outputs - 1, o + 1);
    const o2 = Math.min(outputs - 1, o + 2);
    const o3 = Math.min(outputs - 1, o + 3);
    const row = o * inputs;
    const row1 = o1 * inputs;
    const row2 = o2 * inputs;
    const row3 = o3 * inputs;
    let s0 = 0;
    let s1 = 0;
    let s2 = 0;
    let s3 = 0;
    let t0 = 0;
    let t1 = 0;
    let t2 = 0;
    let t3 = 0;
    for (let k = 0; k < inputs; k++) {
      const p = x[a + k];
      const q = x[b + k];
      const w0 = weight[row + k];
      const w1 = weight[row1 + k];
      const w2 = weight[row2 + k];
      const w3 = weight[row3 + k];
      s0 += p * w0;
      t0 += q * w0;
      s1 += p * w1;
      t1 += q * w1;
      s2 += p * w2;
      t2 += q * w2;
      s3 += p * w3;
      t3 += q * w3;
    }
    y[i * outputs + o] = s0;
    y[i * outputs + o1] = s1;
    y[i * outputs + o2] = s2;
    y[i * outputs + o3] = s3;
    y[j * outputs + o] = t0;
    y[j * outputs + o1] = t1;
    y[j * outputs + o2] = t2;
    y[j * outputs + o3] = t3;
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
 * softmax of numbers, in place; −∞ gives 0.
 * @template {Float32Array | Float64Array} T
 * @param {T} numbers
 * @returns {T}
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
