// The forward pass: output, normaliser and statistics of the rows, a block of keys at a time, by the online softmax
// (Milakov and Gimelshein 2018, https://arxiv.org/abs/1805.02867; Dao et al. 2022, https://arxiv.org/abs/2205.14135).

#pragma once

namespace regard::REGARD_ISA {
namespace {

// What is known of a row after some of its keys. Sums are of exp2(score · to_powers − shift).
struct State {
  float max = -infinity, shift = -infinity;
  double sum = 0, entropy = 0, distance = 0;
  int64_t found = 0;  // of the largest scores
};

// The states of some rows, and what they have of a whole row each.
struct Accumulated {
  State* state;
  float* output;        // (rows, width)
  float* top_scores;    // (rows, top), falling
  int64_t* top_indices;
};

// Puts a score among the largest of its row; of equal scores the one that came first stays before.
inline void insert(float score, int64_t key, int64_t top, State& state, float* scores, int64_t* indices) {
  int64_t place = state.found < top ? state.found++ : top - 1;
  for (; place > 0 && scores[place - 1] < score; place--) {
    scores[place] = scores[place - 1], indices[place] = indices[place - 1];
  }
  scores[place] = score, indices[place] = key;
}

inline void keep_largest(const float* score, Range keys, int64_t first, int64_t top, State& state, float* scores,
                         int64_t* indices) {
  float least_kept = state.found < top ? -infinity : scores[top - 1];
  for (int64_t j = keys.from; j < keys.to; j += Float::width) {
    for (uint32_t bits = greater(load(score + j), broadcast(least_kept)); bits; bits &= bits - 1) {
      const int64_t key = j + __builtin_ctz(bits);
      if (score[key] <= least_kept) continue;
      insert(score[key], first + key, top, state, scores, indices);
      if (state.found == top) least_kept = scores[top - 1];
    }
  }
}

// exp of one row of scores, in place, as cells; what they sum up to is added to the state.
template <class Cell, bool entropy, bool distance>
inline void exponentiate(float* score, Range keys, float factor, float less, float position, State& state) {
  const Float scale = broadcast(factor), shift = broadcast(-less);
  Float sums = broadcast(0.0f), entropies = sums, distances = sums;
  Float ahead = counting() + broadcast(float(keys.from) - position);
  for (int64_t j = keys.from; j < keys.to; j += Float::width) {
    const Float power = bounded(multiply_add(load(score + j), scale, shift)), weight = exp2(power);
    sums = sums + weight;
    if constexpr (entropy) entropies = multiply_add(weight, power, entropies);
    if constexpr (distance) {
      distances = multiply_add(weight, absolute(ahead), distances);
      ahead = ahead + broadcast(float(Float::width));
    }
    if constexpr (Cell::per_cell == 2) {
      store_bfloat16(reinterpret_cast<uint16_t*>(score) + j, weight);
    } else {
      store(score + j, weight);
    }
  }
  state.sum += sum(sums);
  if constexpr (entropy) state.entropy += sum(entropies);
  if constexpr (distance) state.distance += sum(distances);
}

// The state of a row, after its largest score has become `max`: `keep` of what it had is left.
inline void rescale(State& state, float max, float shift, float keep) {
  if (keep != 1) {
    state.entropy = keep > 0 ? keep * (state.entropy + state.sum * (double(state.shift) - shift)) : 0;
    state.sum *= keep, state.distance *= keep;
  }
  state.max = max, state.shift = max == -infinity ? -infinity : shift;
}

// What happens to the scores of some rows.
template <class Cell>
struct Pass {
  const Scores& s;
  const Forward& f;
  Blocks<Cell> blocks{s};
  int64_t width = round_up(f.value_dim, Float::width);  // of a value, in floats or pairs
  float factor = to_powers(s);

  int64_t scratch_size() const { return blocks.size() + cells_of<Cell>(block_keys) * width; }

  void run(const Sharing& sharing, int64_t first_row, int64_t count, Range keys, Accumulated sofar, float* memory) const {
    float* values = memory + blocks.size();
    bool finite = true;
    auto prepare = [&](int64_t first, int64_t known) {
      if (!f.output.data) return;
      const int64_t head = f.value_heads == s.heads ? sharing.first : sharing.group;
      const int64_t value = sharing.batch * f.value.batch + head * f.value.head + first * f.value.row;
      finite = pack_values<Cell>(at(f.value.data, s.type, value), s.type, f.value.row, known, f.value_dim, values, width);
    };
    blocks.visit(sharing, first_row, count, keys, memory, prepare,
                 [&]<int n>(const Scored& tile) { add<n>(tile, values, finite, sofar); });
  }

