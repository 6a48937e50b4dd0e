// NEON: every 64-bit ARM.

#define REGARD_ISA neon
#define REGARD_SIMD "simd_neon.hpp"

#include "../kernel.hpp"
