// Any processor.

#define REGARD_ISA portable
#define REGARD_SIMD "simd_portable.hpp"

#include "../kernel.hpp"
