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

constexpr int64_t largest_small_query = 32;

#ifdef REGARD_PAIRS
constexpr bool has_pairs = true;
#else
constexpr bool has_pairs = false;
#endif

inline int64_t rows_with_keys(const Scores& s) { return s.queries * (s.heads / s.groups); }  // that share the same

// Whether rows are so many that they fill the lanes of a vector; where they are few, the numbers of a key do.
inline bool rows_fill_lanes(const Scores& s) { return rows_with_keys(s) > 2 * Float::tile_rows; }

// Not of pairs that would fill the lanes, as packing is quick for pairs. Not for a short text that looks at itself: it
// would get other last digits alone than as a segment among others.
inline bool is_small_query(const Scores& s) {
  if (s.groups == 0 || s.dim == 0 || s.queries >= s.keys || rows_with_keys(s) > largest_small_query) return false;
  return !rows_fill_lanes(s) || s.type != Type::bfloat16 || !has_pairs;
}

template <Type type>
inline Float load_as(const char* from, int64_t i) {
  if constexpr (type == Type::float32) return load(reinterpret_cast<const float*>(from) + i);
  if constexpr (type == Type::bfloat16) return load_bfloat16(reinterpret_cast<const uint16_t*>(from) + i);
  if constexpr (type == Type::float16) return load_float16(reinterpret_cast<const uint16_t*>(from) + i);
}

// The first n of a vector, 1 ≤ n ≤ width, and zeros.
template <Type type>
inline Float load_first_as(const char* from, int64_t i, int64_t n) {
  if constexpr (type == Type::float32) return load_first(reinterpret_cast<const float*>(from) + i, n);
  if (n == Float::width) return load_as<type>(from, i);
  uint16_t first[Float::width] = {};
  __builtin_memcpy(first, from + i * sizeof(uint16_t), n * sizeof(uint16_t));
  return load_as<type>(reinterpret_cast<const char*>(first), 0);
}

template <class Work>
inline void with_type(Type type, Work&& work) {
  if (type == Type::float32) work.template operator()<Type::float32>();
  if (type == Type::bfloat16) work.template operator()<Type::bfloat16>();
  if (type == Type::float16) work.template operator()<Type::float16>();
}

// Queries as products read them.
#ifdef REGARD_PAIRS
template <Type type>
using Product = std::conditional_t<type == Type::bfloat16, Pair, Single>;
#else
template <Type type>
using Product = Single;
#endif

template <Type type>
inline Float load_lanes(const char* key, int64_t lane) {
  return Product<type>::per_lane == 2 ? load(reinterpret_cast<const float*>(key) + lane) : load_as<type>(key, lane);
}

// The last lanes of a key of `dim` numbers, and zeros.
template <Type type>
inline Float load_last_lanes(const char* key, int64_t lane, int64_t dim) {
  constexpr int per_lane = Product<type>::per_lane;
  const int64_t n = dim - lane * per_lane;
  if constexpr (per_lane == 1) return load_first_as<type>(key, lane, n);
  if (n % per_lane == 0) return load_first(reinterpret_cast<const float*>(key) + lane, n / per_lane);
  float last[Float::width] = {};
  __builtin_memcpy(last, key + lane * sizeof(float), n * sizeof(uint16_t));
  return load(last);
}

inline int64_t small_query_lanes(Type type, int64_t n) {
  int64_t lanes = n;
  with_type(type, [&]<Type t>() { lanes = lanes_of<Product<t>>(n); });
  return round_up(lanes, Float::width);
}

inline void pack_small_query(const void* from, Type type, int64_t n, float* to) {
  const int64_t lanes = small_query_lanes(type, n);
  with_type(type, [&]<Type t>() { pack_row<Product<t>>(from, type, n, to, lanes); });
}

constexpr int second_level = 2;  // to __builtin_prefetch: into that cache
constexpr int64_t line_bytes = 64;

// Rows of a matrix that are read next: brought into the second-level cache while others are computed with.
struct Upcoming {
  const char* data = nullptr;
  int64_t stride = 0, bytes = 0;

  Upcoming() = default;
  Upcoming(const void* from, Type type, int64_t offset, int64_t row, int64_t n)
      : data(at(from, type, offset)), stride(row * size_of(type)), bytes(n * size_of(type)) {}

