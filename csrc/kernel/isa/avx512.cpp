// AVX-512 without the pair dot product of bfloat16: Intel Skylake to Ice Lake.

#define REGARD_ISA avx512
#define REGARD_SIMD "simd_avx512.hpp"

#include "../kernel.hpp"
