// The register tile: a few rows of A times some vectors of B, all sums in registers. Every product of the kernel is
// made of it. A *lane* is 32 bits: one float, or a pair of bfloat16 that are multiplied and added in one step.

#pragma once

#include <cstdint>

#include "simd.hpp"

namespace regard::REGARD_ISA {
namespace {

struct Single {  // a lane is a float
  static constexpr int per_lane = 1;
  static Float multiply_add(Float a, Float b, Float c) { return REGARD_ISA::multiply_add(a, b, c); }
};

#ifdef REGARD_PAIRS
struct Pair {  // a lane is two bfloat16
  static constexpr int per_lane = 2;
  static Float multiply_add(Float a, Float b, Float c) { return multiply_add_pairs(a, b, c); }
};
#endif

// A as it is read: row r, step k at data[r · row + k · step]. B as it is read: step k at data[k · step], vectors in
// turn.
struct Left {
  const float* data;
  int64_t row, step;
};
struct Right {
  const float* data;
  int64_t step;
};

// sums[r][n] += Σ_k A[r,k] · B[k,n]; where B comes from memory, it is asked for so many steps ahead.
template <class Lane, int rows, int vectors, int ahead = 0>
inline __attribute__((always_inline)) void multiply(Left a, Right b, int64_t steps, Float (&sums)[rows][vectors]) {
  for (int64_t k = 0; k < steps; k++) {
    Float column[vectors];
    if constexpr (ahead > 0) {
#pragma GCC unroll 8
      for (int n = 0; n < vectors; n++) __builtin_prefetch(b.data + (k + ahead) * b.step + n * Float::width);
    }
#pragma GCC unroll 8
    for (int n = 0; n < vectors; n++) column[n] = load(b.data + k * b.step + n * Float::width);
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
      const Float row = broadcast(a.data + r * a.row + k * a.step);
#pragma GCC unroll 8
      for (int n = 0; n < vectors; n++) sums[r][n] = Lane::multiply_add(row, column[n], sums[r][n]);
    }
  }
}

// Calls work.template operator()<n>() for a number 1 ≤ n ≤ limit that is known only at run time.
template <int limit, class Work>
inline __attribute__((always_inline)) void with_constant(int n, Work&& work) {
  if constexpr (limit == 1) {
    work.template operator()<1>();
  } else {
    if (n >= limit) return work.template operator()<limit>();
    with_constant<limit - 1>(n, work);
  }
}

// C[r, …] = factor[r] · C[r, …] + Σ_k A[r,k] · B[k, …] for `columns` columns, a whole number of vectors. The sum is
// made before it is added to C, so that the rounding errors of many blocks do not follow one another in one long chain.
template <class Lane, int rows>
inline void accumulate(Left a, Right b, int64_t steps, const float* factor, float* c, int64_t stride, int64_t columns) {
  constexpr int vectors_at_once = Float::tile_vectors;
  for (int64_t at = 0; at < columns; at += vectors_at_once * Float::width) {
    const Right right{b.data + at, b.step};
    with_constant<vectors_at_once>(int((columns - at) / Float::width), [&]<int vectors>() {
      Float sums[rows][vectors];
      for (int r = 0; r < rows; r++)
        for (int n = 0; n < vectors; n++) sums[r][n] = broadcast(0.0f);
      multiply<Lane, rows, vectors>(a, right, steps, sums);
      for (int r = 0; r < rows; r++) {
        const Float scale = broadcast(factor[r]);
        for (int n = 0; n < vectors; n++) {
          float* to = c + r * stride + at + n * Float::width;
          store(to, multiply_add(scale, load(to), sums[r][n]));
        }
      }
    });
  }
}

}  // namespace
}  // namespace regard::REGARD_ISA
