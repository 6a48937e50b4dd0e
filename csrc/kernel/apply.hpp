// A map itself, a part of it at a time, and its products: M x and Mᵀ y.

#pragma once

#include <cstdint>

#include "attention.hpp"
#include "map.hpp"
#include "memory.hpp"
#include "pack.hpp"
#include "parallel.hpp"
#include "rows.hpp"
#include "simd.hpp"
#include "tile.hpp"

namespace regard::REGARD_ISA {
namespace {

// The keys of a tile that exist.
inline Range known_keys(const Scored& tile) { return {tile.keys.from, minimum(tile.keys.to, tile.known)}; }

template <class Lane>
void tile_in(const Scores& s, const Map& m, const Tile& t, int threads) {
  const Tiles<Lane> tiles{s, m};
  const auto [count, block] = RowBlocks(t.rows);
  const int64_t pairs = tiles.pairs();
  if (t.columns == 0) return;
  for_each(count * pairs, threads, [&](int64_t item) {
    const int64_t pair = item % pairs, first_row = item / pairs * block, rows = minimum(block, t.rows - first_row);
    if (rows <= 0) return;
    float* numbers = t.numbers + (pair * t.rows + first_row) * t.columns;
    __builtin_memset(numbers, 0, rows * t.columns * sizeof(float));
    const Range columns{t.first_column, t.first_column + t.columns};
    tiles.visit(
        pair, t.first_row + first_row, rows, columns, thread_memory(tiles.size()), [](int64_t, int64_t) {},
        [&]<int n>(const Scored& tile) {
          const Range keys = known_keys(tile);
          for (int r = 0; r < n; r++) {
            float* to = numbers + (tile.at + r) * t.columns + tile.first - t.first_column;
            __builtin_memcpy(to + keys.from, tile.scores + r * block_keys + keys.from,
                             (keys.to - keys.from) * sizeof(float));
          }
        });
  });
}

constexpr float ones[tile_rows] = {1, 1, 1, 1, 1, 1};

template <class Lane>
void apply_in(const Scores& s, const Map& m, const Apply& a, int threads) {
  const Tiles<Lane> tiles{s, m};
  const int64_t pairs = tiles.pairs(), heads = tiles.heads(), width = round_up(a.width, Float::width);
  const auto [count, block] = RowBlocks(s.queries);
  if (a.width == 0) return;
  for_each(count * pairs, threads, [&](int64_t item) {
    const int64_t pair = item % pairs, first_row = (count - 1 - item / pairs) * block;
    const int64_t rows = minimum(block, s.queries - first_row);
    if (rows <= 0) return;
    float* memory = thread_memory(tiles.size() + (block_keys + rows) * width);
    float *vectors = memory + tiles.size(), *output = vectors + block_keys * width;
    __builtin_memset(output, 0, rows * width * sizeof(float));
    const float* x = a.vectors.data + pair / heads * a.vectors.batch + pair % heads / a.repeat * a.vectors.head;
    bool finite = true;
    tiles.visit(
        pair, first_row, rows, {0, s.keys}, memory,
        [&](int64_t first, int64_t known) {
          finite = pack_values<Single>(x + first * a.vectors.row, Type::float32, a.vectors.row, known, a.width, vectors,
                                       width);
        },
        [&]<int n>(const Scored& tile) {
          const Range keys = known_keys(tile);
          float* sums = output + tile.at * width;
          if (finite) {
            accumulate<Single, n>(Left{tile.scores + keys.from, block_keys, 1},
                                  Right{vectors + keys.from * width, width}, keys.to - keys.from, ones, sums, width,
                                  width);
            return;
          }
          for (int r = 0; r < n; r++) {  // a vector that is not finite reaches only the rows that take any of it
            for (int64_t j = keys.from; j < keys.to; j++) {
              const float number = tile.scores[r * block_keys + j];
              for (int64_t e = 0; e < a.width && number != 0; e++)
                sums[r * width + e] += number * vectors[j * width + e];
            }
          }
        });
    for (int64_t r = 0; r < rows; r++) {
      __builtin_memcpy(a.output + (pair * s.queries + first_row + r) * a.width, output + r * width,
                       a.width * sizeof(float));
    }
  });
}

constexpr int64_t short_rows = 96;  // rows of numbers that are kept until they are multiplied by their vectors
// The stride of rows of numbers; no power of two, or all elements of a column would share a line of the cache.
constexpr int64_t line = block_keys + Float::width;

// sums[j, …] += Σ_r left[r,j] · right[r, …] for the first `keys` columns of left.
inline void accumulate_columns(const float* left, const float* right, int64_t rows, int64_t keys, float* sums,
                               int64_t width) {
  for (int64_t j = 0; j < keys; j += tile_rows) {
    with_constant<tile_rows>(int(minimum<int64_t>(tile_rows, keys - j)), [&]<int n>() {
      accumulate<Single, n>(Left{left + j, 1, line}, Right{right, width}, rows, ones, sums + j * width, width, width);
    });
  }
}

// Rows of numbers for a block of keys, with the vectors that they are multiplied by, and the sums so far.
struct Gathered {
  const Transposed& t;
  Range keys;     // of the block
  int64_t width;  // of a vector, padded
  float *numbers, *vectors, *sums;
  int64_t rows = 0;
  bool finite = true;
  bool few = t.width <= tile_rows;  // then lanes run over the keys, and sums are [number of the vector][key]

