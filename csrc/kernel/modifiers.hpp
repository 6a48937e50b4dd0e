// The modifiers between the product q·k and the softmax: softcap, bias and mask of a row, in one pass over it.

#pragma once

#include <cstdint>

#include "exponential.hpp"
#include "pack.hpp"
#include "simd.hpp"
#include "small_query.hpp"

namespace regard::REGARD_ISA {
namespace {

// Numbers of a row `column` apart, as whole vectors read them: where they lie or, unless they are side by side and all
// there, a copy with zeros behind `known`.
template <class Number>
inline const Number* in_vectors(const Number* from, int64_t column, int64_t known, int64_t count, Number* copy) {
  if (column == 1 && known == count && count % Float::width == 0) return from;
  for (int64_t j = 0; j < known; j++) copy[j] = from[j * column];
  for (int64_t j = known; j < round_up(count, Float::width); j++) copy[j] = 0;
  return copy;
}

// What may stand between the products of a row with the keys first … first + count and its scores.
struct Modifiers {
  float scale, softcap;
  const char* bias;     // of `type`
  const uint8_t* mask;  // keys of 0 are hidden
  float from, to;       // of the keys that the row may see, counted from the first
};

// Applies them in one pass; returns the largest score of each lane. `slope` receives the derivative of the softcap.
template <Type type>
inline Float modify(const Modifiers& m, int64_t count, float* score, float* slope) {
  const Float hidden = broadcast(-infinity), one = broadcast(1.0f), scale = broadcast(m.softcap != 0 ? 1 : m.scale);
  const Float inner = broadcast(m.scale / m.softcap), outer = broadcast(m.softcap);
  const Float from = broadcast(m.from), to = broadcast(m.to);
  const bool before = m.from > 0, after = m.to < float(count);
  Float tops = hidden;
  for (int64_t j = 0; j < count; j += Float::width) {
    Float x = load(score + j);
    if (m.softcap != 0) {
      const Float bent = tanh(inner * x);
      x = outer * bent;
      if (slope) store(slope + j, one - bent * bent);
    }
    x = m.bias ? multiply_add(x, scale, load_as<type>(m.bias, j)) : x * scale;
    if (m.mask) x = where_set(m.mask + j, x, hidden);
    const Float position = counting() + broadcast(float(j));
    if (before) x = where_at_most(from, position, x, hidden);
    if (after) x = where_at_most(to, position, hidden, x);
    store(score + j, x);
    tops = larger(tops, x);
  }
  return tops;
}

}  // namespace
}  // namespace regard::REGARD_ISA
