#include "parallel.hpp"

#include <pthread.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>
#include <thread>

namespace regard {
namespace {

std::atomic<bool> forked{false};
[[maybe_unused]] const int watching = pthread_atfork(nullptr, nullptr, [] { forked = true; });

// The items from `next` to `end`, on a cache line of its own.
struct alignas(64) Share {
  std::atomic<int64_t> next;
  int64_t end;
};

int thread_number() {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

}  // namespace

// Each thread begins with a share of its own, the same at every call, as its cache may still hold what the share reads;
// then it helps the others.
void run_items(int64_t items, int threads, void (*work)(const void* context, int64_t item), const void* context) {
  const int team = int(std::min<int64_t>(threads, items));
  if (team <= 1) {
    for (int64_t item = 0; item < items; item++) work(context, item);
    return;
  }
  const std::unique_ptr<Share[]> shares(new Share[size_t(team)]);
  for (int n = 0; n < team; n++) shares[n].next = items * n / team, shares[n].end = items * (n + 1) / team;
  std::atomic<bool> failed{false};
  std::exception_ptr failure;
  const auto take_items = [&](int own) {
    try {
      for (int n = 0; n < team; n++) {
        Share& share = shares[(own + n) % team];
        for (int64_t item; !failed && (item = share.next++) < share.end;) work(context, item);
      }
    } catch (...) {  // must not leave a parallel region
      if (!failed.exchange(true)) failure = std::current_exception();
    }
  };
  const auto take_together = [&] {
#pragma omp parallel num_threads(team)
    take_items(thread_number());
  };
  // In the child of a fork, GNU OpenMP would wait forever for threads that stayed with the parent. They belong to the
  // thread that forked: a new thread gets new ones.
  if (forked) {
    std::thread(take_together).join();
  } else {
    take_together();
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace regard
