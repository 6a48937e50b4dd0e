// What is summed over the queries, a block of keys at a time: wᵀ y, and the gradients. The weights are computed again
// from the scores and the lse, and never leave the cache.
//
//     dw_ij = do_i·v_j      ds_ij = w_ij (dw_ij − through_i)      dv_j = Σ_i w_ij do_i
//     dq_i = scale Σ_j ds_ij k_j      dk_j = scale Σ_i ds_ij q_i      (Dao et al. 2022, algorithm 4)

#pragma once

namespace regard::REGARD_ISA {
namespace {

constexpr int64_t short_rows = 96;  // rows of a block here: their weights and gradients are kept too
// Apart; no power of two, or the cache would take columns for one line.
constexpr int64_t line = block_keys + Float::width;

// Weights of some rows, and what belongs to them, for one block of keys.
template <class Cell>
struct Strip {
  const Scores& s;
  int64_t cells = cells_of<Cell>(s.dim);
  Row rows[short_rows];
  explicit Strip(const Scores& scores) : s(scores) {}

  int64_t panels_at() const { return short_rows * cells; }
  int64_t staging_at() const { return panels_at() + block_keys * cells; }
  int64_t size() const { return round_up(staging_at() + Float::width * round_up(cells, Float::width), 16); }

  // The keys that all rows to come are met with.
  void take_keys(const Sharing& sharing, int64_t first, int64_t known, float* memory) const {
    const int64_t key = sharing.batch * s.key.batch + sharing.group * s.key.head + first * s.key.row;
    pack_panels<Cell>(at(s.key.data, s.type, key), s.type, s.key.row, known, s.dim, memory + panels_at(),
                      memory + staging_at());
  }

  // Looks up the rows; whether anybody sees any of the keys.
  bool take_rows(const Sharing& sharing, int64_t first_row, int64_t count, int64_t first, int64_t known) {
    for (int64_t r = 0; r < count; r++) {
      rows[r] = row_of(s, sharing, first_row + r);
      rows[r].start = most(rows[r].start, first), rows[r].stop = least(rows[r].stop, first + known);
    }
    const Range seen = reach(rows, count);
    return seen.from < seen.to;
  }

