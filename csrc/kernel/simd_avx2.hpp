// The width type of AVX2 with FMA and F16C: eight floats. What each function means stands in simd_avx512.hpp.

#pragma once

#include <cpuid.h>
#include <immintrin.h>

#include <cstdint>

namespace regard::REGARD_ISA {
namespace {

struct Float {
  static constexpr int width = 8;
  static constexpr int tile_rows = 6;  // 6 × 2 accumulators, 2 columns and a broadcast in 16 registers
  static constexpr int tile_vectors = 2;
  __m256 v;
};

inline Float load(const float* from) { return {_mm256_loadu_ps(from)}; }
inline Float load_first(const float* from, int64_t n) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return {_mm256_maskload_ps(from, _mm256_cmpgt_epi32(_mm256_set1_epi32(int(n)), lanes))};
}
inline void store(float* to, Float x) { _mm256_storeu_ps(to, x.v); }
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
inline Float broadcast(float x) { return {_mm256_set1_ps(x)}; }
inline Float broadcast(const float* from) { return {_mm256_broadcast_ss(from)}; }
inline Float counting() { return {_mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7)}; }

inline Float operator+(Float a, Float b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Float operator-(Float a, Float b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Float operator*(Float a, Float b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Float operator/(Float a, Float b) { return {_mm256_div_ps(a.v, b.v)}; }
inline Float multiply_add(Float a, Float b, Float c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline Float square_root(Float a) { return {_mm256_sqrt_ps(a.v)}; }
inline Float absolute(Float a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
inline Float larger(Float a, Float b) { return {_mm256_max_ps(a.v, b.v)}; }

inline Float where_at_most(Float a, Float limit, Float b, Float c) {
  return {_mm256_blendv_ps(c.v, b.v, _mm256_cmp_ps(a.v, limit.v, _CMP_LE_OQ))};
}

inline Float where_set(const uint8_t* bytes, Float a, Float b) {
  const __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes)));
  return {_mm256_blendv_ps(a.v, b.v, _mm256_castsi256_ps(_mm256_cmpeq_epi32(wide, _mm256_setzero_si256())))};
}

inline uint32_t greater(Float a, Float b) { return uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ))); }

inline bool all_finite(Float a) { return greater(broadcast(__builtin_inff()), absolute(a)) == 0xff; }

inline float sum(Float a) {
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
inline Float sums_of_fours(Float a, Float b, Float c, Float d) {
  const __m256d ab = _mm256_castps_pd(_mm256_add_ps(_mm256_unpacklo_ps(a.v, b.v), _mm256_unpackhi_ps(a.v, b.v)));
  const __m256d cd = _mm256_castps_pd(_mm256_add_ps(_mm256_unpacklo_ps(c.v, d.v), _mm256_unpackhi_ps(c.v, d.v)));
  return {_mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd)), _mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd)))};
}
inline Float sums_across(const Float* fours) {
  const __m256 a = fours[0].v, b = fours[1].v;
  return {_mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31))};
}
inline float largest(Float a) {
  __m128 x = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}

// The exponent's bits: those of 2^−127 are 0, and what would be less than the smallest normal number is 0.
inline Float scale_by_power(Float a, Float n) {
  const __m256i power = _mm256_cvtps_epi32(_mm256_max_ps(n.v, _mm256_set1_ps(-127)));
  const __m256i exponent = _mm256_slli_epi32(_mm256_add_epi32(power, _mm256_set1_epi32(127)), 23);
  return {_mm256_mul_ps(a.v, _mm256_castsi256_ps(exponent))};
}

inline Float load_bfloat16(const uint16_t* from) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16))};
}
inline Float load_float16(const uint16_t* from) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)))};
}
inline void store_bfloat16(uint16_t* to, Float x) {
  const __m256i bits = _mm256_castps_si256(x.v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(1 << 22));  // nan stays nan
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x.v, x.v, _CMP_UNORD_Q));
  const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(high, high), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(packed));
}
inline void store_float16(uint16_t* to, Float x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(x.v, _MM_FROUND_TO_NEAREST_INT));
}

inline Float from_int32(Float a) { return {_mm256_cvtepi32_ps(_mm256_castps_si256(a.v))}; }

inline __m128i rounded_bytes(Float x) {  // in the lower half
  const __m256i whole = _mm256_cvtps_epi32(x.v);
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
  return _mm_packus_epi16(words, words);
}
inline void store_rounded(uint8_t* to, Float x) { _mm_storeu_si64(to, rounded_bytes(x)); }
inline void store_rounded(int16_t* to, Float x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm_cvtepu8_epi16(rounded_bytes(x)));
}

inline Float multiply_add_words(Float a, Float b, Float c) {
  const __m256i product = _mm256_madd_epi16(_mm256_castps_si256(a.v), _mm256_castps_si256(b.v));
  return {_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(c.v), product))};
}

// Of AVX-VNNI: Intel since Alder Lake, AMD since Zen 5.
#define REGARD_QUADS 1
inline bool has_quads() {
  static const bool has = [] {
    unsigned a = 0, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
  }();
  return has;
}
constexpr float quads_shift = 0;
inline Float multiply_add_quads(Float a, Float b, Float c) {
  asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(c.v) : "x"(a.v), "x"(b.v));
  return c;
}

inline void transpose(const float* from, int64_t stride, float* to, int64_t step) {
  __m256 a[8], b[8];
  for (int i = 0; i < 8; i++) a[i] = _mm256_loadu_ps(from + i * stride);
  for (int i = 0; i < 8; i += 2) {  // pairs of rows, 32 bits
    b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {  // four rows, 64 bits
    a[i] = _mm256_shuffle_ps(b[i], b[i + 2], 0x44);
    a[i + 1] = _mm256_shuffle_ps(b[i], b[i + 2], 0xee);
    a[i + 2] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0x44);
    a[i + 3] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0xee);
  }
  for (int i = 0; i < 4; i++) {  // all eight: a[i] has columns i and i + 4 of the first four rows
    _mm256_storeu_ps(to + i * step, _mm256_permute2f128_ps(a[i], a[i + 4], 0x20));
    _mm256_storeu_ps(to + (i + 4) * step, _mm256_permute2f128_ps(a[i], a[i + 4], 0x31));
  }
}

}  // namespace
}  // namespace regard::REGARD_ISA
