// Few keys: all scores of a row fit into registers and the first-level cache, so that each row is met once and needs no
// online softmax. The rows are the lanes of a vector, and softmax is elementwise: its cost is that of a few
// instructions a score, however few keys there are. Keys and values are read where they lie.
//
// Every number comes out of the same operations in the same order as in forward.hpp, and so do its bits: rows may go
// either way.

#pragma once

#include <cstdint>

#include "attention.hpp"
#include "exponential.hpp"
#include "lanes.hpp"
#include "memory.hpp"
#include "pack.hpp"
#include "parallel.hpp"
#include "rows.hpp"
#include "runs.hpp"
#include "simd.hpp"
#include "small_query.hpp"
#include "tile.hpp"

namespace regard::REGARD_ISA {
namespace {

constexpr int64_t most_lanes = Float::tile_vectors * Float::width;  // rows at once
constexpr int64_t most_scores = 8192;                               // at once

// Rows at once, and head groups that they are of: one, or several with all of their rows, `each` of them.
struct LaneRows {
  int64_t groups = 0, each = 0;
  Range keys{};  // that any of them may see
  HeadGroup group[Float::width];
  uint8_t number[Float::width];  // of the group of a row, where there are several
  Row row[most_lanes];
  int64_t count() const { return groups * each; }
  const HeadGroup& group_of(int64_t r) const { return group[groups == 1 ? 0 : number[r]]; }
};

// Output and lse of rows with few keys, without statistics and modifiers.
struct FewKeys {
  const Scores& s;
  const Forward& f;
  float factor = to_powers(s);
  int64_t rows = s.queries * (s.groups ? s.heads / s.groups : 1);  // of a head group
  // Head groups at once.
  int64_t together = rows > 0 && 2 * rows <= Float::width ? Float::width / rows : 1;
  int64_t lanes = round_up(s.dim, Float::width);
  int64_t most_keys = minimum(s.keys, most_few_keys(s));

  // Whether there is nothing to do that needs more than this.
  bool is_enough() const {
    if (s.groups == 0 || rows == 0 || s.keys == 0 || !f.output.data || !f.lse || f.value_heads != s.groups)
      return false;
    if (f.entropy || f.distance || f.max_score || f.top || s.sinks || s.mask.data || !keeps_raw_products(s))
      return false;
    return s.type != Type::bfloat16 || !has_pairs;
  }
  // Whether all keys are few. A few queries on more keys than fill a vector leave most lanes empty.
  bool serves_all() const {
    return is_enough() && s.keys <= (2 * rows > Float::width ? most_few_keys(s) : Float::width);
  }

  // Rows at once, of so many and with so many keys: their scores stay in the first-level cache.
  static int64_t lanes_at_once(int64_t rows, int64_t keys) {
    constexpr int64_t width = Float::width;
    const int64_t fitting = most_scores / maximum<int64_t>(1, keys) / width;
    const int64_t most = maximum<int64_t>(1, minimum<int64_t>(Float::tile_vectors, fitting));
    const int64_t vectors = (rows + width - 1) / width, parts = (vectors + most - 1) / most;
    return (vectors + parts - 1) / parts * width;
  }

  // Where things lie in the memory of a thread, in floats.
  int64_t slots() const { return most_keys * together; }
  int64_t scores_at() const { return lanes * most_lanes; }
  int64_t staging_at() const { return scores_at() + maximum(most_scores, slots() * Float::width); }
  int64_t floats_at() const { return staging_at() + maximum(Float::width * lanes, most_lanes * f.value_dim); }
  int64_t memory_size() const { return floats_at() + (s.type == Type::float32 ? 0 : slots() * (s.dim + f.value_dim)); }

