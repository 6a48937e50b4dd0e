// A diagonal of a map: as many rows at a time as there are keys in a panel, and as many keys.

#pragma once

#include <cstdint>

#include "attention.hpp"
#include "map.hpp"
#include "memory.hpp"
#include "pack.hpp"
#include "parallel.hpp"
#include "rows.hpp"

namespace regard::REGARD_ISA {
namespace {

template <class Lane>
void diagonal_in(const Scores& s, const Map& m, const Diagonal& d, int threads) {
  const Tiles<Lane> tiles{s, m};
  constexpr int64_t together = 4 * panel_keys;  // of a thread's turn
  const int64_t pairs = tiles.pairs(), turns = (d.count + together - 1) / together;
  for_each(turns * pairs, threads, [&](int64_t item) {
    const int64_t pair = item / turns, from = item % turns * together, to = minimum(from + together, d.count);
    float* memory = thread_memory(tiles.size());
    float* numbers = d.numbers + pair * d.count;
    for (int64_t at = from; at < to; at += panel_keys) {
      const int64_t rows = minimum(panel_keys, to - at), first_key = d.first_column + at;
      for (int64_t r = 0; r < rows; r++) numbers[at + r] = 0;
      tiles.visit(
          pair, d.first_row + at, rows, {first_key, first_key + rows}, memory, [](int64_t, int64_t) {},
          [&]<int n>(const Scored& tile) {
            for (int r = 0; r < n; r++) {
              const int64_t key = first_key + tile.at + r - tile.first;
              if (key >= tile.keys.from && key < minimum(tile.keys.to, tile.known))
                numbers[at + tile.at + r] = tile.scores[r * block_keys + key];
            }
          });
    }
  });
}

}  // namespace
}  // namespace regard::REGARD_ISA
