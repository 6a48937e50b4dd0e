// Linear layers with the activation, residual and layer norm that follow them in an encoder, while the sums are still
// in the cache. A row is summed up in the same order whatever rows are beside it.

#pragma once

#include <cstdint>

#include "attention.hpp"
#include "exponential.hpp"
#include "memory.hpp"
#include "pack.hpp"
#include "parallel.hpp"
#include "simd.hpp"
#include "small_query.hpp"
#include "tile.hpp"

namespace regard::REGARD_ISA {
namespace {

// x/2 · (1 + erf(x/√2)), within 1e-6 of max(1, |x|). Of the polynomials of degree 13 in x², the one with the least
// error of the result for |x| ≤ 5.25, beyond which erf is 1.
inline Float gelu(Float x) {
  const Float half = x * broadcast(0.5f), size = absolute(x), limit = broadcast(5.25f);
  const Float bounded = where_at_most(size, limit, size, limit);
  const Float at = multiply_add(bounded * bounded, broadcast(0x1.293726p-4f), broadcast(-1.0f));  // −1 ≤ at ≤ 1
  Float y = multiply_add(broadcast(-0x1.d88824p-11f), at, broadcast(0x1.6514bcp-9f));
  y = multiply_add(y, at, broadcast(-0x1.a898bap-9f));
  y = multiply_add(y, at, broadcast(0x1.14d76ap-8f));
  y = multiply_add(y, at, broadcast(-0x1.3c5866p-7f));
  y = multiply_add(y, at, broadcast(0x1.21a8b6p-6f));
  y = multiply_add(y, at, broadcast(-0x1.acf348p-6f));
  y = multiply_add(y, at, broadcast(0x1.2de1e8p-5f));
  y = multiply_add(y, at, broadcast(-0x1.99089p-5f));
  y = multiply_add(y, at, broadcast(0x1.0683c8p-4f));
  y = multiply_add(y, at, broadcast(-0x1.45ce4ap-4f));
  y = multiply_add(y, at, broadcast(0x1.96b184p-4f));
  y = multiply_add(y, at, broadcast(-0x1.12f356p-3f));
  y = multiply_add(y, at, broadcast(0x1.13c848p-2f));
  return multiply_add(absolute(half), bounded * y, half);
}

// x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))
inline Float gelu_tanh(Float x) {
  const Float inner = multiply_add(x * x, broadcast(0.0356774081f), broadcast(0.7978845608f)) * x;
  const Float half = x * broadcast(0.5f);
  return multiply_add(half, tanh(inner), half);
}

inline Float activated(Activation activation, Float x) {
  switch (activation) {
    case Activation::gelu:
      return gelu(x);
    case Activation::gelu_tanh:
      return gelu_tanh(x);
    case Activation::relu:
      return where_at_most(x, broadcast(0.0f), broadcast(0.0f), x);
    case Activation::none:
      break;
  }
  return x;
}

// `count` numbers of a row, at most a vector.
template <Type type>
inline Float load_up_to(const char* from, int64_t count) {
  if (count >= Float::width) return load_as<type>(from, 0);
  float numbers[Float::width] = {};
  to_floats(from, type, numbers, count);
  return load(numbers);
}
template <Type type>
inline void store_up_to(Float x, char* to, int64_t count) {
  if (count < Float::width) {
    float numbers[Float::width];
    store(numbers, x);
    return from_floats(numbers, type, to, count);
  }
  if constexpr (type == Type::float32) store(reinterpret_cast<float*>(to), x);
  if constexpr (type == Type::bfloat16) store_bfloat16(reinterpret_cast<uint16_t*>(to), x);
  if constexpr (type == Type::float16) store_float16(reinterpret_cast<uint16_t*>(to), x);
}

template <class Lane, Type type>
struct Layer {
  const Linear& l;
  const int64_t lanes = lanes_of<Lane>(l.inputs), panels = (l.outputs + panel_keys - 1) / panel_keys;
  // Where a norm follows, the sums are kept in float32 for it, in the output itself if that is float32.
  const bool in_place = type == Type::float32;
  float* const sums = in_place ? static_cast<float*>(l.output.data) : l.sums;
  const int64_t sums_row = in_place ? l.output.row : l.outputs;

