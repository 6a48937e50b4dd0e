// Any processor.

#define REGARD_ISA portable

#include "../simd_portable.hpp"
#include "../kernel.hpp"
