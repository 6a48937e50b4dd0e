// One token through a layer of a decoder: the time goes into reading the weights from memory, so they are read once, in
// the order in which they lie, and all else happens in the cache.

#pragma once

#include <cstdint>

#include "attention.hpp"
#include "epilogue.hpp"
#include "exponential.hpp"
#include "forward.hpp"
#include "memory.hpp"
#include "parallel.hpp"
#include "simd.hpp"

namespace regard::REGARD_ISA {
namespace {

// Σ_c a[c]·b[c]. What lies behind `a` comes next: it is prefetched.
inline float dot(const float* a, const float* b, int64_t n) {
  constexpr int width = Float::width, together = 4;
  constexpr int64_t ahead = 2048 / sizeof(float);
  Float sums[together];
  for (Float& sum : sums) sum = broadcast(0.0f);
  int64_t c = 0;
  for (; c + together * width <= n; c += together * width) {
    for (int i = 0; i < together; i++) {
      __builtin_prefetch(a + c + i * width + ahead);
      sums[i] = multiply_add(load(a + c + i * width), load(b + c + i * width), sums[i]);
    }
  }
  for (; c + width <= n; c += width) sums[0] = multiply_add(load(a + c), load(b + c), sums[0]);
  float total = sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
  for (; c < n; c++) total += a[c] * b[c];
  return total;
}

// y = W x + bias, or y += W x + bias.
struct MatrixProduct {
  const Projection& projection;
  int64_t outputs;
  float* y;
};

// Σ_i x[i] · (row i of W) for a few columns side by side, of a W that lies as (inputs,outputs). Its rows come from
// pages of their own, which the processor does not foresee: they are prefetched.
template <int vectors>
inline void combine(const float* weight, int64_t step, const float* x, int64_t inputs, float* to) {
  constexpr int64_t ahead = 16;  // rows
  Float sums[vectors];
  for (Float& sum : sums) sum = broadcast(0.0f);
  for (int64_t i = 0; i < inputs; i++, weight += step) {
    const Float factor = broadcast(x + i);
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) {
      __builtin_prefetch(weight + ahead * step + v * Float::width);
      sums[v] = multiply_add(factor, load(weight + v * Float::width), sums[v]);
    }
  }
  for (int v = 0; v < vectors; v++) store(to + v * Float::width, sums[v]);
}

constexpr int64_t outputs_together = 8 * Float::width;

// Outputs [first, last) of W x, at most outputs_together of them.
inline void multiply_some(const Projection& p, int64_t first, int64_t last, const float* x, int64_t inputs, float* to) {
  if (!p.by_input) {
    for (int64_t r = first; r < last; r++) to[r - first] = dot(p.weight + r * p.step, x, inputs);
    return;
  }
  if (last - first == outputs_together) return combine<8>(p.weight + first, p.step, x, inputs, to);
  int64_t r = first;
  for (; r + Float::width <= last; r += Float::width) combine<1>(p.weight + r, p.step, x, inputs, to + r - first);
  for (; r < last; r++) {
    float total = 0;
    for (int64_t i = 0; i < inputs; i++) total += x[i] * p.weight[i * p.step + r];
    to[r - first] = total;
  }
}

template <int matrices>
inline void multiply_all(const MatrixProduct (&products)[matrices], const float* x, int64_t inputs, bool add,
                         int threads) {
  constexpr int64_t rows = outputs_together;  // at a time
  int64_t items = 0;
  for (const MatrixProduct& product : products) items += (product.outputs + rows - 1) / rows;
  for_each(items, threads, [&](int64_t item) {
    const MatrixProduct* product = products;
    for (int64_t own; item >= (own = (product->outputs + rows - 1) / rows); product++) item -= own;
    const int64_t first = item * rows, last = minimum(product->outputs, first + rows);
    float sums[rows];
    multiply_some(product->projection, first, last, x, inputs, sums);
    const float* bias = product->projection.bias;
    for (int64_t r = first; r < last; r++) {
      const float total = sums[r - first] + (bias ? bias[r] : 0);
      product->y[r] = add ? product->y[r] + total : total;
    }
  });
}

// x / √(mean of x² + ε) · gain or, with a shift, (x − mean) / √(variance + ε) · gain + shift.
inline void norm(const Norm& norm, const float* x, float epsilon, int64_t n, float* to) {
  float mean = 0;
  if (norm.shift) {
    double total = 0;
    for (int64_t i = 0; i < n; i++) total += double(x[i]);
    mean = float(total / double(n));
  }
  for (int64_t i = 0; i < n; i++) to[i] = x[i] - mean;
  const float factor = 1.0f / __builtin_sqrtf(dot(to, to, n) / float(n) + epsilon);
  for (int64_t i = 0; i < n; i++) to[i] = to[i] * factor * norm.gain[i] + (norm.shift ? norm.shift[i] : 0);
}

// Rotary embedding of heads, in place: each pair (x[i], x[i + dim/2]) is turned by an angle.
inline void rotate(float* x, int64_t heads, int64_t dim, const float* cosine, const float* sine) {
  const int64_t half = dim / 2;
  for (float* head = x; head < x + heads * dim; head += dim) {
    for (int64_t i = 0; i < half; i++) {
      const float first = head[i], second = head[half + i];
      head[i] = first * cosine[i] - second * sine[i];
      head[half + i] = second * cosine[half + i] + first * sine[half + i];
    }
  }
}

// gate ← gate / (1 + e^−gate) · up, of a whole number of vectors.
inline void gated(float* gate, const float* up, int64_t n) {
  const Float one = broadcast(1.0f), zero = broadcast(0.0f);
  for (int64_t i = 0; i < n; i += Float::width) {
    const Float x = load(gate + i), power = exp2(bounded(absolute(x) * broadcast(-log2_e)));  // e^−|x|
    store(gate + i, x * (where_at_most(x, zero, power, one) / (one + power)) * load(up + i));
  }
}

// x ← x/2 · (1 + tanh(…)), of a whole number of vectors.
inline void activate(float* x, int64_t n) {
  for (int64_t i = 0; i < n; i += Float::width) store(x + i, gelu_tanh(load(x + i)));
}

// The attention of the token to all up to itself. Its key and value, (groups,head_dim), are written behind the others.
inline void attend(const TokenLayer& t, const float* query, const float* key, const float* value, float* attended,
                   int threads) {
  const int64_t queries = t.heads * t.head_dim, own = t.keys - 1;
  for (int64_t g = 0; g < t.groups; g++) {
    const size_t bytes = size_t(t.head_dim) * sizeof(float);
    __builtin_memcpy(t.all_keys.data + g * t.all_keys.head + own * t.all_keys.row, key + g * t.head_dim, bytes);
    __builtin_memcpy(t.all_values.data + g * t.all_values.head + own * t.all_values.row, value + g * t.head_dim, bytes);
  }
  Scores s;
  s.batch = 1, s.heads = t.heads, s.groups = t.groups, s.queries = 1, s.keys = t.keys, s.dim = t.head_dim;
  s.query = {query, queries, t.head_dim, t.head_dim};
  s.key = {t.all_keys.data, 0, t.all_keys.head, t.all_keys.row};
  s.scale = t.scale;
  Forward f;
  f.value_dim = t.head_dim, f.value_heads = t.groups;
  f.value = {t.all_values.data, 0, t.all_values.head, t.all_values.row};
  f.output = {attended, queries, t.head_dim, t.head_dim};
  f.lse = t.lse;
  forward_in<Single>(s, f, s.heads * s.keys * s.dim < int64_t(1) << 20 ? 1 : threads);
}

inline void token_in(const TokenLayer& t, int threads) {
  const int64_t queries = t.heads * t.head_dim, keys = t.groups * t.head_dim;
  if (t.dim * t.hidden < int64_t(1) << 17) threads = 1;  // waking others would take longer
  const int64_t hidden = round_up(t.hidden, Float::width), inputs = round_up(t.dim, Float::width);
  Memory memory(inputs + 2 * round_up(queries, 16) + 2 * round_up(keys, 16) + 2 * hidden);
  float *normed = memory.data, *own_query = normed + inputs, *own_attended = own_query + round_up(queries, 16),
        *key = own_attended + round_up(queries, 16), *value = key + round_up(keys, 16),
        *gate = value + round_up(keys, 16), *up = gate + hidden;
  for (int64_t i = t.hidden; i < hidden; i++) gate[i] = up[i] = 0;
  float *query = t.queries ? t.queries : own_query, *attended = t.attended ? t.attended : own_attended;

  norm(t.input_norm, t.state, t.epsilon, t.dim, normed);
  const MatrixProduct projections[] = {{t.query, queries, query}, {t.key, keys, key}, {t.value, keys, value}};
  multiply_all(projections, normed, t.dim, false, threads);
  if (t.cosine) {
    rotate(query, t.heads, t.head_dim, t.cosine, t.sine);
    rotate(key, t.groups, t.head_dim, t.cosine, t.sine);
  }
  attend(t, query, key, value, attended, threads);
  multiply_all({{t.output, t.dim, t.state}}, attended, queries, true, threads);

  norm(t.norm, t.state, t.epsilon, t.dim, normed);
  if (t.gate.weight) {
    multiply_all({{t.gate, t.hidden, gate}, {t.up, t.hidden, up}}, normed, t.dim, false, threads);
    gated(gate, up, hidden);
  } else {
    multiply_all({{t.up, t.hidden, gate}}, normed, t.dim, false, threads);
    activate(gate, hidden);
  }
  multiply_all({{t.down, t.dim, t.state}}, gate, t.hidden, true, threads);
}

}  // namespace
}  // namespace regard::REGARD_ISA