  // Rows [first, last) of panels [begin, end).
  void multiply_rows(int64_t first, int64_t last, int64_t begin, int64_t end) const {
    const bool aligned = reinterpret_cast<uintptr_t>(l.x.data) % sizeof(float) == 0;
    const bool ready = aligned && l.inputs == lanes * Lane::per_lane && l.x.row % Lane::per_lane == 0 &&
                       (Lane::per_lane == 2 || type == Type::float32) &&
                       (Lane::steps == 1 || (last - first) % rows_at_once<Lane> == 0);
    const float* x = reinterpret_cast<const float*>(at(l.x.data, type, first * l.x.row));
    int64_t step = l.x.row / Lane::per_lane;
    if (!ready) {
      float* packed = thread_memory(round_up(last - first, rows_at_once<Lane>) * lanes);
      for (int64_t r = first; r < last; r++)
        pack_row<Lane>(at(l.x.data, type, r * l.x.row), type, l.inputs, packed + (r - first) * lanes, lanes);
      x = packed, step = lanes;
    }
#ifdef REGARD_TILES
    if constexpr (Lane::steps > 1) return multiply_in_tiles(x, step, first, last, begin, end);
#endif
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
            store_outputs(rows, r, panel * panel_keys + n * Float::width, [&](int i) { return sum[i][n]; });
        });
      }
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
    if (!l.gain && !l.residual.data && l.outputs - column >= 2 * Float::width)
      return store_plain_outputs(rows, first, column, sum);
    for (int n = 0; n < 2; n++, sum += Float::width)
      store_outputs(rows, first, column + n * Float::width, [&](int i) { return load(sum + i * 2 * Float::width); });
  }

  // Bias and activation for two vectors of columns, which are one of bfloat16.
  void store_plain_outputs(int rows, int64_t first, int64_t column, const float* sum) const {
    const Float low = load(l.bias + column), high = load(l.bias + column + Float::width);
    for (int r = 0; r < rows; r++, sum += 2 * Float::width) {
      store_bfloat16(reinterpret_cast<uint16_t*>(output(first + r, column)), activated(l.activation, load(sum) + low),
                     activated(l.activation, load(sum + Float::width) + high));
    }
  }
#endif

  // Bias, activation and residual, for a vector of columns; sum(r) of row first + r.
  template <class Sum>
  void store_outputs(int rows, int64_t first, int64_t column, Sum&& sum) const {
    const int64_t count = l.outputs - column;
    if (count <= 0) return;
    const Float bias = load_up_to<Type::float32>(reinterpret_cast<const char*>(l.bias + column), count);
    for (int r = 0; r < rows; r++) {
      const int64_t row = first + r;
      Float y = activated(l.activation, sum(r) + bias);
      if (l.residual.data) y = y + load_up_to<type>(at(l.residual.data, type, row * l.residual.row + column), count);
      if (l.gain)
        store_up_to<Type::float32>(y, reinterpret_cast<char*>(sums + row * sums_row + column), count);
      else
        store_up_to<type>(y, output(row, column), count);
    }
  }

  // (x − mean) / √(variance + ε) · gain + shift
  void norm_row(int64_t row) const {
    const char* x = reinterpret_cast<const char*>(sums + row * sums_row);
    const auto vector = [&](const void* from, int64_t i) {
      return load_up_to<Type::float32>(static_cast<const char*>(from) + i * 4, l.outputs - i);
    };
    const auto average = [&](auto&& term) {
      Float total = broadcast(0.0f);
      int64_t i = 0;
      for (; i + Float::width <= l.outputs; i += Float::width) total = total + term(vector(x, i));
      float rest[Float::width] = {};
      if (i < l.outputs) store_up_to<Type::float32>(term(vector(x, i)), reinterpret_cast<char*>(rest), l.outputs - i);
      return sum(total + load(rest)) / float(l.outputs);
    };
    const Float mean = broadcast(average([](Float x) { return x; }));
    const float variance = average([&](Float x) { return (x - mean) * (x - mean); });
    const Float factor = broadcast(1.0f / __builtin_sqrtf(variance + l.epsilon));
    for (int64_t i = 0; i < l.outputs; i += Float::width) {
      const Float y = multiply_add((vector(x, i) - mean) * factor, vector(l.gain, i), vector(l.shift, i));
      store_up_to<type>(y, output(row, i), l.outputs - i);
    }
  }

  char* output(int64_t row, int64_t column) const {
    return const_cast<char*>(at(l.output.data, type, row * l.output.row + column));
  }
};

// Blocks of rows stay in the core's cache while all panels pass by; where blocks are few, threads share the panels of a
// block, and the norm follows when all are done.
template <class Lane, Type type>
void linear_in(const Linear& l, int threads) {
  if (l.rows == 0) return;
  const Layer<Lane, type> layer{l};
  constexpr int64_t tile = rows_at_once<Lane>;
  const int64_t rows = maximum(4 * tile, minimum(16 * tile, (int64_t(1) << 16) / layer.lanes / tile * tile));
  const int64_t blocks = (l.rows + rows - 1) / rows;
  const int64_t shares = blocks >= 4 * threads ? 1 : minimum(layer.panels, (4 * threads + blocks - 1) / blocks);
  const auto norm = [&](int64_t block) {
    for (int64_t row = block * rows; row < minimum(l.rows, (block + 1) * rows); row++) layer.norm_row(row);
  };
  for_each(blocks * shares, threads, [&](int64_t item) {
    const int64_t block = item / shares, share = item % shares;
    layer.multiply_rows(block * rows, minimum(l.rows, (block + 1) * rows), layer.panels * share / shares,
                        layer.panels * (share + 1) / shares);
    if (l.gain && shares == 1) norm(block);
  });
  if (l.gain && shares > 1) for_each(blocks, threads, norm);
}

}  // namespace
}  // namespace regard::REGARD_ISA
