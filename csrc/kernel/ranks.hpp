// The largest numbers of a row with their keys, in a sorted list to which a few keys at a time are added.

#pragma once

#include <cstdint>

#include "exponential.hpp"
#include "pack.hpp"
#include "rows.hpp"
#include "simd.hpp"

namespace regard::REGARD_ISA {
namespace {

// A score and its key as a single number, ordered by score and, for equal scores, by key, the lower first. 0 is less
// than all of them. The last bit, which decides nothing, keeps a sign that the score has lost.
using Rank = uint64_t;

inline Rank rank(float score, int64_t key, bool negative = false) {
  uint32_t bits;
  score += 0.0f;  // −0 equals 0
  __builtin_memcpy(&bits, &score, 4);
  bits = bits >> 31 ? ~bits : bits | uint32_t(1) << 31;
  return Rank(bits) << 32 | uint32_t(~key) << 1 | uint32_t(negative);
}
inline float score_of(Rank rank) {
  uint32_t bits = uint32_t(rank >> 32);
  bits = bits >> 31 ? bits & ~(uint32_t(1) << 31) : ~bits;
  float score;
  __builtin_memcpy(&score, &bits, 4);
  return score;
}
inline int64_t key_of(Rank rank) { return uint32_t(~rank) >> 1; }
inline bool is_negative(Rank rank) { return rank & 1; }

// Inserts into a descending list of a multiple of eight, whose last number is dropped. Place i becomes the larger of
// what it held and the smaller of the newcomer and what place i − 1 held: without branches, which would be
// mispredicted.
inline void insert(Rank newcomer, Rank* list, int64_t count) {
  using Eight = Rank __attribute__((vector_size(64), aligned(8)));
  for (int64_t i = count - 8; i >= 0; i -= 8) {
    const Eight current = *reinterpret_cast<Eight*>(list + i);
    const Eight previous = i > 0 ? *reinterpret_cast<Eight*>(list + i - 8) : ~Eight{};
    Eight before = __builtin_shufflevector(previous, current, 7, 8, 9, 10, 11, 12, 13, 14);
    before = before < newcomer ? before : newcomer;
    *reinterpret_cast<Eight*>(list + i) = current > before ? current : before;
  }
}

// Sorts each lane of as many vectors as they have lanes, the largest first: Batcher's odd-even merge sort, from runs of
// `run` sorted vectors on.
template <int run = 1, int step = run>
inline __attribute__((always_inline)) void sort_lanes(Float* x) {
  if constexpr (run < Float::width) {
#pragma GCC unroll 16
    for (int i = step % run; i + step < Float::width; i++) {
      if ((i - step % run) / step % 2 || i / (2 * run) != (i + step) / (2 * run)) continue;
      const Float less = smaller(x[i], x[i + step]);
      x[i] = larger(x[i], x[i + step]), x[i + step] = less;
    }
    if constexpr (step > 1)
      sort_lanes<run, step / 2>(x);
    else
      sort_lanes<2 * run>(x);
  }
}

// For each of `rows` ≤ Float::width rows a score that at least `count` of its keys reach: the count-th of the maxima of
// the lanes.
__attribute__((noinline)) inline void lower_bounds(int rows, const float* score, Range keys, int64_t count,
                                                   float* bounds) {
  constexpr int width = Float::width;
  if (count > width) return store(bounds, broadcast(-infinity));
  alignas(64) float maxima[width * width], of_rows[width * width];
  for (int i = 0; i < width; i++)
    store(maxima + i * width, largest_of(score + minimum(i, rows - 1) * block_keys, keys));
  transpose(maxima, width, of_rows, width);
  Float sorted[width];
#pragma GCC unroll 16
  for (int i = 0; i < width; i++) sorted[i] = load(of_rows + i * width);
  sort_lanes(sorted);
#pragma GCC unroll 16
  for (int i = 0; i < width; i++) store(of_rows + i * width, sorted[i]);
  store(bounds, load(of_rows + (count - 1) * width));
}

// The keys of a row that may belong into its list, by their places in the block.
struct Candidates {
  int64_t count = 0;
  uint16_t places[block_keys + 3];

  // Those at `from` + i where bit i is set. More than three are rare: three are written without a branch, which would
  // be mispredicted.
  void add(uint64_t bits, int64_t from) {
    uint16_t* to = places + count;
    count += __builtin_popcountll(bits);
    for (int i = 0; i < 3; i++, bits &= bits - 1) *to++ = uint16_t(from + __builtin_ctzll(bits | uint64_t(1) << 63));
    for (; bits; bits &= bits - 1) *to++ = uint16_t(from + __builtin_ctzll(bits));
  }
};

// The keys whose scores are above the limit.
inline void find_candidates(const float* score, Range keys, float limit, Candidates& found) {
  const Float least = broadcast(limit);
  for (int64_t j = keys.from; j < keys.to; j += 64) {
    uint64_t bits = 0;
    const auto look = [&](int64_t i) { bits |= uint64_t(greater(load(score + j + i), least)) << i; };
    if (keys.to - j >= 64) {
#pragma GCC unroll 16
      for (int64_t i = 0; i < 64; i += Float::width) look(i);
    } else {
      for (int64_t i = 0; i < keys.to - j; i += Float::width) look(i);
    }
    found.add(bits, j);
  }
}

// For each of `rows` rows of a tile, with their lists `capacity` apart, the score that a candidate exceeds.
inline void find_limits(int rows, const float* score, Range keys, const Rank* lists, int64_t capacity, int64_t count,
                        float* limits) {
  alignas(64) float bounds[16];
  bool bounded = false;
  for (int i = 0; i < rows; i++) {
    const Rank last = lists[i * capacity + count - 1];
    if (last) {
      limits[i] = score_of(last);
      continue;
    }
    for (int j = 0; j < rows && !bounded; j += Float::width)
      lower_bounds(minimum(rows - j, Float::width), score + j * block_keys, keys, count, bounds + j);
    bounded = true;
    limits[i] = minimum(bounds[i], largest_float);
    limits[i] -= __builtin_fabsf(limits[i]) * 0x1p-22f + 0x1p-120f;  // scores that equal it belong too
  }
}

// Inserts them; the keys are counted from `first`. Where scores are sizes, with the signs of the numbers.
inline void insert(const Candidates& found, const float* score, int64_t first, Rank* list, int64_t capacity,
                   const float* numbers = nullptr) {
  for (int64_t i = 0; i < found.count; i++) {
    const int64_t key = found.places[i];
    insert(rank(score[key], first + key, numbers && numbers[key] < 0), list, capacity);
  }
}

// Key number k of a row that has fewer keys in its list: those that are not there follow, the first of them first.
inline int64_t first_unranked_key(const Rank* list, int64_t k) {
  int64_t ranked = 0, key = 0;
  while (list[ranked]) ranked++;
  for (int64_t missing = k - ranked;; key++) {
    bool listed = false;
    for (int64_t i = 0; i < ranked; i++) listed = listed || key_of(list[i]) == key;
    if (!listed && missing-- == 0) return key;
  }
}

}  // namespace
}  // namespace regard::REGARD_ISA