  // The rows as columns, [number][row], with zeros for the rows that are not there.
  void turn_queries(const LaneRows& of, int64_t vectors, float* memory) const {
    const int64_t columns = vectors * Float::width, count = of.count();
    const auto query = [&](int64_t r) {
      const Row& row = of.row[r];
      return at(s.query.data, s.type,
                of.group_of(r).batch * s.query.batch + row.head * s.query.head + row.query * s.query.row);
    };
    const bool as_they_lie = of.groups == 1 && of.group[0].n_rep == 1 && s.type == Type::float32;
    for (int64_t first = 0; first < count; first += Float::width) {
      const int64_t present = minimum<int64_t>(Float::width, count - first);
      const float* from = memory + staging_at();
      int64_t stride = lanes;
      if (as_they_lie) {
        from = reinterpret_cast<const float*>(query(first)), stride = s.query.row;
      } else {
        for (int64_t r = 0; r < present; r++)
          pack_row<Single>(query(first + r), s.type, s.dim, memory + staging_at() + r * lanes, lanes);
      }
      for (int64_t d = 0; d < s.dim; d += Float::width) {
        const int64_t numbers = minimum<int64_t>(Float::width, s.dim - d);
        if (present == Float::width && numbers == Float::width)
          transpose(from + d, stride, memory + d * columns + first, columns);
        else
          transpose_part(from + d, stride, present, numbers, memory + d * columns + first, columns);
      }
    }
  }

  // Rows of a tensor are asked for, so that they are in the second-level cache when they are met.
  void ask_for_rows(const Strided<const void>& of, const HeadGroup& group, int64_t head, int64_t first, int64_t count,
                    int64_t n) const {
    const char* from = at(of.data, s.type, group.batch * of.batch + head * of.head + first * of.row);
    const int64_t step = of.row * bytes_of(s.type), bytes = n * bytes_of(s.type);
    for (int64_t r = 0; r < count; r++) ask_for(from, r * step, bytes);
  }
  void ask_for_output(const LaneRows& of) const {
    for (int64_t r = 0; r < of.count(); r++) {
      const Row& row = of.row[r];
      const int64_t offset =
          of.group_of(r).batch * f.output.batch + row.head * f.output.head + row.query * f.output.row;
      ask_for(at(f.output.data, f.output_type, offset), 0, f.value_dim * bytes_of(f.output_type));
    }
  }

  // Keys or values of the groups as floats, and how far apart they are.
  struct Numbers {
    const float* data[Float::width];
    int64_t stride;
  };
  void find(const LaneRows& of, const Strided<const void>& from, int64_t n, float* to, Numbers& result) const {
    result.stride = s.type == Type::float32 ? from.row : n;
    const int64_t count = of.keys.to - of.keys.from;
    for (int64_t g = 0; g < of.groups; g++) {
      const HeadGroup& group = of.group[g];
      const char* data =
          at(from.data, s.type, group.batch * from.batch + group.key_head * from.head + of.keys.from * from.row);
      result.data[g] = s.type == Type::float32 ? reinterpret_cast<const float*>(data) : to + g * count * n;
      if (s.type == Type::float32) continue;
      for (int64_t j = 0; j < count; j++)
        to_floats(at(data, s.type, j * from.row), s.type, to + (g * count + j) * n, n);
    }
  }

  // The scores of all rows, [key][row].
  template <int vectors>
  void score(const LaneRows& of, const Numbers& keys, const float* query, float* scores) const {
    constexpr int fitting = Float::tile_rows * Float::tile_vectors / vectors, most = fitting < 8 ? fitting : 8;
    const int64_t each = of.keys.to - of.keys.from, slots = of.groups * each;
    const int64_t parts = maximum<int64_t>(1, (slots + most - 1) / most), part = (slots + parts - 1) / parts;
    int64_t group = 0, key = 0;
    for (int64_t slot = 0; slot < slots; slot += part) {
      const int64_t count = minimum(part, slots - slot);
      const float* own[most];
      for (int64_t i = 0; i < count; i++) {
        own[i] = keys.data[group] + key * keys.stride;
        if (++key == each) key = 0, group++;
      }
      with_constant<most>(int(count), [&]<int n>() {
        multiply_by_keys<vectors, n>(query, own, s.dim, scores + slot * vectors * Float::width);
      });
    }
    if constexpr (vectors == 1) {  // each row's own keys alone
      for (int64_t j = 0; j < (of.groups > 1 ? each : 0); j++) {
        Float own = load(scores + j * Float::width);
        for (int64_t g = 1; g < of.groups; g++) {
          const Float first = broadcast(float(g * of.each));
          own = where_at_most(first, counting(), load(scores + (g * each + j) * Float::width), own);
        }
        store(scores + j * Float::width, own);
      }
    }
  }

