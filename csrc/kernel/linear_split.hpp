// Linear layers of floats in the tile registers. A float is the sum of three bfloat16, so a product of floats is the
// sum of six products of them, and three more that are below its last digit: six products of tiles take less than half
// the time of the one of floats. A tile's products are summed up before they are added, so that fewer roundings follow
// one another than in a chain of floats.
//
// While the tile unit multiplies, the vector units do all the rest: they split the weights and the rows that come next,
// and store the sums that are ready: a little between any two products, as the processor looks but a few hundred
// instructions ahead. The weights stay floats in memory, where few rows make reading them the limit. With numbers that
// fill all digits the tile unit itself slows down, to four fifths of its peak with zeros.
//
// Tiles flush what is below 2^-126 to zero: of a number below 2^-110 the last digits may be lost.

#pragma once

#include <cstdint>

#include "attention.hpp"
#include "epilogue.hpp"
#include "linear.hpp"
#include "memory.hpp"
#include "pack.hpp"
#include "simd.hpp"
#include "small_query.hpp"
#include "tile.hpp"

#ifdef REGARD_TILES

namespace regard::REGARD_ISA {
namespace {

constexpr int64_t tile_floats = TileRegisters::rows * TileRegisters::lanes;
constexpr int64_t step_inputs = 2 * TileRegisters::lanes, step_floats = 3 * tile_floats;  // of a step of the sums
constexpr int64_t block_side = 2 * TileRegisters::rows;  // rows, and columns, of the sums in registers
constexpr int64_t turns = 6;                             // of products, a step
enum Term : int { high, middle, low };

// Split numbers: tiles of a step side by side, and how far it is to the next of two tiles of rows or columns.
struct SplitTiles {
  float* data;
  int64_t apart;
};

// One step of sums of two tiles of rows, or of one, and two tiles of columns. In this order each product needs one side
// anew. Between them meanwhile<0>() and meanwhile<1>() are called, in turn.
template <int row_tiles, class Meanwhile>
inline __attribute__((always_inline)) void multiply_split_step(SplitTiles a, SplitTiles b, Meanwhile&& meanwhile) {
  const auto tile = [&]<int number>(const float* from) { load_tile<number>(from, TileRegisters::lanes); };
  const auto rows = [&]<Term term>() {
    tile.template operator()<4>(a.data + term * tile_floats);
    multiply_add_tiles<0, 4, 6>(), multiply_add_tiles<1, 4, 7>();
    meanwhile.template operator()<0>();
    if constexpr (row_tiles > 1) {
      tile.template operator()<5>(a.data + a.apart + term * tile_floats);
      multiply_add_tiles<2, 5, 6>(), multiply_add_tiles<3, 5, 7>();
    }
    meanwhile.template operator()<1>();
  };
  const auto columns = [&]<Term term>() {
    tile.template operator()<6>(b.data + term * tile_floats), multiply_add_tiles<0, 4, 6>();
    if constexpr (row_tiles > 1) multiply_add_tiles<2, 5, 6>();
    meanwhile.template operator()<0>();
    tile.template operator()<7>(b.data + b.apart + term * tile_floats), multiply_add_tiles<1, 4, 7>();
    if constexpr (row_tiles > 1) multiply_add_tiles<3, 5, 7>();
    meanwhile.template operator()<1>();
  };
  tile.template operator()<4>(a.data + high * tile_floats);
  if constexpr (row_tiles > 1) tile.template operator()<5>(a.data + a.apart + high * tile_floats);
  columns.template operator()<low>(), columns.template operator()<middle>(), rows.template operator()<middle>();
  columns.template operator()<high>(), rows.template operator()<high>(), rows.template operator()<low>();
}

// sums = Σ A · B, or more of what they are, of (block_side,block_side). meanwhile<0>() and meanwhile<1>() are called
// `turns` times a step each.
template <int row_tiles, class Meanwhile>
inline void multiply_split(SplitTiles a, SplitTiles b, int64_t steps, bool more, float* sums, Meanwhile&& meanwhile) {
  const auto with_sums = [&](auto&& work) {
    work.template operator()<0>(sums), work.template operator()<1>(sums + Float::width);
    if constexpr (row_tiles > 1) {
      float* below = sums + TileRegisters::rows * block_side;
      work.template operator()<2>(below), work.template operator()<3>(below + Float::width);
    }
  };
  if (more)
    with_sums([]<int tile>(float* at) { load_tile<tile>(at, block_side); });
  else
    with_sums([]<int tile>(float*) { zero_tile<tile>(); });
  for (int64_t step = 0; step < steps; step++, a.data += step_floats, b.data += step_floats)
    multiply_split_step<row_tiles>(a, b, meanwhile);
  with_sums([]<int tile>(float* at) { store_tile<tile>(at, block_side); });
}

// Pieces of work that are done so many at a time, until none is left: that pattern is one that branches are predicted
// by.
class Pieces {
 public:
  Pieces(int64_t pieces, int64_t turns) : pieces(pieces), at_once((pieces + turns - 1) / turns) {}

