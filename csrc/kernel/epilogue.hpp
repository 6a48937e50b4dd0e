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

  // Bias, activation and residual, for a vector of columns.
  template <int rows>
  void store_outputs(const Float (&sum)[rows][Float::tile_vectors], int64_t first, int64_t column, int n) const {
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

  // (x − mean) / √(variance + ε) · gain + shift
  void norm_row(int64_t row) const {
    const char* x = reinterpret_cast<const char*>(sums + row * sums_row);
    const auto vector = [&](const void* from, int64_t i) {
      return load_up_to<Type::float32>(static_cast<const char*>(from) + i * 4, l.outputs - i);
    };
    const auto average = [&](auto&& term) {
      Float total = broadcast(0.0f);
      int64_t i = 0;
      for (; i + Float::width <= l.outputs; i += Float::width) total = total + term(vector(x, i));
      float rest[Float::width] = {};
      if (i < l.outputs) store_up_to<Type::float32>(term(vector(x, i)), reinterpret_cast<char*>(rest), l.outputs - i);
      return sum(total + load(rest)) / float(l.outputs);
    };
    const Float mean = broadcast(average([](Float x) { return x; }));
    const float variance = average([&](Float x) { return (x - mean) * (x - mean); });
    const Float factor = broadcast(1.0f / __builtin_sqrtf(variance + l.epsilon));
    for (int64_t i = 0; i < l.outputs; i += Float::width) {
      const Float y = multiply_add((vector(x, i) - mean) * factor, vector(l.gain, i), vector(l.shift, i));
      store_up_to<type>(y, output(row, i), l.outputs - i);
    }
  }

  char* output(int64_t row, int64_t column) const {
    return const_cast<char*>(at(l.output.data, type, row * l.output.row + column));
  }
};

}  // namespace
}  // namespace regard::REGARD_ISA
