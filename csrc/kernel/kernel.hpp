// The kernel of one instruction set, written once over a width type. Each file in isa/ names its width type, includes
// this, and is compiled with the flags of its instruction set. All names are local to that file: no code of one
// instruction set may be taken for another's.

#pragma once

#include <cstdint>
#include <type_traits>

#include "apply.hpp"
#include "attention.hpp"
#include "backward.hpp"
#include "diagonal.hpp"
#include "forward.hpp"
#include "forward_tiles.hpp"
#include "largest.hpp"
#include "linear.hpp"
#include "linear_split.hpp"
#include "memory.hpp"
#include "pack.hpp"
#include "peaks.hpp"
#include "pool.hpp"
#include "quantized.hpp"
#include "short.hpp"
#include "simd.hpp"
#include "small_query.hpp"
#include "tile.hpp"
#include "token.hpp"

namespace regard {
namespace REGARD_ISA {
namespace {

// Of so few products, and numbers to be read, that waking other threads would take longer. Where queries are few, a
// number that is read takes as long as some eight products.
inline int threads_for(const Scores& s, int threads) {
  const int64_t products = s.heads * s.queries, numbers = 8 * s.groups;  // of a sequence, for each number of its keys
  return s.batch * (products + numbers) * s.keys * s.dim < int64_t(1) << 20 ? 1 : threads;
}

#ifdef REGARD_TILES
using FastestPair = TiledPair;
#elif defined(REGARD_PAIRS)
using FastestPair = Pair;
#endif

// What linear layers multiply.
#ifdef REGARD_PAIRS
template <Type type>
using LinearLane = std::conditional_t<type == Type::bfloat16, FastestPair, Single>;
#else
template <Type type>
using LinearLane = Single;
#endif

// Pairs where the scores are bfloat16, the instruction set has them and rows are many; floats otherwise, which are
// split where that is faster and `may_split`.
template <bool may_split, class Work>
void with_lane([[maybe_unused]] const Scores& s, Work&& work) {
#ifdef REGARD_PAIRS
  if (s.type == Type::bfloat16 && !is_small_query(s)) return work.template operator()<FastestPair>();
#endif
#ifdef REGARD_TILES
  if constexpr (may_split) {
    if (splits_floats(s) && !is_small_query(s)) return work.template operator()<TiledTriple>();
  }
#endif
  work.template operator()<Single>();
}

// The same for maps, which combine heads as floats.
template <class Work>
void with_map_lane(const Scores& s, const Map& m, Work&& work) {
  m.gram.data ? with_lane<false>(s, work) : with_lane<true>(s, work);
}

void forward_many_keys(const Scores& s, const Forward& f, int threads) {
  with_lane<true>(s, [&]<class Lane>() { forward_in<Lane>(s, f, threads_for(s, threads)); });
}
void forward(const Scores& s, const Forward& f, int threads) {
  if (!forward_few_keys(s, f, threads, forward_many_keys)) forward_many_keys(s, f, threads);
}
void pool(const Scores& s, const Map& m, const Pool& c, int threads) {
  with_map_lane(s, m, [&]<class Lane>() { pool_in<Lane>(s, m, c, threads_for(s, threads)); });
}
void tile(const Scores& s, const Map& m, const Tile& t, int threads) {
  with_map_lane(s, m, [&]<class Lane>() { tile_in<Lane>(s, m, t, threads_for(s, threads)); });
}
void diagonal(const Scores& s, const Map& m, const Diagonal& d, int threads) {
  with_map_lane(s, m, [&]<class Lane>() { diagonal_in<Lane>(s, m, d, threads_for(s, threads)); });
}
void apply(const Scores& s, const Map& m, const Apply& a, int threads) {
  with_map_lane(s, m, [&]<class Lane>() { apply_in<Lane>(s, m, a, threads_for(s, threads)); });
}
void transposed(const Scores& s, const Map& m, const Transposed& t, int threads) {
  with_map_lane(s, m, [&]<class Lane>() { transposed_in<Lane>(s, m, t, threads_for(s, threads)); });
}
void largest(const Scores& s, const Map& m, const Largest& l, int threads) {
  with_map_lane(s, m, [&]<class Lane>() { largest_in<Lane>(s, m, l, threads_for(s, threads)); });
}
void backward(const Scores& s, const Backward& b, int threads) {
  with_lane<false>(s, [&]<class Lane>() { backward_in<Lane>(s, b, threads_for(s, threads)); });
}
void linear(const Linear& l, int threads) {
  const bool little = l.rows * l.inputs * l.outputs < int64_t(1) << 18;
  if (little) threads = 1;
  with_type(l.type, [&]<Type type>() {
#ifdef REGARD_TILES
    if constexpr (type != Type::bfloat16) return split_linear_in<type>(l, threads);
#endif
    linear_in<LinearLane<type>, type>(l, threads);
  });
}
void quantized(const Linear& l, const Quantized& w, int threads) {
  const bool little = l.rows * l.inputs * l.outputs < int64_t(1) << 18;
  with_bytes([&]<class Lane>() { quantized_in<Lane>(l, w, little ? 1 : threads); });
}
void pack_quantized(int64_t outputs, int64_t inputs, const int8_t* weight, void* to) {
  with_bytes([&]<class Lane>() { pack_whole<Lane>(outputs, inputs, weight, to); });
}
int64_t quantized_size(int64_t outputs, int64_t inputs) {
  int64_t lanes = 0;
  with_bytes([&]<class Lane>() { lanes = round_up(outputs, panel_keys) * quantized_lanes<Lane>(inputs); });
  return lanes * int64_t(sizeof(float));
}
void token(const TokenLayer& t, int threads) { token_in(t, threads); }
int64_t linear_size(Type type, int64_t outputs, int64_t inputs) {
  int64_t floats = 0;
  with_type(type, [&]<Type type>() { floats = round_up(outputs, panel_keys) * lanes_of<LinearLane<type>>(inputs); });
  return floats;
}
void pack_linear(Type type, int64_t outputs, int64_t inputs, const void* weight, float* to) {
  with_type(type, [&]<Type type>() {
    float* scratch = thread_memory(Float::width * round_up(lanes_of<LinearLane<type>>(inputs), Float::width));
    pack_panels<LinearLane<type>>(weight, type, inputs, outputs, inputs, to, scratch);
  });
}

}  // namespace
}  // namespace REGARD_ISA

#define REGARD_TEXT_OF(name) #name
#define REGARD_TEXT(name) REGARD_TEXT_OF(name)
#define REGARD_JOIN_OF(a, b) a##b
#define REGARD_JOIN(a, b) REGARD_JOIN_OF(a, b)

extern const Kernel REGARD_JOIN(kernel_, REGARD_ISA);
const Kernel REGARD_JOIN(kernel_, REGARD_ISA){
    REGARD_TEXT(REGARD_ISA), REGARD_ISA::forward,     REGARD_ISA::pool,           REGARD_ISA::tile,
    REGARD_ISA::diagonal,    REGARD_ISA::apply,       REGARD_ISA::transposed,     REGARD_ISA::largest,
    REGARD_ISA::backward,    REGARD_ISA::linear,      REGARD_ISA::quantized,      REGARD_ISA::token,
    REGARD_ISA::pack_linear, REGARD_ISA::linear_size, REGARD_ISA::pack_quantized, REGARD_ISA::quantized_size,
    REGARD_ISA::flops,       REGARD_ISA::bytes};

}  // namespace regard
