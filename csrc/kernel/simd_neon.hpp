// The width type of NEON, which every 64-bit ARM has: four floats. What each function means stands in simd_avx512.hpp.

#pragma once

#include <arm_neon.h>

#include <cstdint>

namespace regard::REGARD_ISA {
namespace {

struct Float {
  static constexpr int width = 4;
  static constexpr int tile_rows = 6;  // 6 × 4 accumulators, 4 columns and a broadcast in 32 registers
  static constexpr int tile_vectors = 4;
  float32x4_t v;
};

inline Float load(const float* from) { return {vld1q_f32(from)}; }
inline Float load_first(const float* from, int64_t n) {
  if (n == Float::width) return load(from);
  float first[Float::width] = {};
  for (int64_t i = 0; i < n; i++) first[i] = from[i];
  return load(first);
}
inline void store(float* to, Float x) { vst1q_f32(to, x.v); }
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
inline Float broadcast(float x) { return {vdupq_n_f32(x)}; }
inline Float broadcast(const float* from) { return {vld1q_dup_f32(from)}; }
inline Float counting() { return {float32x4_t{0, 1, 2, 3}}; }

inline Float operator+(Float a, Float b) { return {vaddq_f32(a.v, b.v)}; }
inline Float operator-(Float a, Float b) { return {vsubq_f32(a.v, b.v)}; }
inline Float operator*(Float a, Float b) { return {vmulq_f32(a.v, b.v)}; }
inline Float operator/(Float a, Float b) { return {vdivq_f32(a.v, b.v)}; }
inline Float multiply_add(Float a, Float b, Float c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
inline Float square_root(Float a) { return {vsqrtq_f32(a.v)}; }
inline Float absolute(Float a) { return {vabsq_f32(a.v)}; }
inline Float larger(Float a, Float b) { return {vbslq_f32(vcgtq_f32(a.v, b.v), a.v, b.v)}; }

inline Float where_at_most(Float a, Float limit, Float b, Float c) {
  return {vbslq_f32(vcleq_f32(a.v, limit.v), b.v, c.v)};
}

inline Float where_set(const uint8_t* bytes, Float a, Float b) {
  const uint32x4_t wide = {bytes[0], bytes[1], bytes[2], bytes[3]};
  return {vbslq_f32(vtstq_u32(wide, wide), a.v, b.v)};
}

inline uint32_t greater(Float a, Float b) { return vaddvq_u32(vandq_u32(vcgtq_f32(a.v, b.v), uint32x4_t{1, 2, 4, 8})); }

inline bool all_finite(Float a) { return greater(broadcast(__builtin_inff()), absolute(a)) == 0xf; }

inline float sum(Float a) { return vaddvq_f32(a.v); }
inline Float sums_of_fours(Float a, Float b, Float c, Float d) {
  return {vpaddq_f32(vpaddq_f32(a.v, b.v), vpaddq_f32(c.v, d.v))};
}
inline Float sums_across(const Float* fours) { return *fours; }
inline float largest(Float a) { return vmaxnmvq_f32(a.v); }

// The exponent's bits: those of 2^−127 are 0, and what would be less than the smallest normal number is 0.
inline Float scale_by_power(Float a, Float n) {
  const int32x4_t power = vcvtq_s32_f32(vmaxq_f32(n.v, vdupq_n_f32(-127)));
  return {vmulq_f32(a.v, vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(power, vdupq_n_s32(127)), 23)))};
}

inline Float load_bfloat16(const uint16_t* from) { return {vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(from), 16))}; }
inline Float load_float16(const uint16_t* from) { return {vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from)))}; }
inline void store_bfloat16(uint16_t* to, Float x) {
  const uint32x4_t bits = vreinterpretq_u32_f32(x.v), odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  const uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
  const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(1 << 22));  // nan stays nan
  vst1_u16(to, vshrn_n_u32(vbslq_u32(vceqq_f32(x.v, x.v), rounded, quiet), 16));
}
inline void store_float16(uint16_t* to, Float x) { vst1_u16(to, vreinterpret_u16_f16(vcvt_f16_f32(x.v))); }

inline Float from_int32(Float a) { return {vcvtq_f32_s32(vreinterpretq_s32_f32(a.v))}; }

inline uint16x4_t rounded_words(Float x) { return vmin_u16(vqmovun_s32(vcvtnq_s32_f32(x.v)), vdup_n_u16(255)); }
inline void store_rounded(int16_t* to, Float x) { vst1_u16(reinterpret_cast<uint16_t*>(to), rounded_words(x)); }

inline Float multiply_add_words(Float a, Float b, Float c) {
  const int16x8_t left = vreinterpretq_s16_f32(a.v), right = vreinterpretq_s16_f32(b.v);
  const int32x4_t low = vmull_s16(vget_low_s16(left), vget_low_s16(right)), high = vmull_high_s16(left, right);
  return {vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(c.v), vpaddq_s32(low, high)))};
}

#ifdef __ARM_FEATURE_DOTPROD
#define REGARD_QUADS 1
inline bool has_quads() { return true; }
inline void store_rounded(uint8_t* to, Float x) {
  const uint32_t bytes =
      vget_lane_u32(vreinterpret_u32_u8(vmovn_u16(vcombine_u16(rounded_words(x), vdup_n_u16(0)))), 0);
  __builtin_memcpy(to, &bytes, sizeof bytes);
}
constexpr float quads_shift = 128;  // the instruction wants both with a sign, so it is given a − 128
inline Float multiply_add_quads(Float a, Float b, Float c) {
  const int8x16_t left = vreinterpretq_s8_f32(a.v), right = vreinterpretq_s8_f32(b.v);
  const int32x4_t sum = vdotq_s32(vreinterpretq_s32_f32(c.v), veorq_s8(left, vdupq_n_s8(-128)), right);
  return {vreinterpretq_f32_s32(sum)};
}
#endif

inline void transpose(const float* from, int64_t stride, float* to, int64_t step) {
  const float32x4x2_t a = vtrnq_f32(vld1q_f32(from), vld1q_f32(from + stride));
  const float32x4x2_t b = vtrnq_f32(vld1q_f32(from + 2 * stride), vld1q_f32(from + 3 * stride));
  for (int i = 0; i < 2; i++) {
    vst1q_f32(to + i * step, vcombine_f32(vget_low_f32(a.val[i]), vget_low_f32(b.val[i])));
    vst1q_f32(to + (i + 2) * step, vcombine_f32(vget_high_f32(a.val[i]), vget_high_f32(b.val[i])));
  }
}

}  // namespace
}  // namespace regard::REGARD_ISA
