// Memory to work in, on the border of a cache line.

#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

namespace regard::REGARD_ISA {
namespace {

// Floats on a cache line's border.
struct Memory {
  float* data = nullptr;
  explicit Memory(int64_t floats) {
    data = static_cast<float*>(std::aligned_alloc(64, size_t(floats / 16 + 1) * 64));
    if (!data) throw std::bad_alloc();
  }
  Memory(const Memory&) = delete;
  ~Memory() { std::free(data); }
};

// What a thread works in: kept from call to call, so that the system need not hand out its pages again. What one use is
// still reading, another must not take.
template <int use = 0>
inline float* thread_memory(int64_t floats) {
  struct Kept {
    float* data = nullptr;
    int64_t size = 0;
    ~Kept() { std::free(data); }
  };
  static thread_local Kept kept;
  if (!kept.data || kept.size < floats) {
    std::free(kept.data);
    kept.size = 0;
    kept.data = static_cast<float*>(std::aligned_alloc(64, size_t(floats / 16 + 1) * 64));
    if (!kept.data) throw std::bad_alloc();
    kept.size = floats;
  }
  return kept.data;
}

}  // namespace
}  // namespace regard::REGARD_ISA
