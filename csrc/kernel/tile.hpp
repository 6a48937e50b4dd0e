// The register tile: a few rows of A times some vectors of B, all sums in registers. Every product of the kernel is
// made of it. A *lane* is 32 bits: one float, or a pair of bfloat16 that are multiplied and added in one step.

#pragma once

#include <cstdint>
#include <type_traits>

#include "simd.hpp"

namespace regard::REGARD_ISA {
namespace {

struct Single {  // a lane is a float
  // Steps of the sum at once, and lanes a number takes part in.
  static constexpr int per_lane = 1, steps = 1, planes = 1;
  static Float multiply_add(Float a, Float b, Float c) { return REGARD_ISA::multiply_add(a, b, c); }
};

#ifdef REGARD_PAIRS
struct Pair {  // a lane is two bfloat16
  static constexpr int per_lane = 2, steps = 1, planes = 1;
  static Float multiply_add(Float a, Float b, Float c) { return multiply_add_pairs(a, b, c); }
};
#endif

#ifdef REGARD_TILES
// Two bfloat16, multiplied in the tile registers: of each 16 lanes first numbers and second numbers are summed up
// apart.
struct TiledPair : Pair {
  static constexpr int steps = TileRegisters::lanes;
  static constexpr int products[][2] = {{0, 0}};  // of a plane of A and one of B
};

// Floats, each as three bfloat16: 32 numbers x are 16 lanes (x_i, x_{i+16}) of their first digits, 16 of those that
// follow and 16 of the last. Six of the nine products of such planes are summed up, the smaller first: what is left out
// is below 2⁻²³ of a product.
struct TiledTriple : Pair {
  static constexpr int steps = TileRegisters::lanes, planes = 3;
  static constexpr int products[][2] = {{0, 2}, {1, 1}, {0, 1}, {2, 0}, {1, 0}, {0, 0}};
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
// Calls work.template operator()<n>() for n from 0 to count − 1.
template <int count, class Work>
inline __attribute__((always_inline)) void with_each(Work&& work) {
  if constexpr (count > 1) with_each<count - 1>(work);
  work.template operator()<count - 1>();
}

// The products of TiledTriple for 16 lanes of each plane: the planes of A stay in their registers, and each tile of B
// is loaded once.
template <int vectors, class Meanwhile>
inline __attribute__((always_inline)) void multiply_planes(const float* a, int64_t row, const float* b, int64_t step,
                                                           Meanwhile& meanwhile) {
  constexpr int64_t plane = TiledTriple::steps, width = Float::width;
  load_tile<4>(a, row), load_tile<5>(a + plane, row), load_tile<6>(a + 2 * plane, row);
  with_each<vectors>([&]<int n>() {
    load_tile<7>(b + 2 * plane * step + n * width, step);
    multiply_add_tiles<n, 4, 7>();
  });
  with_each<vectors>([&]<int n>() {
    load_tile<7>(b + plane * step + n * width, step);
    multiply_add_tiles<n, 5, 7>(), multiply_add_tiles<n, 4, 7>();
    meanwhile();
  });
  with_each<vectors>([&]<int n>() {
    load_tile<7>(b + n * width, step);
    multiply_add_tiles<n, 6, 7>(), multiply_add_tiles<n, 5, 7>(), multiply_add_tiles<n, 4, 7>();
    meanwhile();
  });
}

struct NoWork {
  void operator()() const {}
};

// C[r,n] = Σ_k A[r,k] · B[k,n] for one tile of rows and at most 4 vectors of columns, or 2 of each. After each product
// or three `meanwhile` is called, whose work of some thirty cycles the processor does beside them.
template <int vectors, int row_tiles = 1, class Lane = TiledPair, class Meanwhile = NoWork>
inline void multiply_in_tiles(Left a, Right b, int64_t steps, float* c, int64_t stride, Meanwhile&& meanwhile = {}) {
  constexpr int rows = TileRegisters::rows, width = Float::width, first_a = 4, first_b = first_a + row_tiles;
  static_assert(row_tiles * vectors <= first_a && row_tiles <= 2);
  zero_tile<0>(), zero_tile<1>(), zero_tile<2>(), zero_tile<3>();
  for (int64_t k = 0; k < steps; k += Lane::steps * Lane::planes) {
    const float *left = a.data + k, *right = b.data + k * b.step;
    if constexpr (Lane::planes > 1) {
      static_assert(row_tiles == 1);
      multiply_planes<vectors>(left, a.row, right, b.step, meanwhile);
    } else {
      load_tile<first_a>(left, a.row);
      if constexpr (row_tiles > 1) load_tile<first_a + 1>(left + rows * a.row, a.row);
      with_each<vectors>([&]<int n>() {
        constexpr int column = first_b + n % (8 - first_b);
        load_tile<column>(right + n * width, b.step);
        multiply_add_tiles<n, first_a, column>();
        if constexpr (row_tiles > 1) multiply_add_tiles<vectors + n, first_a + 1, column>();
        if constexpr (n % 2 == 1 || vectors == 1) meanwhile();
      });
    }
  }
  with_each<vectors>([&]<int n>() {
    store_tile<n>(c + n * width, stride);
    if constexpr (row_tiles > 1) store_tile<vectors + n>(c + rows * stride + n * width, stride);
  });
}
#endif

// sums[r][n] += Σ_k A[r,k] · B[k,n]; where B comes from memory, it is asked for so many steps ahead.
template <class Lane, int rows, int vectors, int ahead = 0>
inline __attribute__((always_inline)) void multiply(Left a, Right b, int64_t steps, Float (&sums)[rows][vectors]) {
#ifdef REGARD_TILES
  if constexpr (Lane::steps > 1) {  // 16 rows are read, so many are used
    alignas(64) float tile[TileRegisters::rows][vectors * Float::width];
    const TileRegisters registers;
    multiply_in_tiles<vectors, 1, Lane>(a, b, steps, tile[0], vectors * Float::width);
    for (int r = 0; r < rows; r++) {
      for (int n = 0; n < vectors; n++) sums[r][n] = sums[r][n] + load(tile[r] + n * Float::width);
    }
    return;
  }
#endif
  Float own[rows][vectors];  // in registers: `sums` may have an address, and would be written at every step
#pragma GCC unroll 8
  for (int r = 0; r < rows; r++) {
#pragma GCC unroll 8
    for (int n = 0; n < vectors; n++) own[r][n] = sums[r][n];
  }
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
      for (int n = 0; n < vectors; n++) own[r][n] = Lane::multiply_add(row, column[n], own[r][n]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < rows; r++) {
#pragma GCC unroll 8
    for (int n = 0; n < vectors; n++) sums[r][n] = own[r][n];
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

// Vectors of so many that are computed at once: all of them in equal parts.
inline int64_t vectors_at_once(int64_t vectors) {
  const int64_t parts = (vectors + Float::tile_vectors - 1) / Float::tile_vectors;
  return parts ? (vectors + parts - 1) / parts : 1;
}

// C[r, …] = factor[r] · C[r, …] + Σ_k A[r,k] · B[k, …] for `columns` columns, a whole number of vectors; without
// factors C[r, …] = Σ_k A[r,k] · B[k, …]. The sum is made before it is added to C, so that the rounding errors of many
// blocks do not follow one another in one long chain.
template <class Lane, int rows>
inline void accumulate(Left a, Right b, int64_t steps, const float* factor, float* c, int64_t stride, int64_t columns) {
  const int64_t part = vectors_at_once(columns / Float::width) * Float::width;
  for (int64_t at = 0; at < columns; at += part) {
    const Right right{b.data + at, b.step};
    const int64_t count = (columns - at < part ? columns - at : part) / Float::width;
    with_constant<Float::tile_vectors>(int(count), [&]<int vectors>() {
      Float sums[rows][vectors];
      for (int r = 0; r < rows; r++)
        for (int n = 0; n < vectors; n++) sums[r][n] = broadcast(0.0f);
      multiply<Lane, rows, vectors>(a, right, steps, sums);
      for (int r = 0; r < rows; r++) {
        if (!factor) {
          for (int n = 0; n < vectors; n++) store(c + r * stride + at + n * Float::width, sums[r][n]);
          continue;
        }
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
// As accumulate_rows has it. A factor is read when all products are made: it may be found meanwhile.
template <class Lane, class Meanwhile>
inline void accumulate_in_tiles(int n, Left a, Right b, int64_t steps, const float* factor, float* c, int64_t stride,
                                int64_t columns, Meanwhile&& meanwhile) {
  constexpr int most = Float::tile_vectors, width = most * Float::width;
  for (int64_t at = 0; at < columns; at += width) {
    with_constant<most>(int((columns - at) / Float::width), [&]<int vectors>() {
      alignas(64) float sums[TileRegisters::rows * width];
      multiply_in_tiles<vectors, 1, Lane>(a, Right{b.data + at, b.step}, steps, sums, width, meanwhile);
      for (int r = 0; r < n; r++) {
        const Float scale = broadcast(factor ? factor[r] : 0);
        for (int v = 0; v < vectors; v++) {
          float* to = c + r * stride + at + v * Float::width;
          const Float sum = load(sums + r * width + v * Float::width);
          store(to, factor ? multiply_add(scale, load(to), sum) : sum);
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
  with_constant<most>(n, [&]<int rows>() { accumulate<Lane, rows>(a, b, steps, factor, c, stride, columns); });
}

}  // namespace
}  // namespace regard::REGARD_ISA
