// A small query: few rows and many keys, as when a decoder generates: the time goes into reading keys and values from
// memory. So they are read once, in order, where they lie; to pack them first would cost more than it gains.

#pragma once

#include <cstdint>
#include <type_traits>

#include "attention.hpp"
#include "pack.hpp"
#include "simd.hpp"
#include "tile.hpp"

namespace regard::REGARD_ISA {
namespace {

// Whether all the rows that share keys fit into one register tile, and a key is a whole number of vectors. Not for
// a short text that looks at itself: it would get other last digits alone than as a segment among others.
inline bool is_small_query(const Scores& s) {
  const int64_t vector = s.type == Type::float32 ? Float::width : 2 * Float::width;
  return s.groups > 0 && s.queries < s.keys && s.queries * (s.heads / s.groups) <= Float::tile_rows &&
         s.dim % vector == 0;
}

template <Type type>
inline Float load_as(const char* from, int64_t i) {
  if constexpr (type == Type::float32) return load(reinterpret_cast<const float*>(from) + i);
  if constexpr (type == Type::bfloat16) return load_bfloat16(reinterpret_cast<const uint16_t*>(from) + i);
  if constexpr (type == Type::float16) return load_float16(reinterpret_cast<const uint16_t*>(from) + i);
}

template <class Work>
inline void with_type(Type type, Work&& work) {
  if (type == Type::float32) work.template operator()<Type::float32>();
  if (type == Type::bfloat16) work.template operator()<Type::bfloat16>();
  if (type == Type::float16) work.template operator()<Type::float16>();
}

// Queries as `products` reads them.
#ifdef REGARD_PAIRS
template <Type type>
using Product = std::conditional_t<type == Type::bfloat16, Pair, Single>;
#else
template <Type type>
using Product = Single;
#endif

inline int64_t small_query_lanes(Type type, int64_t n) {
  int64_t lanes = n;
  with_type(type, [&]<Type t>() { lanes = lanes_of<Product<t>>(n); });
  return lanes;
}

inline void pack_small_query(const void* from, Type type, int64_t n, float* to) {
  with_type(type, [&]<Type t>() { pack_row<Product<t>>(from, type, n, to, lanes_of<Product<t>>(n)); });
}

// Products of rows of queries with keys, at most block_keys of them; `width` keys at a time, the last repeated
// where there are no more.
template <Type type, int rows>
inline void products(const float* query, const char* key, int64_t stride, int64_t keys, int64_t dim, float* scores,
                     int64_t scores_stride) {
  using Lane = Product<type>;
  constexpr int width = Float::width, together = Lane::per_lane;  // keys that share the loads of the queries
  const int64_t lanes = lanes_of<Lane>(dim), ahead = 4096 / sizeof(float);
  alignas(64) float sums[rows][width * width], columns[width * width];
  for (int64_t first = 0; first < keys; first += width) {
    for (int64_t j = 0; j < width; j += together) {
      Float sum[together][rows];
      const char* rows_of_keys[together];
      for (int i = 0; i < together; i++) {
        for (int r = 0; r < rows; r++) sum[i][r] = broadcast(0.0f);
        rows_of_keys[i] = at(key, type, minimum(first + j + i, keys - 1) * stride);
      }
      for (int64_t c = 0; c < lanes; c += width) {
#pragma GCC unroll 8
        for (int i = 0; i < together; i++) {
          __builtin_prefetch(reinterpret_cast<const float*>(rows_of_keys[i]) + c + ahead);
          Float vector;
          if constexpr (Lane::per_lane == 2)
            vector = load(reinterpret_cast<const float*>(rows_of_keys[i]) + c);
          else
            vector = load_as<type>(rows_of_keys[i], c);
#pragma GCC unroll 8
          for (int r = 0; r < rows; r++) sum[i][r] = Lane::multiply_add(load(query + r * lanes + c), vector, sum[i][r]);
        }
      }
      for (int i = 0; i < together; i++) {
        for (int r = 0; r < rows; r++) store(sums[r] + (j + i) * width, sum[i][r]);
      }
    }
    for (int r = 0; r < rows; r++) {
      transpose(sums[r], width, columns, width);
      Float total = load(columns);
      for (int64_t i = 1; i < width; i++) total = total + load(columns + i * width);
      store(scores + r * scores_stride + first, total);
    }
  }
}

// output[r, …] = keep[r] · output[r, …] + Σ_j weights[r,j] · values[j, …]; returns whether all of it is finite. A few
// keys at a time, two rows after two: the first two rows load the values from memory, in order, and the others find
// them in the cache.
template <Type type, int rows>
inline bool average(const float* weights, int64_t weights_stride, int64_t keys, const char* values, int64_t stride,
                    int64_t n, const float* keep, float* output) {
  constexpr int wide = 2 * Float::tile_vectors;
  constexpr int64_t together = 16, ahead = 8192;  // bytes
  bool finite = true;
  const auto add = [&]<int n_rows, int vectors>(int64_t first, int64_t r, int64_t e) {
    Float sums[n_rows][vectors];
    for (int i = 0; i < n_rows; i++) {
      for (int v = 0; v < vectors; v++) sums[i][v] = broadcast(0.0f);
    }
    for (int64_t j = first; j < minimum(keys, first + together); j++) {
      const char* value = at(values, type, j * stride + e);
      Float weight[n_rows];
      for (int i = 0; i < n_rows; i++) weight[i] = broadcast(weights + (r + i) * weights_stride + j);
#pragma GCC unroll 8
      for (int v = 0; v < vectors; v++) {
        if (r == 0) __builtin_prefetch(at(value, type, v * Float::width) + ahead);
        const Float vector = load_as<type>(value, v * Float::width);
        for (int i = 0; i < n_rows; i++) sums[i][v] = multiply_add(weight[i], vector, sums[i][v]);
      }
    }
    for (int i = 0; i < n_rows; i++) {
      const Float kept = broadcast(first == 0 ? keep[r + i] : 1);
      for (int v = 0; v < vectors; v++) {
        float* to = output + (r + i) * n + e + v * Float::width;
        const Float sum = multiply_add(kept, load(to), sums[i][v]);
        store(to, sum);
        finite &= all_finite(sum);
      }
    }
  };
  for (int64_t first = 0; first < keys; first += together) {
    for (int64_t r = 0; r < rows; r += 2) {
      for (int64_t e = 0; e < n; e += wide * Float::width) {
        with_constant<wide>(int((n - e) / Float::width), [&]<int vectors>() {
          r + 1 < rows ? add.template operator()<2, vectors>(first, r, e)
                       : add.template operator()<1, vectors>(first, r, e);
        });
      }
    }
  }
  return finite;
}

}  // namespace
}  // namespace regard::REGARD_ISA
