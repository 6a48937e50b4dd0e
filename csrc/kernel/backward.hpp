// The gradients, a block of keys at a time. The weights are recomputed from the scores and the lse, and never leave the
// cache.
//
//     dw_ij = do_i·v_j      ds_ij = w_ij (dw_ij − delta_i)      dv_j = Σ_i w_ij do_i
//     dq_i = scale Σ_j ds_ij k_j      dk_j = scale Σ_i ds_ij q_i      (Dao et al. 2022, algorithm 4)

#pragma once

#include <cstdint>

#include "apply.hpp"
#include "attention.hpp"
#include "memory.hpp"
#include "pack.hpp"
#include "parallel.hpp"
#include "rows.hpp"
#include "simd.hpp"
#include "tile.hpp"

namespace regard::REGARD_ISA {
namespace {

// A block of keys, and the weights of rows for it.
template <class Lane>
struct KeyBlock {
  const Scores& s;
  int64_t lanes = lanes_of<Lane>(s.dim);
  Row rows[short_rows];
  explicit KeyBlock(const Scores& scores) : s(scores) {}

  int64_t panels_at() const { return short_rows * lanes; }
  int64_t staging_at() const { return panels_at() + block_keys * lanes; }
  int64_t size() const { return round_up(staging_at() + Float::width * round_up(lanes, Float::width), 16); }

  // Packs the keys, once for all rows.
  void load_keys(const HeadGroup& group, int64_t first, int64_t known, float* memory) const {
    const int64_t key = group.batch * s.key.batch + group.key_head * s.key.head + first * s.key.row;
    pack_panels<Lane>(at(s.key.data, s.type, key), s.type, s.key.row, known, s.dim, memory + panels_at(),
                      memory + staging_at());
  }

  // Looks up the rows. Returns whether any of them sees any of the keys.
  bool load_rows(const HeadGroup& group, int64_t first_row, int64_t count, int64_t first, int64_t known) {
    for (int64_t r = 0; r < count; r++) {
      rows[r] = row_of(s, group, first_row + r);
      rows[r].start = maximum(rows[r].start, first), rows[r].stop = minimum(rows[r].stop, first + known);
    }
    const Range seen = key_range(rows, count);
    return seen.from < seen.to;
  }

  // Computes the weights of the rows, `line` apart, of all panels of keys; 0 where a row sees nothing.
  void compute_weights(const HeadGroup& group, int64_t count, int64_t first, int64_t known, const double* lse,
                       float* memory, float* weights, float* slopes = nullptr) const {
    float *query = memory, *panels = memory + panels_at();
    for (int64_t r = 0; r < count; r++) {
      const int64_t offset = group.batch * s.query.batch + rows[r].head * s.query.head + rows[r].query * s.query.row;
      pack_row<Lane>(at(s.query.data, s.type, offset), s.type, s.dim, query + r * lanes, lanes);
    }
    const int64_t end = round_up(known, panel_keys);
    for (int64_t r = 0; r < count; r += tile_rows) {
      with_constant<tile_rows>(int(minimum<int64_t>(tile_rows, count - r)), [&]<int n>() {
        Range keys = key_range(rows + r, n);
        keys.from = maximum<int64_t>(0, keys.from - first) / panel_keys * panel_keys;
        keys.to = maximum<int64_t>(keys.from, minimum(end, round_up(keys.to - first, panel_keys)));
        float top[tile_rows], *scores = weights + r * line, *slope = slopes ? slopes + r * line : nullptr;
        if (keys.from < keys.to) {
          score<Lane, n>(s, group.batch, rows + r, query + r * lanes, lanes, {panels, nullptr}, first, known, keys,
                         scores, line, top, slope);
        }
        for (int i = 0; i < n; i++) {
          float* weight = scores + i * line;
          const int64_t row = (group.batch * s.heads + rows[r + i].head) * s.queries + rows[r + i].query;
          weigh(weight, keys, to_powers(s), lse[row]);
          for (int64_t j = 0; j < keys.from; j++) weight[j] = 0;
          for (int64_t j = keys.to; j < end; j++) weight[j] = 0;
        }
      });
    }
  }
};

inline void zero_nonfinite(float* x, int64_t count) {
  for (int64_t i = 0; i < count; i++) x[i] = x[i] - x[i] == 0 ? x[i] : 0;
}

// The gradients from a range of keys, for a group of query heads.
template <class Lane>
struct Gradient {
  const Scores& s;
  const Backward& b;
  int64_t n_rep = s.groups ? s.heads / s.groups : 1;
  int64_t dims = round_up(s.dim, Float::width), value_dims = round_up(b.value_dim, Float::width);
  int64_t rows = s.queries * n_rep;

