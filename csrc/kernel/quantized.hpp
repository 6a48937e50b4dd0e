// Linear layers in whole numbers: bytes are multiplied, four at a time where the processor can, and summed up in 32
// bits without rounding. What comes in is rounded here, each row by its own largest and smallest number, so that its
// result depends on no other row; what follows the sums is the epilogue of all linear layers, in float32.

#pragma once

#include <cstdint>

#include "attention.hpp"
#include "epilogue.hpp"
#include "linear.hpp"
#include "memory.hpp"
#include "pack.hpp"
#include "simd.hpp"
#include "tile.hpp"

namespace regard::REGARD_ISA {
namespace {

struct Words {  // a lane is two whole numbers of 16 bits: half as fast as four bytes, and on any processor
  using Left = int16_t;
  using Right = int16_t;
  static constexpr int per_lane = 2, steps = 1, planes = 1;  // steps: lanes at once
  static constexpr float shift = 0;
  static Float multiply_add(Float a, Float b, Float c) { return multiply_add_words(a, b, c); }
};

#ifdef REGARD_QUADS
struct Quads {  // a lane is four bytes
  using Left = uint8_t;
  using Right = int8_t;
  static constexpr int per_lane = 4, steps = 1, planes = 1;
  static constexpr float shift = quads_shift;
  static Float multiply_add(Float a, Float b, Float c) { return multiply_add_quads(a, b, c); }
};
#endif

#ifdef REGARD_TILES
struct TiledQuads : Quads {  // sixteen lanes of sixteen rows in a tile register
  static constexpr int steps = TileRegisters::lanes;
};
#endif

// The lane that this processor multiplies fastest.
template <class Work>
void with_bytes(Work&& work) {
#ifdef REGARD_TILES
  work.template operator()<TiledQuads>();
  return;
#endif
#ifdef REGARD_QUADS
  if (has_quads()) return work.template operator()<Quads>();
#endif
  work.template operator()<Words>();
}

template <class Lane>
constexpr int64_t quantized_lanes(int64_t inputs) {
  return round_up(lanes_of<Lane>(inputs), Lane::steps);
}

// q (outputs,inputs) as panels: [lane][output][place in the lane], zeros beyond outputs and inputs.
template <class Lane>
void pack_whole(int64_t outputs, int64_t inputs, const int8_t* weight, void* to) {
  const int64_t lanes = quantized_lanes<Lane>(inputs);
  auto* packed = static_cast<typename Lane::Right*>(to);
  for (int64_t panel = 0; panel < outputs; panel += panel_keys) {
    for (int64_t lane = 0; lane < lanes; lane++) {
      for (int64_t o = panel; o < panel + panel_keys; o++) {
        for (int64_t i = lane * Lane::per_lane; i < (lane + 1) * Lane::per_lane; i++)
          *packed++ = o < outputs && i < inputs ? weight[o * inputs + i] : 0;
      }
    }
  }
}

struct Rounding {
  float step, zero;
};

// Rounds n numbers of a row, each times its factor, to step · (q_i − zero). 0 stays 0.
template <class Number>
Rounding round_row(const float* x, const float* factors, int64_t n, Number* to) {
  const auto vector = [&](int64_t i) {
    const auto part = [&](const float* from) {
      return load_up_to<Type::float32>(reinterpret_cast<const char*>(from + i), n - i);
    };
    return factors ? part(x) * part(factors) : part(x);
  };
  const Float none = broadcast(0.0f);
  Float high = none, negative = none, finite = none;  // the largest, that of −x, and 0 or nan
  for (int64_t i = 0; i < n; i += Float::width) {
    const Float numbers = vector(i);
    high = larger(high, numbers), negative = larger(negative, none - numbers);
    finite = multiply_add(numbers, none, finite);
  }
  const float top = largest(high), bottom = -largest(negative);
  if (sum(finite) != 0.0f) return {__builtin_nanf(""), 0.0f};       // what lies at `to` does not matter
  const float step = maximum(top / 255 - bottom / 255, 0x1p-126f);  // which leaves 1 / step finite
  const float inverse = 1 / step, zero = __builtin_nearbyintf(-bottom * inverse);
  for (int64_t i = 0; i < n; i += Float::width) {
    const Float q = multiply_add(vector(i), broadcast(inverse), broadcast(zero));
    if (n - i >= Float::width) {
      store_rounded(to + i, q);
    } else {
      Number rest[Float::width];
      store_rounded(rest, q);
      __builtin_memcpy(to + i, rest, size_t(n - i) * sizeof(Number));
    }
  }
  return {step, zero};
}

#ifdef REGARD_TILES
template <int sum, int a, int b>
inline void multiply_add_bytes() {
  asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sum), "i"(a), "i"(b));
}

