// Linear layers with the activation, residual and layer norm that follow them in an encoder, while the sums are still
// in the cache. A row is summed up in the same order whatever rows are beside it.

#pragma once

#include <unistd.h>

#include <cstdint>

#include "attention.hpp"
#include "epilogue.hpp"
#include "memory.hpp"
#include "pack.hpp"
#include "parallel.hpp"
#include "simd.hpp"
#include "small_query.hpp"
#include "tile.hpp"

namespace regard::REGARD_ISA {
namespace {

// Where rows are many, the weights come from the second cache for every tile, and its bandwidth is the limit: a tall
// tile asks for half as much of them as a wide one, with as many sums in registers.
constexpr int tall_rows = Float::tile_vectors == 4 ? 14 : Float::tile_rows, tall_vectors = 2;
constexpr int64_t most_inputs = 1536;  // of a pass, in lanes

// sums[r][n] += Σ_k A[r,k] · B[k,n]. What is needed 32 steps later of A, and a line a step from `next` on, are fetched.
template <class Lane, int rows, int vectors>
inline void multiply_tall(const float* a, int64_t row, Right b, const float* next, int64_t steps,
                          Float (&sums)[rows][vectors]) {
  constexpr int line = 16;  // floats
  Float own[rows][vectors];
#pragma GCC unroll 16
  for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
    for (int n = 0; n < vectors; n++) own[r][n] = sums[r][n];
  }
  for (int64_t k = 0; k < steps; k++) {
    __builtin_prefetch(a + k % line * row + k / line * line + 2 * line);
    __builtin_prefetch(next + k * b.step, 0, 2);
    Float column[vectors];
#pragma GCC unroll 4
    for (int n = 0; n < vectors; n++) column[n] = load(b.data + k * b.step + n * Float::width);
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
      const Float number = broadcast(a + r * row + k);
#pragma GCC unroll 4
      for (int n = 0; n < vectors; n++) own[r][n] = Lane::multiply_add(number, column[n], own[r][n]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
    for (int n = 0; n < vectors; n++) sums[r][n] = own[r][n];
  }
}

template <class Lane, Type type>
struct Layer {
  const Linear& l;
  const Epilogue<type> epilogue{l};
  const int64_t lanes = lanes_of<Lane>(l.inputs), panels = (l.outputs + panel_keys - 1) / panel_keys;

  // Rows [first, last) of panels [begin, end).
  void multiply_rows(int64_t first, int64_t last, int64_t begin, int64_t end) const {
    const bool aligned = reinterpret_cast<uintptr_t>(l.x.data) % sizeof(float) == 0;
    const bool ready = aligned && l.inputs == lanes * Lane::per_lane && l.x.row % Lane::per_lane == 0 &&
                       (Lane::per_lane == 2 || type == Type::float32) &&
                       (Lane::steps == 1 || (last - first) % rows_at_once<Lane> == 0);
    const float* x = reinterpret_cast<const float*>(at(l.x.data, type, first * l.x.row));
    int64_t step = l.x.row / Lane::per_lane;
    // Rows a power of two apart would share a few sets of the first cache, and push one another out.
    const bool crowded = Lane::steps == 1 && step % 256 == 0 && last - first >= tall_rows;
    if (!ready || crowded) {
      step = crowded && lanes % 256 == 0 ? lanes + 16 : lanes;
      float* packed = thread_memory(round_up(last - first, rows_at_once<Lane>) * step);
      for (int64_t r = first; r < last; r++)
        pack_row<Lane>(at(l.x.data, type, r * l.x.row), type, l.inputs, packed + (r - first) * step, lanes);
      x = packed;
    }
#ifdef REGARD_TILES
    if constexpr (Lane::steps > 1) return multiply_in_tiles(x, step, first, last, begin, end);
#endif
    const int64_t tall = Lane::steps == 1 ? (last - first) / tall_rows * tall_rows : 0;
    if constexpr (Lane::steps == 1) {
      const int64_t piece = inputs_at_once();
      for (int64_t from = 0; from < lanes && tall > 0; from += piece)
        for (int64_t panel = begin; panel < end; panel++)
          multiply_tall_tiles(x + from, step, first, first + tall, panel, from, minimum(lanes, from + piece));
    }
    for (int64_t panel = begin; panel < end; panel++)
      multiply_wide_tiles(x + tall * step, step, first + tall, last, panel);
  }

