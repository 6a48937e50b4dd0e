// The register tile with rows as the lanes of its vectors: each number of a key is multiplied with all rows at once,
// read where it lies, and softmax over the keys is elementwise.

#pragma once

#include <cstdint>

#include "simd.hpp"

namespace regard::REGARD_ISA {
namespace {

// scores[j][r] = Σ_d key[j][d] · query[d][r], of so many keys and vectors of rows.
template <int vectors, int keys>
inline void multiply_by_keys(const float* query, const float* const* key, int64_t dim, float* scores) {
  constexpr int64_t columns = vectors * Float::width;
  Float sums[keys][vectors];
  const float* own[keys];
#pragma GCC unroll 8
  for (int j = 0; j < keys; j++) {
    own[j] = key[j];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) sums[j][v] = broadcast(0.0f);
  }
  for (int64_t d = 0; d < dim; d++, query += columns) {
    Float column[vectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) column[v] = load(query + v * Float::width);
#pragma GCC unroll 8
    for (int j = 0; j < keys; j++) {
      const Float number = broadcast(own[j] + d);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; v++) sums[j][v] = multiply_add(number, column[v], sums[j][v]);
    }
  }
#pragma GCC unroll 8
  for (int j = 0; j < keys; j++)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) store(scores + j * columns + v * Float::width, sums[j][v]);
}

// to[r] = share[r] · Σ_j weights[j][r] · values[j], of so many rows and vectors of columns, the last of which has
// `last` numbers. Returns whether all of it is finite.
template <int rows, int vectors>
inline bool average_few(const float* weights, int64_t columns, int64_t keys, const float* values, int64_t stride,
                        int64_t last, const float* share, float* const* to) {
  constexpr int64_t width = Float::width, at_last = (vectors - 1) * width;
  Float sums[rows][vectors];
#pragma GCC unroll 8
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) sums[r][v] = broadcast(0.0f);
  const auto add_all = [&](auto&& load_last) __attribute__((always_inline)) {
    for (int64_t j = 0; j < keys; j++, values += stride, weights += columns) {
      Float part[vectors];
#pragma GCC unroll 4
      for (int v = 0; v < vectors - 1; v++) part[v] = load(values + v * width);
      part[vectors - 1] = load_last(values + at_last);
#pragma GCC unroll 8
      for (int r = 0; r < rows; r++) {
        const Float weight = broadcast(weights + r);
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) sums[r][v] = multiply_add(weight, part[v], sums[r][v]);
      }
    }
  };
  if (last == width)
    add_all([](const float* from) { return load(from); });
  else
    add_all([last](const float* from) { return load_part(from, last); });
  bool finite = true;
#pragma GCC unroll 8
  for (int r = 0; r < rows; r++) {
    const Float scale = broadcast(share + r);
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
      const Float mean = sums[r][v] * scale;
      finite &= all_finite(mean);
      if (v < vectors - 1 || last == width)
        store(to[r] + v * width, mean);
      else
        store_part(to[r] + at_last, mean, last);
    }
  }
  return finite;
}

}  // namespace
}  // namespace regard::REGARD_ISA
