// AVX2 with FMA and F16C: Intel since Haswell, AMD since Zen.

#define REGARD_ISA avx2
#define REGARD_SIMD "simd_avx2.hpp"

#include "../kernel.hpp"
