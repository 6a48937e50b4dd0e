// The kernel, written once over a width type. Each file in isa/ includes that type, then this, and is compiled with its
// instruction set's flags. All names are local to that file: no code of one instruction set may be taken for another's.

#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

#include "attention.hpp"
#include "parallel.hpp"

namespace regard::REGARD_ISA {
namespace {

// Floats on a cache line's border.
struct Memory {
  float* data = nullptr;
  explicit Memory(int64_t floats) {
    if (floats == 0) return;
    data = static_cast<float*>(std::aligned_alloc(64, size_t(floats + 15) / 16 * 64));
    if (!data) throw std::bad_alloc();
  }
  Memory(const Memory&) = delete;
  ~Memory() { std::free(data); }
};

// What a thread works in: kept from call to call, so that the system need not hand out its pages again.
inline float* thread_memory(int64_t floats) {
  struct Kept {
    float* data = nullptr;
    int64_t size = 0;
    ~Kept() { std::free(data); }
  };
  static thread_local Kept kept;
  if (kept.size < floats) {
    std::free(kept.data);
    kept.size = 0;
    kept.data = static_cast<float*>(std::aligned_alloc(64, size_t(floats + 15) / 16 * 64));
    if (!kept.data) throw std::bad_alloc();
    kept.size = floats;
  }
  return kept.data;
}

}  // namespace
}  // namespace regard::REGARD_ISA

#include "tile.hpp"
#include "exponential.hpp"
#include "pack.hpp"
#include "rows.hpp"
#include "forward.hpp"
