// Runs of rows whose keys overlap, as those of a text among others, and which of them have few keys.

#pragma once

#include <cstdint>

#include "attention.hpp"
#include "memory.hpp"
#include "pack.hpp"
#include "rows.hpp"

namespace regard::REGARD_ISA {
namespace {

// Few keys; of more, the tile registers are faster, where they serve.
inline int64_t most_few_keys(const Scores& s) { return splits_floats(s) ? block_keys / 2 : block_keys; }

// Rows whose run of overlapping rows has few keys, all from the same one on: those of a short text wherever it lies, so
// that it gets the same bits everywhere.
struct FewKeyRuns {
  const Scores& s;
  Memory memory;
  bool any = false, several = false;  // rows of few keys; runs in a sequence

  // Those of few keys are looked for only where they are wanted.
  FewKeyRuns(const Scores& scores, bool wanted) : s(scores), memory(wanted ? sequences() * s.queries / 4 + 1 : 0) {
    for (int64_t n = 0; n < (s.start ? sequences() : 0); n++) {
      uint8_t number = 0;
      visit(s, n, [&](int64_t from, int64_t to, bool few) {
        several |= from > 0;
        if (!wanted) return true;
        number = number == 1 ? 2 : 1, any |= few;
        __builtin_memset(numbers() + n * s.queries + from, few ? number : 0, size_t(to - from));
        return true;
      });
    }
  }

  int64_t sequences() const { return s.span_batch ? s.batch : 1; }
  uint8_t* numbers() const { return reinterpret_cast<uint8_t*>(memory.data); }

  // Calls work(from, to, few) for the runs of a sequence while it returns true; returns whether it always did.
  template <class Work>
  static bool visit(const Scores& s, int64_t sequence, Work&& work) {
    const int64_t *start = s.start + sequence * s.span_batch, *stop = s.stop + sequence * s.span_batch;
    for (int64_t from = 0, to = 0; from < s.queries; from = to) {
      const int64_t first = maximum<int64_t>(start[from], 0);
      int64_t last = first;
      bool alike = true;
      do {
        last = maximum(last, minimum(stop[to], s.keys));
        to++;
        if (to < s.queries) alike &= start[to] >= last || maximum<int64_t>(start[to], 0) == first;
      } while (to < s.queries && start[to] < last);
      if (!work(from, to, alike && last - first <= most_few_keys(s))) return false;
    }
    return true;
  }
  static bool all_few(const Scores& s) {
    for (int64_t n = 0; n < (s.span_batch ? s.batch : 1); n++)
      if (!visit(s, n, [](int64_t, int64_t, bool few) { return few; })) return false;
    return true;
  }

  // Calls work(row, count, few) for rows of a group in turn.
  template <class Work>
  void split(const HeadGroup& group, int64_t first, int64_t count, Work&& work) const {
    const uint8_t* of_query = numbers() + group.batch * s.span_batch;
    for (int64_t row = first, end = first + count, next; row < end; row = next) {
      const uint8_t number = any ? of_query[row / group.n_rep] : 0;
      next = any ? row : end;
      while (next < end && of_query[next / group.n_rep] == number) next++;
      work(row, next - row, number != 0);
    }
  }
};

}  // namespace
}  // namespace regard::REGARD_ISA
