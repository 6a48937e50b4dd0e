// Which kernels were built in, and which of them this processor can run.

#include <cstring>

#ifdef REGARD_AMX  // defined where that kernel is built in: on Linux, by a compiler that knows its instructions
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "attention.hpp"

namespace regard {

#if defined(__x86_64__)
extern const Kernel kernel_avx512bf16, kernel_avx512, kernel_avx2;
#ifdef REGARD_AMX
extern const Kernel kernel_amx;
#endif
#elif defined(__aarch64__)
extern const Kernel kernel_neon;
#endif
extern const Kernel kernel_portable;

namespace {

#ifdef REGARD_AMX
// Whether the processor has tile registers for bfloat16 and int8, and Linux lets this process use them: it keeps them
// for the threads of a process that has asked.
bool may_use_tiles() {
  unsigned a, b, c, d = 0;
  constexpr unsigned bf16 = 1u << 22, tile = 1u << 24, int8 = 1u << 25;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || ~d & (bf16 | tile | int8)) return false;
  constexpr int request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}
#endif

struct Runnable {
  const Kernel* kernels[6] = {};  // null after the last

  Runnable() {
    const Kernel** next = kernels;
#if defined(__x86_64__)
    // These ask the processor and, whether it keeps the wide registers, the operating system too.
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");  // then it has F16C too
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    const bool avx512bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
#ifdef REGARD_AMX
    if (avx512bf16 && __builtin_cpu_supports("avx512vnni") && may_use_tiles()) *next++ = &kernel_amx;
#endif
    if (avx512bf16) *next++ = &kernel_avx512bf16;
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