  template <class Work>
  inline __attribute__((always_inline)) void next(Work&& work) {
    for (const int64_t end = minimum(pieces, done + at_once); done < end; done++) work(uint32_t(done));
  }

 private:
  int64_t pieces, at_once, done = 0;
};

inline void store_split(Split numbers, float* to) {
  store(to + high * tile_floats, numbers.high);
  store(to + middle * tile_floats, numbers.middle);
  store(to + low * tile_floats, numbers.low);
}

template <Type type>
struct SplitLayer {
  const Linear& l;
  const Epilogue<type> epilogue{l};
  const int64_t panels = (l.outputs + panel_keys - 1) / panel_keys;
  // Inputs are summed up in equal pieces, of which rows and columns stay in the second cache.
  const int64_t all_steps = (l.inputs + step_inputs - 1) / step_inputs, pieces = (all_steps + 31) / 32;
  const int64_t piece_steps = (all_steps + pieces - 1) / pieces;

  float* all_weights = nullptr;  // split, of all columns; null where they are split when they are needed

  void multiply_rows(int64_t first, int64_t last, int64_t begin, int64_t end) const;

  int64_t column_blocks() const { return (l.outputs + block_side - 1) / block_side; }
  SplitTiles split_weights(int64_t block) const {
    return {all_weights + 2 * block * all_steps * step_floats, all_steps * step_floats};
  }

  // A line of the tiles of a block of columns: of an input, and of one that shares lanes with it.
  inline __attribute__((always_inline)) void split_line(int64_t block, int64_t step, int64_t line,
                                                        SplitTiles to) const {
    const int64_t input = step * step_inputs + line, other = input + TileRegisters::lanes;
    const float* const from = l.weight + in_panels(block * block_side, l.inputs);
    for (int64_t i = 0; i < block_side; i += Float::width, to.data += to.apart) {
      const auto part = [&](int64_t k) { return k < l.inputs ? load(from + k * panel_keys + i) : broadcast(0.0f); };
      store_split(split(part(input), part(other)), to.data + line * Float::width);
    }
  }
  void split_columns(int64_t block) const {
    SplitTiles to = split_weights(block);
    for (int64_t step = 0; step < all_steps; step++, to.data += step_floats)
      for (int64_t line = 0; line < TileRegisters::rows; line++) split_line(block, step, line, to);
  }
};

// Rows [first, last) of the columns of panels, on one thread.
template <Type type>
class SplitBlock {
 public:
  SplitBlock(const SplitLayer<type>& layer, int64_t first, int64_t last, int64_t begin, int64_t end)
      : layer(layer), first(first), last(last), first_column(begin * panel_keys) {
    const int64_t tile = layer.piece_steps * step_floats, sums_floats = block_side * block_side;
    rows = (last - first + block_side - 1) / block_side;
    columns = (minimum(end * panel_keys, layer.l.outputs) - first_column + block_side - 1) / block_side;
    kept = layer.pieces > 1 ? rows * columns : 2;
    a = thread_memory(2 * (rows + 2) * tile + kept * sums_floats);
    b[0] = a + 2 * rows * tile, b[1] = b[0] + 2 * tile, sums = b[1] + 2 * tile;
  }

  void multiply() {
    const TileRegisters registers;
    for (from = 0; from < layer.all_steps; from += steps) {
      steps = minimum(layer.piece_steps, layer.all_steps - from);
      multiply_piece();
    }
    for (uint32_t r = 0; r < minimum(block_side, last - ready_row); r++) store_row(r);
  }

 private:
  void multiply_piece() {
    for (uint32_t n = 0; n < steps * block_side; n++) split_row(0, n);
    const int64_t lines = layer.all_weights ? 0 : steps * TileRegisters::rows;
    for (uint32_t n = 0; n < lines; n++) split_line(0, n);
    for (int64_t column = 0; column < columns; column++) {
      Pieces to_split(column + 1 < columns ? lines : 0, rows * steps * turns);
      for (int64_t row = 0; row < rows; row++) {
        Pieces outputs(ready ? minimum(block_side, last - ready_row) : 0, steps * turns);
        Pieces numbers(column == 0 && row + 1 < rows ? steps * block_side : 0, steps * turns);
        const auto meanwhile = [&]<int turn>() {
          if constexpr (turn == 0) {
            outputs.next([&](uint32_t n) { store_row(n); });
          } else {
            to_split.next([&](uint32_t n) { split_line(column + 1, n); });
            numbers.next([&](uint32_t n) { split_row(row + 1, n); });
          }
        };
        float* const to = sums + (column * rows + row) % kept * block_side * block_side;
        const SplitTiles left{a + 2 * row * steps * step_floats, steps * step_floats}, right = weights(column);
        if (last - first - row * block_side > TileRegisters::rows)
          multiply_split<2>(left, right, steps, from > 0, to, meanwhile);
        else
          multiply_split<1>(left, right, steps, from > 0, to, meanwhile);
        if (from + steps == layer.all_steps)
          ready = to, ready_row = first + row * block_side, ready_column = first_column + column * block_side;
      }
    }
  }

