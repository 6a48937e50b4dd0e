// The width type of AVX-512: sixteen floats. What every width type must have stands here, once, with its meaning.

#pragma once

#include <immintrin.h>

#include <cstdint>

namespace regard::REGARD_ISA {
namespace {

struct Float {
  static constexpr int width = 16;     // floats in a vector
  static constexpr int tile_rows = 6;  // of the register tile: 6 × 4 accumulators, 4 columns and a broadcast in 32
  static constexpr int tile_vectors = 4;
  __m512 v;
};

inline Float load(const float* from) { return {_mm512_loadu_ps(from)}; }

// The first n of them, 0 ≤ n ≤ width, and zeros; nothing else is read.
inline Float load_first(const float* from, int64_t n) { return {_mm512_maskz_loadu_ps((1u << n) - 1, from)}; }
inline void store(float* to, Float x) { _mm512_storeu_ps(to, x.v); }

// n < width floats: zeros in the place of the others, which are neither read nor written.
inline Float load_part(const float* from, int64_t n) { return {_mm512_maskz_loadu_ps(__mmask16((1u << n) - 1), from)}; }
inline void store_part(float* to, Float x, int64_t n) { _mm512_mask_storeu_ps(to, __mmask16((1u << n) - 1), x.v); }

inline Float broadcast(float x) { return {_mm512_set1_ps(x)}; }
inline Float broadcast(const float* from) { return {_mm512_set1_ps(*from)}; }  // the bits as they are
inline Float counting() { return {_mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)}; }

inline Float operator+(Float a, Float b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Float operator-(Float a, Float b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Float operator*(Float a, Float b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Float operator/(Float a, Float b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Float multiply_add(Float a, Float b, Float c) {
  return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}  // a·b + c, once rounded
inline Float square_root(Float a) { return {_mm512_sqrt_ps(a.v)}; }
inline Float absolute(Float a) { return {_mm512_abs_ps(a.v)}; }

// The larger; b where either is nan.
inline Float larger(Float a, Float b) { return {_mm512_max_ps(a.v, b.v)}; }

// b where a ≤ limit, c elsewhere.
inline Float where_at_most(Float a, Float limit, Float b, Float c) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, limit.v, _CMP_LE_OQ), c.v, b.v)};
}

// a where a byte is not 0, b elsewhere.
inline Float where_set(const uint8_t* bytes, Float a, Float b) {
  const __m128i set = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
  return {_mm512_mask_blend_ps(_mm_test_epi8_mask(set, set), b.v, a.v)};
}

// One bit a lane: a > b.
inline uint32_t greater(Float a, Float b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ); }

// Whether all are finite numbers.
inline bool all_finite(Float a) { return _mm512_fpclass_ps_mask(a.v, 0x99) == 0; }

inline float sum(Float a) { return _mm512_reduce_add_ps(a.v); }

// Sums of many vectors at once: of four vectors, four lanes at a time; then of width / 4 such sums across those fours,
// so that lane 4 i + j holds the sum of the j-th vector of the i-th four.
inline Float sums_of_fours(Float a, Float b, Float c, Float d) {
  const __m512d ab =
      _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(a.v, b.v), _mm512_unpackhi_ps(a.v, b.v)));  // a b a b
  const __m512d cd = _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(c.v, d.v), _mm512_unpackhi_ps(c.v, d.v)));
  return {_mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)), _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)))};
}
inline Float sums_across(const Float* fours) {
  const auto half = [](__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
  };
  return {half(half(fours[0].v, fours[1].v), half(fours[2].v, fours[3].v))};
}
inline float largest(Float a) { return _mm512_reduce_max_ps(a.v); }

// a · 2^n for whole n and ½ < |a| < 2; 0 where that might be less than the smallest normal number: products with such
// numbers take a hundred times as long.
inline __mmask16 is_normal_power(Float n) { return _mm512_cmp_ps_mask(n.v, _mm512_set1_ps(-125), _CMP_NLT_UQ); }
inline Float scale_by_power(Float a, Float n) { return {_mm512_maskz_scalef_ps(is_normal_power(n), a.v, n.v)}; }

// Other instruction sets leave these two out. x less the nearest whole number; 0 for −∞.
#define REGARD_REMAINDER 1
inline Float remainder(Float x) { return {_mm512_reduce_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }

// a·b + c where scale_by_power of this n is not 0, c elsewhere.
inline Float multiply_add_where_normal(Float n, Float a, Float b, Float c) {
  return {_mm512_mask3_fmadd_ps(a.v, b.v, c.v, is_normal_power(n))};
}

// Half precision, `width` numbers at a time; to memory rounded to the nearest, ties to even.
inline Float load_bfloat16(const uint16_t* from) {
  return {_mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))), 16))};
}
inline Float load_float16(const uint16_t* from) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)))};
}
inline void store_bfloat16(uint16_t* to, Float x) {
#ifdef __AVX512BF16__
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), (__m256i)_mm512_cvtneps_pbh(x.v));
#else
  const __m512i bits = _mm512_castps_si512(x.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  rounded = _mm512_mask_or_epi32(rounded, _mm512_cmp_ps_mask(x.v, x.v, _CMP_UNORD_Q), bits, _mm512_set1_epi32(1 << 22));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
#endif
}
inline void store_float16(uint16_t* to, Float x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtps_ph(x.v, _MM_FROUND_TO_NEAREST_INT));
}

