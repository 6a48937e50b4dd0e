// The kernel, written once over a width type. Each file in isa/ includes that type, then this, and is compiled with its
// instruction set's flags. All names are local to that file: no code of one instruction set may be taken for another's.

#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>
#include <type_traits>

#include "attention.hpp"
#include "parallel.hpp"

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

// What a thread works in: kept from call to call, so that the system need not hand out its pages again.
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

#include "tile.hpp"
#include "exponential.hpp"
#include "pack.hpp"
#include "few.hpp"
#include "rows.hpp"
#include "forward.hpp"
#include "cells.hpp"
#include "backward.hpp"
#include "linear.hpp"
#include "ceiling.hpp"

namespace regard {
namespace REGARD_ISA {
namespace {

// Of so few products that waking other threads would take longer.
inline int threads_for(const Scores& s, int threads) {
  return s.batch * s.heads * s.queries * s.keys * s.dim < int64_t(1) << 20 ? 1 : threads;
}

// Pairs where the scores are bfloat16, the instruction set has them and rows are many; floats otherwise.
template <class Work>
void with_cell([[maybe_unused]] const Scores& s, Work&& work) {
#ifdef REGARD_PAIRS
  if (s.type == Type::bfloat16 && !few(s)) return work.template operator()<Pair>();
#endif
  work.template operator()<Single>();
}

void forward(const Scores& s, const Forward& f, int threads) {
  with_cell(s, [&]<class Cell>() { forward_in<Cell>(s, f, threads_for(s, threads)); });
}
void cells(const Scores& s, const Cells& c, int threads) {
  with_cell(s, [&]<class Cell>() { cells_in<Cell>(s, c, threads_for(s, threads)); });
}
void tile(const Scores& s, const Tile& t, int threads) {
  with_cell(s, [&]<class Cell>() { tile_in<Cell>(s, t, threads_for(s, threads)); });
}
void transposed(const Scores& s, const Transposed& t, int threads) {
  with_cell(s, [&]<class Cell>() { transposed_in<Cell>(s, t, threads_for(s, threads)); });
}
void backward(const Scores& s, const Backward& b, int threads) {
  with_cell(s, [&]<class Cell>() { backward_in<Cell>(s, b, threads_for(s, threads)); });
}
void linear(const Linear& l, int threads) {
  const bool little = l.rows * l.inputs * l.outputs < int64_t(1) << 18;
  with_type(l.type, [&]<Type type>() { linear_in<Product<type>, type>(l, little ? 1 : threads); });
}
int64_t linear_size(Type type, int64_t outputs, int64_t inputs) {
  int64_t floats = 0;
  with_type(type, [&]<Type type>() { floats = round_up(outputs, panel_keys) * cells_of<Product<type>>(inputs); });
  return floats;
}
void pack_linear(Type type, int64_t outputs, int64_t inputs, const void* weight, float* to) {
  with_type(type, [&]<Type type>() {
    float* scratch = thread_memory(Float::width * round_up(cells_of<Product<type>>(inputs), Float::width));
    pack_panels<Product<type>>(weight, type, inputs, outputs, inputs, to, scratch);
  });
}

}  // namespace
}  // namespace REGARD_ISA

#define REGARD_TEXT_OF(name) #name
#define REGARD_TEXT(name) REGARD_TEXT_OF(name)
#define REGARD_JOIN_OF(a, b) a##b
#define REGARD_JOIN(a, b) REGARD_JOIN_OF(a, b)

extern const Kernel REGARD_JOIN(kernel_, REGARD_ISA);
const Kernel REGARD_JOIN(kernel_, REGARD_ISA){REGARD_TEXT(REGARD_ISA), REGARD_ISA::forward,     REGARD_ISA::cells,
                                              REGARD_ISA::tile,        REGARD_ISA::transposed,  REGARD_ISA::backward,
                                              REGARD_ISA::linear,      REGARD_ISA::pack_linear, REGARD_ISA::linear_size,
                                              REGARD_ISA::flops,       REGARD_ISA::bytes};

}  // namespace regard
