// 2^x and tanh of vectors.

#pragma once

#include "simd.hpp"

namespace regard::REGARD_ISA {
namespace {

constexpr float log2_e = 1.44269504088896340736f;
constexpr double ln_2 = 0.69314718055994530942;
constexpr float infinity = __builtin_inff(), largest_float = __FLT_MAX__;

constexpr float smallest_power = -1000;  // 2^−1000 is 0

// No smaller, so that −∞ is a number to reckon with. nan stays nan.
inline Float bounded(Float x) { return larger(broadcast(smallest_power), x); }

// 2^(whole + rest) within 1.6e-7 of itself, for −½ ≤ rest ≤ ½ and whole numbers up to 127; 0 instead of a number that
// is not normal.
inline Float power_of_two(Float whole, Float rest) {
  // Of the polynomials of degree 5 that are 1 at 0, the one with the least relative error.
  Float y = multiply_add(broadcast(0x1.5bba14p-10f), rest, broadcast(0x1.3cea88p-7f));
  y = multiply_add(y, rest, broadcast(0x1.c6b752p-5f));
  y = multiply_add(y, rest, broadcast(0x1.ebf9bcp-3f));
  y = multiply_add(y, rest, broadcast(0x1.62e42ap-1f));
  y = multiply_add(y, rest, broadcast(1.0f));
  return scale_by_power(y, whole);
}

constexpr float rounding = 0x1.8p23f;  // added, it leaves no digits behind the point

// 2^x for x from −1000 to 127.
inline Float exp2(Float x) {
  const Float whole = (x + broadcast(rounding)) - broadcast(rounding);
  return power_of_two(whole, x - whole);
}

// 2^(x·factor), likewise; the product is not rounded.
inline Float exp2(Float x, Float factor) {
  const Float whole = multiply_add(x, factor, broadcast(rounding)) - broadcast(rounding);
  return power_of_two(whole, multiply_add(x, factor, broadcast(0.0f) - whole));
}

// 2^(x·factor) for x from −∞ to 0, in the fewest steps: the product is rounded where the instruction set knows
// remainders. Where they are wanted, `products` grows by the result times x; by 0 where x is −∞.
template <bool with_products>
inline Float exp2_below(Float x, Float factor, [[maybe_unused]] Float smallest, [[maybe_unused]] Float& products) {
#ifdef REGARD_REMAINDER
  const Float power = x * factor, rest = remainder(power), whole = power - rest, result = power_of_two(whole, rest);
  if constexpr (with_products) products = multiply_add_where_normal(whole, result, x, products);
#else
  x = larger(smallest, x);
  const Float result = exp2(x, factor);
  if constexpr (with_products) products = multiply_add(result, x, products);
#endif
  return result;
}

inline Float exp2_below(Float x, Float factor, Float smallest) {
  Float products;
  return exp2_below<false>(x, factor, smallest, products);
}

// 2^(x·factor + more), likewise.
inline Float exp2(Float x, Float factor, Float more) {
  const Float whole = (multiply_add(x, factor, more) + broadcast(rounding)) - broadcast(rounding);
  return power_of_two(whole, multiply_add(x, factor, more - whole));
}

// The logarithms of eight positive numbers, or nan, in place, within some 2e-16: log(x) = e · log 2 + 2 artanh(s), of
// x = 2^e · m, √½ ≤ m < √2 and s = (m − 1) / (m + 1).
inline void logarithms(double* numbers) {
  using Doubles = double __attribute__((vector_size(64), aligned(8)));
  using Integers = int64_t __attribute__((vector_size(64), aligned(8)));
  constexpr int64_t root = 0x3fe6a09e667f3bcd;  // the bits of √½
  const Doubles x = *reinterpret_cast<Doubles*>(numbers);
  const Integers bits = (Integers)x, power = (bits - root) >> 52;
  const Doubles m = (Doubles)(bits - (power << 52)), s = (m - 1) / (m + 1), square = s * s;
  Doubles series = square / 21 + 1.0 / 19;
#pragma GCC unroll 8
  for (int n = 17; n > 0; n -= 2) series = series * square + 1.0 / n;
  *reinterpret_cast<Doubles*>(numbers) =
      __builtin_convertvector(power, Doubles) * ln_2 + 2 * s * series + (x - x);  // nan stays nan
}

// tanh(x): an odd polynomial near 0, where (1 − e^−2x) / (1 + e^−2x) would lose its digits.
inline Float tanh(Float x) {
  const Float size = absolute(x), square = x * x, one = broadcast(1.0f), zero = broadcast(0.0f);
  Float y = multiply_add(broadcast(-0x1.75e1cep-8f), square, broadcast(0x1.52269cp-6f));
  y = multiply_add(y, square, broadcast(-0x1.b83c5ap-5f));
  y = multiply_add(y, square, broadcast(0x1.110726p-3f));
  y = multiply_add(y, square, broadcast(-0x1.555532p-2f));
  const Float near = multiply_add(y * square, x, x);
  const Float power = exp2(bounded(size * broadcast(-2 * log2_e))), far = (one - power) / (one + power);
  return where_at_most(size, broadcast(0.625f), near, where_at_most(x, zero, zero - far, far));
}

}  // namespace
}  // namespace regard::REGARD_ISA
