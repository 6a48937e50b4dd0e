// AVX-512 with the pair dot product of bfloat16: AMD Zen 4, Intel Cooper Lake and later.

#define REGARD_ISA avx512bf16
#define REGARD_SIMD "simd_avx512.hpp"

#include "../kernel.hpp"