  // Their weights, `line` apart; 0 where a row sees nothing.
  void weigh_rows(const Sharing& sharing, int64_t count, int64_t first, int64_t known, const double* lse, float* memory,
                  float* weights, float* slopes = nullptr) const {
    float *query = memory, *panels = memory + panels_at();
    for (int64_t r = 0; r < count; r++) {
      const int64_t offset = sharing.batch * s.query.batch + rows[r].head * s.query.head + rows[r].query * s.query.row;
      pack_row<Cell>(at(s.query.data, s.type, offset), s.type, s.dim, query + r * cells, cells);
    }
    const int64_t end = round_up(known, panel_keys);
    for (int64_t r = 0; r < count; r += tile_rows) {
      with_constant<tile_rows>(int(least<int64_t>(tile_rows, count - r)), [&]<int n>() {
        Range keys = reach(rows + r, n);
        keys.from = most<int64_t>(0, keys.from - first) / panel_keys * panel_keys;
        keys.to = most<int64_t>(keys.from, least(end, round_up(keys.to - first, panel_keys)));
        float top[tile_rows], *some = weights + r * line, *slope = slopes ? slopes + r * line : nullptr;
        if (keys.from < keys.to) {
          score<Cell, n>(s, sharing.batch, rows + r, query + r * cells, cells, {panels, nullptr}, first, known, keys,
                         some, line, top, slope);
        }
        for (int i = 0; i < n; i++) {
          float* weight = some + i * line;
          const int64_t place = (sharing.batch * s.heads + rows[r + i].head) * s.queries + rows[r + i].query;
          weigh(weight, keys, to_powers(s), lse[place]);
          for (int64_t j = 0; j < keys.from; j++) weight[j] = 0;
          for (int64_t j = keys.to; j < block_keys; j++) weight[j] = 0;
        }
      });
    }
  }
};

constexpr float ones[tile_rows] = {1, 1, 1, 1, 1, 1};

// sums[j, …] += Σ_r left[r,j] · right[r, …] for the first `keys` columns of left.
inline void accumulate_columns(const float* left, const float* right, int64_t rows, int64_t keys, float* sums,
                               int64_t width) {
  for (int64_t j = 0; j < keys; j += tile_rows) {
    with_constant<tile_rows>(int(least<int64_t>(tile_rows, keys - j)), [&]<int n>() {
      accumulate<Single, n>(Left{left + j, 1, line}, Right{right, width}, rows, ones, sums + j * width, width, width);
    });
  }
}

template <class Cell>
void transposed_in(const Scores& s, const Transposed& t, int threads) {
  const int64_t pairs = s.batch * s.heads, width = round_up(t.width, Float::width);
  const int64_t blocks = (s.keys + block_keys - 1) / block_keys;
  if (t.width == 0) return;
  for_each(pairs * blocks, threads, [&](int64_t item) {
    const int64_t pair = item % pairs, first = item / pairs * block_keys, known = least(block_keys, s.keys - first);
    const Sharing sharing = sharing_of(s, pair, 1);
    Strip<Cell> strip(s);
    float* memory = thread_memory(strip.size() + short_rows * (line + width) + block_keys * width);
    float *weights = memory + strip.size(), *vectors = weights + short_rows * line,
          *sums = vectors + short_rows * width;
    strip.take_keys(sharing, first, known, memory);
    __builtin_memset(sums, 0, block_keys * width * sizeof(float));
    for (int64_t row = 0; row < s.queries; row += short_rows) {
      const int64_t count = least(short_rows, s.queries - row);
      if (!strip.take_rows(sharing, row, count, first, known)) continue;
      strip.weigh_rows(sharing, count, first, known, t.lse, memory, weights);
      const float* from =
          t.vectors.data + sharing.batch * t.vectors.batch + sharing.first * t.vectors.head + row * t.vectors.row;
      if (pack_values<Single>(from, Type::float32, t.vectors.row, count, t.width, vectors, width)) {
        accumulate_columns(weights, vectors, count, known, sums, width);
        continue;
      }
      for (int64_t r = 0; r < count; r++) {  // what is not finite reaches those that get some of it, and no others
        for (int64_t j = 0; j < known; j++) {
          const float weight = weights[r * line + j];
          for (int64_t e = 0; e < t.width && weight != 0; e++) sums[j * width + e] += weight * vectors[r * width + e];
        }
      }
    }
    for (int64_t j = 0; j < known; j++) {
      __builtin_memcpy(t.output + (pair * s.keys + first + j) * t.width, sums + j * width, t.width * sizeof(float));
    }
  });
}

inline void forget_what_is_not_finite(float* x, int64_t count) {
  for (int64_t i = 0; i < count; i++) x[i] = x[i] - x[i] == 0 ? x[i] : 0;
}

// The gradients that one range of keys brings, of one group of query heads.
template <class Cell>
struct Gradient {
  const Scores& s;
  const Backward& b;
  int64_t repeat = s.groups ? s.heads / s.groups : 1;
  int64_t dims = round_up(s.dim, Float::width), value_dims = round_up(b.value_dim, Float::width);
  int64_t rows = s.queries * repeat;

  int64_t memory_size() const {
    return Strip<Cell>(s).size() + 3 * short_rows * line + short_rows * (dims + value_dims) +
           block_keys * (b.value_dim + 2 * dims + value_dims) + Float::width * value_dims + 64;
  }