  int64_t memory_size() const {
    return KeyBlock<Lane>(s).size() + 3 * short_rows * line + short_rows * (dims + value_dims) +
           block_keys * (b.value_dim + 2 * dims + value_dims) + Float::width * value_dims + 64;
  }

  // grad_query: (rows, dims), added to.
  void add(const HeadGroup& group, Range keys, float* memory, float* grad_query) const {
    KeyBlock<Lane> block(s);
    float *weights = memory + block.size(), *grads = weights + short_rows * line, *slopes = grads + short_rows * line;
    float *query = slopes + short_rows * line, *grad_output = query + short_rows * dims;
    float *value_panels = grad_output + short_rows * value_dims, *key = value_panels + block_keys * b.value_dim;
    float *grad_key = key + block_keys * dims, *grad_value = grad_key + block_keys * dims;
    float* staging = grad_value + block_keys * value_dims;
    for (int64_t first = keys.from; first < keys.to; first += block_keys) {
      const int64_t known = minimum(block_keys, keys.to - first);
      const int64_t key_at = group.batch * s.key.batch + group.key_head * s.key.head + first * s.key.row;
      const int64_t value_at = group.batch * b.value.batch + group.key_head * b.value.head + first * b.value.row;
      block.load_keys(group, first, known, memory);
      // Rows that see a value that is not finite are nan by their weights or outputs; the others must not meet it.
      if (!pack_values<Single>(at(s.key.data, s.type, key_at), s.type, s.key.row, known, s.dim, key, dims))
        zero_nonfinite(key, known * dims);
      pack_panels<Single>(at(b.value.data, s.type, value_at), s.type, b.value.row, known, b.value_dim, value_panels,
                          staging);
      zero_nonfinite(value_panels, round_up(known, panel_keys) * b.value_dim);
      __builtin_memset(grad_key, 0, known * dims * sizeof(float));
      __builtin_memset(grad_value, 0, known * value_dims * sizeof(float));
      for (int64_t row = 0; row < rows; row += short_rows) {
        const int64_t count = minimum(short_rows, rows - row);
        if (!block.load_rows(group, row, count, first, known)) continue;
        block.compute_weights(group, count, first, known, b.lse, memory, weights, s.softcap != 0 ? slopes : nullptr);
        for (int64_t r = 0; r < count; r++) {
          const Row& source = block.rows[r];
          const int64_t grad_at =
              group.batch * b.grad_output.batch + source.head * b.grad_output.head + source.query * b.grad_output.row;
          const int64_t query_at =
              group.batch * s.query.batch + source.head * s.query.head + source.query * s.query.row;
          pack_row<Single>(at(b.grad_output.data, s.type, grad_at), s.type, b.value_dim, grad_output + r * value_dims,
                           value_dims);
          pack_row<Single>(at(s.query.data, s.type, query_at), s.type, s.dim, query + r * dims, dims);
        }
        zero_nonfinite(query, count * dims);
        accumulate_columns(weights, grad_output, count, known, grad_value, value_dims);
        grad_of_scores(group, block.rows, count, first, known, grad_output, value_panels, weights, grads, slopes);
        accumulate_columns(grads, query, count, known, grad_key, dims);
        for (int64_t r = 0; r < count; r += tile_rows) {
          with_constant<tile_rows>(int(minimum<int64_t>(tile_rows, count - r)), [&]<int n>() {
            accumulate<Single, n>(Left{grads + r * line, line, 1}, Right{key, dims}, known, ones,
                                  grad_query + (row + r) * dims, dims, dims);
          });
        }
      }
      for (int64_t j = 0; j < known; j++) {
        const int64_t place = (group.batch * s.keys + first + j) * s.groups + group.key_head;
        __builtin_memcpy(b.grad_key + place * s.dim, grad_key + j * dims, s.dim * sizeof(float));
        __builtin_memcpy(b.grad_value + place * b.value_dim, grad_value + j * value_dims, b.value_dim * sizeof(float));
      }
    }
  }

