// The numbers of a map gathered into cells: their sums, or the largest.

#pragma once

#include <cstdint>

#include "attention.hpp"
#include "map.hpp"
#include "memory.hpp"
#include "pack.hpp"
#include "parallel.hpp"
#include "rows.hpp"
#include "simd.hpp"

namespace regard::REGARD_ISA {
namespace {

// The larger of two numbers; nan if either is nan.
inline double larger_or_nan(double a, double b) { return b > a || b != b ? b : a; }

// What a cell holds before anything goes there.
inline double nothing(const Pool& c) { return c.largest ? -double(infinity) : 0; }

inline void gather(const Pool& c, double& cell, double number) {
  cell = c.largest ? larger_or_nan(cell, number) : cell + number;
}

// Consecutive rows of a cell are added up key by key, and only then, run by run of keys that share a cell, into the
// columns of cells.
struct Column {
  const Pool& c;
  double* cells;  // the first is of row cell `first_cell`
  int64_t first_cell;
  int64_t cell = -1, runs = 0;
  int64_t ends[block_keys], columns[block_keys];  // of each run
  Range filled{block_keys, 0};
  alignas(64) float sums[block_keys];
  Column(const Pool& c, double* cells, int64_t first_cell) : c(c), cells(cells), first_cell(first_cell) {}

  void begin(int64_t first, int64_t known) {
    flush();
    for (float& sum : sums) sum = float(nothing(c));
    runs = 0;
    for (int64_t j = 0; j < known; j++) {
      if (runs == 0 || c.column_cells[first + j] != columns[runs - 1]) columns[runs++] = c.column_cells[first + j];
      ends[runs - 1] = j + 1;
    }
  }

  void add(int64_t row_cells, const float* numbers, Range keys, int64_t known) {
    if (row_cells != cell) flush();
    cell = row_cells;
    if (cell < 0) return;
    filled = {minimum(filled.from, keys.from), maximum(filled.to, minimum(keys.to, known))};
    const Float infinite = broadcast(infinity);
    for (int64_t j = keys.from; j < keys.to; j += Float::width) {
      const Float so_far = load(sums + j), number = load(numbers + j);
      store(sums + j, c.largest ? where_at_most(so_far, infinite, larger(so_far, number), so_far)  // nan stays nan
                                : so_far + number);
    }
  }

  void flush() {
    if (filled.from >= filled.to) return;
    double* row = cells + (cell - first_cell) * c.columns;
    int64_t from = filled.from;
    for (int64_t run = 0; run < runs && from < filled.to; run++) {
      if (ends[run] <= from) continue;
      const int64_t to = minimum(ends[run], filled.to);
      if (columns[run] >= 0) gather(c, row[columns[run]], c.largest ? largest_of(from, to) : sum_of(from, to));
      from = to;
    }
    for (float& sum : sums) sum = float(nothing(c));
    filled = {block_keys, 0};
  }

 private:
  double sum_of(int64_t from, int64_t to) const {
    double sum = 0;
    for (int64_t j = from; j < to; j++) sum += sums[j];
    return sum;
  }
  double largest_of(int64_t from, int64_t to) const {
    float largest = -infinity;
    bool nan = false;
    for (int64_t j = from; j < to; j++) {
      largest = maximum(sums[j], largest);
      nan |= sums[j] != sums[j];
    }
    return nan ? __builtin_nan("") : double(largest);
  }
};

// The largest number of a cell is at least 0 where a pair of it is hidden, and 0 where it has no pairs. A cell has a
// pair beyond the spans, which no tile needs to hold, if any row of it starts after the first of its keys, or stops
// before the last.
inline void include_hidden(const Scores& s, const Pool& c, int64_t batch, int64_t heads, double* cells) {
  Memory memory(4 * (2 * c.rows + 2 * c.columns));
  auto* start = reinterpret_cast<int64_t*>(memory.data);  // the last start of a row of each cell, and the first stop
  int64_t *stop = start + c.rows, *first = stop + c.rows, *last = first + c.columns;
  for (int64_t r = 0; r < c.rows; r++) start[r] = -1, stop[r] = INT64_MAX;
  for (int64_t column = 0; column < c.columns; column++) first[column] = INT64_MAX, last[column] = -1;
  for (int64_t i = 0; i < s.queries; i++) {
    const int64_t r = c.row_cells[i];
    if (r < 0) continue;
    const Row row = row_of(s, HeadGroup{batch, 0, 0, 1}, i);
    const bool empty = row.start >= row.stop;
    start[r] = maximum(start[r], empty ? s.keys : row.start), stop[r] = minimum(stop[r], empty ? 0 : row.stop);
  }
  for (int64_t j = 0; j < s.keys; j++) {
    const int64_t column = c.column_cells[j];
    if (column >= 0) first[column] = minimum(first[column], j), last[column] = j;
  }
  for (int64_t n = 0; n < heads * c.rows; n++) {
    const int64_t r = n % c.rows;
    for (int64_t column = 0; column < c.columns; column++) {
      double& cell = cells[n * c.columns + column];
      if (start[r] < 0 || last[column] < 0)
        cell = 0;
      else if (first[column] < start[r] || last[column] >= stop[r])
        cell = larger_or_nan(0, cell);
    }
  }
}

// Bands of rows run in parallel, each with its own cells, from the smallest of its row cells to the largest; these are
// added up in order, so that the bits do not depend on the number of threads. Too much memory: a single band.
struct Bands {
  static constexpr int64_t largest_count = 16, largest_memory = int64_t(1) << 24;
  int64_t count, rows;
  int64_t lowest[largest_count], offset[largest_count + 1] = {};  // the first row cell, and where its cells begin
  bool apart;

