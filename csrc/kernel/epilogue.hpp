// What follows the sums of a linear layer while they are in the cache: bias, activation, residual and layer norm, in
// float32, row by row.

#pragma once

#include <cstdint>

#include "attention.hpp"
#include "exponential.hpp"
#include "pack.hpp"
#include "simd.hpp"
#include "small_query.hpp"

namespace regard::REGARD_ISA {
namespace {

// x/2 · (1 + erf(x/√2)), within 1e-6 of max(1, |x|). Of the polynomials of degree 13 in x², the one with the least
// error of the result for |x| ≤ 5.25, beyond which erf is 1.
inline Float gelu(Float x) {
  const Float half = x * broadcast(0.5f), size = absolute(x), limit = broadcast(5.25f);
  const Float bounded = where_at_most(size, limit, size, limit);
  const Float at = multiply_add(bounded * bounded, broadcast(0x1.293726p-4f), broadcast(-1.0f));  // −1 ≤ at ≤ 1
  Float y = multiply_add(broadcast(-0x1.d88824p-11f), at, broadcast(0x1.6514bcp-9f));
  y = multiply_add(y, at, broadcast(-0x1.a898bap-9f));
  y = multiply_add(y, at, broadcast(0x1.14d76ap-8f));
  y = multiply_add(y, at, broadcast(-0x1.3c5866p-7f));
  y = multiply_add(y, at, broadcast(0x1.21a8b6p-6f));
  y = multiply_add(y, at, broadcast(-0x1.acf348p-6f));
  y = multiply_add(y, at, broadcast(0x1.2de1e8p-5f));
  y = multiply_add(y, at, broadcast(-0x1.99089p-5f));
  y = multiply_add(y, at, broadcast(0x1.0683c8p-4f));
  y = multiply_add(y, at, broadcast(-0x1.45ce4ap-4f));
  y = multiply_add(y, at, broadcast(0x1.96b184p-4f));
  y = multiply_add(y, at, broadcast(-0x1.12f356p-3f));
  y = multiply_add(y, at, broadcast(0x1.13c848p-2f));
  return multiply_add(absolute(half), bounded * y, half);
}

// x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))
inline Float gelu_tanh(Float x) {
  const Float inner = multiply_add(x * x, broadcast(0.0356774081f), broadcast(0.7978845608f)) * x;
  const Float half = x * broadcast(0.5f);
  return multiply_add(half, tanh(inner), half);
}

inline Float activated(Activation activation, Float x) {
  switch (activation) {
    case Activation::gelu:
      return gelu(x);
    case Activation::gelu_tanh:
      return gelu_tanh(x);
    case Activation::relu:
      return where_at_most(x, broadcast(0.0f), broadcast(0.0f), x);
    case Activation::none:
      break;
  }
  return x;
}

// `count` numbers of a row, at most a vector.
template <Type type>
inline Float load_up_to(const char* from, int64_t count) {
  if (count >= Float::width) return load_as<type>(from, 0);
  float numbers[Float::width] = {};
  to_floats(from, type, numbers, count);
  return load(numbers);
}
template <Type type>
inline void store_up_to(Float x, char* to, int64_t count) {
  if (count < Float::width) {
    float numbers[Float::width];
    store(numbers, x);
    return from_floats(numbers, type, to, count);
  }
  if constexpr (type == Type::float32) store(reinterpret_cast<float*>(to), x);
  if constexpr (type == Type::bfloat16) store_bfloat16(reinterpret_cast<uint16_t*>(to), x);
  if constexpr (type == Type::float16) store_float16(reinterpret_cast<uint16_t*>(to), x);
}

template <Type type>
struct Epilogue {
  const Linear& l;
  // Where a norm follows, the sums are kept in float32 for it, in the output itself if that is float32.
  const bool in_place = type == Type::float32;
  float* const sums = in_place ? static_cast<float*>(l.output.data) : l.sums;
  const int64_t sums_row = in_place ? l.output.row : l.outputs;

  // Zeros, or the sums so far where a part of the inputs has been summed up before.
  template <int rows, int vectors>
  void start(Float (&sum)[rows][vectors], int64_t first, int64_t column, bool more) const {
    for (int r = 0; r < rows; r++) {
      for (int n = 0; n < vectors; n++)
        sum[r][n] = more ? load(sums + (first + r) * sums_row + column + n * Float::width) : broadcast(0.0f);
    }
  }
  template <int rows, int vectors>
  void keep(const Float (&sum)[rows][vectors], int64_t first, int64_t column, int n) const {
    for (int r = 0; r < rows; r++) store(sums + (first + r) * sums_row + column, sum[r][n]);
  }

