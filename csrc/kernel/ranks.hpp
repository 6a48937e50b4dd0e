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
    Eight current = *reinterpret_cast<Eight*>(list + i);
    Eight before = __builtin_shufflevector(current, current, 0, 0, 1, 2, 3, 4, 5, 6);
    before[0] = i > 0 ? list[i - 1] : ~Rank(0);
    before = before < newcomer ? before : newcomer;
    *reinterpret_cast<Eight*>(list + i) = current > before ? current : before;
  }
}

// A score that at least `count` of the keys reach: the count-th of the maxima of the lanes.
inline float lower_bound_of_top(const float* score, Range keys, int64_t count) {
  if (count > Float::width) return -infinity;
  Float lanes = load(score + keys.from);
  for (int64_t j = keys.from + Float::width; j < keys.to; j += Float::width) lanes = larger(lanes, load(score + j));
  float maxima[Float::width], bound = infinity;
  store(maxima, lanes);
  for (float score : maxima) {
    if (__builtin_popcount(greater(lanes, broadcast(score))) < count) bound = minimum(bound, score);
  }
  return bound;
}

// Inserts the keys first + keys.from …, whose largest score is `top`, into the list where they belong; where scores are
// sizes, with the signs of the numbers.
inline void update_top(const float* score, Range keys, int64_t first, float top, Rank* list, int64_t count,
                       int64_t capacity, const float* numbers = nullptr) {
  const bool full = list[count - 1] != 0;
  float limit = full ? score_of(list[count - 1]) : lower_bound_of_top(score, keys, count);
  if (full && top <= limit) return;
  if (!full) {  // slightly lower, because scores that equal it belong too
    limit = minimum(limit, largest_float);
    limit -= __builtin_fabsf(limit) * 0x1p-22f + 0x1p-120f;
  }
  for (int64_t j = keys.from; j < keys.to; j += panel_keys) {
    uint64_t bits = 0;
    for (int64_t i = 0; i < minimum(panel_keys, keys.to - j); i += Float::width) {
      bits |= uint64_t(greater(load(score + j + i), broadcast(limit))) << i;
    }
    if (!bits) continue;
    for (; bits; bits &= bits - 1) {
      const int64_t key = j + __builtin_ctzll(bits);
      insert(rank(score[key], first + key, numbers && numbers[key] < 0), list, capacity);
    }
    if (list[count - 1]) limit = maximum(limit, score_of(list[count - 1]));
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
