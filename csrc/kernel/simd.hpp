// The width type of the instruction set that a file in isa/ compiles for; the portable one where nothing is chosen.

#pragma once

#ifndef REGARD_SIMD
#define REGARD_SIMD "simd_portable.hpp"
#endif

#include REGARD_SIMD  // IWYU pragma: export
