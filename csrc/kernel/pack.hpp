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
constexpr T minimum(T a, T b) {
  return a < b ? a : b;
}
template <class T>
constexpr T maximum(T a, T b) {
  return a > b ? a : b;
}

constexpr int64_t size_of(Type type) { return type == Type::float32 ? 4 : 2; }

inline const char* at(const void* data, Type type, int64_t offset) {
  return static_cast<const char*>(data) + offset * size_of(type);
}

inline int64_t bytes_of(Type type) { return type == Type::float32 ? 4 : 2; }

// Asks memory for so many bytes that lie `ahead`: perhaps past the end, where nothing is read.
inline void ask_for(const char* data, int64_t ahead, int64_t bytes) {
  const uint64_t from = reinterpret_cast<uint64_t>(data) + uint64_t(ahead);
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(reinterpret_cast<const char*>(from + uint64_t(i)), 0, 2);
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
  return round_up((n + Lane::per_lane - 1) / Lane::per_lane, Lane::steps) * Lane::planes;
}

// The lane where number n begins, if it is on a border of them.
template <class Lane>
constexpr int64_t lane_of(int64_t n) {
  return n / Lane::per_lane * Lane::planes;
}

// nan where `sum` is, or where x is not finite; else 0.
inline Float nan_unless_finite(Float x, Float sum) { return multiply_add(x, broadcast(0.0f), sum); }
inline bool is_zero(Float sum) { return all_finite(sum); }

// Keys in whole vectors of lanes: what is computed of a panel that is not full.
template <class Lane>
constexpr int64_t border = Float::width * Lane::per_lane;

// Calls visit.operator()<vectors>(key) for the part of each panel that lies in from … to, both on borders.
template <class Visit>
inline __attribute__((always_inline)) void visit_panels(int64_t from, int64_t to, Visit&& visit) {
  for (int64_t key = from, end; key < to; key = end) {
    end = minimum(to, (key / panel_keys + 1) * panel_keys);
    with_constant<Float::tile_vectors>(int((end - key) / Float::width),
                                       [&]<int vectors>() { visit.template operator()<vectors>(key); });
  }
}

// Where a key lies in panels.
inline int64_t in_panels(int64_t key, int64_t lanes) {
  return key / panel_keys * panel_keys * lanes + key % panel_keys;
}

#ifdef REGARD_TILES
constexpr int64_t split_numbers = 2 * Float::width, split_lanes = lane_of<TiledTriple>(split_numbers);

// Numbers from the i-th on of a row of n, as many as a vector holds, and zeros.
inline Float load_numbers(const void* from, Type type, int64_t i, int64_t n) {
  const int64_t count = maximum<int64_t>(0, minimum<int64_t>(Float::width, n - i));
  if (type == Type::float32) return load_first(static_cast<const float*>(from) + i, count);
  alignas(64) float numbers[Float::width] = {};
  to_floats(at(from, type, i), type, numbers, count);
  return load(numbers);
}

// The three planes of so many lanes, each `step` floats after the other.
inline void store_split(float* to, int64_t step, Float first, Float second) {
  const Split parts = split(first, second);
  store(to, parts.high), store(to + step, parts.middle), store(to + 2 * step, parts.low);
}

// What pack_row, pack_keys and pack_values do for floats that are split. All return whether all numbers are finite.
inline bool split_row(const void* from, Type type, int64_t n, float* to, int64_t lanes) {
  Float sum = broadcast(0.0f);
  for (int64_t i = 0; lane_of<TiledTriple>(i) < lanes; i += split_numbers, to += split_lanes) {
    const Float first = load_numbers(from, type, i, n), second = load_numbers(from, type, i + Float::width, n);
    sum = nan_unless_finite(first, nan_unless_finite(second, sum));
    store_split(to, Float::width, first, second);
  }
  return is_zero(sum);
}

inline bool split_keys(const void* data, Type type, int64_t stride, int64_t rows, int64_t n, float* to) {
  constexpr int64_t width = Float::width;
  const int64_t lanes = lanes_of<TiledTriple>(n);
  alignas(64) float block[2 * width * width], numbers[width * width];
  Float sum = broadcast(0.0f);
  for (int64_t first = 0; first < round_up(rows, split_numbers); first += width) {
    const int64_t count = maximum<int64_t>(0, minimum(width, rows - first));
    float* panel = to + in_panels(first, lanes);
    for (int64_t i = 0; i < n; i += split_numbers, panel += split_lanes * panel_keys) {
      for (int64_t half = 0; half < 2; half++) {
        const int64_t from = i + half * width;
        const void* corner = at(data, type, first * stride + from);
        if (type == Type::float32 && count == width && n - from >= width) {
          transpose(static_cast<const float*>(corner), stride, block + half * width * width, width);
          continue;
        }
        for (int64_t r = 0; r < width; r++) {
          store(numbers + r * width,
                r < count ? load_numbers(at(corner, type, r * stride), type, 0, n - from) : broadcast(0.0f));
        }
        transpose(numbers, width, block + half * width * width, width);
      }
      for (int64_t lane = 0; lane < width; lane++) {
        const Float a = load(block + lane * width), b = load(block + (width + lane) * width);
        sum = nan_unless_finite(a, nan_unless_finite(b, sum));
        store_split(panel + lane * panel_keys, width * panel_keys, a, b);
      }
    }
  }
  return is_zero(sum);
}