  // Asks for what store_outputs will read and write, before the sums are made.
  template <int rows, int vectors>
  void prefetch(int64_t first, int64_t column) const {
    for (int64_t row = first; row < first + rows; row++) {
      for (int n = 0; n < vectors; n++) {
        const int64_t at_column = column + n * Float::width;
        if (l.residual.data) __builtin_prefetch(at(l.residual.data, type, row * l.residual.row + at_column));
        __builtin_prefetch(l.gain ? reinterpret_cast<char*>(sums + row * sums_row + at_column) : output(row, at_column),
                           1);
      }
    }
  }

  // Bias, activation and residual, for a vector of columns.
  template <int rows, int vectors>
  void store_outputs(const Float (&sum)[rows][vectors], int64_t first, int64_t column, int n) const {
    const int64_t count = l.outputs - column;
    if (count <= 0) return;
    const Float bias = load_up_to<Type::float32>(reinterpret_cast<const char*>(l.bias + column), count);
    for (int r = 0; r < rows; r++) {
      const int64_t row = first + r;
      Float y = activated(l.activation, sum[r][n] + bias);
      if (l.residual.data) y = y + load_up_to<type>(at(l.residual.data, type, row * l.residual.row + column), count);
      if (l.gain)
        store_up_to<Type::float32>(y, reinterpret_cast<char*>(sums + row * sums_row + column), count);
      else
        store_up_to<type>(y, output(row, column), count);
    }
  }

  // The same for vectors of columns that are all there.
  template <int rows, int vectors>
  inline __attribute__((always_inline)) void store_whole(const Float (&sum)[rows][vectors], int64_t first,
                                                         int64_t column) const {
    for (int r = 0; r < rows; r++) {
      const char* const added = at(l.residual.data, type, (first + r) * l.residual.row + column);
      float* const kept = sums + (first + r) * sums_row + column;
      char* const to = output(first + r, column);
#pragma GCC unroll 4
      for (int n = 0; n < vectors; n++) {
        Float y = activated(l.activation, sum[r][n] + load(l.bias + column + n * Float::width));
        if (l.residual.data) y = y + load_as<type>(added, n * Float::width);
        if (l.gain)
          store(kept + n * Float::width, y);
        else
          store_up_to<type>(y, to + n * Float::width * size_of(type), Float::width);
      }
    }
  }

  // (x − mean) / √(variance + ε) · gain + shift, of four rows at once, so that no sum waits for another.
  void norm_rows(int64_t first, int64_t last) const {
    constexpr int together = 4;
    for (int64_t row = first; row < last; row += together)
      with_constant<together>(int(minimum<int64_t>(together, last - row)), [&]<int rows>() { norm<rows>(row); });
  }

  template <int rows>
  void norm(int64_t first) const {
    const auto part = [&](const float* from, int64_t i) {
      return load_up_to<Type::float32>(reinterpret_cast<const char*>(from + i), l.outputs - i);
    };
    const float* const x = sums + first * sums_row;
    const auto averages = [&](float (&average)[rows], auto&& term) {
      Float total[rows];
      for (Float& of_row : total) of_row = broadcast(0.0f);
      int64_t i = 0;
      for (; i + Float::width <= l.outputs; i += Float::width)
        for (int r = 0; r < rows; r++) total[r] = total[r] + term(load(x + r * sums_row + i), r);
      for (int r = 0; r < rows; r++) {
        float rest[Float::width] = {};
        if (i < l.outputs)
          store_up_to<Type::float32>(term(part(x + r * sums_row, i), r), reinterpret_cast<char*>(rest), l.outputs - i);
        average[r] = sum(total[r] + load(rest)) / float(l.outputs);
      }
    };
    float mean[rows], variance[rows], factor[rows];
    averages(mean, [](Float x, int) { return x; });
    averages(variance, [&](Float x, int r) { return (x - broadcast(mean[r])) * (x - broadcast(mean[r])); });
    for (int r = 0; r < rows; r++) factor[r] = 1.0f / __builtin_sqrtf(variance[r] + l.epsilon);
    for (int64_t i = 0; i < l.outputs; i += Float::width) {
      const Float gain = part(l.gain, i), shift = part(l.shift, i);
      for (int r = 0; r < rows; r++) {
        const Float centred = (part(x + r * sums_row, i) - broadcast(mean[r])) * broadcast(factor[r]);
        store_up_to<type>(multiply_add(centred, gain, shift), output(first + r, i), l.outputs - i);
      }
    }
  }

  char* output(int64_t row, int64_t column) const {
    return const_cast<char*>(at(l.output.data, type, row * l.output.row + column));
  }
};

}  // namespace
}  // namespace regard::REGARD_ISA
