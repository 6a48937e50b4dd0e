// The register tile: a few rows of A times some vectors of B, all sums in registers. Every product of the kernel is
// made of it. A *lane* is 32 bits: one float, or a pair of bfloat16 that are multiplied and added in one step.

#pragma once

#include <cstdint>
#include <type_traits>

#include "simd.hpp"

namespace regard::REGARD_ISA {
namespace {

struct Single {                                  // a lane is a float
  static constexpr int per_lane = 1, steps = 1;  // steps: of the sum, at once
  static Float multiply_add(Float a, Float b, Float c) { return REGARD_ISA::multiply_add(a, b, c); }
};

#ifdef REGARD_PAIRS
struct Pair {  // a lane is two bfloat16
  static constexpr int per_lane = 2, steps = 1;
  static Float multiply_add(Float a, Float b, Float c) { return multiply_add_pairs(a, b, c); }
};
#endif

#ifdef REGARD_TILES
// Two bfloat16, multiplied in the tile registers: of each 16 lanes first numbers and second numbers are summed up
// apart.
struct TiledPair : Pair {
  static constexpr int steps = TileRegisters::lanes;
};
#endif

// Rows of one pass over keys, and what has to be set up on a thread for it.
template <class Lane>
constexpr int rows_at_once = Lane::steps > 1 ? 16 : Float::tile_rows;
struct Nothing {};
#ifdef REGARD_TILES
template <class Lane>
using WithTiles = std::conditional_t<(Lane::steps > 1), TileRegisters, Nothing>;
#else
template <class Lane>
using WithTiles = Nothing;
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

#ifdef REGARD_TILES
// C[r,n] = Σ_k A[r,k] · B[k,n] for 16 rows and at most 4 vectors of columns.
template <int vectors>
inline void multiply_in_tiles(Left a, Right b, int64_t steps, float* c, int64_t stride) {
  constexpr int width = Float::width;
  zero_tile<0>(), zero_tile<1>(), zero_tile<2>(), zero_tile<3>();
  for (int64_t k = 0; k < steps; k += TiledPair::steps) {
    const float* from = b.data + k * b.step;
    load_tile<4>(a.data + k, a.row);
    load_tile<5>(from, b.step), multiply_add_tiles<0, 4, 5>();
    if constexpr (vectors > 1) load_tile<6>(from + width, b.step), multiply_add_tiles<1, 4, 6>();
    if constexpr (vectors > 2) load_tile<7>(from + 2 * width, b.step), multiply_add_tiles<2, 4, 7>();
    if constexpr (vectors > 3) load_tile<5>(from + 3 * width, b.step), multiply_add_tiles<3, 4, 5>();
  }
  store_tile<0>(c, stride);
  if constexpr (vectors > 1) store_tile<1>(c + width, stride);
  if constexpr (vectors > 2) store_tile<2>(c + 2 * width, stride);
  if constexpr (vectors > 3) store_tile<3>(c + 3 * width, stride);
}
#endif

// sums[r][n] += Σ_k A[r,k] · B[k,n]; where B comes from memory, it is asked for so many steps ahead.
template <class Lane, int rows, int vectors, int ahead = 0>
inline __attribute__((always_inline)) void multiply(Left a, Right b, int64_t steps, Float (&sums)[rows][vectors]) {
#ifdef REGARD_TILES
  if constexpr (Lane::steps > 1) {  // 16 rows are read, so many are used
    alignas(64) float tile[TileRegisters::rows][vectors * Float::width];
    const TileRegisters registers;
    multiply_in_tiles<vectors>(a, b, steps, tile[0], vectors * Float::width);
    for (int r = 0; r < rows; r++) {
      for (int n = 0; n < vectors; n++) sums[r][n] = sums[r][n] + load(tile[r] + n * Float::width);
    }
    return;
  }
#endif
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

#ifdef REGARD_TILES
inline void accumulate_in_tiles(int n, Left a, Right b, int64_t steps, const float* factor, float* c, int64_t stride,
                                int64_t columns) {
  constexpr int most = Float::tile_vectors, width = most * Float::width;
  for (int64_t at = 0; at < columns; at += width) {
    with_constant<most>(int((columns - at) / Float::width), [&]<int vectors>() {
      alignas(64) float sums[TileRegisters::rows * width];
      multiply_in_tiles<vectors>(a, Right{b.data + at, b.step}, steps, sums, width);
      for (int r = 0; r < n; r++) {
        const Float scale = broadcast(factor[r]);
        for (int v = 0; v < vectors; v++) {
          float* to = c + r * stride + at + v * Float::width;
          store(to, multiply_add(scale, load(to), load(sums + r * width + v * Float::width)));
        }
      }
    });
  }
}
#endif

// The same for a number of rows that is known only at run time, at most `most`.
template <class Lane, int most>
inline void accumulate_rows(int n, Left a, Right b, int64_t steps, const float* factor, float* c, int64_t stride,
                            int64_t columns) {
#ifdef REGARD_TILES
  if constexpr (Lane::steps > 1) return accumulate_in_tiles(n, a, b, steps, factor, c, stride, columns);
#endif
  with_constant<most>(n, [&]<int rows>() { accumulate<Lane, rows>(a, b, steps, factor, c, stride, columns); });
}

}  // namespace
}  // namespace regard::REGARD_ISA