// Integers of 32 bits in the room of floats, as numbers.
inline Float from_int32(Float a) { return {_mm512_cvtepi32_ps(_mm512_castps_si512(a.v))}; }

// To memory as whole numbers from 0 to 255, rounded to the nearest, ties to even; what lies beyond becomes 0 or 255.
inline __m128i rounded_bytes(Float x) {
  return _mm512_cvtusepi32_epi8(_mm512_max_epi32(_mm512_cvtps_epi32(x.v), _mm512_setzero_si512()));
}
inline void store_rounded(uint8_t* to, Float x) { _mm_storeu_si128(reinterpret_cast<__m128i*>(to), rounded_bytes(x)); }
inline void store_rounded(int16_t* to, Float x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_cvtepu8_epi16(rounded_bytes(x)));
}

// c + a₀·b₀ + a₁·b₁, for pairs of 16-bit integers, in 32 bits.
inline Float multiply_add_words(Float a, Float b, Float c) {
  const __m512i product = _mm512_madd_epi16(_mm512_castps_si512(a.v), _mm512_castps_si512(b.v));
  return {_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(c.v), product))};
}

// c + a₀·b₀ + … + a₃·b₃, for four bytes a without a sign and four bytes b with one, in 32 bits; written out, so that
// the processor alone, not the flags of this file, decides whether it is used.
#define REGARD_QUADS 1
inline bool has_quads() {
  static const bool has = __builtin_cpu_supports("avx512vnni");
  return has;
}
constexpr float quads_shift = 0;  // what is taken from a before it is multiplied
inline Float multiply_add_quads(Float a, Float b, Float c) {
  asm("vpdpbusd %2, %1, %0" : "+v"(c.v) : "v"(a.v), "v"(b.v));
  return c;
}

// `width` rows of `width` floats, `stride` apart, become columns, `step` apart.
inline void transpose(const float* from, int64_t stride, float* to, int64_t step) {
  __m512 a[16], b[16];
  for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_ps(from + i * stride);
  for (int i = 0; i < 16; i += 2) {  // pairs of rows, 32 bits
    b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {  // four rows, 64 bits
    a[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(b[i]), _mm512_castps_pd(b[i + 2])));
    a[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(b[i]), _mm512_castps_pd(b[i + 2])));
    a[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(b[i + 1]), _mm512_castps_pd(b[i + 3])));
    a[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(b[i + 1]), _mm512_castps_pd(b[i + 3])));
  }
  for (int i = 0; i < 16; i += 8) {  // eight rows, quarters of a vector
    for (int j = 0; j < 4; j++) {
      b[i + j] = _mm512_shuffle_f32x4(a[i + j], a[i + j + 4], 0x88);
      b[i + j + 4] = _mm512_shuffle_f32x4(a[i + j], a[i + j + 4], 0xdd);
    }
  }
  for (int j = 0; j < 8; j++) {  // all sixteen: b[j] has columns j and j + 8, b[j + 4] those four later
    a[j] = _mm512_shuffle_f32x4(b[j], b[j + 8], 0x88);
    a[j + 8] = _mm512_shuffle_f32x4(b[j], b[j + 8], 0xdd);
  }
  for (int i = 0; i < 16; i++) _mm512_storeu_ps(to + i * step, a[i]);
}

#ifdef __AVX512BF16__
// Two bfloat16 in the room of a float: what makes bfloat16 twice as fast. Other instruction sets leave this out,
// and compute bfloat16 in float32.
#define REGARD_PAIRS 1

// c + a₀·b₀ + a₁·b₁, for pairs of bfloat16.
inline Float multiply_add_pairs(Float a, Float b, Float c) {
  return {_mm512_dpbf16_ps(c.v, (__m512bh)a.v, (__m512bh)b.v)};
}

// Twice `width` numbers to memory as bfloat16, the faster way.
inline void store_bfloat16(uint16_t* to, Float low, Float high) {
  _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(high.v, low.v));
}

// Rows of bfloat16 side by side as pairs, element for element: `width` pairs.
inline void interleave(const uint16_t* even, const uint16_t* odd, float* to) {
  const __m512i a = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(even)));
  const __m512i b = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(odd)));
  _mm512_storeu_si512(to, _mm512_or_si512(a, _mm512_slli_epi32(b, 16)));
}
#endif

}  // namespace
}  // namespace regard::REGARD_ISA
