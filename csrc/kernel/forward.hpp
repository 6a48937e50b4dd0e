// The forward pass: output, normaliser and statistics of the rows, a block of keys at a time, by the online softmax
// (Milakov and Gimelshein 2018, https://arxiv.org/abs/1805.02867; Dao et al. 2022, https://arxiv.org/abs/2205.14135).

#pragma once

#include <cstdint>

#include "attention.hpp"
#include "blocks.hpp"
#include "exponential.hpp"
#include "memory.hpp"
#include "pack.hpp"
#include "parallel.hpp"
#include "ranks.hpp"
#include "rows.hpp"
#include "short.hpp"
#include "simd.hpp"
#include "small_query.hpp"
#include "tile.hpp"
#include "weighing.hpp"

namespace regard::REGARD_ISA {
namespace {

// The values of a block of keys: packed or, for a small query, where they lie.
struct Values {
  float* packed;
  const char *keys, *from, *direct;
  Upcoming next;  // the keys of the next block
  int64_t rows;
  bool finite;
};

#ifdef REGARD_TILES
template <class Pass, class Prepare>
void run_in_tiles(const Pass&, const HeadGroup&, int64_t first_row, int64_t count, Range keys, Accumulated, float*,
                  Prepare&&, const Values&);  // in forward_tiles.hpp
#endif

// The forward pass over blocks of rows.
template <class Lane_>
struct Pass {
  using Lane = Lane_;
  const Scores& s;
  const Forward& f;
  bool direct;
  bool shared = f.output.data && f.value_heads == s.groups;  // whether values have the heads of the keys
  Blocks<Lane> blocks{s, direct, shared ? f.value : Strided<const void>{}, shared ? f.value_dim : 0};
  int64_t width = round_up(f.value_dim, Float::width);  // of a value, in floats or pairs
  int64_t capacity = round_up(f.top, 8);                // for the largest of a row
  float factor = to_powers(s);

  int64_t scratch_size() const { return blocks.size() + lanes_of<Lane>(block_keys) * width; }

  // Returns false where a small query met values that are not finite, and has to take the path of a large one.
  bool run(const HeadGroup& group, int64_t first_row, int64_t count, Range keys, Accumulated sofar,
           float* memory) const {
    Values values{memory + blocks.size(), nullptr, nullptr, nullptr, {}, count, true};
    bool finite = true;
    auto prepare = [&](int64_t first, int64_t known) {
      values.keys = blocks.key(group.batch, group.key_head, first);
      if (!f.output.data) return;
      const int64_t head = f.value_heads == s.heads ? group.first_head : group.key_head;
      const int64_t value = group.batch * f.value.batch + head * f.value.head + first * f.value.row;
      const char* from = at(f.value.data, s.type, value);
      values.from = from;
      if (direct) {
        const int64_t next = first + blocks.keys_at_once();
        const int64_t keys = group.batch * s.key.batch + group.key_head * s.key.head + next * s.key.row;
        values.direct = from;
        if (rows_fill_lanes(s)) values.next = Upcoming(s.key.data, s.type, keys, s.key.row, s.dim);
        return;
      }
      values.finite = pack_values<Lane>(from, s.type, f.value.row, known, f.value_dim, values.packed, width);
    };
#ifdef REGARD_TILES
    if constexpr (Lane::steps > 1) {
      run_in_tiles(*this, group, first_row, count, keys, sofar, memory, prepare, values);
      return true;
    }
#endif
    blocks.visit(group, first_row, count, keys, memory, prepare,
                 [&]<int>(const Scored& tile) { finite &= add(tile, values, sofar); });
    return finite;
  }

