// The weights, recomputed from scores and lse: tiles of the matrix, and the matrix pooled into cells.

#pragma once

#include <cstdint>

#include "attention.hpp"
#include "memory.hpp"
#include "pack.hpp"
#include "parallel.hpp"
#include "rows.hpp"
#include "simd.hpp"
#include "small_query.hpp"

namespace regard::REGARD_ISA {
namespace {

template <class Lane>
void tile_in(const Scores& s, const Tile& t, int threads) {
  const Blocks<Lane> blocks{s, is_small_query(s)};
  const auto [count, block] = RowBlocks(t.rows);
  const int64_t pairs = s.batch * s.heads;
  if (t.columns == 0) return;
  for_each(count * pairs, threads, [&](int64_t item) {
    const int64_t pair = item % pairs, first_row = item / pairs * block, rows = minimum(block, t.rows - first_row);
    if (rows <= 0) return;
    const HeadGroup group = head_group(s, pair, 1);
    float* weights = t.weights + (pair * t.rows + first_row) * t.columns;
    __builtin_memset(weights, 0, rows * t.columns * sizeof(float));
    const double* lse = t.lse + pair * s.queries + t.first_row + first_row;
    const Range columns{t.first_column, t.first_column + t.columns};
    blocks.visit(
        group, t.first_row + first_row, rows, columns, thread_memory(blocks.size()), [](int64_t, int64_t) {},
        [&]<int n>(const Scored& tile) {
          const Range keys{tile.keys.from, minimum(tile.keys.to, tile.known)};
          for (int r = 0; r < n; r++) {
            float* score = tile.scores + r * block_keys;
            weigh(score, tile.keys, to_powers(s), lse[tile.at + r]);
            float* to = weights + (tile.at + r) * t.columns + tile.first - t.first_column;
            __builtin_memcpy(to + keys.from, score + keys.from, (keys.to - keys.from) * sizeof(float));
          }
        });
  });
}

// The larger of two numbers; nan if either is nan.
inline double larger_or_nan(double a, double b) { return b > a || b != b ? b : a; }

// Consecutive rows of a cell are added up key by key, and only then into the columns of cells.
struct Column {
  const Pool& c;
  double* cells;  // the first is of row cell `first_cell`
  int64_t first_cell;
  int64_t cell = -1, first = 0;
  Range filled{block_keys, 0};
  alignas(64) float sums[block_keys];
  Column(const Pool& c, double* cells, int64_t first_cell) : c(c), cells(cells), first_cell(first_cell) {}

  void begin(int64_t first_key) {
    flush();
    first = first_key;
    for (float& sum : sums) sum = 0;
  }

  void add(int64_t row_cells, const float* weights, Range keys, int64_t known) {
    if (row_cells != cell) flush();
    cell = row_cells;
    if (cell < 0) return;
    filled = {minimum(filled.from, keys.from), maximum(filled.to, minimum(keys.to, known))};
    for (int64_t j = keys.from; j < keys.to; j += Float::width) {
      const Float so_far = load(sums + j), weight = load(weights + j);
      if (!c.largest)
        store(sums + j, so_far + weight);
      else
        store(sums + j, multiply_add(so_far, broadcast(0.0f), larger(so_far, weight)));  // nan if either is nan
    }
  }

  void flush() {
    if (filled.from >= filled.to) return;
    double* row = cells + (cell - first_cell) * c.columns;
    for (int64_t j = filled.from; j < filled.to;) {  // a run of columns of one cell at a time
      const int64_t column = c.column_cells[first + j];
      double gathered = 0;
      do {
        gathered = c.largest ? larger_or_nan(gathered, sums[j]) : gathered + sums[j];
        sums[j++] = 0;
      } while (j < filled.to && c.column_cells[first + j] == column);
      if (column >= 0) row[column] = c.largest ? larger_or_nan(row[column], gathered) : row[column] + gathered;
    }
    filled = {block_keys, 0};
  }
};

template <class Lane>
void pool_in(const Scores& s, const Pool& c, int threads) {
  const Blocks<Lane> blocks{s, is_small_query(s)};
  const int64_t pairs = s.batch * s.heads, size = c.rows * c.columns;
  if (pairs == 0 || size == 0) return;

  // Bands of rows run in parallel, each with its own cells, from the smallest of its row cells to the largest; these
  // are added up in order, so that the bits do not depend on the number of threads. Too much memory: a single band.
  constexpr int64_t largest_bands = 16, largest_memory = int64_t(1) << 24;
  const auto [wanted, wanted_rows] = RowBlocks(s.queries, maximum((s.queries * pairs + 31) / 32, block_rows));
  int64_t bands = maximum<int64_t>(1, minimum(wanted, largest_bands)),
          band = round_up((s.queries + bands - 1) / bands, tile_rows);
  int64_t lowest[largest_bands], offset[largest_bands + 1] = {};
  for (int64_t n = 0; n < bands; n++) {
    int64_t low = c.rows, high = 0;
    for (int64_t r = n * band; r < minimum(s.queries, (n + 1) * band); r++) {
      if (c.row_cells[r] >= 0) low = minimum(low, c.row_cells[r]), high = maximum(high, c.row_cells[r] + 1);
    }
    lowest[n] = low, offset[n + 1] = offset[n] + maximum<int64_t>(0, high - low) * c.columns;
  }
  const bool apart = bands > 1 && pairs * offset[bands] <= largest_memory;
  if (!apart) bands = 1, band = s.queries;
  Memory partial(apart ? 2 * pairs * offset[bands] : 0);
  auto* own = reinterpret_cast<double*>(partial.data);

  for_each(pairs * bands, threads, [&](int64_t item) {
    const int64_t pair = item % pairs, at = bands - 1 - item / pairs;
    double* cells = apart ? own + pair * offset[bands] + offset[at] : c.cells + pair * size;
    __builtin_memset(cells, 0, (apart ? offset[at + 1] - offset[at] : size) * sizeof(double));
    Column column(c, cells, apart ? lowest[at] : 0);
    for (int64_t row = at * band; row < minimum(s.queries, (at + 1) * band); row += block_rows) {
      const int64_t rows = minimum(block_rows, minimum(s.queries, (at + 1) * band) - row);
      const double* lse = c.lse + pair * s.queries + row;
      blocks.visit(
          head_group(s, pair, 1), row, rows, {0, s.keys}, thread_memory(blocks.size()),
          [&](int64_t first, int64_t) { column.begin(first); },
          [&]<int n>(const Scored& tile) {
            for (int r = 0; r < n; r++) {
              float* score = tile.scores + r * block_keys;
              weigh(score, tile.keys, to_powers(s), lse[tile.at + r]);
              column.add(c.row_cells[tile.rows[r].query], score, tile.keys, tile.known);
            }
          });
      column.flush();
    }
  });
  if (!apart) return;
  for_each(pairs, threads, [&](int64_t pair) {
    __builtin_memset(c.cells + pair * size, 0, size * sizeof(double));
    for (int64_t at = 0; at < bands; at++) {
      const double* from = own + pair * offset[bands] + offset[at];
      double* to = c.cells + pair * size + lowest[at] * c.columns;
      for (int64_t i = 0; i < offset[at + 1] - offset[at]; i++) {
        to[i] = c.largest ? larger_or_nan(to[i], from[i]) : to[i] + from[i];
      }
    }
  });
}

}  // namespace
}  // namespace regard::REGARD_ISA
