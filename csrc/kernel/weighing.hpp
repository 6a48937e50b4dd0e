// From scores to weights: exp of a row of scores less their maximum, the sums of them, and statistics of the row.

#pragma once

#include <cstdint>

#include "exponential.hpp"
#include "pack.hpp"
#include "ranks.hpp"
#include "rows.hpp"
#include "simd.hpp"
#include "tile.hpp"

namespace regard::REGARD_ISA {
namespace {

// The running state of a row after a part of its keys. Sums are of exp2((score − max) · to_powers): a weight, times
// e^lse over e^max. `others` leaves out the scores that are the maximum, so that the entropy of an almost one-hot row
// keeps its digits.
struct State {
  float max = -infinity;
  double sum = 0, others = 0, entropy = 0, distance = 0;  // entropy: the weight times (score − max)
};

// The states of the rows of a block, and their arrays.
struct Accumulated {
  State* state;
  Rank* largest;  // (rows, capacity), descending
  float* output;  // (rows, width)
};

// From scores of a row to weights, and their sums. `has_maximum`: whether a score may be the maximum of the row.
template <class Lane, bool entropy, bool distance, bool has_maximum = entropy>
struct Weighing {
  Float scale, top, smallest;
  Float sums = broadcast(0.0f), others = sums, entropies = sums, distances = sums, ahead = sums;

  Weighing(float factor, float max, int64_t first, float position)
      : scale(broadcast(factor)), top(broadcast(max)), smallest(broadcast(smallest_difference(factor))) {
    if constexpr (distance) ahead = counting() + broadcast(float(first) - position);
  }

  inline __attribute__((always_inline)) Float weigh(const float* score) {
    const Float difference = load(score) - top;
    const Float weight = exp2_below<entropy>(difference, scale, smallest, entropies);
    sums = sums + weight;
    if constexpr (entropy && has_maximum)
      others = others + where_at_most(difference, broadcast(-0x1p-126f), weight, broadcast(0.0f));
    if constexpr (distance) {
      distances = multiply_add(weight, absolute(ahead), distances);
      ahead = ahead + broadcast(float(Float::width));
    }
    return weight;
  }

  // The scores from j to the next border of lanes.
  inline __attribute__((always_inline)) void step(const float* score, float* weights, int64_t j) {
    const Float low = weigh(score + j);
    float* to = weights + lane_of<Lane>(j);
#ifdef REGARD_TILES
    if constexpr (Lane::planes > 1) return store_split(to, Float::width, low, weigh(score + j + Float::width));
#endif
#ifdef REGARD_PAIRS
    if constexpr (Lane::per_lane == 2)
      return store_bfloat16(reinterpret_cast<uint16_t*>(to), low, weigh(score + j + Float::width));
#endif
    store(to, low);
  }

  void add_to(State& state) const {
    state.sum += sum(sums);
    if constexpr (entropy) state.others += sum(has_maximum ? others : sums), state.entropy += sum(entropies);
    if constexpr (distance) state.distance += sum(distances);
  }
};

template <class Lane, bool entropy, bool distance, bool has_maximum>
inline void exponentiate(const float* score, float* weights, Range keys, float factor, float max, float position,
                         State& state) {
  Weighing<Lane, entropy, distance, has_maximum> weighing(factor, max, keys.from, position);
  for (int64_t j = keys.from; j < keys.to; j += border<Lane>) weighing.step(score, weights, j);
  weighing.add_to(state);
}

// Rescales the state of a row whose largest score becomes `max`, by the factor `keep`.
inline void rescale(State& state, float max, float keep) {
  if (keep != 1) {
    state.entropy = keep > 0 ? keep * (state.entropy + state.sum * (double(state.max) - max)) : 0;
    state.sum *= keep, state.distance *= keep;
    state.others = state.sum;
  }
  state.max = max;
}

}  // namespace
}  // namespace regard::REGARD_ISA