inline bool split_values(const void* data, Type type, int64_t stride, int64_t rows, int64_t n, float* to,
                         int64_t width) {
  Float sum = broadcast(0.0f);
  for (int64_t first = 0; first < rows; first += split_numbers, to += split_lanes * width) {
    for (int64_t lane = 0; lane < Float::width; lane++) {
      const int64_t row = first + lane, other = row + Float::width;
      const void *a = at(data, type, row * stride), *b = at(data, type, other * stride);
      for (int64_t i = 0; i < width; i += Float::width) {
        const Float x = load_numbers(a, type, i, row < rows ? n : 0),
                    y = load_numbers(b, type, i, other < rows ? n : 0);
        sum = nan_unless_finite(x, nan_unless_finite(y, sum));
        store_split(to + lane * width + i, Float::width * width, x, y);
      }
    }
  }
  return is_zero(sum);
}
#endif

// One row of n numbers as lanes: bfloat16 stay what they are where a lane is a pair. Returns false where numbers that
// are not finite were split.
template <class Lane>
inline bool pack_row(const void* from, Type type, int64_t n, float* to, int64_t lanes) {
#ifdef REGARD_TILES
  if constexpr (Lane::planes > 1) return split_row(from, type, n, to, lanes);
#endif
  if (type == Type::float32) {
    const auto* numbers = static_cast<const float*>(from);
    int64_t i = 0;
    for (; i + Float::width <= n; i += Float::width) store(to + i, load(numbers + i));
    if (i < n) store_part(to + i, load_part(numbers + i, n - i), n - i);
    if (lanes > n) __builtin_memset(to + n, 0, (lanes - n) * sizeof(float));
  } else if constexpr (Lane::per_lane == 2) {
    __builtin_memcpy(to, from, n * sizeof(uint16_t));
    __builtin_memset(reinterpret_cast<char*>(to) + n * sizeof(uint16_t), 0,
                     lanes * sizeof(float) - n * sizeof(uint16_t));
  } else {
    to_floats(from, type, to, n);
    __builtin_memset(to + n, 0, (lanes - n) * sizeof(float));
  }
  return true;
}

// At most `width` rows of a part of their columns become columns, with zeros for the rows that are not there.
inline void transpose_part(const float* from, int64_t stride, int64_t rows, int64_t columns, float* to, int64_t step) {
  constexpr int64_t width = Float::width;
  if (rows == 1) {
    for (int64_t c = 0; c < columns; c++) store(to + c * step, load_part(from + c, 1));
    return;
  }
  float block[width * width], transposed[width * width];
  for (int64_t r = 0; r < width; r++) {
    const float* row = from + r * stride;
    store(block + r * width, r >= rows ? broadcast(0.0f) : columns < width ? load_part(row, columns) : load(row));
  }
  if (columns == width) return transpose(block, width, to, step);
  transpose(block, width, transposed, width);
  for (int64_t c = 0; c < columns; c++) store(to + c * step, load(transposed + c * width));
}

// Floats as panels, as pack_keys has them.
inline void pack_floats(const float* from, int64_t stride, int64_t rows, int64_t n, float* to) {
  constexpr int64_t width = Float::width;
  for (int64_t first = 0; first < rows; first += width, from += width * stride) {
    float* panel = to + in_panels(first, n);
    const int64_t count = minimum(width, rows - first);
    for (int64_t c = 0; c < n; c += width) {
      const int64_t columns = minimum(width, n - c);
      if (count == width && columns == width)
        transpose(from + c, stride, panel + c * panel_keys, panel_keys);
      else
        transpose_part(from + c, stride, count, columns, panel + c * panel_keys, panel_keys);
    }
  }
}

// Rows as panels: panel p holds `panel_keys` rows side by side, [lane][row], `lanes` steps; rows past the end, to the
// next border, are zeros. Returns false where numbers that are not finite were split.
template <class Lane>
inline bool pack_keys(const void* data, Type type, int64_t stride, int64_t rows, int64_t n, float* to, float* scratch) {
#ifdef REGARD_TILES
  if constexpr (Lane::planes > 1) return split_keys(data, type, stride, rows, n, to);
#endif
  if (type == Type::float32) {
    pack_floats(static_cast<const float*>(data), stride, rows, n, to);
    return true;
  }
  const int64_t lanes = lanes_of<Lane>(n), width = round_up(lanes, Float::width);
  const bool ready = n == width * Lane::per_lane && (Lane::per_lane == 2 || type == Type::float32);
  const int64_t row_lanes = stride / Lane::per_lane;
  for (int64_t first = 0; first < round_up(rows, border<Lane>); first += Float::width) {
    float* panel = to + in_panels(first, lanes);
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
  return true;
}

// The same, with zeros to the end of the last panel.
template <class Lane>
inline bool pack_panels(const void* data, Type type, int64_t stride, int64_t rows, int64_t n, float* to,
                        float* scratch) {
  const bool finite = pack_keys<Lane>(data, type, stride, rows, n, to, scratch);
  const int64_t lanes = lanes_of<Lane>(n);
  for (int64_t first = round_up(rows, border<Lane>); first % panel_keys != 0; first += Float::width) {
    float* panel = to + in_panels(first, lanes);
    for (int64_t c = 0; c < lanes; c++) store(panel + c * panel_keys, broadcast(0.0f));
  }
  return finite;
}

// Rows as they are summed over, [row lane][column]: `per_lane` rows to a lane, `width` columns, zeros beyond n and
// in the rest of the lanes. Returns whether all numbers are finite.
template <class Lane>
inline bool pack_values(const void* data, Type type, int64_t stride, int64_t rows, int64_t n, float* to,
                        int64_t width) {
#ifdef REGARD_TILES
  if constexpr (Lane::planes > 1) return split_values(data, type, stride, rows, n, to, width);
#endif
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
