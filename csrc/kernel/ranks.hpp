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

// A score that at least `count` of the keys reach: the count-th of the maxima of sixteen lanes.
inline float lower_bound_of_top(const float* score, Range keys, int64_t count) {
  constexpr int lanes = 16, vectors = lanes / Float::width;
  if (count > lanes) return -infinity;
  const Float hidden = broadcast(-infinity), zero = broadcast(0.0f), one = broadcast(1.0f);
  Float tops[vectors], larger_ones[vectors], bound = hidden;
  for (Float& top : tops) top = hidden;
  for (int64_t j = keys.from; j < keys.to; j += lanes) {
    for (int v = 0; v < minimum<int64_t>(vectors, (keys.to - j) / Float::width); v++)
      tops[v] = larger(tops[v], load(score + j + v * Float::width));
  }
  float maxima[lanes];
  for (int v = 0; v < vectors; v++) store(maxima + v * Float::width, tops[v]);
  for (int v = 0; v < vectors; v++) {
    larger_ones[v] = zero;  // of each lane, how many lanes are larger
    for (const float& other : maxima)
      larger_ones[v] = larger_ones[v] + where_at_most(broadcast(&other), tops[v], zero, one);
    bound = larger(bound, where_at_most(larger_ones[v], broadcast(float(count - 1)), zero - tops[v], hidden));
  }
  return -largest(bound);
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
inline Candidates find_candidates(const float* score, Range keys, float limit) {
  const Float least = broadcast(limit);
  Candidates found;
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
  return found;
}

// Inserts the keys first + keys.from …, whose largest score is `top`, into the list where they belong; where scores are
// sizes, with the signs of the numbers.
inline void update_list(const float* score, Range keys, int64_t first, float top, Rank* list, int64_t count,
                        int64_t capacity, const float* numbers = nullptr) {
  float limit;
  if (const Rank last = list[count - 1]) {
    limit = score_of(last);
    if (top <= limit) return;
  } else {  // slightly lower, because scores that equal it belong too
    limit = minimum(lower_bound_of_top(score, keys, count), largest_float);
    limit -= __builtin_fabsf(limit) * 0x1p-22f + 0x1p-120f;
  }
  const Candidates found = find_candidates(score, keys, limit);
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
