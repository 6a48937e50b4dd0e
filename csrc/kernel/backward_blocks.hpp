// What the gradients are computed with: blocks of rows and of keys as products read them, and sums where they are
// gathered.

#pragma once

#include <cstdint>

#include "apply.hpp"
#include "pack.hpp"
#include "rows.hpp"
#include "simd.hpp"
#include "small_query.hpp"
#include "tile.hpp"

namespace regard::REGARD_ISA {
namespace {

// Rows of floats that products read: their numbers, padded with zeros to whole vectors, `row` apart.
struct FloatRows {
  const float* data;
  int64_t row;
  bool finite;
};

// Rows of sums, likewise; `row` apart.
struct Sums {
  float* data;
  int64_t row;
  Sums from(int64_t number) const { return {data + number * row, row}; }
};

inline void zero_nonfinite(float* x, int64_t count) {
  for (int64_t i = 0; i < count; i++) x[i] = x[i] - x[i] == 0 ? x[i] : 0;
}

// Whether `count` vectors, `step` apart, are finite: of what is not, the product with 0 is not 0.
inline bool finite_vectors(const float* x, int64_t count, int64_t step) {
  Float sums[4];
  for (Float& sum : sums) sum = broadcast(0.0f);
  const Float zero = broadcast(0.0f);
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) {
#pragma GCC unroll 4
    for (int n = 0; n < 4; n++) sums[n] = multiply_add(load(x + (i + n) * step), zero, sums[n]);
  }
  for (; i < count; i++) sums[0] = multiply_add(load(x + i * step), zero, sums[0]);
  return all_finite((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// Rows where they lie, if they are whole vectors of floats side by side; copies of them otherwise.
inline FloatRows float_rows(const void* from, Type type, int64_t stride, int64_t rows, int64_t n, float* room) {
  const int64_t width = round_up(n, Float::width);
  if (type != Type::float32 || n != width || stride != n)
    return {room, width, pack_values<Single>(from, type, stride, rows, n, room, width)};
  const auto* data = static_cast<const float*>(from);
  return {data, n, finite_vectors(data, rows * n / Float::width, Float::width)};
}

// The same rows with 0 for what is not finite: rows that see such a key or value are nan by their weights or outputs,
// and the others must not meet it.
inline FloatRows finite_rows(FloatRows of, int64_t rows, float* room) {
  if (of.finite) return of;
  if (room != of.data) __builtin_memcpy(room, of.data, rows * of.row * sizeof(float));
  zero_nonfinite(room, rows * of.row);
  return {room, of.row, true};
}

// Σ_e a_e b_e
inline float dot(const void* a, const void* b, Type type, int64_t n) {
  Float total = broadcast(0.0f);
  with_type(type, [&]<Type t>() {
    const auto *left = static_cast<const char*>(a), *right = static_cast<const char*>(b);
    int64_t i = 0;
    for (; i + Float::width <= n; i += Float::width)
      total = multiply_add(load_as<t>(left, i), load_as<t>(right, i), total);
    if (i < n) total = multiply_add(load_first_as<t>(left, i, n - i), load_first_as<t>(right, i, n - i), total);
  });
  return sum(total);
}

// Rows of a tile where its sums have but one vector: more of them, so that no sum waits for the one before it.
constexpr int narrow_rows = 2 * tile_rows;

// Calls visit(from, count) for all of `total`, in parts of at most `most` that are as equal as can be.
template <class Visit>
inline __attribute__((always_inline)) void in_equal_parts(int64_t total, int64_t most, Visit&& visit) {
  const uint32_t parts = uint32_t(total + most - 1) / uint32_t(most);
  if (parts <= 1) return total ? visit(int64_t(0), total) : void();
  const uint32_t count = uint32_t(total) / parts, larger = uint32_t(total) % parts;  // and one more in `larger` of them
  int64_t from = 0;
  for (uint32_t part = 0; part < parts; part++) {
    const int64_t size = count + (part < larger);
    visit(from, size);
    from += size;
  }
}

// Σ_k A[r,k] · B[k,n] for any number of rows and the keys of panels, `line` apart.
template <class Lane>
inline void multiply_panels(int64_t rows, Left a, const float* panels, int64_t lanes, Range keys, float* to) {
  visit_panels(keys.from, keys.to, [&]<int vectors>(int64_t key) {
    constexpr int most = vectors == 1 ? narrow_rows : tile_rows;
    const Right b{panels + in_panels(key, lanes), panel_keys};
    in_equal_parts(rows, most, [&](int64_t from, int64_t count) {
      with_constant<most>(int(count), [&]<int n>() {
        Float sums[n][vectors];
        for (int r = 0; r < n; r++)
          for (int v = 0; v < vectors; v++) sums[r][v] = broadcast(0.0f);
        multiply<Lane, n, vectors>(Left{a.data + from * a.row, a.row, a.step}, b, lanes, sums);
        for (int r = 0; r < n; r++)
          for (int v = 0; v < vectors; v++) store(to + (from + r) * line + key + v * Float::width, sums[r][v]);
      });
    });
  });
}

// to[r, …] = Σ_k A[r,k] · B[k, …] for any number of rows, added to what is there unless it is fresh.
inline void sum_up(int64_t rows, Left a, Right b, int64_t steps, bool fresh, Sums to, int64_t columns) {
  const bool narrow = columns == Float::width;
  in_equal_parts(rows, narrow ? narrow_rows : tile_rows, [&](int64_t from, int64_t count) {
    const Left left{a.data + from * a.row, a.row, a.step};
    float* sums = to.data + from * to.row;
    if (!narrow) {
      with_constant<tile_rows>(int(count), [&]<int n>() {
        accumulate<Single, n>(left, b, steps, fresh ? nullptr : ones, sums, to.row, columns);
      });
      return;
    }
    with_constant<narrow_rows>(int(count), [&]<int n>() {
      Float own[n][1];
      for (int r = 0; r < n; r++) own[r][0] = broadcast(0.0f);
      multiply<Single, n, 1>(left, b, steps, own);
      for (int r = 0; r < n; r++) store(sums + r * to.row, fresh ? own[r][0] : load(sums + r * to.row) + own[r][0]);
    });
  });
}

// Rows that are computed one after the other, and the keys of the block, on borders, that any of them may see.
struct RowTile {
  int64_t at, count;
  Range keys;
};

// What the weights and the gradients of a row are computed from: its lse in the unit of the scores, as a float and what
// is left of it, and δ.
struct RowState {
  float level, rest, delta;
};

// A block of rows.
struct RowBlock {
  HeadGroup group;
  int64_t first, count, tile_count = 0;
  Row rows[short_rows];
  RowTile tiles[short_rows / tile_rows + 1];
  FloatRows query, grad_output;  // finite queries
  const float* lanes;            // queries as the scores' products read them, `lanes_row` apart
  int64_t lanes_row;
  const RowState* states;

  // The rows that may see any of these keys.
  Range seeing(Range keys) const {
    Range seen{count, 0};
    for (int64_t t = 0; t < tile_count; t++) {
      if (tiles[t].keys.from >= keys.to || tiles[t].keys.to <= keys.from) continue;
      seen = {minimum(seen.from, tiles[t].at), tiles[t].at + tiles[t].count};
    }
    return seen.from < seen.to ? seen : Range{0, 0};
  }
};

// A block of keys: as the scores' products and those with the values read them, and as they are summed over.
struct KeyBlock {
  int64_t first, known;
  const float *panels, *value_panels;
  FloatRows key;
};

}  // namespace
}  // namespace regard::REGARD_ISA