  // Of a block of rows, the n-th row of those of all steps.
  void split_row(int64_t block, uint32_t n) {
    const int64_t r = block * block_side + n % block_side, step = n / block_side;
    if (r >= last - first) return;
    const int64_t input = (from + step) * step_inputs, count = layer.l.inputs - input;
    const char* numbers = at(layer.l.x.data, type, (first + r) * layer.l.x.row + input);
    float* to = a + ((r >> 4) * steps + step) * step_floats + (r & 15) * Float::width;
    if (count >= step_inputs)
      return store_split(split(load_as<type>(numbers, 0), load_as<type>(numbers, Float::width)), to);
    const auto part = [&](int64_t skipped) {
      const int64_t rest = minimum<int64_t>(Float::width, count - skipped);
      return rest > 0 ? load_first_as<type>(numbers, skipped, rest) : broadcast(0.0f);
    };
    store_split(split(part(0), part(Float::width)), to);
  }

  // Of a block of columns, the n-th line of those of all steps.
  void split_line(int64_t block, uint32_t n) {
    SplitTiles to = weights(block);
    const int64_t step = n / TileRegisters::rows;
    to.data += step * step_floats;
    layer.split_line(first_column / block_side + block, from + step, n % TileRegisters::rows, to);
  }

  // Of the piece.
  SplitTiles weights(int64_t block) const {
    if (!layer.all_weights) return {b[block % 2], steps * step_floats};
    SplitTiles tiles = layer.split_weights(first_column / block_side + block);
    tiles.data += from * step_floats;
    return tiles;
  }

  // A row of the sums that are ready.
  void store_row(uint32_t r) {
    Float sum[1][2] = {{load(ready + r * block_side), load(ready + r * block_side + Float::width)}};
    if (!(all_finite(sum[0][0]) & all_finite(sum[0][1]))) multiply_floats(ready_row + r, sum);
    if (layer.l.outputs - ready_column >= block_side)
      return layer.epilogue.store_whole(sum, ready_row + r, ready_column);
    for (int n = 0; n < 2; n++) layer.epilogue.store_outputs(sum, ready_row + r, ready_column + n * Float::width, n);
  }

  // As without tiles, in floats: ∞ has no lower digits, ∞ − ∞ is nan.
  __attribute__((noinline)) void multiply_floats(int64_t row, Float (&sum)[1][2]) const {
    const Linear& l = layer.l;
    const float* const weight = l.weight + in_panels(ready_column, l.inputs);
    constexpr int64_t piece = 256;
    float numbers[piece];
    sum[0][0] = sum[0][1] = broadcast(0.0f);
    for (int64_t k = 0; k < l.inputs; k += piece) {
      const int64_t count = minimum(piece, l.inputs - k);
      to_floats(at(l.x.data, type, row * l.x.row + k), type, numbers, count);
      REGARD_ISA::multiply<Single>(Left{numbers, 0, 1}, Right{weight + k * panel_keys, panel_keys}, count, sum);
    }
  }

  const SplitLayer<type>& layer;
  const int64_t first, last, first_column;
  int64_t rows, columns, kept;   // blocks of rows and of columns; blocks of sums in memory
  int64_t from = 0, steps = 0;   // of the piece
  float *a, *b[2], *sums;        // split rows and columns: tiles of a step, of all steps, of all blocks
  const float* ready = nullptr;  // sums that were not stored yet
  int64_t ready_row = 0, ready_column = 0;
};

template <Type type>
void SplitLayer<type>::multiply_rows(int64_t first, int64_t last, int64_t begin, int64_t end) const {
  SplitBlock<type>(*this, first, last, begin, end).multiply();
}

template <Type type>
void split_linear_in(const Linear& l, int threads) {
  if (l.rows == 0) return;
  SplitLayer<type> layer{l};
  if (l.rows >= 16 * block_side) {  // each weight is read so often that it is better split once
    layer.all_weights = thread_memory<1>(2 * layer.column_blocks() * layer.all_steps * step_floats);
    for_each(layer.column_blocks(), threads, [&](int64_t block) { layer.split_columns(block); });
  }
  const int64_t row_floats = layer.piece_steps * step_floats / TileRegisters::rows;
  const int64_t most = maximum<int64_t>(1, minimum<int64_t>(16, second_cache() / 2 / row_floats / block_side));
  const int64_t rows = most * block_side;
  const int64_t blocks = round_up((l.rows + rows - 1) / rows, threads);  // as many for each thread
  multiply_in_blocks(layer, minimum(rows, round_up((l.rows + blocks - 1) / blocks, block_side)), threads);
}

}  // namespace
}  // namespace regard::REGARD_ISA

#endif