  // Adds at most tile_rows rows; returns whether all of a small query's output is finite.
  bool add(const Scored& tile, const Values& values, Accumulated sofar) const {
    const auto [rows, r, first, known, n, fresh, next, keys, scores, top] = tile;
    if (!values.direct) ask_for_next(values, first, next);
    alignas(64) float keep[16] = {};  // the factors by which the sums so far shrink under the new maxima
    bool larger_maxima = false;
    for (int i = 0; i < n; i++) {
      const State& state = sofar.state[r + i];
      const float max = maximum(state.max, top[i]);
      keep[i] = fresh ? -infinity : state.max - reference_score(max);
      larger_maxima |= max != state.max;
    }
    if (larger_maxima && !fresh)
      decay_factors(keep, n);
    else
      for (int i = 0; i < n; i++) keep[i] = fresh ? 0 : 1;
    bool hidden[tile_rows][block_keys];
    for (int i = 0; i < n; i++) {
      float* row = scores + i * block_keys;
      begin_row(tile, i, top[i], keep[i], row, values.finite ? nullptr : hidden[i], sofar);
      weigh_row(tile, i, top[i], row, row, sofar);
    }
    if (!f.output.data) return true;
    float* output = sofar.output + r * width;
    const int64_t count = minimum(keys.to, known) - keys.from;
    if (values.direct) {
      if (fresh) __builtin_memset(output, 0, n * width * sizeof(float));
      bool finite = true;
      with_type(s.type, [&]<Type type>() {
        const char* from = at(values.direct, type, keys.from * f.value.row);
        const Upcoming next = values.next.part(r, r + n, values.rows);
        with_constant<tile_rows>(n, [&]<int rows>() {
          finite = average<type, rows>(scores + keys.from, block_keys, count, from, f.value.row, f.value_dim, next,
                                       keep, output, width);
        });
      });
      return finite;
    }
    if (values.finite) {
      const int64_t lane = lane_of<Lane>(keys.from);
      accumulate_rows<Lane, tile_rows>(n, Left{scores + lane, block_keys, 1},
                                       Right{values.packed + lane * width, width}, lanes_of<Lane>(count),
                                       fresh ? nullptr : keep, output, width, width);
    } else {
      for (int i = 0; i < n; i++) {
        average_visible(scores + i * block_keys, hidden[i], {keys.from, keys.from + count}, values.packed, keep[i],
                        output + i * width);
      }
    }
    return true;
  }

  // Prepares row i of a tile, with scores of which `top` is the largest: what is known of it so far shrinks by `keep`.
  // Notes which keys are hidden, where that is asked for.
  void begin_row(const Scored& tile, int i, float top, float keep, float* scores, bool* hidden,
                 Accumulated sofar) const {
    const int64_t r = tile.at + i;
    State& state = sofar.state[r];
    rescale(state, maximum(state.max, top), keep);
    if (f.top) update_list(scores, tile.keys, tile.first, top, sofar.largest + r * capacity, f.top, capacity);
    for (int64_t j = tile.keys.from; hidden && j < tile.keys.to; j++) hidden[j] = scores[j] == -infinity;
  }

  // From the scores of row i of a tile, of which `top` is the largest, to weights.
  void weigh_row(const Scored& tile, int i, float top, const float* scores, float* weights, Accumulated sofar) const {
    const Range keys = tile.keys;
    State& state = sofar.state[tile.at + i];
    const float position = float(f.first_position + tile.rows[i].query - tile.first);
    const float level = reference_score(state.max);
    const auto weigh = [&]<bool entropy, bool distance>() {
      top == state.max
          ? exponentiate<Lane, entropy, distance, entropy>(scores, weights, keys, factor, level, position, state)
          : exponentiate<Lane, entropy, distance, false>(scores, weights, keys, factor, level, position, state);
    };
    if (f.distance) {
      f.entropy ? weigh.template operator()<true, true>() : weigh.template operator()<false, true>();
    } else {
      f.entropy ? weigh.template operator()<true, false>() : weigh.template operator()<false, false>();
    }
  }

