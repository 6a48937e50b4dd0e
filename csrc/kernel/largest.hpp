// The largest numbers of each row of a map, and their keys.

#pragma once

#include <cstdint>

#include "attention.hpp"
#include "map.hpp"
#include "memory.hpp"
#include "pack.hpp"
#include "parallel.hpp"
#include "ranks.hpp"
#include "rows.hpp"
#include "simd.hpp"

namespace regard::REGARD_ISA {
namespace {

// The lists of the rows of a block.
struct Lists {
  const Largest& l;
  int64_t keys;
  int64_t capacity = round_up(l.count, 8);
  Rank* ranks;  // (rows, capacity), descending
  Range* seen;  // of each row, the keys that tiles held; those before and after are 0

  Lists(const Largest& largest, int64_t keys, int64_t rows, float* memory)
      : l(largest), keys(keys), ranks(reinterpret_cast<Rank*>(memory)) {
    seen = reinterpret_cast<Range*>(ranks + rows * capacity);
    __builtin_memset(ranks, 0, rows * capacity * sizeof(Rank));
    for (int64_t r = 0; r < rows; r++) seen[r] = {0, 0};
  }

  static int64_t size(const Largest& l, int64_t rows) {
    return rows * int64_t(round_up(l.count, 8) * sizeof(Rank) + sizeof(Range)) / int64_t(sizeof(float));
  }

  // Adds the numbers of row number r of a tile, which they do not survive.
  void add(const Scored& tile, int64_t r) const {
    Range& row_seen = seen[tile.at + r];
    const Range range{tile.keys.from, tile.keys.to};
    const int64_t known = minimum(range.to, tile.known);
    row_seen = {row_seen.from < row_seen.to ? row_seen.from : tile.first + range.from, tile.first + known};
    Rank* list = ranks + (tile.at + r) * capacity;
    float *numbers = tile.scores + r * block_keys, *sizes = numbers;
    alignas(64) float of_magnitude[block_keys];
    if (l.magnitude) {
      sizes = of_magnitude;
      for (int64_t j = range.from; j < range.to; j += Float::width) store(sizes + j, absolute(load(numbers + j)));
    }
    bool finite = true;
    for (int64_t j = range.from; j < range.to; j += Float::width) finite &= all_finite(load(sizes + j));
    for (int64_t j = range.from; j < known && !finite; j++) {  // nan stands above all numbers
      if (sizes[j] == sizes[j]) continue;
      insert(rank(__builtin_nanf(""), tile.first + j), list, capacity);
      sizes[j] = -infinity;
    }
    for (int64_t j = known; j < range.to; j++) sizes[j] = -infinity;
    Float tops = broadcast(-infinity);
    for (int64_t j = range.from; j < range.to; j += Float::width) tops = larger(tops, load(sizes + j));
    update_list(sizes, range, tile.first, largest(tops), list, l.count, capacity, l.magnitude ? numbers : nullptr);
  }

  // The results of row number r, which go to place `row`.
  void write(int64_t r, int64_t row) const {
    Rank* list = ranks + r * capacity;
    const Range held = seen[r];
    int64_t zeros = 0;  // the first keys that no tile held, as many as could be listed
    for (int64_t key = 0; key < keys && zeros < l.count; key++, zeros++) {
      if (key == held.from && held.from < held.to) key = held.to;
      if (key == keys || score_of(list[l.count - 1]) > 0) break;
      insert(rank(0, key), list, capacity);
    }
    for (int64_t k = 0; k < l.count; k++) {
      const int64_t at = row * l.count + k;
      const float size = list[k] ? score_of(list[k]) : -infinity;  // a number of −∞ is not listed
      l.values[at] = list[k] && is_negative(list[k]) ? -size : size;
      l.keys[at] = list[k] ? key_of(list[k]) : first_unranked_key(list, k);
    }
  }
};

template <class Lane>
void largest_in(const Scores& s, const Map& m, const Largest& l, int threads) {
  const Tiles<Lane> tiles{s, m};
  const int64_t pairs = tiles.pairs();
  const auto [count, block] = RowBlocks(s.queries);
  if (l.count == 0) return;
  for_each(count * pairs, threads, [&](int64_t item) {
    const int64_t pair = item % pairs, first_row = (count - 1 - item / pairs) * block;
    const int64_t rows = minimum(block, s.queries - first_row);
    if (rows <= 0) return;
    float* memory = thread_memory(tiles.size() + Lists::size(l, rows));
    const Lists lists(l, s.keys, rows, memory + tiles.size());
    tiles.visit(
        pair, first_row, rows, {0, s.keys}, memory, [](int64_t, int64_t) {},
        [&]<int n>(const Scored& tile) {
          for (int r = 0; r < n; r++) lists.add(tile, r);
        });
    for (int64_t r = 0; r < rows; r++) lists.write(r, pair * s.queries + first_row + r);
  });
}

}  // namespace
}  // namespace regard::REGARD_ISA