  void grad_of_scores(const HeadGroup& group, const Row* rows, int64_t count, int64_t first, int64_t known,
                      const float* grad_output, const float* value_panels, const float* weights, float* grads,
                      const float* slopes) const {
    constexpr int vectors = Float::tile_vectors;
    const Float zero = broadcast(0.0f), scale = broadcast(s.scale);
    const Range all{0, round_up(known, panel_keys)};
    for (int64_t r = 0; r < count; r += tile_rows) {
      with_constant<tile_rows>(int(minimum<int64_t>(tile_rows, count - r)), [&]<int n>() {
        float delta[n];
        for (int i = 0; i < n; i++) {
          delta[i] = b.delta[(group.batch * s.heads + rows[r + i].head) * s.queries + rows[r + i].query];
        }
        for (int64_t key = 0; key < all.to; key += panel_keys) {
          Float sums[n][vectors];
          for (int i = 0; i < n; i++)
            for (int v = 0; v < vectors; v++) sums[i][v] = zero;
          multiply<Single, n, vectors>(Left{grad_output + r * value_dims, value_dims, 1},
                                       Right{value_panels + key * b.value_dim, panel_keys}, b.value_dim, sums);
          for (int i = 0; i < n; i++) {
            for (int v = 0; v < vectors; v++) {
              const int64_t place = (r + i) * line + key + v * Float::width;
              const Float weight = load(weights + place);
              store(grads + place, where_at_most(weight, zero, zero, weight * (sums[i][v] - broadcast(delta[i]))));
            }
          }
        }
      });
    }
    for (int64_t r = 0; r < count; r++) {
      float* grad = grads + r * line;
      if (b.grad_bias.data) {
        float* to = b.grad_bias.data + group.batch * b.grad_bias.batch + rows[r].head * b.grad_bias.head +
                    rows[r].query * b.grad_bias.row + first * b.grad_bias.column;
        for (int64_t j = 0; j < known; j++) to[j * b.grad_bias.column] += grad[j];
      }
      for (int64_t j = 0; j < all.to; j += Float::width) {
        Float scaled = load(grad + j) * scale;
        if (s.softcap != 0)
          scaled = where_at_most(absolute(load(grad + j)), zero, zero, scaled * load(slopes + r * line + j));
        store(grad + j, scaled);
      }
    }
  }
};

template <class Lane>
void backward_in(const Scores& s, const Backward& b, int threads) {
  const Gradient<Lane> gradient{s, b};
  const int64_t head_groups = s.batch * s.groups, blocks = (s.keys + block_keys - 1) / block_keys;
  const int64_t size = gradient.rows * gradient.dims;  // of the gradient of the queries of one group
  if (head_groups == 0) return;
  if (gradient.rows == 0) {
    __builtin_memset(b.grad_key, 0, head_groups * s.keys * s.dim * sizeof(float));
    __builtin_memset(b.grad_value, 0, head_groups * s.keys * b.value_dim * sizeof(float));
    return;
  }

  // Ranges of keys run in parallel, each with its own gradient of the queries; these are added up in order, so that the
  // bits do not depend on the number of threads. Sequences or heads that share a gradient of the bias take turns.
  const auto& bias = b.grad_bias;
  const bool turns =
      bias.data && ((bias.batch == 0 && s.batch > 1) || (bias.head == 0 && s.heads > 1) || bias.column == 0);
  constexpr int64_t largest_memory = int64_t(1) << 25;
  int64_t splits = turns ? 16 : (15 + head_groups) / head_groups;
  splits =
      maximum<int64_t>(1, minimum(splits, minimum(blocks, largest_memory / maximum<int64_t>(1, head_groups * size))));
  if (bias.data && bias.column == 0) splits = 1;
  const int64_t split = (blocks + splits - 1) / splits * block_keys;

  // What the ranges give for the queries of one group, written as their sum.
  const auto write_query = [&](int64_t n, const float* from) {
    for (int64_t r = 0; r < gradient.rows; r++, from += gradient.dims) {
      const int64_t head = n % s.groups * gradient.n_rep + r % gradient.n_rep;
      float* to = b.grad_query + ((n / s.groups * s.queries + r / gradient.n_rep) * s.heads + head) * s.dim;
      __builtin_memcpy(to, from, s.dim * sizeof(float));
      for (int64_t range = 1; range < splits; range++) {
        for (int64_t d = 0; d < s.dim; d++) to[d] += from[range * size + d];
      }
    }
  };
  // A single range works in the thread's own memory, which stays in the cache.
  Memory partial(splits > 1 ? head_groups * splits * size : 0);
  const int64_t items = turns ? splits : head_groups * splits;
  for_each(items, threads, [&](int64_t item) {
    float* memory = thread_memory(gradient.memory_size() + size);
    for (int64_t n = turns ? 0 : item % head_groups; n < head_groups; n += turns ? 1 : head_groups) {
      const int64_t range = turns ? item : item / head_groups;
      float* grad_query = splits > 1 ? partial.data + (n * splits + range) * size : memory + gradient.memory_size();
      __builtin_memset(grad_query, 0, size * sizeof(float));
      const Range keys{range * split, minimum(s.keys, (range + 1) * split)};
      gradient.add(head_group(s, n, gradient.n_rep), keys, memory, grad_query);
      if (splits == 1) write_query(n, grad_query);
    }
  });
  if (splits == 1) return;
  for_each(head_groups, threads, [&](int64_t n) { write_query(n, partial.data + n * splits * size); });
}

}  // namespace
}  // namespace regard::REGARD_ISA