  // Asks for keys and values that follow, so that packing them does not wait for memory.
  void ask_for_next(const Values& values, int64_t first, Range next) const {
    const int64_t bytes = bytes_of(s.type);
    for (int64_t j = next.from - first; j < next.to - first; j++) {
      ask_for(values.keys, j * s.key.row * bytes, s.dim * bytes);
      if (f.output.data) ask_for(values.from, j * f.value.row * bytes, f.value_dim * bytes);
    }
  }

  // The weighted sum of a row where values are not finite: only rows that may see them become nan.
  void average_visible(const float* weights, const bool* hidden, Range keys, const float* values, float keep,
                       float* output) const {
    for (int64_t e = 0; e < f.value_dim; e++) {
      float total = keep == 0 ? 0 : keep * output[e];
      for (int64_t j = keys.from; j < keys.to; j++) {
        if (hidden[j]) continue;
        const int64_t lane = split_lane(j);
        total += number(weights, lane, 1, j) * number(values + e, lane, width, j);
      }
      output[e] = total;
    }
  }

  // The lane of a weight or value, and the number there.
  static int64_t split_lane(int64_t j) {
    return Lane::planes > 1 ? j / (2 * Float::width) * Lane::planes * Float::width + j % Float::width
                            : j / Lane::per_lane;
  }
  static float number(const float* lanes, int64_t lane, int64_t step, int64_t j) {
    if constexpr (Lane::per_lane == 1) return lanes[lane * step];
    const int64_t second = Lane::planes > 1 ? j / Float::width % 2 : j % 2;
    float sum = 0, part;
    for (int64_t plane = Lane::planes - 1; plane >= 0; plane--) {
      const auto* halves = reinterpret_cast<const uint16_t*>(lanes + (lane + plane * Float::width) * step);
      to_floats(halves + second, Type::bfloat16, &part, 1);
      if (plane == 0 || part == part) sum += part;
    }
    return sum;
  }

  // The score that is subtracted before exp: the maximum of the row, or 0 where it has seen nothing, as −∞ − −∞ is nan.
  static float reference_score(float max) { return max == -infinity ? 0 : max; }

  // From differences of maxima to the factors by which sums shrink, in place.
  void decay_factors(float* difference, int n) const {
    const Float smallest = broadcast(smallest_difference(factor)), scale = broadcast(factor);
    for (int i = 0; i < n; i += Float::width)
      store(difference + i, exp2(larger(smallest, load(difference + i)), scale));
  }

  // Merges the state of a row over other keys into its state.
  void merge(Accumulated a, int64_t i, Accumulated b, int64_t j) const {
    State &target = a.state[i], other = b.state[j];
    const float max = maximum(target.max, other.max), level = reference_score(max);
    alignas(64) float keep[16] = {target.max - level, other.max - level};
    decay_factors(keep, 2);
    rescale(target, max, keep[0]), rescale(other, max, keep[1]);
    target.sum += other.sum, target.others += other.others;
    target.entropy += other.entropy, target.distance += other.distance;
    for (int64_t e = 0; e < (f.output.data ? width : 0); e++) {
      float& mine = a.output[i * width + e];
      const float theirs = b.output[j * width + e];
      mine = (keep[0] == 0 ? 0 : keep[0] * mine) + (keep[1] == 0 ? 0 : keep[1] * theirs);
    }
    for (int64_t k = 0; k < f.top; k++) insert(b.largest[j * capacity + k], a.largest + i * capacity, capacity);
  }

