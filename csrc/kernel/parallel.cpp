#include "parallel.hpp"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>

namespace regard {
namespace {

std::atomic<bool> forked{false};
[[maybe_unused]] const int watching = pthread_atfork(nullptr, nullptr, [] { forked = true; });

}  // namespace

void run_items(int64_t items, int threads, void (*work)(const void* context, int64_t item), const void* context) {
  std::atomic<int64_t> next{0};
  std::atomic_flag failed;
  std::exception_ptr failure;
  const auto take_items = [&] {
    try {
      for (int64_t item; (item = next++) < items;) work(context, item);
    } catch (...) {  // must not leave a parallel region
      next = items;
      if (!failed.test_and_set()) failure = std::current_exception();
    }
  };
  [[maybe_unused]] const int team = int(std::min<int64_t>(threads, items));
  const auto take_together = [&] {
#pragma omp parallel num_threads(team) if (team > 1)
    take_items();
  };
  // In the child of a fork, GNU OpenMP would wait forever for threads that stayed with the parent. They belong to the
  // thread that forked: a new thread gets new ones.
  if (forked && team > 1) {
    std::thread(take_together).join();
  } else {
    take_together();
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace regard
