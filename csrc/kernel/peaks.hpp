// The peaks of a roofline: how fast this machine multiplies in registers and reads memory, with this width type and all
// threads at once.

#pragma once

#include <unistd.h>

#include <cstdint>
#include <ctime>

#include "attention.hpp"
#include "memory.hpp"
#include "parallel.hpp"
#include "simd.hpp"
#include "tile.hpp"

namespace regard::REGARD_ISA {
namespace {

inline double now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return double(time.tv_sec) + 1e-9 * double(time.tv_nsec);
}

// The shortest time of pass(), of all runs that begin within a tenth of a second, and of at least three.
template <class Pass>
double shortest_time(Pass&& pass) {
  double shortest = 1e9;
  const double end = now() + 0.1;
  for (int n = 0; n < 3 || now() < end; n++) {
    const double start = now();
    pass();
    const double time = now() - start;
    if (time < shortest) shortest = time;
  }
  return shortest;
}

// Keeps the compiler from removing the computation of x.
template <class T>
inline void keep(const T& x) {
  asm volatile("" : : "g"(&x) : "memory");
}

template <class Lane>
double flops_of(int threads) {
  constexpr int sums = Float::tile_rows * Float::tile_vectors, steps = 1 << 17;
  const int64_t items = 8 * threads;  // several for each thread, so that none waits for another
  const double time = shortest_time([&] {
    for_each(items, threads, [&](int64_t) {
      Float a = broadcast(0.5f), b = broadcast(0.25f), sum[sums];
      keep(a), keep(b);
      for (Float& vector : sum) vector = broadcast(0.0f);
      for (int step = 0; step < steps; step++) {
#pragma GCC unroll 32
        for (int n = 0; n < sums; n++) sum[n] = Lane::multiply_add(a, b, sum[n]);
      }
      keep(sum);
    });
  });
  return 2.0 * Lane::per_lane * Float::width * sums * steps * double(items) / time;
}

#ifdef REGARD_TILES
double flops_of_tiles(int threads) {
  constexpr int steps = 1 << 14;
  const int64_t items = 8 * threads;
  const double time = shortest_time([&] {
    for_each(items, threads, [&](int64_t) {
      const TileRegisters registers;
      with_each<6>([]<int n>() { zero_tile<n>(); });
      for (int step = 0; step < steps; step++) with_each<4>([]<int n>() { multiply_add_tiles<n, 4, 5>(); });
    });
  });
  return 2.0 * TiledPair::per_lane * TileRegisters::rows * TileRegisters::lanes * Float::width * 4 * steps *
         double(items) / time;
}
#endif

// Multiplications and additions per second, for what the kernel makes of numbers of a type.
double flops(Type type, int threads) {
#if defined(REGARD_TILES)
  if (type == Type::bfloat16) return flops_of_tiles(threads);
#elif defined(REGARD_PAIRS)
  if (type == Type::bfloat16) return flops_of<Pair>(threads);
#endif
  return type == Type::float32 ? flops_of<Single>(threads) : flops(Type::float32, threads);
}

// Bytes read from memory per second: from much more of it than any cache holds.
double bytes(int threads) {
  constexpr int64_t piece = 1 << 18;  // floats
  int64_t pieces = 256;
#ifdef _SC_LEVEL3_CACHE_SIZE
  const int64_t cache = sysconf(_SC_LEVEL3_CACHE_SIZE), floor = 2 * cache / int64_t(piece * sizeof(float));
  if (floor > pieces) pieces = floor;
#endif
  Memory memory(pieces * piece);
  for_each(pieces, threads, [&](int64_t n) { __builtin_memset(memory.data + n * piece, 0, piece * sizeof(float)); });
  const double time = shortest_time([&] {
    for_each(pieces, threads, [&](int64_t n) {
      constexpr int sums = 8, ahead = 2048;  // prefetched 8192 bytes ahead
      Float sum[sums];
      for (Float& vector : sum) vector = broadcast(0.0f);
      const float* from = memory.data + n * piece;
      for (int64_t i = 0; i < piece; i += sums * Float::width) {
#pragma GCC unroll 8
        for (int k = 0; k < sums; k++) {
          __builtin_prefetch(from + i + k * Float::width + ahead);
          sum[k] = sum[k] + load(from + i + k * Float::width);
        }
      }
      keep(sum);
    });
  });
  return double(pieces * piece * sizeof(float)) / time;
}

}  // namespace
}  // namespace regard::REGARD_ISA