// C[r,n] = Σ_k A[r,k] · B[k,n] for 32 rows and two vectors of columns, each of the four tiles read used twice.
inline void multiply_bytes_in_tiles(Left a, Right b, int64_t lanes, float* c, int64_t stride) {
  constexpr int64_t rows = TileRegisters::rows;
  zero_tile<0>(), zero_tile<1>(), zero_tile<2>(), zero_tile<3>();
  for (int64_t k = 0; k < lanes; k += TileRegisters::lanes) {
    load_tile<4>(a.data + k, a.row), load_tile<6>(b.data + k * b.step, b.step);
    multiply_add_bytes<0, 4, 6>();
    load_tile<7>(b.data + k * b.step + Float::width, b.step), multiply_add_bytes<1, 4, 7>();
    load_tile<5>(a.data + rows * a.row + k, a.row), multiply_add_bytes<2, 5, 6>();
    multiply_add_bytes<3, 5, 7>();
  }
  store_tile<0>(c, stride), store_tile<1>(c + Float::width, stride);
  store_tile<2>(c + rows * stride, stride), store_tile<3>(c + rows * stride + Float::width, stride);
}
#endif

template <class Lane>
struct QuantizedLayer {
  const Linear& l;
  const Quantized& w;
  const Epilogue<Type::float32> epilogue{l};
  const int64_t lanes = quantized_lanes<Lane>(l.inputs), panels = (l.outputs + panel_keys - 1) / panel_keys;
  static constexpr int64_t rows_at_once = Lane::steps > 1 ? 32 : Float::tile_rows;

  // Rows [first, last) of panels [begin, end).
  void multiply_rows(int64_t first, int64_t last, int64_t begin, int64_t end) const {
    const int64_t count = last - first, room = round_up(count, rows_at_once);
    float* const memory = thread_memory(room * (lanes + 2));
    auto* const roundings = reinterpret_cast<Rounding*>(memory + room * lanes);
    for (int64_t r = 0; r < count; r++) {
      auto* to = reinterpret_cast<typename Lane::Left*>(memory + r * lanes);
      roundings[r] = round_row(static_cast<const float*>(l.x.data) + (first + r) * l.x.row, w.factors, l.inputs, to);
      for (int64_t i = l.inputs; i < lanes * Lane::per_lane; i++) to[i] = 0;
    }
    [[maybe_unused]] const WithTiles<Lane> registers;
    for (int64_t panel = begin; panel < end; panel++) {
      const Right weight{static_cast<const float*>(w.weight) + panel * panel_keys * lanes, panel_keys};
      for (int64_t r = 0; r < count; r += rows_at_once) {
        const Left left{memory + r * lanes, lanes, 1};
        multiply_block(left, weight, minimum(rows_at_once, count - r), roundings + r, first + r, panel * panel_keys);
      }
    }
  }

  // A few rows of a panel.
  void multiply_block(Left left, Right weight, int64_t count, const Rounding* roundings, int64_t row,
                      int64_t column) const {
#ifdef REGARD_TILES
    if constexpr (Lane::steps > 1) {
      alignas(64) float tile[rows_at_once][panel_keys];
      for (int64_t n = 0; n < panel_keys; n += 2 * Float::width)
        multiply_bytes_in_tiles(left, {weight.data + n, weight.step}, lanes, tile[0] + n, panel_keys);
      for (int64_t r = 0; r < count; r += Float::tile_rows) {
        with_constant<Float::tile_rows>(int(minimum<int64_t>(Float::tile_rows, count - r)), [&]<int rows>() {
          Float sum[rows][Float::tile_vectors];
          for (int i = 0; i < rows; i++)
            for (int n = 0; n < Float::tile_vectors; n++) sum[i][n] = load(tile[r + i] + n * Float::width);
          finish(sum, roundings + r, row + r, column);
        });
      }
      return;
    } else
#endif
      with_constant<Float::tile_rows>(int(count), [&]<int rows>() {
        Float sum[rows][Float::tile_vectors];
        for (auto& of_row : sum)
          for (Float& vector : of_row) vector = broadcast(0.0f);  // the bits of a whole 0 too
        multiply<Lane, rows, Float::tile_vectors>(left, weight, lanes, sum);
        finish(sum, roundings, row, column);
      });
  }

  // From whole sums to outputs, for a panel of columns.
  template <int rows>
  void finish(Float (&sum)[rows][Float::tile_vectors], const Rounding* roundings, int64_t row, int64_t column) const {
    for (int n = 0; n < Float::tile_vectors && column + n * Float::width < l.outputs; n++) {
      dequantize(sum, roundings, column + n * Float::width, n);
      epilogue.store_outputs(sum, row, column + n * Float::width, n);
    }
  }

  // Sums of whole numbers become those of x and W.
  template <int rows>
  void dequantize(Float (&sum)[rows][Float::tile_vectors], const Rounding* roundings, int64_t column, int n) const {
    const auto vector = [&](const float* from) {
      return load_up_to<Type::float32>(reinterpret_cast<const char*>(from + column), l.outputs - column);
    };
    const Float scale = vector(w.scales), total = vector(w.totals);
    for (int r = 0; r < rows; r++) {
      const Float zero = broadcast(Lane::shift - roundings[r].zero), step = broadcast(roundings[r].step);
      sum[r][n] = multiply_add(zero, total, from_int32(sum[r][n])) * (step * scale);
    }
  }
};

template <class Lane>
void quantized_in(const Linear& l, const Quantized& w, int threads) {
  if (l.rows == 0) return;
  multiply_in_blocks(QuantizedLayer<Lane>{l, w}, 16 * Float::tile_rows, threads);
}

}  // namespace
}  // namespace regard::REGARD_ISA