  // Writes the results of rows that have met all their keys.
  void write_rows(const HeadGroup& group, int64_t first_row, int64_t count, Accumulated sofar) const {
    constexpr int64_t together = 8;
    for (int64_t first = 0; first < count; first += together) {
      double log_sums[together], of_others[together], log_others[together];
      for (int64_t i = 0; i < together; i++) {
        const State& state = sofar.state[minimum(first + i, count - 1)];
        const double largest = __builtin_round(state.sum - state.others);  // how many scores are the maximum
        log_sums[i] = state.sum, of_others[i] = state.others + (largest - 1), log_others[i] = 1 + of_others[i];
      }
      logarithms(log_sums);
      if (f.entropy) {
        logarithms(log_others);
        for (int64_t i = 0; i < together; i++) {  // of 1 + x, which has lost the last digits of x
          const double rounded = 1 + of_others[i];
          log_others[i] = rounded == 1 ? of_others[i] : log_others[i] * (of_others[i] / (rounded - 1));
        }
      }
      for (int64_t r = first; r < minimum(count, first + together); r++) {
        const int64_t i = r - first;
        write_row(group.batch, row_of(s, group, first_row + r), sofar, r, log_sums[i], log_others[i]);
      }
    }
  }

  void write_row(int64_t batch, const Row& row, Accumulated sofar, int64_t r, double log_sum, double log_others) const {
    const State& state = sofar.state[r];
    const int64_t index = (batch * s.heads + row.head) * s.queries + row.query;
    const bool empty = state.max == -infinity && state.sum == 0;
    const double unit = double(factor) * ln_2;  // of a score, in nats
    const double alone = empty ? -infinity : state.max * unit + log_sum;
    const double lse = s.sinks ? log_add_exp(alone, s.sinks[row.head]) : alone;
    const double share = empty ? 0 : (s.sinks ? __builtin_exp(alone - lse) : 1) / state.sum;  // of a weight in the sums
    if (f.lse) f.lse[index] = lse;
    if (f.entropy) {
      const double entropy = share * (state.sum * (log_others + (lse - alone)) - state.entropy * unit);
      f.entropy[index] = empty || share == 0 ? 0 : float(__builtin_fabs(entropy));
    }
    if (f.max_score) f.max_score[index] = state.sum == state.sum ? float(state.max * unit) : float(state.sum);
    if (f.distance) f.distance[index] = float(share * state.distance);
    if (f.top) {
      const Rank* largest = sofar.largest + r * capacity;
      alignas(64) float values[largest_top + Float::width];
      for (int64_t k = 0; k < f.top; k++) {
        values[k] = largest[k] ? score_of(largest[k]) : -infinity;
        f.top_keys[index * f.top + k] = largest[k] ? key_of(largest[k]) : first_unranked_key(largest, k);
      }
      // The bits that the second pass computes from the lse; a large lse has lost these digits.
      const double of_weights = f.known_lse ? f.known_lse[index] : lse;
      if (__builtin_fabs(of_weights) < 0x1p29) {
        weigh(values, {0, f.top}, factor, of_weights);
      } else {
        for (int64_t k = 0; k < f.top; k++) values[k] -= reference_score(state.max);
        decay_factors(values, int(f.top));
        for (int64_t k = 0; k < f.top; k++) values[k] *= float(share);
      }
      __builtin_memcpy(f.top_values + index * f.top, values, f.top * sizeof(float));
    }
    if (!f.output.data) return;
    float* output = sofar.output + r * width;
    const Float factor = broadcast(float(share));
    for (int64_t e = 0; e < width; e += Float::width) {
      store(output + e, empty ? broadcast(0.0f) : load(output + e) * factor);
    }
    const int64_t offset = batch * f.output.batch + row.head * f.output.head + row.query * f.output.row;
    from_floats(output, f.output_type, const_cast<char*>(at(f.output.data, f.output_type, offset)), f.value_dim);
  }