  const char* row(int64_t number) const { return data + number * stride; }
  inline __attribute__((always_inline)) void bring(int64_t number) const {
    for (int64_t i = 0; i < bytes; i += line_bytes) __builtin_prefetch(row(number) + i, 0, second_level);
  }
  // The part of all rows that the rows from … to of `count` that do the work bring.
  Upcoming part(int64_t from, int64_t to, int64_t count) const {
    const auto place = [&](int64_t n) { return n < count ? n * bytes / count / line_bytes * line_bytes : bytes; };
    Upcoming result = *this;
    result.data += place(from), result.bytes = place(to) - place(from);
    return result;
  }
};

// Products of rows of queries with keys, at most block_keys of them; four keys at a time, the last repeated where there
// are no more.
template <Type type, int rows>
__attribute__((noinline)) void products(const float* query, const char* key, int64_t stride, int64_t keys, int64_t dim,
                                        float* scores, int64_t scores_stride) {
  using Lane = Product<type>;
  constexpr int width = Float::width, fitting = Float::tile_rows * Float::tile_vectors / 4;
  constexpr int at_once = rows < fitting ? rows : fitting;  // rows whose sums fit into the registers
  const int64_t lanes = round_up(lanes_of<Lane>(dim), width), last = lanes - width;
  Float quarters[rows][width / 4];
  const auto add = [&]<int n>(int r, int64_t quarter, const char* const(&own)[4]) __attribute__((always_inline)) {
    Float sums[n][4];
    for (int i = 0; i < n; i++)
      for (int j = 0; j < 4; j++) sums[i][j] = broadcast(0.0f);
    const auto step = [&](int64_t lane, auto&& load_key) __attribute__((always_inline)) {
      Float part[4];
#pragma GCC unroll 4
      for (int j = 0; j < 4; j++) part[j] = load_key(own[j], lane);
#pragma GCC unroll 8
      for (int i = 0; i < n; i++) {
        const Float vector = load(query + (r + i) * lanes + lane);
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) sums[i][j] = Lane::multiply_add(vector, part[j], sums[i][j]);
      }
    };
    for (int64_t lane = 0; lane < last; lane += width) step(lane, load_lanes<type>);
    step(last, [dim](const char* from, int64_t lane) { return load_last_lanes<type>(from, lane, dim); });
    for (int i = 0; i < n; i++)
      quarters[r + i][quarter] = sums_of_fours(sums[i][0], sums[i][1], sums[i][2], sums[i][3]);
  };
  for (int64_t first = 0; first < keys; first += width) {
    for (int64_t quarter = 0; quarter < width / 4; quarter++) {
      const char* own[4];
#pragma GCC unroll 4
      for (int64_t j = 0; j < 4; j++) {
        const int64_t number = minimum(first + 4 * quarter + j, keys - 1);
        own[j] = at(key, type, number * stride);
      }
      for (int r = 0; r + at_once <= rows; r += at_once) add.template operator()<at_once>(r, quarter, own);
      if constexpr (rows % at_once != 0) add.template operator()<rows % at_once>(rows - rows % at_once, quarter, own);
    }
    for (int r = 0; r < rows; r++) store(scores + r * scores_stride + first, sums_across(quarters[r]));
  }
}

