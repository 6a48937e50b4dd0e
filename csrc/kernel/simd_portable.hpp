// The width type of any processor: four floats, as GCC and Clang know how to make of whatever there is. What each
// function means stands in simd_avx512.hpp.

#pragma once

#include <cstdint>

namespace regard::REGARD_ISA {
namespace {

using Floats = float __attribute__((vector_size(16)));
using Bits = uint32_t __attribute__((vector_size(16)));
using Halves = uint16_t __attribute__((vector_size(8)));

struct Float {
  static constexpr int width = 4;
  static constexpr int tile_rows = 6;  // 6 × 2 accumulators: few processors have less than 16 registers
  static constexpr int tile_vectors = 2;
  Floats v;
};

inline Float load(const float* from) {
  Float x;
  __builtin_memcpy(&x.v, from, sizeof x.v);
  return x;
}
inline Float load_first(const float* from, int64_t n) {
  if (n == Float::width) return load(from);
  float first[Float::width] = {};
  for (int64_t i = 0; i < n; i++) first[i] = from[i];
  return load(first);
}
inline void store(float* to, Float x) { __builtin_memcpy(to, &x.v, sizeof x.v); }
inline Float load_part(const float* from, int64_t n) {
  float part[Float::width] = {};
  __builtin_memcpy(part, from, n * sizeof(float));
  return load(part);
}
inline void store_part(float* to, Float x, int64_t n) {
  float part[Float::width];
  store(part, x);
  __builtin_memcpy(to, part, n * sizeof(float));
}
inline Float broadcast(float x) { return {Floats{x, x, x, x}}; }
inline Float broadcast(const float* from) { return broadcast(*from); }
inline Float counting() { return {Floats{0, 1, 2, 3}}; }

inline Float operator+(Float a, Float b) { return {a.v + b.v}; }
inline Float operator-(Float a, Float b) { return {a.v - b.v}; }
inline Float operator*(Float a, Float b) { return {a.v * b.v}; }
inline Float operator/(Float a, Float b) { return {a.v / b.v}; }
inline Float multiply_add(Float a, Float b, Float c) { return {a.v * b.v + c.v}; }  // rounded once where that is quick

inline Bits bits_of(Float a) { return (Bits)a.v; }
inline Float of_bits(Bits a) { return {(Floats)a}; }
inline Bits choose(Bits where, Bits a, Bits b) { return (where & a) | (~where & b); }

inline Float square_root(Float a) {
  return {Floats{__builtin_sqrtf(a.v[0]), __builtin_sqrtf(a.v[1]), __builtin_sqrtf(a.v[2]), __builtin_sqrtf(a.v[3])}};
}
inline Float absolute(Float a) { return of_bits(bits_of(a) & 0x7fffffffu); }
inline Float larger(Float a, Float b) { return of_bits(choose((Bits)(a.v > b.v), bits_of(a), bits_of(b))); }
inline Float where_at_most(Float a, Float limit, Float b, Float c) {
  return of_bits(choose((Bits)(a.v <= limit.v), bits_of(b), bits_of(c)));
}
inline Float where_set(const uint8_t* bytes, Float a, Float b) {
  const Bits wide = {bytes[0], bytes[1], bytes[2], bytes[3]};
  return of_bits(choose((Bits)(wide != 0), bits_of(a), bits_of(b)));
}
inline uint32_t greater(Float a, Float b) {
  const Bits set = (Bits)(a.v > b.v) & Bits{1, 2, 4, 8};
  return set[0] | set[1] | set[2] | set[3];
}
inline bool all_finite(Float a) { return greater(broadcast(__builtin_inff()), absolute(a)) == 0xf; }

inline float sum(Float a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }
inline Float sums_of_fours(Float a, Float b, Float c, Float d) { return {Floats{sum(a), sum(b), sum(c), sum(d)}}; }
inline Float sums_across(const Float* fours) { return *fours; }
inline float largest(Float a) {
  const float low = a.v[0] > a.v[1] ? a.v[0] : a.v[1], high = a.v[2] > a.v[3] ? a.v[2] : a.v[3];
  return low > high ? low : high;
}

// The exponent's bits: those of 2^−127 are 0, and what would be less than the smallest normal number is 0.
inline Float scale_by_power(Float a, Float n) {
  // 1.5 · 2²³ + n has n + 2²² in its last digits.
  const Bits power = bits_of(larger(n, broadcast(-127.0f)) + broadcast(0x1.8p23f)) - 0x4b400000u;
  return {a.v * of_bits((power + 127) << 23).v};
}

inline Bits load_halves(const uint16_t* from) {
  Halves x;
  __builtin_memcpy(&x, from, sizeof x);
  return __builtin_convertvector(x, Bits);
}
inline void store_halves(uint16_t* to, Bits x) {
  const Halves narrow = __builtin_convertvector(x, Halves);
  __builtin_memcpy(to, &narrow, sizeof narrow);
}

inline Float load_bfloat16(const uint16_t* from) { return of_bits(load_halves(from) << 16); }
inline void store_bfloat16(uint16_t* to, Float x) {
  const Bits bits = bits_of(x), rounded = bits + (bits >> 16 & 1) + 0x7fff;
  store_halves(to, choose((Bits)(x.v == x.v), rounded, bits | 1u << 22) >> 16);  // nan stays nan
}

// Half precision has 5 bits of exponent and 10 of mantissa where a float has 8 and 23. Its bits, taken as a float's,
// are the number times 2^−112, those of infinity and nan excepted, whose exponent is full.
inline Float load_float16(const uint16_t* from) {
  const Bits half = load_halves(from), full = (Bits)((half & 0x7c00) == 0x7c00) & 0x7f800000u;
  const Float size = of_bits((half & 0x7fff) << 13) * broadcast(0x1p112f);
  return of_bits(bits_of(size) | full | (half & 0x8000) << 16);
}
inline void store_float16(uint16_t* to, Float x) {
  const Float size = absolute(x);
  const Bits bits = bits_of(size), sign = (bits_of(x) ^ bits) >> 16;
  const Bits rounded = (bits + (bits >> 13 & 1) + 0xfff - (112u << 23)) >> 13;
  const Bits tiny = bits_of(size + broadcast(0.5f)) - 0x3f000000u;  // below 2^−14: the last digit of ½ is 2^−24
  Bits half = choose((Bits)(size.v < 0x1p-14f), tiny, rounded);
  half = choose((Bits)(size.v < 65520.0f), half, Bits{} + 0x7c00u);
  store_halves(to, sign | choose((Bits)(x.v == x.v), half, Bits{} + 0x7e00u));
}

using Integers = int32_t __attribute__((vector_size(16)));

inline Float from_int32(Float a) { return {__builtin_convertvector((Integers)a.v, Floats)}; }
inline void store_rounded(int16_t* to, Float x) {
  const Float low = where_at_most(x, broadcast(0.0f), broadcast(0.0f), x);
  const Float bounded = where_at_most(low, broadcast(255.0f), low, broadcast(255.0f));
  const Bits whole = bits_of(bounded + broadcast(0x1p23f)) - 0x4b000000u;  // the last digit of 2²³ is 1
  store_halves(reinterpret_cast<uint16_t*>(to), whole);
}
inline Float multiply_add_words(Float a, Float b, Float c) {
  const Integers left = (Integers)a.v, right = (Integers)b.v;
  const Integers first = (left << 16 >> 16) * (right << 16 >> 16), second = (left >> 16) * (right >> 16);
  return {(Floats)((Integers)c.v + first + second)};
}

inline void transpose(const float* from, int64_t stride, float* to, int64_t step) {
  const Floats a = load(from).v, b = load(from + stride).v;
  const Floats c = load(from + 2 * stride).v, d = load(from + 3 * stride).v;
  store(to, {Floats{a[0], b[0], c[0], d[0]}});
  store(to + step, {Floats{a[1], b[1], c[1], d[1]}});
  store(to + 2 * step, {Floats{a[2], b[2], c[2], d[2]}});
  store(to + 3 * step, {Floats{a[3], b[3], c[3], d[3]}});
}

}  // namespace
}  // namespace regard::REGARD_ISA