  Bands(const Scores& s, const Pool& c, int64_t pairs) {
    const auto [wanted, wanted_rows] = RowBlocks(s.queries, maximum((s.queries * pairs + 31) / 32, block_rows));
    count = maximum<int64_t>(1, minimum(wanted, largest_count)),
    rows = round_up((s.queries + count - 1) / count, tile_rows);
    for (int64_t n = 0; n < count; n++) {
      int64_t low = c.rows, high = 0;
      for (int64_t r = n * rows; r < minimum(s.queries, (n + 1) * rows); r++) {
        if (c.row_cells[r] >= 0) low = minimum(low, c.row_cells[r]), high = maximum(high, c.row_cells[r] + 1);
      }
      lowest[n] = low, offset[n + 1] = offset[n] + maximum<int64_t>(0, high - low) * c.columns;
    }
    apart = count > 1 && pairs * offset[count] <= largest_memory;
    if (!apart) count = 1, rows = s.queries;
  }
};

template <class Lane>
void pool_in(const Scores& s, const Map& m, const Pool& c, int threads) {
  const Tiles<Lane> tiles{s, m};
  const int64_t pairs = tiles.pairs(), size = c.rows * c.columns;
  if (pairs == 0 || size == 0) return;
  const Bands bands(s, c, pairs);
  const int64_t band_cells = bands.offset[bands.apart ? bands.count : 0];
  Memory partial(2 * pairs * band_cells);
  auto* own = reinterpret_cast<double*>(partial.data);
  for_each(pairs * bands.count, threads, [&](int64_t item) {
    const int64_t pair = item % pairs, at = bands.count - 1 - item / pairs;
    double* cells = bands.apart ? own + pair * band_cells + bands.offset[at] : c.cells + pair * size;
    const int64_t count = bands.apart ? bands.offset[at + 1] - bands.offset[at] : size;
    for (int64_t i = 0; i < count; i++) cells[i] = nothing(c);
    Column column(c, cells, bands.apart ? bands.lowest[at] : 0);
    const int64_t end = minimum(s.queries, (at + 1) * bands.rows);
    for (int64_t row = at * bands.rows; row < end; row += block_rows) {
      tiles.visit(
          pair, row, minimum(block_rows, end - row), {0, s.keys}, thread_memory(tiles.size()),
          [&](int64_t first, int64_t known) { column.begin(first, known); },
          [&]<int n>(const Scored& tile) {
            for (int r = 0; r < n; r++)
              column.add(c.row_cells[tile.rows[r].query], tile.scores + r * block_keys, tile.keys, tile.known);
          });
      column.flush();
    }
  });
  for_each(bands.apart ? pairs : 0, threads, [&](int64_t pair) {
    for (int64_t i = 0; i < size; i++) c.cells[pair * size + i] = nothing(c);
    for (int64_t at = 0; at < bands.count; at++) {
      const double* from = own + pair * band_cells + bands.offset[at];
      double* to = c.cells + pair * size + bands.lowest[at] * c.columns;
      for (int64_t i = 0; i < bands.offset[at + 1] - bands.offset[at]; i++) gather(c, to[i], from[i]);
    }
  });
  if (!c.largest) return;
  for_each(s.batch, threads,
           [&](int64_t batch) { include_hidden(s, c, batch, tiles.heads(), c.cells + batch * tiles.heads() * size); });
}

}  // namespace
}  // namespace regard::REGARD_ISA
