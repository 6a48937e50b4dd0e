// NEON: every 64-bit ARM.

#define REGARD_ISA neon

#include "../simd_neon.hpp"
#include "../kernel.hpp"