  // grad_query: (rows, dims), added to.
  void add(const Sharing& sharing, Range keys, float* grad_query) const {
    Strip<Cell> strip(s);
    float* memory = thread_memory(memory_size());
    float *weights = memory + strip.size(), *grads = weights + short_rows * line, *slopes = grads + short_rows * line;
    float *query = slopes + short_rows * line, *grad_output = query + short_rows * dims;
    float *value_panels = grad_output + short_rows * value_dims, *key = value_panels + block_keys * b.value_dim;
    float *grad_key = key + block_keys * dims, *grad_value = grad_key + block_keys * dims;
    float* staging = grad_value + block_keys * value_dims;
    for (int64_t first = keys.from; first < keys.to; first += block_keys) {
      const int64_t known = least(block_keys, keys.to - first);
      const int64_t key_at = sharing.batch * s.key.batch + sharing.group * s.key.head + first * s.key.row;
      const int64_t value_at = sharing.batch * b.value.batch + sharing.group * b.value.head + first * b.value.row;
      strip.take_keys(sharing, first, known, memory);
      // What is not finite has made the weights or the outputs of those who see it nan; the others must not meet it.
      pack_values<Single>(at(s.key.data, s.type, key_at), s.type, s.key.row, known, s.dim, key, dims);
      forget_what_is_not_finite(key, known * dims);
      pack_panels<Single>(at(b.value.data, s.type, value_at), s.type, b.value.row, known, b.value_dim, value_panels,
                          staging);
      forget_what_is_not_finite(value_panels, round_up(known, panel_keys) * b.value_dim);
      __builtin_memset(grad_key, 0, block_keys * dims * sizeof(float));
      __builtin_memset(grad_value, 0, block_keys * value_dims * sizeof(float));
      for (int64_t row = 0; row < rows; row += short_rows) {
        const int64_t count = least(short_rows, rows - row);
        if (!strip.take_rows(sharing, row, count, first, known)) continue;
        strip.weigh_rows(sharing, count, first, known, b.lse, memory, weights, s.softcap != 0 ? slopes : nullptr);
        for (int64_t r = 0; r < count; r++) {
          const Row& one = strip.rows[r];
          const int64_t grad_at =
              sharing.batch * b.grad_output.batch + one.head * b.grad_output.head + one.query * b.grad_output.row;
          const int64_t query_at = sharing.batch * s.query.batch + one.head * s.query.head + one.query * s.query.row;
          pack_row<Single>(at(b.grad_output.data, s.type, grad_at), s.type, b.value_dim, grad_output + r * value_dims,
                           value_dims);
          pack_row<Single>(at(s.query.data, s.type, query_at), s.type, s.dim, query + r * dims, dims);
        }
        forget_what_is_not_finite(query, count * dims);
        accumulate_columns(weights, grad_output, count, known, grad_value, value_dims);
        grad_of_scores(sharing, strip.rows, count, first, known, grad_output, value_panels, weights, grads, slopes);
        accumulate_columns(grads, query, count, known, grad_key, dims);
        for (int64_t r = 0; r < count; r += tile_rows) {
          with_constant<tile_rows>(int(least<int64_t>(tile_rows, count - r)), [&]<int n>() {
            accumulate<Single, n>(Left{grads + r * line, line, 1}, Right{key, dims}, known, ones,
                                  grad_query + (row + r) * dims, dims, dims);
          });
        }
      }
      for (int64_t j = 0; j < known; j++) {
        const int64_t place = (sharing.batch * s.keys + first + j) * s.groups + sharing.group;
        __builtin_memcpy(b.grad_key + place * s.dim, grad_key + j * dims, s.dim * sizeof(float));
        __builtin_memcpy(b.grad_value + place * b.value_dim, grad_value + j * value_dims, b.value_dim * sizeof(float));
      }
    }
  }