  // So few that the rows of a block and a panel stay in the second cache; the sums so far wait where the output will
  // be.
  int64_t inputs_at_once() const {
    const bool kept = epilogue.sums && l.outputs % (tall_vectors * Float::width) == 0;
    return kept ? most_inputs : lanes;
  }

  // Lanes [from, to) of whole tall tiles of rows; columns of the panel in turn, as many as such a tile has.
  void multiply_tall_tiles(const float* x, int64_t step, int64_t first, int64_t last, int64_t panel, int64_t from,
                           int64_t to) const {
    constexpr int64_t columns = tall_vectors * Float::width, line = 16;
    const float* panel_data = l.weight + (panel * lanes + from) * panel_keys;
    for (int64_t column = 0; column < minimum(panel_keys, l.outputs - panel * panel_keys); column += columns) {
      const Right weight{panel_data + column, panel_keys};
      const float* following = column + columns < panel_keys ? weight.data + columns : panel_data + panel_keys * lanes;
      for (int64_t r = first; r < last; r += tall_rows) {
        const int64_t lines = (r - first) / tall_rows * line;  // one a step: the first tiles fetch all that follow
        const int64_t output = panel * panel_keys + column;
        if (to == lanes) epilogue.template prefetch<tall_rows, tall_vectors>(r, output);
        Float sum[tall_rows][tall_vectors];
        epilogue.start(sum, r, output, from > 0);
        multiply_tall<Lane>(x + (r - first) * step, step, weight, lines < columns ? following + lines : weight.data,
                            to - from, sum);
        for (int n = 0; n < tall_vectors; n++) {
          if (to == lanes)
            epilogue.store_outputs(sum, r, output + n * Float::width, n);
          else
            epilogue.keep(sum, r, output + n * Float::width, n);
        }
      }
    }
  }

  void multiply_wide_tiles(const float* x, int64_t step, int64_t first, int64_t last, int64_t panel) const {
    const Right weight{l.weight + panel * panel_keys * lanes, panel_keys};
    for (int64_t r = first; r < last; r += Float::tile_rows) {
      with_constant<Float::tile_rows>(int(minimum<int64_t>(Float::tile_rows, last - r)), [&]<int rows>() {
        Float sum[rows][Float::tile_vectors];
        for (auto& of_row : sum)
          for (Float& vector : of_row) vector = broadcast(0.0f);
        const Left left{x + (r - first) * step, step, 1};
        if (l.rows <= 2 * Float::tile_rows)  // weights are read once or twice: memory is the limit, so prefetch
          multiply<Lane, rows, Float::tile_vectors, 32>(left, weight, lanes, sum);
        else
          multiply<Lane, rows, Float::tile_vectors>(left, weight, lanes, sum);
        for (int n = 0; n < Float::tile_vectors; n++)
          epilogue.store_outputs(sum, r, panel * panel_keys + n * Float::width, n);
      });
    }
  }

#ifdef REGARD_TILES
  // Half a panel at a time, which stays in the first-level cache while all rows pass by. What follows the sums of a
  // block happens while the tile unit multiplies the next.
  void multiply_in_tiles(const float* x, int64_t step, int64_t first, int64_t last, int64_t begin, int64_t end) const {
    constexpr int rows = TileRegisters::rows, vectors = 2, width = vectors * Float::width;
    const TileRegisters registers;
    alignas(64) float sums[2][2 * rows * width];
    const float* ready = nullptr;
    int64_t ready_row = 0, ready_column = 0;
    const auto store_ready = [&] {
      if (ready) store_block(int(minimum<int64_t>(2 * rows, last - ready_row)), ready_row, ready_column, ready);
    };
    int turn = 0;
    for (int64_t column = begin * panel_keys; column < minimum(end * panel_keys, l.outputs); column += width) {
      const Right weight{l.weight + column / panel_keys * panel_keys * lanes + column % panel_keys, panel_keys};
      for (int64_t r = first; r < last; r += 2 * rows, turn = 1 - turn) {
        const Left left{x + (r - first) * step, step, 1};
        if (last - r > rows)
          REGARD_ISA::multiply_in_tiles<vectors, 2>(left, weight, lanes, sums[turn], width);
        else
          REGARD_ISA::multiply_in_tiles<vectors>(left, weight, lanes, sums[turn], width);
        store_ready();
        ready = sums[turn], ready_row = r, ready_column = column;
      }
    }
    store_ready();
  }