  template <int n>
  void add(const Scored& tile, const float* values, bool finite, Accumulated sofar) const {
    const auto [rows, r, first, known, keys, scores, top] = tile;
    // How much of what the rows have so far is left under their new largest scores.
    alignas(64) float keep[16] = {}, shift[16] = {};
    for (int i = 0; i < n; i++) {
      const State& state = sofar.state[r + i];
      const float max = top[i] = most(state.max, top[i]);
      shift[i] = max == -infinity ? 0 : max * factor;
      keep[i] = state.shift - shift[i];
    }
    for (int i = 0; i < n; i += Float::width) store(keep + i, exp2(bounded(load(keep + i))));

    bool hidden[tile_rows][block_keys];
    for (int i = 0; i < n; i++) {
      State& state = sofar.state[r + i];
      float* row = scores + i * block_keys;
      rescale(state, top[i], shift[i], keep[i]);
      if (f.top) {
        keep_largest(row, keys, first, f.top, state, sofar.top_scores + (r + i) * f.top, sofar.top_indices + (r + i) * f.top);
      }
      if (!finite) {
        for (int64_t j = keys.from; j < keys.to; j++) hidden[i][j] = row[j] == -infinity;
      }
      const float position = float(rows[i].query - first);
      if (f.distance) {
        f.entropy ? exponentiate<Cell, true, true>(row, keys, factor, shift[i], position, state)
                  : exponentiate<Cell, false, true>(row, keys, factor, shift[i], position, state);
      } else {
        f.entropy ? exponentiate<Cell, true, false>(row, keys, factor, shift[i], position, state)
                  : exponentiate<Cell, false, false>(row, keys, factor, shift[i], position, state);
      }
    }
    if (!f.output.data) return;
    float* output = sofar.output + r * width;
    if (finite) {
      const int64_t steps = cells_of<Cell>(least(keys.to, known) - keys.from);
      const Left weights{scores + keys.from / Cell::per_cell, block_keys, 1};
      accumulate<Cell, n>(weights, Right{values + keys.from / Cell::per_cell * width, width}, steps, keep, output, width, width);
    } else {
      for (int i = 0; i < n; i++) average_seen(scores + i * block_keys, hidden[i], {keys.from, least(keys.to, known)}, values, keep[i], output + i * width);
    }
  }

  // A row's weighted sum where values are not finite: they reach those who see them, and not the others by way of 0 · nan.
  void average_seen(const float* weights, const bool* hidden, Range keys, const float* values, float keep, float* output) const {
    for (int64_t e = 0; e < f.value_dim; e++) {
      float total = keep == 0 ? 0 : keep * output[e];
      for (int64_t j = keys.from; j < keys.to; j++) {
        if (hidden[j]) continue;
        if constexpr (Cell::per_cell == 2) {
          total += half(reinterpret_cast<const uint16_t*>(weights)[j]) *
                   half(reinterpret_cast<const uint16_t*>(values + j / 2 * width)[2 * e + j % 2]);
        } else {
          total += weights[j] * values[j * width + e];
        }
      }
      output[e] = total;
    }
  }

  static float half(uint16_t bits) {
    float x;
    to_floats(&bits, Type::bfloat16, &x, 1);
    return x;
  }

  // Two states of one row, over different keys, become one.
  void merge(Accumulated a, int64_t i, Accumulated b, int64_t j) const {
    State &one = a.state[i], other = b.state[j];
    const float max = most(one.max, other.max), shift = max == -infinity ? 0 : max * factor;
    alignas(64) float keep[16] = {one.shift - shift, other.shift - shift};
    store(keep, exp2(bounded(load(keep))));
    rescale(one, max, shift, keep[0]), rescale(other, max, shift, keep[1]);
    one.sum += other.sum, one.entropy += other.entropy, one.distance += other.distance;
    for (int64_t e = 0; e < (f.output.data ? width : 0); e++) {
      float& mine = a.output[i * width + e];
      const float theirs = b.output[j * width + e];
      mine = (keep[0] == 0 ? 0 : keep[0] * mine) + (keep[1] == 0 ? 0 : keep[1] * theirs);
    }
    for (int64_t k = 0; k < other.found; k++) {
      const float score = b.top_scores[j * f.top + k];
      if (one.found == f.top && score <= a.top_scores[(i + 1) * f.top - 1]) break;
      insert(score, b.top_indices[j * f.top + k], f.top, one, a.top_scores + i * f.top, a.top_indices + i * f.top);
    }
  }