  void grad_of_scores(const Sharing& sharing, const Row* rows, int64_t count, int64_t first, int64_t known,
                      const float* grad_output, const float* value_panels, const float* weights, float* grads,
                      const float* slopes) const {
    constexpr int vectors = Float::tile_vectors;
    const Float zero = broadcast(0.0f), scale = broadcast(s.scale);
    const Range all{0, round_up(known, panel_keys)};
    for (int64_t r = 0; r < count; r += tile_rows) {
      with_constant<tile_rows>(int(least<int64_t>(tile_rows, count - r)), [&]<int n>() {
        float through[n];
        for (int i = 0; i < n; i++) {
          through[i] = b.through[(sharing.batch * s.heads + rows[r + i].head) * s.queries + rows[r + i].query];
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
              store(grads + place, where_at_most(weight, zero, zero, weight * (sums[i][v] - broadcast(through[i]))));
            }
          }
        }
      });
    }
    for (int64_t r = 0; r < count; r++) {
      float* grad = grads + r * line;
      if (b.grad_bias.data) {
        float* to = b.grad_bias.data + sharing.batch * b.grad_bias.batch + rows[r].head * b.grad_bias.head +
                    rows[r].query * b.grad_bias.row + first * b.grad_bias.column;
        for (int64_t j = 0; j < known; j++) to[j * b.grad_bias.column] += grad[j];
      }
      for (int64_t j = 0; j < all.to; j += Float::width) {
        Float one = load(grad + j) * scale;
        if (s.softcap != 0)
          one = where_at_most(absolute(load(grad + j)), zero, zero, one * load(slopes + r * line + j));
        store(grad + j, one);
      }
    }
  }
};

template <class Cell>
void backward_in(const Scores& s, const Backward& b, int threads) {
  const Gradient<Cell> gradient{s, b};
  const int64_t sharings = s.batch * s.groups, blocks = (s.keys + block_keys - 1) / block_keys;
  const int64_t size = gradient.rows * gradient.dims;  // of the gradient of the queries of one group
  if (sharings == 0 || gradient.rows == 0 || s.keys == 0) return;

  // Ranges of keys side by side, each with a gradient of the queries of its own, which are added up in order: the same
  // bits for any number of threads. Where sequences or heads share a bias whose gradient is wanted, they take turns.
  const auto& bias = b.grad_bias;
  const bool turns =
      bias.data && ((bias.batch == 0 && s.batch > 1) || (bias.head == 0 && s.heads > 1) || bias.column == 0);
  constexpr int64_t most_memory = int64_t(1) << 25;
  int64_t splits = turns ? 16 : (15 + sharings) / sharings;
  splits = most<int64_t>(1, least(splits, least(blocks, most_memory / most<int64_t>(1, sharings * size))));
  if (bias.data && bias.column == 0) splits = 1;
  const int64_t split = (blocks + splits - 1) / splits * block_keys;

  Memory parts(sharings * splits * size);
  const int64_t items = turns ? splits : sharings * splits;
  for_each(items, threads, [&](int64_t item) {
    for (int64_t n = turns ? 0 : item % sharings; n < sharings; n += turns ? 1 : sharings) {
      const int64_t part = turns ? item : item / sharings;
      float* grad_query = parts.data + (n * splits + part) * size;
      __builtin_memset(grad_query, 0, size * sizeof(float));
      gradient.add(sharing_of(s, n, gradient.repeat), {part * split, least(s.keys, (part + 1) * split)}, grad_query);
    }
  });
  for_each(sharings, threads, [&](int64_t n) {
    const float* from = parts.data + n * splits * size;
    for (int64_t r = 0; r < gradient.rows; r++) {
      const int64_t head = n % s.groups * gradient.repeat + r % gradient.repeat;
      float* to = b.grad_query + ((n / s.groups * s.queries + r / gradient.repeat) * s.heads + head) * s.dim;
      for (int64_t part = 0; part < splits; part++) {
        for (int64_t d = 0; d < s.dim; d++) to[d] += from[part * size + r * gradient.dims + d];
      }
    }
  });
}

}  // namespace
}  // namespace regard::REGARD_ISA