  // log(e^a + e^b).
  static double log_add_exp(double a, double b) {
    const double larger = maximum(a, b), less = a > b ? b : a;
    return less == -infinity || larger == infinity ? larger : larger + __builtin_log1p(__builtin_exp(less - larger));
  }
};

template <class Lane>
void forward_in(const Scores& s, const Forward& f, int threads) {
  if (s.batch * s.heads * s.queries == 0) return;
  const Pass<Lane> pass{s, f, is_small_query(s)}, careful{s, f, false};
  // Query heads that share keys and values are rows of the same block, unless each has values of its own.
  const bool shared = f.value_heads != s.heads && s.groups > 0;
  const int64_t n_rep = shared ? s.heads / s.groups : 1, head_groups = s.batch * s.heads / n_rep,
                rows = s.queries * n_rep;
  // Large blocks load keys and values less often; where blocks are few, or rows long, half of that is faster.
  const bool half = head_groups * rows < 32 * block_rows || maximum(s.dim, f.value_dim) > 128;
  const auto [blocks, block] = RowBlocks(rows, half ? block_rows / 2 : block_rows, rows_at_once<Lane>);
  // Short texts among others go their own way.
  const FewKeys few{s, f};
  const FewKeyRuns runs(s, s.start && !pass.direct && few.is_enough());
  // Where rows are few and keys many, the keys are split too: by the shapes alone, never by the number of threads. Not
  // within a text among others.
  const int64_t wanted = (64 + head_groups * blocks - 1) / (head_groups * blocks);
  const int64_t splits = runs.several ? 1 : maximum<int64_t>(1, minimum(wanted, s.keys / (4 * block_keys)));
  const int64_t split = round_up((s.keys + splits - 1) / splits, block_keys);

  const int64_t bytes = block * (sizeof(State) + pass.capacity * sizeof(Rank) + pass.width * sizeof(float));
  const int64_t block_size = round_up(bytes / sizeof(float), 16);
  const int64_t scratch_size = round_up(maximum(pass.scratch_size(), careful.scratch_size()), 16);
  auto accumulated = [&](float* memory) {
    auto* state = reinterpret_cast<State*>(memory);
    auto* largest = reinterpret_cast<Rank*>(state + block);
    return Accumulated{state, largest, reinterpret_cast<float*>(largest + block * pass.capacity)};
  };
  auto begin = [&](Accumulated a, int64_t count) {
    for (int64_t r = 0; r < count; r++) a.state[r] = State{};
    for (int64_t i = 0; i < count * pass.capacity; i++) a.largest[i] = 0;
  };
  Memory partial(splits > 1 ? head_groups * blocks * splits * block_size : 0);
  for_each(head_groups * blocks * splits, threads, [&](int64_t item) {
    // All rows of a head in turn, as its keys and values are in a cache by then; the last rows, which see most if
    // causal, first.
    const int64_t split_index = item % splits, n = item / splits / blocks;
    const HeadGroup group = head_group(s, n, n_rep);
    const int64_t first = (blocks - 1 - item / splits % blocks) * block;
    const int64_t count = minimum(block, rows - first);
    if (count <= 0) return;
    float* scratch = thread_memory(maximum(scratch_size + block_size, few.memory_size()));
    Accumulated a = accumulated(splits > 1 ? partial.data + item * block_size : scratch + scratch_size);
    const Range keys{split_index * split, minimum(s.keys, (split_index + 1) * split)};
    runs.split(group, first, count, [&](int64_t row, int64_t n, bool are_few) {
      if (are_few && splits == 1 && few.run(group, row, n, scratch)) return;
      begin(a, n);
      if (!pass.run(group, row, n, keys, a, scratch)) begin(a, n), careful.run(group, row, n, keys, a, scratch);
      if (splits == 1) pass.write_rows(group, row, n, a);
    });
  });
  if (splits == 1) return;
  for_each(head_groups * blocks, threads, [&](int64_t item) {
    const int64_t n = item / blocks, first = (blocks - 1 - item % blocks) * block, count = minimum(block, rows - first);
    if (count <= 0) return;
    const Accumulated a = accumulated(partial.data + item * splits * block_size);
    for (int64_t split_index = 1; split_index < splits; split_index++) {
      const Accumulated b = accumulated(partial.data + (item * splits + split_index) * block_size);
      for (int64_t r = 0; r < count; r++) pass.merge(a, r, b, r);
    }
    pass.write_rows(head_group(s, n, n_rep), first, count, a);
  });
}

}  // namespace
}  // namespace regard::REGARD_ISA
