// The width type of AVX-512, and beside it the tile registers of AMX: eight, of 16 rows of 64 bytes.

#pragma once

#include <cstdint>

#include "simd_avx512.hpp"

#define REGARD_TILES 1

namespace regard::REGARD_ISA {
namespace {

// The tile registers, all of full size, as long as this lives. Other code of the process sets them for itself.
class TileRegisters {
 public:
  static constexpr int rows = 16, lanes = 16;

  TileRegisters() {
    static constexpr struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } layout;
    asm volatile("ldtilecfg %0" : : "m"(layout));
  }
  TileRegisters(const TileRegisters&) = delete;
  ~TileRegisters() { asm volatile("tilerelease"); }
};

// The first and the second numbers of pairs of bfloat16.
inline Float low_half(Float pairs) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(pairs.v), 16))};
}
inline Float high_half(Float pairs) {
  return {_mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(pairs.v), _mm512_set1_epi32(int(0xffff0000))))};
}

// Floats as sums of three bfloat16, exactly: of their 24 digits high has the first eight, middle those that follow, low
// the rest. Each is a vector of pairs: of a number of `first`, and the one at the same place of `second`.
struct Split {
  Float high, middle, low;
};
inline Split split(Float first, Float second) {
  const __m512i digits = _mm512_set1_epi32(int(0xffff0000));
  const auto rest = [&](Float x) {
    return x - Float{_mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(x.v), digits))};
  };
  const auto pair = [](Float a, Float b) {
    const __m512i low_halves = _mm512_srli_epi32(_mm512_castps_si512(a.v), 16);
    return Float{_mm512_castsi512_ps(_mm512_mask_blend_epi16(0xaaaaaaaa, low_halves, _mm512_castps_si512(b.v)))};
  };
  const Float a = rest(first), b = rest(second);
  return {pair(first, second), pair(a, b), pair(rest(a), rest(b))};
}

// The compiler knows nothing of these registers; `volatile` keeps their instructions in order.
template <int tile>
inline void zero_tile() {
  asm volatile("tilezero %%tmm%c0" : : "i"(tile));
}
template <int tile>
inline void load_tile(const float* from, int64_t stride) {
  asm volatile("tileloadd (%0,%1), %%tmm%c2" : : "r"(from), "r"(4 * stride), "i"(tile) : "memory");
}
template <int tile>
inline void store_tile(float* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1)" : : "r"(to), "r"(4 * stride), "i"(tile) : "memory");
}

// sum[r,n] += Σ_k a[r,k]·b[k,n] over 16 pairs of bfloat16, those of a row of b side by side. Denormal numbers are 0.
template <int sum, int a, int b>
inline void multiply_add_tiles() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sum), "i"(a), "i"(b));
}

}  // namespace
}  // namespace regard::REGARD_ISA