  // Writes what is asked for of a row that has met all its keys.
  void finish(int64_t batch, const Row& row, Accumulated sofar, int64_t r) const {
    const State& state = sofar.state[r];
    const int64_t place = (batch * s.heads + row.head) * s.queries + row.query;
    const bool empty = state.max == -infinity && state.sum == 0;
    const double alone = empty ? -infinity : state.shift * ln_2 + __builtin_log(state.sum);
    double lse = alone;
    if (s.sinks) {
      const double sink = s.sinks[row.head], larger = most(sink, alone);
      lse = larger == -infinity ? larger : larger + __builtin_log(__builtin_exp(sink - larger) + __builtin_exp(alone - larger));
    }
    if (f.lse) f.lse[place] = lse;
    const double share = empty ? 0 : __builtin_exp(alone - lse) / state.sum;  // of a weight, in what was summed up
    if (f.entropy) {
      const double entropy = share * (state.sum * (lse - state.shift * ln_2) - state.entropy * ln_2);
      f.entropy[place] = empty ? 0 : float(__builtin_fabs(entropy));
    }
    if (f.distance) f.distance[place] = float(share * state.distance);
    for (int64_t k = 0; k < f.top; k++) {
      const double power = k < state.found ? double(sofar.top_scores[r * f.top + k]) * factor - state.shift : -infinity;
      f.top_values[place * f.top + k] = float(share * __builtin_exp2(power));
      f.top_indices[place * f.top + k] = k < state.found ? sofar.top_indices[r * f.top + k] : unlisted(sofar, r, k);
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

  // Where a row has fewer keys than the largest asked for, the first keys that it does not have follow.
  int64_t unlisted(Accumulated sofar, int64_t r, int64_t k) const {
    const int64_t found = sofar.state[r].found, *listed = sofar.top_indices + r * f.top;
    int64_t missing = k - found, key = 0;
    for (;; key++) {
      bool taken = false;
      for (int64_t i = 0; i < found; i++) taken = taken || listed[i] == key;
      if (!taken && missing-- == 0) return key;
    }
  }
};

template <class Cell>
void forward_in(const Scores& s, const Forward& f, int threads) {
  const Pass<Cell> pass{s, f};
  // Query heads that share keys and values are rows of one block; each has its own where the values differ.
  const bool shared = f.value_heads != s.heads && s.groups > 0;
  const int64_t repeat = shared ? s.heads / s.groups : 1, sharings = s.batch * s.heads / repeat, rows = s.queries * repeat;
  if (rows == 0 || sharings == 0) return;
  const auto [blocks, block] = Cut(rows);
  // Few rows and many keys: the keys are split too. That depends on the shapes alone, so that the bits do.
  const int64_t wanted = (64 + sharings * blocks - 1) / (sharings * blocks);
  const int64_t splits = most<int64_t>(1, least(wanted, s.keys / (4 * block_keys)));
  const int64_t split = round_up((s.keys + splits - 1) / splits, block_keys);

  const int64_t state_floats = sizeof(State) / sizeof(float);
  const int64_t each = round_up(block * (state_floats + pass.width + 3 * f.top), 16);  // floats; an index is two
  auto accumulated = [&](float* memory) {
    auto* state = reinterpret_cast<State*>(memory);
    auto* indices = reinterpret_cast<int64_t*>(memory + block * state_floats);
    float* top = memory + block * (state_floats + 2 * f.top);
    return Accumulated{state, top + block * f.top, top, indices};
  };
  auto begin = [&](Accumulated a) {
    for (int64_t r = 0; r < block; r++) a.state[r] = State{};
    __builtin_memset(a.output, 0, block * pass.width * sizeof(float));
  };
  auto finish = [&](const Sharing& sharing, int64_t first, int64_t count, Accumulated a) {
    for (int64_t r = 0; r < count; r++) pass.finish(sharing.batch, row_of(s, sharing, first + r), a, r);
  };
  Memory parts(splits > 1 ? sharings * blocks * splits * each : 0);
  for_each(sharings * blocks * splits, threads, [&](int64_t item) {
    const int64_t part = item % splits, n = item / splits % sharings, last_first = blocks - 1 - item / splits / sharings;
    const Sharing sharing = sharing_of(s, n, repeat);
    const int64_t first = last_first * block, count = least(block, rows - first);
    if (count <= 0) return;
    float* scratch = thread_memory(pass.scratch_size() + each);
    Accumulated a = accumulated(splits > 1 ? parts.data + item * each : scratch + round_up(pass.scratch_size(), 16));
    begin(a);
    pass.run(sharing, first, count, {part * split, least(s.keys, (part + 1) * split)}, a, scratch);
    if (splits == 1) finish(sharing, first, count, a);
  });
  if (splits == 1) return;
  for_each(sharings * blocks, threads, [&](int64_t item) {
    const int64_t n = item % sharings, first = (blocks - 1 - item / sharings) * block, count = least(block, rows - first);
    if (count <= 0) return;
    const Accumulated a = accumulated(parts.data + item * splits * each);
    for (int64_t part = 1; part < splits; part++) {
      const Accumulated b = accumulated(parts.data + (item * splits + part) * each);
      for (int64_t r = 0; r < count; r++) pass.merge(a, r, b, r);
    }
    finish(sharing_of(s, n, repeat), first, count, a);
  });
}

}  // namespace
}  // namespace regard::REGARD_ISA
