// Work on many items, by the threads of OpenMP: where torch has loaded its library, those are torch's own threads.

#pragma once

#include <cstdint>

namespace regard {

// In parallel.cpp, compiled once and for any processor: nothing of it may come out of an instruction set's object.
void run_items(int64_t items, int threads, void (*work)(const void* context, int64_t item), const void* context);

namespace {

// Calls work(item) for every item from 0, the lower ones first, on so many threads at most. The first exception stops
// what has not begun, and is thrown here. May be called from several threads at once, and in the child of a fork.
template <class Work>
void for_each(int64_t items, int threads, const Work& work) {
  const auto call = [](const void* context, int64_t item) { (*static_cast<const Work*>(context))(item); };
  run_items(items, threads, call, &work);
}

}  // namespace
}  // namespace regard
