// Rows of scores: which keys each row may see, and the modifiers between the product q·k and the softmax.

#pragma once

#include <cstdint>
#include <type_traits>

#include "attention.hpp"
#include "exponential.hpp"
#include "modifiers.hpp"
#include "pack.hpp"
#include "simd.hpp"
#include "small_query.hpp"
#include "tile.hpp"

namespace regard::REGARD_ISA {
namespace {

constexpr int64_t block_keys = 256;  // keys of a block: with their values they fit into the second-level cache
constexpr int64_t block_rows = 384;  // rows, at most, that use a block of keys before the next is packed
constexpr int tile_rows = Float::tile_rows;

// Whether products of float32 are made by tile registers, of three bfloat16 each. Of few numbers they would have zeros
// in most places, and exp takes the time.
inline bool splits_floats([[maybe_unused]] const Scores& s) {
#ifdef REGARD_TILES
  return s.type != Type::bfloat16 && s.dim > split_numbers;
#else
  return false;
#endif
}

// A head group: the query heads that share one key head, their rows in turn: row r is query r / n_rep of head
// first_head + r % n_rep.
struct HeadGroup {
  int64_t batch, key_head, first_head, n_rep;
};

struct Row {
  int64_t query, head;
  int64_t start, stop;  // of the keys that it may see: none where start ≥ stop
};

inline Row row_of(const Scores& s, const HeadGroup& group, int64_t r) {
  Row row{r, group.first_head, 0, s.keys};
  if (group.n_rep != 1) row.query = r / group.n_rep, row.head += r % group.n_rep;
  if (s.start) {
    const int64_t at = group.batch * s.span_batch + row.query;
    row.start = maximum<int64_t>(s.start[at], 0), row.stop = minimum(s.stop[at], s.keys);
  }
  return row;
}

// A run of keys.
struct Range {
  int64_t from, to;
};

// The smallest range that holds all keys that any of these rows may see.
inline Range key_range(const Row* rows, int64_t count) {
  Range keys{INT64_MAX, 0};
  for (int64_t r = 0; r < count; r++) {
    if (rows[r].start >= rows[r].stop) continue;
    keys.from = minimum(keys.from, rows[r].start), keys.to = maximum(keys.to, rows[r].stop);
  }
  return keys.from < keys.to ? keys : Range{0, 0};
}

// The end of the run of rows from `from` on whose keys overlap: all rows, unless there are segments. A segment is thus
// computed in the same way wherever it lies.
inline int64_t segment_end(const Row* rows, int64_t from, int64_t count) {
  int64_t to = from, stop = 0;
  while (to < count && (to == from || rows[to].start < stop)) stop = maximum(stop, rows[to++].stop);
  return to;
}

// Whether scores stay raw products q·k: the scale is then part of the factor in exp2, and costs nothing. Not where the
// scale or its inverse is no normal float.
inline bool keeps_raw_products(const Scores& s) {
  return s.scale > 1e-30f && s.scale < 1e30f && s.softcap == 0 && !s.bias.data;
}

// The factor from raw products, or else scores, to exponents of two.
inline float to_powers(const Scores& s) { return keeps_raw_products(s) ? s.scale * log2_e : log2_e; }

// The smallest difference of scores that is distinguished from −∞: its power of two is 0.
inline float smallest_difference(float factor) { return smallest_power / factor; }

// Scale, softcap, bias and mask for keys first … first + count ≤ first + block_keys of one row; returns the largest
// score of each lane. `slope` receives the derivative of the softcap.
inline Float apply_modifiers(const Scores& s, int64_t batch, const Row& row, int64_t first, int64_t count, float* score,
                             float* slope) {
  const int64_t known = minimum(count, s.keys - first);  // the rest of the panel is padding
  const auto clipped = [&](int64_t key) { return float(minimum(maximum<int64_t>(key - first, 0), count)); };
  Modifiers m{keeps_raw_products(s) ? 1 : s.scale, s.softcap, nullptr, nullptr, clipped(row.start), clipped(row.stop)};
  uint8_t mask[block_keys];
  alignas(64) float bias[block_keys];
  const auto offset = [&](const auto& of) {
    return batch * of.batch + row.head * of.head + row.query * of.row + first * of.column;
  };
  if (s.mask.data) {
    const auto* from = reinterpret_cast<const uint8_t*>(s.mask.data) + offset(s.mask);
    m.mask = in_vectors(from, s.mask.column, known, count, mask);
  }
  if (!s.bias.data) return modify<Type::float32>(m, count, score, slope);
  Float tops;
  with_type(s.bias_type, [&]<Type type>() {
    using Number = std::conditional_t<type == Type::float32, float, uint16_t>;
    const auto* from = static_cast<const Number*>(s.bias.data) + offset(s.bias);
    const auto* numbers = in_vectors(from, s.bias.column, known, count, reinterpret_cast<Number*>(bias));
    m.bias = reinterpret_cast<const char*>(numbers);
    tops = modify<type>(m, count, score, slope);
  });
  return tops;
}

// The keys of a block: packed as panels or, for a small query, where they lie, and what is read after them.
struct Keys {
  const float* panels;
  const char* direct;
  bool have_products = false;  // with all rows, where the scores are to be
  Upcoming next = {};
  bool finite = true;  // or their products are right as they are
};

// Whether the scores of a row and these keys are more than products.
inline bool is_modified(const Scores& s, const Row& row, int64_t first, Range keys) {
  return !keeps_raw_products(s) || s.mask.data || row.start > first + keys.from || row.stop < first + keys.to;
}

inline Float largest_of(const float* score, Range keys) {
  Float top = broadcast(-infinity);
  for (int64_t j = keys.from; j < keys.to; j += Float::width) top = larger(top, load(score + j));
  return top;
}

// Scores of `rows` rows and the keys first + from … first + to of a block, from and to on borders, and the
// largest of each row. `known` keys are there.
template <class Lane, int rows>
inline void score(const Scores& s, int64_t batch, const Row* row, const float* query, int64_t lanes, Keys block,
                  int64_t first, int64_t known, Range keys, float* scores, int64_t stride, float* top,
                  float* slopes = nullptr) {
  Float tops[rows];
  for (int r = 0; r < rows; r++) tops[r] = broadcast(-infinity);
  if (block.direct) {
    with_type(s.type, [&]<Type type>() {
      if (block.have_products) return;
      products<type, rows>(query, at(block.direct, type, keys.from * s.key.row), s.key.row,
                           minimum(known, keys.to) - keys.from, s.dim, scores + keys.from, stride);
    });
    for (int r = 0; r < rows; r++) {
      float* row_scores = scores + r * stride;
      for (int64_t j = round_up(minimum(known, keys.to), Float::width); j < keys.to; j += Float::width)
        store(row_scores + j, tops[r]);
      for (int64_t j = keys.from; j < keys.to; j += Float::width) tops[r] = larger(tops[r], load(row_scores + j));
    }
  }
  visit_panels(block.direct ? keys.to : keys.from, keys.to, [&]<int vectors>(int64_t key) {
    Float sums[rows][vectors];
    for (int r = 0; r < rows; r++)
      for (int n = 0; n < vectors; n++) sums[r][n] = broadcast(0.0f);
    multiply<Lane, rows, vectors>(Left{query, lanes, 1}, Right{block.panels + in_panels(key, lanes), panel_keys}, lanes,
                                  sums);
    for (int r = 0; r < rows; r++) {
      for (int n = 0; n < vectors; n++) {
        store(scores + r * stride + key + n * Float::width, sums[r][n]);
        tops[r] = larger(tops[r], sums[r][n]);
      }
    }
  });
  for (int r = 0; r < rows; r++) {
    if (is_modified(s, row[r], first, keys)) {
      float* row_scores = scores + r * stride;
      tops[r] = apply_modifiers(s, batch, row[r], first + keys.from, keys.to - keys.from, row_scores + keys.from,
                                slopes ? slopes + r * stride + keys.from : nullptr);
    }
    top[r] = largest(tops[r]);
  }
}

// Where the row of a query or a key is not finite, its product: sums of splits would be nan.
inline void multiply_nonfinite(Type type, int n, const void* const* query, const void* key, int64_t stride, int64_t dim,
                               Range keys, float* scores, int64_t scores_stride) {
  float a[largest_dim], b[largest_dim];
  const auto load_row = [&](const void* from, float* to) {
    to_floats(from, type, to, dim);
    bool finite = true;
    for (int64_t d = 0; d < dim; d++) finite &= to[d] - to[d] == 0;
    return finite;
  };
  for (int64_t j = keys.from; j < keys.to; j++) {
    const bool finite = load_row(at(key, type, j * stride), b);
    for (int r = 0; r < n; r++) {
      if (load_row(query[r], a) && finite) continue;
      float sum = 0;
      for (int64_t d = 0; d < dim; d++) sum += a[d] * b[d];
      scores[r * scores_stride + j] = sum;
    }
  }
}

#ifdef REGARD_TILES
// Up to 16 rows of products, which the tile registers write where they belong.
template <class Lane, class Meanwhile = NoWork>
inline void multiply_in_tiles(const float* query, int64_t lanes, const float* panels, Range keys, float* scores,
                              int64_t stride, Meanwhile&& meanwhile = {}) {
  visit_panels(keys.from, keys.to, [&]<int vectors>(int64_t key) {
    multiply_in_tiles<vectors, 1, Lane>(Left{query, lanes, 1}, Right{panels + in_panels(key, lanes), panel_keys}, lanes,
                                        scores + key, stride, meanwhile);
  });
}

// From such products to scores, and the largest of each row.
inline void finish_scores(int n, const Scores& s, int64_t batch, const Row* row, int64_t first, Range keys,
                          float* scores, int64_t stride, float* top) {
  for (int r = 0; r < n; r++) {
    float* row_scores = scores + r * stride;
    top[r] = largest(
        is_modified(s, row[r], first, keys)
            ? apply_modifiers(s, batch, row[r], first + keys.from, keys.to - keys.from, row_scores + keys.from, nullptr)
            : largest_of(row_scores, keys));
  }
}
#endif

// exp(score − lse) in place: 0 where the score is −∞, also in a row that is nan elsewhere.
inline void weigh(float* score, Range keys, float factor, double lse) {
  if (!(lse < infinity)) {  // a sink that takes everything, or nan
    const float weight = lse == infinity ? 0 : float(lse);
    for (int64_t j = keys.from; j < keys.to; j++) score[j] = score[j] == -infinity ? 0 : weight;
    return;
  }
  // The lse in the unit of the scores, as a float and what is left of it, so that a large one loses no digits. It is
  // taken off before the product with the factor: of two large numbers the difference is exact, their products' is not.
  const double level = lse == -infinity ? 0 : lse / (ln_2 * double(factor));
  const float near = minimum(maximum(float(level), -largest_float), largest_float);
  const Float scale = broadcast(factor), less = broadcast(near), rest = broadcast(float((near - level) * factor));
  const Float smallest = broadcast(smallest_difference(factor));
  for (int64_t j = keys.from; j < keys.to; j += Float::width) {
    store(score + j, exp2(larger(smallest, load(score + j) - less), scale, rest));
  }
}

// A tile of scores: rows from number `at` of their block on, and the keys first + keys.from … first + keys.to, of which
// `known` from `first` on exist.
struct Scored {
  const Row* rows;
  int64_t at, first, known;
  int count;   // of the rows
  bool fresh;  // they meet their first keys
  Range next;  // the keys to ask memory for meanwhile: a part of those that follow the block, also past the last
  Range keys;
  float* scores;  // block_keys apart
  float* top;     // the largest of each row
};

// The rows of a block, and what they may see of a range of keys.
inline void load_rows(const Scores& s, const HeadGroup& group, int64_t first_row, int64_t count, Range keys,
                      Row* rows) {
  for (int64_t r = 0; r < count; r++) {
    rows[r] = row_of(s, group, first_row + r);
    rows[r].start = maximum(rows[r].start, keys.from), rows[r].stop = minimum(rows[r].stop, keys.to);
  }
}

// Visits all that rows may see, tile by tile: for each block of `step` keys that any row of a run may see it calls
// prepare(first, known), then visit(n, r, first, known, fresh, next, keys) for n ≤ `height` rows from number r on.
template <class Lane, int height = tile_rows, class Prepare, class Visit>
inline void visit_tiles(const Row* rows, int64_t count, int64_t step, Prepare&& prepare, Visit&& visit) {
  for (int64_t from = 0, to; from < count; from = to) {
    to = segment_end(rows, from, count);
    const Range seen = key_range(rows + from, to - from);
    for (int64_t first = seen.from; first < seen.to; first += step) {
      const int64_t known = minimum(step, seen.to - first);
      prepare(first, known);
      for (int64_t r = from; r < to; r += height) {
        const int n = int(minimum<int64_t>(height, to - r));
        Range keys = key_range(rows + r, n);
        const bool fresh = keys.from >= first;
        const int64_t after = first + known, share = known * n / (to - from) + 1;
        const Range next{after + known * (r - from) / (to - from), after + known * (r - from) / (to - from) + share};
        keys.from = maximum<int64_t>(0, keys.from - first) / border<Lane> * border<Lane>;
        keys.to = round_up(minimum(known, keys.to - first), border<Lane>);
        if (keys.from < keys.to) visit(n, r, first, known, fresh, next, keys);
      }
    }
  }
}

// Group number n, counted through all sequences.
inline HeadGroup head_group(const Scores& s, int64_t n, int64_t n_rep) {
  const int64_t per_batch = s.heads / n_rep, head = n % per_batch * n_rep;
  return {n / per_batch, s.groups ? head / (s.heads / s.groups) : 0, head, n_rep};
}

// Rows in blocks of equal size, in whole tiles.
struct RowBlocks {
  int64_t blocks, size;
  explicit RowBlocks(int64_t rows, int64_t largest = block_rows, int64_t tile = tile_rows)
      : blocks((rows + largest - 1) / largest), size(blocks ? round_up((rows + blocks - 1) / blocks, tile) : 0) {}
};

}  // namespace
}  // namespace regard::REGARD_ISA