  static int64_t size(int64_t width) { return short_rows * (line + width) + sums_size(width); }
  static int64_t sums_size(int64_t width) { return block_keys * maximum<int64_t>(width, tile_rows); }

  template <int n>
  void add(const Scored& tile, const float* from) {
    if (rows + n > short_rows) flush();
    const Range seen = known_keys(tile);
    const int64_t begin = tile.first - keys.from + seen.from, end = tile.first - keys.from + seen.to;
    for (int r = 0; r < n; r++) {
      float* to = numbers + (rows + r) * line;
      for (int64_t j = 0; j < begin; j++) to[j] = 0;
      __builtin_memcpy(to + begin, tile.scores + r * block_keys + seen.from, (end - begin) * sizeof(float));
      for (int64_t j = end; j < block_keys; j++) to[j] = 0;
    }
    finite &= pack_values<Single>(from, Type::float32, t.vectors.row, n, t.width, vectors + rows * width, width);
    rows += n;
  }

  void flush() {
    const int64_t count = keys.to - keys.from;
    if (!finite) {
      for (int64_t r = 0; r < rows; r++) {
        for (int64_t j = 0; j < count; j++) {
          const float number = numbers[r * line + j];
          for (int64_t e = 0; e < t.width && number != 0; e++) sum(j, e) += number * vectors[r * width + e];
        }
      }
    } else if (few) {
      with_constant<tile_rows>(int(t.width), [&]<int n>() {
        accumulate<Single, n>(Left{vectors, 1, width}, Right{numbers, line}, rows, ones, sums, block_keys, block_keys);
      });
    } else {
      accumulate_columns(numbers, vectors, rows, count, sums, width);
    }
    rows = 0, finite = true;
  }

  float& sum(int64_t key, int64_t e) const { return sums[few ? e * block_keys + key : key * width + e]; }
};

template <class Lane>
void transposed_in(const Scores& s, const Map& m, const Transposed& t, int threads) {
  const Tiles<Lane> tiles{s, m};
  const int64_t pairs = tiles.pairs(), heads = tiles.heads(), width = round_up(t.width, Float::width);
  const int64_t blocks = (s.keys + block_keys - 1) / block_keys;
  if (t.width == 0) return;
  for_each(pairs * blocks, threads, [&](int64_t item) {
    const int64_t pair = item % pairs, first = item / pairs * block_keys, known = minimum(block_keys, s.keys - first);
    float* memory = thread_memory(tiles.size() + Gathered::size(width));
    float *numbers = memory + tiles.size(), *vectors = numbers + short_rows * line;
    Gathered gathered{t, {first, first + known}, width, numbers, vectors, vectors + short_rows * width};
    __builtin_memset(gathered.sums, 0, Gathered::sums_size(width) * sizeof(float));
    const float* y = t.vectors.data + pair / heads * t.vectors.batch + pair % heads * t.vectors.head;
    for (int64_t row = 0; row < s.queries; row += block_rows) {
      tiles.visit(
          pair, row, minimum(block_rows, s.queries - row), gathered.keys, memory, [](int64_t, int64_t) {},
          [&]<int n>(const Scored& tile) { gathered.add<n>(tile, y + tile.rows[0].query * t.vectors.row); });
    }
    gathered.flush();
    for (int64_t j = 0; j < known; j++) {
      float* output = t.output + (pair * s.keys + first + j) * t.width;
      for (int64_t e = 0; e < t.width; e++) output[e] = gathered.sum(j, e);
    }
  });
}

}  // namespace
}  // namespace regard::REGARD_ISA
