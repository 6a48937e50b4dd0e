// Packs rows of any type and stride in the order in which the register tile reads them: in lanes, padded with zeros to
// whole vectors.

#pragma once

#include <cstdint>

#include "attention.hpp"
#include "simd.hpp"
#include "tile.hpp"

namespace regard::REGARD_ISA {
namespace {

constexpr int64_t panel_keys = Float::tile_vectors * Float::width;  // keys side by side in a panel

constexpr int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }
template <class T>
inline T minimum(T a, T b) {
  return a < b ? a : b;
}
template <class T>
inline T maximum(T a, T b) {
  return a > b ? a : b;
}

constexpr int64_t size_of(Type type) { return type == Type::float32 ? 4 : 2; }

inline const char* at(const void* data, Type type, int64_t offset) {
  return static_cast<const char*>(data) + offset * size_of(type);
}

// n numbers of a type as floats.
inline void to_floats(const void* from, Type type, float* to, int64_t n) {
  if (type == Type::float32) {
    __builtin_memcpy(to, from, n * sizeof(float));
    return;
  }
  const auto* half = static_cast<const uint16_t*>(from);
  const bool brain = type == Type::bfloat16;
  int64_t i = 0;
  for (; i + Float::width <= n; i += Float::width)
    store(to + i, brain ? load_bfloat16(half + i) : load_float16(half + i));
  if (i < n) {
    uint16_t rest[Float::width] = {};
    float wide[Float::width];
    __builtin_memcpy(rest, half + i, (n - i) * sizeof(uint16_t));
    store(wide, brain ? load_bfloat16(rest) : load_float16(rest));
    __builtin_memcpy(to + i, wide, (n - i) * sizeof(float));
  }
}

// n floats as numbers of a type.
inline void from_floats(const float* from, Type type, void* to, int64_t n) {
  if (type == Type::float32) {
    __builtin_memcpy(to, from, n * sizeof(float));
    return;
  }
  auto* half = static_cast<uint16_t*>(to);
  const bool brain = type == Type::bfloat16;
  int64_t i = 0;
  for (; i + Float::width <= n; i += Float::width) {
    brain ? store_bfloat16(half + i, load(from + i)) : store_float16(half + i, load(from + i));
  }
  if (i < n) {
    uint16_t rest[Float::width];
    float wide[Float::width] = {};
    __builtin_memcpy(wide, from + i, (n - i) * sizeof(float));
    brain ? store_bfloat16(rest, load(wide)) : store_float16(rest, load(wide));
    __builtin_memcpy(half + i, rest, (n - i) * sizeof(uint16_t));
  }
}

// Lanes that hold n numbers, the last of them with zeros: whole tiles, where products are of tiles.
template <class Lane>
constexpr int64_t lanes_of(int64_t n) {
  return round_up((n + Lane::per_lane - 1) / Lane::per_lane, Lane::steps);
}

// One row of n numbers as lanes: bfloat16 stay what they are where a lane is a pair.
template <class Lane>
inline void pack_row(const void* from, Type type, int64_t n, float* to, int64_t lanes) {
  if constexpr (Lane::per_lane == 2) {
    __builtin_memcpy(to, from, n * sizeof(uint16_t));
    __builtin_memset(reinterpret_cast<char*>(to) + n * sizeof(uint16_t), 0,
                     lanes * sizeof(float) - n * sizeof(uint16_t));
  } else {
    to_floats(from, type, to, n);
    __builtin_memset(to + n, 0, (lanes - n) * sizeof(float));
  }
}

// Rows as panels: panel p holds `panel_keys` rows side by side, [lane][row], `lanes` steps; rows past the end are
// zeros.
template <class Lane>
inline void pack_panels(const void* data, Type type, int64_t stride, int64_t rows, int64_t n, float* to,
                        float* scratch) {
  const int64_t lanes = lanes_of<Lane>(n), width = round_up(lanes, Float::width);
  const bool ready = n == width * Lane::per_lane && (Lane::per_lane == 2 || type == Type::float32);
  const int64_t row_lanes = stride / Lane::per_lane;
  for (int64_t first = 0; first < rows; first += Float::width) {
    float* panel = to + first / panel_keys * panel_keys * lanes + first % panel_keys;
    const float* from = reinterpret_cast<const float*>(at(data, type, first * stride));
    int64_t step = row_lanes;
    if (!ready || rows - first < Float::width || stride % Lane::per_lane != 0) {
      for (int64_t r = 0; r < Float::width; r++) {
        const int64_t row = first + r;
        if (row < rows)
          pack_row<Lane>(at(data, type, row * stride), type, n, scratch + r * width, width);
        else
          __builtin_memset(scratch + r * width, 0, width * sizeof(float));
      }
      from = scratch, step = width;
    }
    float block[Float::width * Float::width];
    for (int64_t c = 0; c < lanes; c += Float::width) {
      if (lanes - c >= Float::width) {
        transpose(from + c, step, panel + c * panel_keys, panel_keys);
      } else {
        transpose(from + c, step, block, Float::width);
        for (int64_t i = 0; i < lanes - c; i++) store(panel + (c + i) * panel_keys, load(block + i * Float::width));
      }
    }
  }
  const int64_t filled = round_up(rows, Float::width);
  for (int64_t first = filled; first % panel_keys != 0; first += Float::width) {
    float* panel = to + first / panel_keys * panel_keys * lanes + first % panel_keys;
    for (int64_t c = 0; c < lanes; c++) store(panel + c * panel_keys, broadcast(0.0f));
  }
}

// Rows as they are summed over, [row lane][column]: `per_lane` rows to a lane, `width` columns, zeros beyond n and
// in the rest of the lanes. Returns whether all numbers are finite.
template <class Lane>
inline bool pack_values(const void* data, Type type, int64_t stride, int64_t rows, int64_t n, float* to,
                        int64_t width) {
  bool finite = true;
#ifdef REGARD_PAIRS
  if constexpr (Lane::per_lane == 2) {
    uint16_t even[Float::width], odd[Float::width];
    for (int64_t row = 0; row < rows; row += 2) {
      const auto* first = reinterpret_cast<const uint16_t*>(at(data, type, row * stride));
      const auto* second = first + stride;
      const bool last = row + 1 == rows;
      float* line = to + row / 2 * width;
      int64_t i = 0;
      for (; i < width; i += Float::width) {
        const uint16_t *a = first + i, *b = second + i;
        const int64_t count = minimum<int64_t>(Float::width, n - i);
        if (last || count < Float::width) {
          __builtin_memset(even, 0, sizeof even);
          __builtin_memset(odd, 0, sizeof odd);
          if (count > 0) {
            __builtin_memcpy(even, a, count * sizeof(uint16_t));
            if (!last) __builtin_memcpy(odd, b, count * sizeof(uint16_t));
          }
          a = even, b = odd;
        }
        finite &= all_finite(load_bfloat16(a)) & all_finite(load_bfloat16(b));
        interleave(a, b, line + i);
      }
    }
    const int64_t filled = (rows + 1) / 2;
    __builtin_memset(to + filled * width, 0, (lanes_of<Lane>(rows) - filled) * width * sizeof(float));
    return finite;
  }
#endif
  for (int64_t row = 0; row < rows; row++) {
    float* line = to + row * width;
    const char* from = at(data, type, row * stride);
    const bool ready = type == Type::float32 && n == width;
    if (!ready) pack_row<Single>(from, type, n, line, width);
    for (int64_t i = 0; i < width; i += Float::width) {
      const Float vector = load((ready ? reinterpret_cast<const float*>(from) : line) + i);
      finite &= all_finite(vector);
      if (ready) store(line + i, vector);
    }
  }
  return finite;
}

}  // namespace
}  // namespace regard::REGARD_ISA