  // The outputs of a block of rows and two vectors of columns.
  void store_block(int rows, int64_t first, int64_t column, const float* sum) const {
    const bool plain = !l.gain && !l.residual.data && l.outputs - column >= 2 * Float::width;
    if (plain) return store_plain_outputs(rows, first, column, sum);
    for (int r = 0; r < rows; r++, sum += 2 * Float::width) {
      const Float vectors[1][Float::tile_vectors] = {{load(sum), load(sum + Float::width)}};
      for (int n = 0; n < 2; n++) epilogue.store_outputs(vectors, first + r, column + n * Float::width, n);
    }
  }

  // Bias and activation for two vectors of columns, which are one of bfloat16.
  void store_plain_outputs(int rows, int64_t first, int64_t column, const float* sum) const {
    const Float low = load(l.bias + column), high = load(l.bias + column + Float::width);
    for (int r = 0; r < rows; r++, sum += 2 * Float::width) {
      store_bfloat16(reinterpret_cast<uint16_t*>(epilogue.output(first + r, column)),
                     activated(l.activation, load(sum) + low),
                     activated(l.activation, load(sum + Float::width) + high));
    }
  }
#endif
};

// Blocks of rows stay in the core's cache while all panels pass by; where blocks are few, threads share the panels of a
// block, and the norm follows when all are done.
template <class Layer>
void multiply_in_blocks(const Layer& layer, int64_t rows, int threads) {
  const Linear& l = layer.l;
  const int64_t blocks = (l.rows + rows - 1) / rows;
  const int64_t shares = blocks >= 4 * threads ? 1 : minimum(layer.panels, (4 * threads + blocks - 1) / blocks);
  const auto norm = [&](int64_t block) { layer.epilogue.norm_rows(block * rows, minimum(l.rows, (block + 1) * rows)); };
  for_each(blocks * shares, threads, [&](int64_t item) {
    const int64_t block = item / shares, share = item % shares;
    layer.multiply_rows(block * rows, minimum(l.rows, (block + 1) * rows), layer.panels * share / shares,
                        layer.panels * (share + 1) / shares);
    if (l.gain && shares == 1) norm(block);
  });
  if (l.gain && shares > 1) for_each(blocks, threads, norm);
}

// Floats that the core's second cache holds.
inline int64_t second_cache() {
#ifdef _SC_LEVEL2_CACHE_SIZE
  static const int64_t bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
  if (bytes > 0) return bytes / int64_t(sizeof(float));
#endif
  return int64_t(1) << 17;
}

template <class Lane, Type type>
void linear_in(const Linear& l, int threads) {
  if (l.rows == 0) return;
  const Layer<Lane, type> layer{l};
  if constexpr (Lane::steps > 1) {
    constexpr int64_t tile = rows_at_once<Lane>;
    const int64_t rows = maximum(4 * tile, minimum(16 * tile, (int64_t(1) << 16) / layer.lanes / tile * tile));
    return multiply_in_blocks(layer, rows, threads);
  }
  constexpr int64_t tile = tall_rows;
  const int64_t most = maximum(2 * tile, minimum(12 * tile, second_cache() / 3 / layer.inputs_at_once() / tile * tile));
  const int64_t blocks = round_up((l.rows + most - 1) / most, threads);  // as many for each thread
  multiply_in_blocks(layer, minimum(most, round_up((l.rows + blocks - 1) / blocks, tile)), threads);
}

}  // namespace
}  // namespace regard::REGARD_ISA