  // −∞ for the keys that rows from `first` on may not see.
  void hide(const LaneRows& of, int64_t first, int64_t columns, float* scores) const {
    alignas(64) float start[Float::width] = {}, stop[Float::width] = {};
    for (int64_t r = 0; r < minimum<int64_t>(Float::width, of.count() - first); r++) {
      start[r] = float(maximum<int64_t>(0, of.row[first + r].start - of.keys.from));
      stop[r] = float(maximum<int64_t>(0, of.row[first + r].stop - of.keys.from));
    }
    const Float from = load(start), to = load(stop), hidden = broadcast(-infinity);
    for (int64_t j = 0; j < of.keys.to - of.keys.from; j++) {
      const Float key = broadcast(float(j)), score = load(scores + j * columns);
      store(scores + j * columns, where_at_most(to, key, hidden, where_at_most(from, key, score, hidden)));
    }
  }

  // Scores become weights times their sum, which is added up as `sum` does it with the keys as lanes. Rows that see
  // nothing have −∞ as maximum and 0 as sum.
  void exponentiate(int64_t keys, int64_t columns, float* scores, float* tops, float* sums) const {
    constexpr int64_t width = Float::width;
    const Float scale = broadcast(factor), smallest = broadcast(smallest_difference(factor));
    const Float hidden = broadcast(-infinity), zero = broadcast(0.0f);
    Float top = hidden, parts[width];
    for (int64_t j = 0; j < keys; j++) top = larger(top, load(scores + j * columns));
    const Float level = where_at_most(top, hidden, zero, top);
    const auto weigh_next = [&](int64_t j) {
      const Float weight = exp2_below(load(scores + j * columns) - level, scale, smallest);
      store(scores + j * columns, weight);
      return weight;
    };
    int64_t count = minimum(keys, width);
    parts[0] = zero;
    for (int64_t j = 0; j < count; j++) parts[j] = weigh_next(j);
    for (int64_t j = width; j < keys; j += width)
      for (int64_t i = 0; i < minimum(width, keys - j); i++) parts[i] = parts[i] + weigh_next(j + i);
    for (int64_t half = width / 2; half > 0; half /= 2) {
      for (int64_t i = half; i < count; i++) parts[i - half] = parts[i - half] + parts[i];
      count = minimum(count, half);
    }
    store(tops, top), store(sums, parts[0]);
  }

  // The weighted sums, straight to the output.
  bool average(const LaneRows& of, int64_t columns, const Numbers& values, const float* weights, const float* share,
               float* staging) const {
    float* to[most_lanes];
    char* output[most_lanes];
    const int64_t count = of.count(), keys = of.keys.to - of.keys.from;
    const bool straight = f.output_type == Type::float32;
    for (int64_t r = 0; r < count; r++) {
      const Row& row = of.row[r];
      const int64_t offset =
          of.group_of(r).batch * f.output.batch + row.head * f.output.head + row.query * f.output.row;
      output[r] = const_cast<char*>(at(f.output.data, f.output_type, offset));
      to[r] = straight ? reinterpret_cast<float*>(output[r]) : staging + r * f.value_dim;
    }
    bool finite = true;
    const int64_t part = vectors_at_once((f.value_dim + Float::width - 1) / Float::width) * Float::width;
    for (int64_t e = 0; e < f.value_dim; e += part) {
      const int64_t numbers = minimum(part, f.value_dim - e), vectors = (numbers + Float::width - 1) / Float::width;
      with_constant<Float::tile_vectors>(int(vectors), [&]<int vectors>() {
        constexpr int most = 2 * vectors <= Float::tile_vectors ? 8 : Float::tile_rows;
        for (int64_t g = 0; g < of.groups; g++) {
          for (int64_t r = g * of.each, end = r + of.each; r < end; r += most) {
            with_constant<most>(int(minimum<int64_t>(most, end - r)), [&]<int rows>() {
              finite &= average_few<rows, vectors>(weights + r, columns, keys, values.data[g] + e, values.stride,
                                                   numbers - (vectors - 1) * Float::width, share + r, to + r);
            });
          }
        }
      });
      for (int64_t r = 0; r < count; r++) to[r] += numbers;
    }
    for (int64_t r = 0; r < (straight ? 0 : count); r++)
      from_floats(staging + r * f.value_dim, f.output_type, output[r], f.value_dim);
    return finite;
  }

