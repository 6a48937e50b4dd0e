// Linear layers with the activation, residual and layer norm that follow them in an encoder, while the sums are still
// in the cache. A row is summed up in the same order whatever rows are beside it.

#pragma once

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

template <class Lane, Type type>
struct Layer {
  const Linear& l;
  const Epilogue<type> epilogue{l};
  const int64_t lanes = lanes_of<Lane>(l.inputs), panels = (l.outputs + panel_keys - 1) / panel_keys;

  // Rows [first, last) of panels [begin, end).
  void multiply_rows(int64_t first, int64_t last, int64_t begin, int64_t end) const {
    const bool aligned = reinterpret_cast<uintptr_t>(l.x.data) % sizeof(float) == 0;
    const bool ready = aligned && l.inputs == lanes * Lane::per_lane && l.x.row % Lane::per_lane == 0 &&
                       (Lane::per_lane == 2 || type == Type::float32);
    const float* x = reinterpret_cast<const float*>(at(l.x.data, type, first * l.x.row));
    int64_t step = l.x.row / Lane::per_lane;
    if (!ready) {
      float* packed = thread_memory((last - first) * lanes);
      for (int64_t r = first; r < last; r++)
        pack_row<Lane>(at(l.x.data, type, r * l.x.row), type, l.inputs, packed + (r - first) * lanes, lanes);
      x = packed, step = lanes;
    }
    for (int64_t panel = begin; panel < end; panel++) {
      const Right weight{l.weight + panel * panel_keys * lanes, panel_keys};
      for (int64_t r = first; r < last; r += Float::tile_rows) {
        with_constant<Float::tile_rows>(int(minimum<int64_t>(Float::tile_rows, last - r)), [&]<int rows>() {
          Float sum[rows][Float::tile_vectors];
          for (auto& of_row : sum)
            for (Float& vector : of_row) vector = broadcast(0.0f);
          const Left left{x + (r - first) * step, step, 1};
          if (last - first <= 2 * Float::tile_rows)  // weights are read once or twice: memory is the limit, so prefetch
            multiply<Lane, rows, Float::tile_vectors, 32>(left, weight, lanes, sum);
          else
            multiply<Lane, rows, Float::tile_vectors>(left, weight, lanes, sum);
          for (int n = 0; n < Float::tile_vectors; n++)
            epilogue.store_outputs(sum, r, panel * panel_keys + n * Float::width, n);
        });
      }
    }
  }
};

// Blocks of rows stay in the core's cache while all panels pass by; where blocks are few, threads share the panels of a
// block, and the norm follows when all are done.
template <class Layer>
void multiply_in_blocks(const Layer& layer, int64_t rows, int threads) {
  const Linear& l = layer.l;
  const int64_t blocks = (l.rows + rows - 1) / rows;
  const int64_t shares = blocks >= 4 * threads ? 1 : minimum(layer.panels, (4 * threads + blocks - 1) / blocks);
  const auto norm = [&](int64_t block) {
    for (int64_t row = block * rows; row < minimum(l.rows, (block + 1) * rows); row++) layer.epilogue.norm_row(row);
  };
  for_each(blocks * shares, threads, [&](int64_t item) {
    const int64_t block = item / shares, share = item % shares;
    layer.multiply_rows(block * rows, minimum(l.rows, (block + 1) * rows), layer.panels * share / shares,
                        layer.panels * (share + 1) / shares);
    if (l.gain && shares == 1) norm(block);
  });
  if (l.gain && shares > 1) for_each(blocks, threads, norm);
}

template <class Lane, Type type>
void linear_in(const Linear& l, int threads) {
  if (l.rows == 0) return;
  const Layer<Lane, type> layer{l};
  constexpr int64_t tile = Float::tile_rows;
  multiply_in_blocks(layer, maximum(4 * tile, minimum(16 * tile, (int64_t(1) << 16) / layer.lanes / tile * tile)),
                     threads);
}

}  // namespace
}  // namespace regard::REGARD_ISA
