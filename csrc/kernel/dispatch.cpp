// Which kernels were built in, and which of them this processor can run.

#include <cstring>

#include "attention.hpp"

namespace regard {

#if defined(__x86_64__)
extern const Kernel kernel_avx512bf16, kernel_avx512, kernel_avx2;
#elif defined(__aarch64__)
extern const Kernel kernel_neon;
#endif
extern const Kernel kernel_portable;

namespace {

struct Runnable {
  const Kernel* kernels[5] = {};  // null after the last

  Runnable() {
    const Kernel** next = kernels;
#if defined(__x86_64__)
    // These ask the processor and, whether it keeps the wide registers, the operating system too.
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");  // then it has F16C too
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (avx512 && __builtin_cpu_supports("avx512bf16")) *next++ = &kernel_avx512bf16;
    if (avx512) *next++ = &kernel_avx512;
    if (avx2) *next++ = &kernel_avx2;
#elif defined(__aarch64__)
    *next++ = &kernel_neon;  // every such processor has it
#endif
    *next = &kernel_portable;
  }
};

}  // namespace

const Kernel* const* kernels() {
  static const Runnable runnable;
  return runnable.kernels;
}

const Kernel* kernel(const char* name) {
  const Kernel* const* candidate = kernels();
  while (name && *candidate && std::strcmp((*candidate)->name, name) != 0) candidate++;
  return *candidate;
}

}  // namespace regard