  void write_lse(const LaneRows& of, const float* tops, const float* sums) const {
    constexpr int64_t at_once = 8;
    using Doubles = double __attribute__((vector_size(64), aligned(8)));
    using Floats = float __attribute__((vector_size(32), aligned(4)));
    const double unit = double(factor) * ln_2;
    const int64_t count = of.count();
    const auto place = [&](int64_t r) {
      return (of.group_of(r).batch * s.heads + of.row[r].head) * s.queries + of.row[r].query;
    };
    const bool in_turn = of.group[0].n_rep == 1;  // also those of several groups
    double* to = f.lse + place(0);
    for (int64_t first = 0; first < count; first += at_once) {
      alignas(64) double lse[at_once];
      auto& vector = *reinterpret_cast<Doubles*>(lse);
      vector = __builtin_convertvector(*reinterpret_cast<const Floats*>(sums + first), Doubles);
      logarithms(lse);
      vector = __builtin_convertvector(*reinterpret_cast<const Floats*>(tops + first), Doubles) * unit + vector;
      const int64_t rows = minimum(at_once, count - first);
      for (int64_t i = 0; i < rows; i++) lse[i] = sums[first + i] == 0 ? -infinity : lse[i];
      if (in_turn)
        __builtin_memcpy(to + first, lse, size_t(rows) * sizeof(double));
      else
        for (int64_t i = 0; i < rows; i++) f.lse[place(first + i)] = lse[i];
    }
  }

  // Returns false where the output is not finite: rows that do not see what is not must not get it.
  template <int vectors>
  bool attend(const LaneRows& of, float* memory) const {
    constexpr int64_t columns = vectors * Float::width;
    const int64_t keys = of.keys.to - of.keys.from;
    float *scores = memory + scores_at(), *floats = memory + floats_at();
    constexpr int64_t places = columns < 8 ? 8 : columns;  // of whole vectors of doubles
    alignas(64) float tops[places] = {}, sums[places] = {}, share[columns];
    Numbers key, value;
    find(of, s.key, s.dim, floats, key), find(of, f.value, f.value_dim, floats + slots() * s.dim, value);
    ask_for_output(of);
    turn_queries(of, vectors, memory);
    score<vectors>(of, key, memory, scores);
    for (int64_t first = 0; first < columns; first += Float::width) {
      if (s.start) hide(of, first, columns, scores + first);
      exponentiate(keys, columns, scores + first, tops + first, sums + first);
      const Float sum = load(sums + first), zero = broadcast(0.0f);
      store(share + first, where_at_most(sum, zero, zero, broadcast(1.0f) / sum));
    }
    write_lse(of, tops, sums);
    return average(of, columns, value, scores, share, memory + staging_at());
  }
  bool attend(const LaneRows& of, float* memory) const {
    bool finite = true;
    with_constant<Float::tile_vectors>(int((of.count() + Float::width - 1) / Float::width),
                                       [&]<int vectors>() { finite = attend<vectors>(of, memory); });
    return finite;
  }

  // Rows of one group, a run of overlapping keys after the other.
  bool run(const HeadGroup& group, int64_t first_row, int64_t count, float* memory) const {
    LaneRows of;
    of.groups = 1, of.group[0] = group;
    for (int64_t first = first_row, end = first_row + count; first < end; first += of.each) {
      const int64_t left = end - first, looked_at = s.start ? minimum(left, most_lanes) : lanes_at_once(left, s.keys);
      of.each = minimum(looked_at, left), of.keys = {0, s.keys};
      for (int64_t r = 0; r < of.each; r++) of.row[r] = row_of(s, group, first + r);
      if (s.start) {
        of.each = segment_end(of.row, 0, of.each), of.keys = key_range(of.row, of.each);
        const int64_t rows = of.each < looked_at ? of.each : left;
        of.each = minimum(of.each, lanes_at_once(rows, of.keys.to - of.keys.from));
        of.keys = key_range(of.row, of.each);
      }
      if (group.n_rep == 1)
        ask_for_rows(s.query, group, group.first_head, first + of.each, minimum(of.each, left - of.each), s.dim);
      if (!attend(of, memory)) return false;
    }
    return true;
  }