// The same for rows that fill the lanes: query [lane][row], `columns` rows a lane, of which `vectors` vectors are
// computed. The numbers of the keys are read one by one, and the products turned. Their time goes into arithmetic, and
// `next` is brought meanwhile; where rows are few, the processor itself reads ahead faster.
template <Type type, int vectors>
__attribute__((noinline)) void products_by_rows(const float* query, int64_t columns, const char* key, int64_t stride,
                                                int64_t keys, int64_t dim, Upcoming next, float* scores,
                                                int64_t scores_stride) {
  using Lane = Product<type>;
  constexpr int width = Float::width, together = 2 * Float::tile_vectors, chains = 2 / vectors;
  constexpr int step = width > together ? width : together;
  constexpr bool as_they_are = type == Type::float32;
  const int64_t lanes = lanes_of<Lane>(dim);
  alignas(64) float sums[step][vectors * width], packed[as_they_are ? 1 : together * largest_dim];
  for (int64_t first = 0; first < keys; first += step) {
    for (int64_t j = 0; j < step; j += together) {
      const float* own[together];
      for (int64_t i = 0; i < together; i++) {
        const int64_t number = minimum(first + j + i, keys - 1);
        const char* from = at(key, type, number * stride);
        own[i] = as_they_are ? reinterpret_cast<const float*>(from) : packed + i * lanes;
        if (!as_they_are) pack_row<Lane>(from, type, dim, packed + i * lanes, lanes);
      }
      const char* upcoming = next.row(first + j);
      Float sum[chains][together][vectors];
      for (auto& chain : sum)
        for (auto& of_key : chain)
          for (Float& vector : of_key) vector = broadcast(0.0f);
      const auto add = [&](int64_t lane, Float(&to)[together][vectors]) __attribute__((always_inline)) {
        Float column[vectors];
        __builtin_prefetch(upcoming + lane / 2 % together * next.stride + lane * sizeof(float), 0, second_level);
        for (int v = 0; v < vectors; v++) column[v] = load(query + lane * columns + v * width);
#pragma GCC unroll 8
        for (int i = 0; i < together; i++) {
          const Float number = broadcast(own[i] + lane);
          for (int v = 0; v < vectors; v++) to[i][v] = Lane::multiply_add(number, column[v], to[i][v]);
        }
      };
      int64_t lane = 0;
      for (; lane + chains <= lanes; lane += chains) {
#pragma GCC unroll 2
        for (int c = 0; c < chains; c++) add(lane + c, sum[c]);
      }
      if (lane < lanes) add(lane, sum[0]);
      for (int i = 0; i < together; i++) {
        for (int v = 0; v < vectors; v++)
          store(sums[j + i] + v * width, chains == 2 ? sum[0][i][v] + sum[chains - 1][i][v] : sum[0][i][v]);
      }
    }
    for (int64_t v = 0; v < vectors; v++) {
      for (int64_t j = 0; j < step; j += width)
        transpose(sums[j] + v * width, vectors * width, scores + v * width * scores_stride + first + j, scores_stride);
    }
  }
}

// output[r, …] = keep[r] · output[r, …] + Σ_j weights[r,j] · values[j, …]; returns whether all of it is finite. `next`
// is brought, a row for each value.
template <Type type, int rows>
__attribute__((noinline)) bool average(const float* weights, int64_t weights_stride, int64_t keys, const char* values,
                                       int64_t stride, int64_t n, Upcoming next, const float* keep, float* output,
                                       int64_t output_stride) {
  constexpr int most = Float::tile_vectors;
  bool finite = true;
  for (int64_t e = 0; e < n; e += most * Float::width, next.bytes = 0) {
    with_constant<most>(int((n - e + Float::width - 1) / Float::width), [&]<int vectors>() {
      constexpr int fitting = Float::tile_rows * most / (rows * vectors), chains = fitting < 4 ? fitting : 4;
      const int64_t last = minimum<int64_t>(Float::width, n - e - (vectors - 1) * Float::width);
      Float sums[chains][rows][vectors];
      for (auto& chain : sums)
        for (auto& row : chain)
          for (Float& vector : row) vector = broadcast(0.0f);
      const char* first = at(values, type, e);
      const int64_t step = stride * size_of(type);
      const auto add = [&](int64_t j, Float(&to)[rows][vectors]) __attribute__((always_inline)) {
        const char* value = first + j * step;
        Float part[vectors];
#pragma GCC unroll 8
        for (int v = 0; v < vectors - 1; v++) part[v] = load_as<type>(value, v * Float::width);
        part[vectors - 1] = load_first_as<type>(value, (vectors - 1) * Float::width, last);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
          const Float weight = broadcast(weights + r * weights_stride + j);
#pragma GCC unroll 8
          for (int v = 0; v < vectors; v++) to[r][v] = multiply_add(weight, part[v], to[r][v]);
        }
      };
      int64_t j = 0;
      for (; j + 4 <= keys; j += 4) {
#pragma GCC unroll 4
        for (int c = 0; c < 4; c++) next.bring(j + c), add(j + c, sums[c % chains]);
      }
      for (; j < keys; j++) add(j, sums[0]);
#pragma GCC unroll 8
      for (int r = 0; r < rows; r++) {
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) {
#pragma GCC unroll 4
          for (int c = 1; c < chains; c++) sums[0][r][v] = sums[0][r][v] + sums[c][r][v];
          float* to = output + r * output_stride + e + v * Float::width;
          const Float total = multiply_add(broadcast(keep[r]), load(to), sums[0][r][v]);
          store(to, total);
          finite &= all_finite(total);
        }
      }
    });
  }
  return finite;
}

}  // namespace
}  // namespace regard::REGARD_ISA
