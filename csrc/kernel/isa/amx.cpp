// AVX-512 with the tile registers of AMX, which multiply bfloat16: Intel Sapphire Rapids and later.

#define REGARD_ISA amx
#define REGARD_SIMD "simd_amx.hpp"

#include "../kernel.hpp"