  // All rows of several groups from number `first` on, as many as fit into a vector.
  bool run_together(int64_t first, int64_t count, float* memory) const {
    LaneRows of;
    of.groups = count, of.each = rows, of.keys = {0, s.keys};
    for (int64_t g = 0; g < count; g++) {
      of.group[g] = head_group(s, first + g, s.heads / s.groups);
      for (int64_t r = 0; r < rows; r++) {
        of.row[g * rows + r] = row_of(s, of.group[g], r), of.number[g * rows + r] = uint8_t(g);
        if (of.row[g * rows + r].start > 0) return false;
      }
    }
    return attend(of, memory);
  }
};

// One head group as a problem of its own.
inline Scores of_group(const Scores& s, const HeadGroup& group) {
  Scores own = s;
  own.batch = own.groups = 1, own.heads = group.n_rep;
  own.query.data = at(s.query.data, s.type, group.batch * s.query.batch + group.first_head * s.query.head);
  own.key.data = at(s.key.data, s.type, group.batch * s.key.batch + group.key_head * s.key.head);
  if (s.start) own.start += group.batch * s.span_batch, own.stop += group.batch * s.span_batch;
  return own;
}
inline Forward of_group(const Scores& s, const Forward& f, const HeadGroup& group) {
  Forward own = f;
  own.value_heads = 1;
  own.value.data = at(f.value.data, s.type, group.batch * f.value.batch + group.key_head * f.value.head);
  const int64_t offset = group.batch * f.output.batch + group.first_head * f.output.head;
  own.output.data = const_cast<char*>(at(f.output.data, f.output_type, offset));
  own.lse += (group.batch * s.heads + group.first_head) * s.queries;
  return own;
}

// The forward pass where all keys are few; false where they are not, or more is asked for. Groups whose output is not
// finite go through `general`.
template <class General>
bool forward_few_keys(const Scores& s, const Forward& f, int threads, General&& general) {
  const FewKeys few{s, f};
  if (!few.serves_all() || (s.start && !FewKeyRuns::all_few(s))) return false;
  constexpr int64_t rows_at_once = 16 * most_lanes, enough = 1 << 15;  // cycles, some ten microseconds
  const int64_t cycles = few.rows * (s.keys * (s.dim + f.value_dim) / (2 * Float::width) + 50);
  const int64_t groups = s.batch * s.groups, n_rep = s.heads / s.groups;
  const int64_t parts = few.together > 1 ? 1 : (few.rows + rows_at_once - 1) / rows_at_once;
  const int64_t each = parts > 1 ? 1 : round_up(maximum<int64_t>(1, enough / 4 / cycles), few.together);
  const int64_t used = cycles * groups < enough ? 1 : threads;
  for_each((groups + each - 1) / each * parts, int(used), [&](int64_t item) {
    const int64_t first = item / parts * each, last = minimum(groups, first + each), part = item % parts;
    for (int64_t n = first; n < last; n += few.together) {
      const int64_t count = minimum(few.together, last - n);
      if (few.together > 1 && few.run_together(n, count, thread_memory(few.memory_size()))) continue;
      for (int64_t g = n; g < n + count; g++) {
        const HeadGroup group = head_group(s, g, n_rep);
        const int64_t row = part * rows_at_once, rows = minimum(few.rows - row, parts > 1 ? rows_at_once : few.rows);
        if (few.run(group, row, rows, thread_memory(few.memory_size()))) continue;
        general(of_group(s, group), of_group(s, f, group), 1);
      }
    }
  });
  return true;
}

}  // namespace
}  // namespace regard::REGARD_ISA
