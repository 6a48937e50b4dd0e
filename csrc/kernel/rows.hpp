// Rows of scores: which keys each row may see, and the modifiers between the product q·k and the softmax.

#pragma once

#include <cstdint>

#include "attention.hpp"
#include "exponential.hpp"
#include "pack.hpp"
#include "simd.hpp"
#include "small_query.hpp"
#include "tile.hpp"

namespace regard::REGARD_ISA {
namespace {

constexpr int64_t block_keys = 256;  // keys of a block: with their values they fit into the second-level cache
constexpr int64_t block_rows = 384;  // rows, at most, that use a block of keys before the next is packed
constexpr int tile_rows = Float::tile_rows;

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

// −∞ for those of the keys first … first + count that a row may not see.
inline void hide_outside(const Row& row, int64_t first, int64_t count, float* score) {
  const Float hidden = broadcast(-infinity);
  const int64_t before = minimum(count, row.start - first), after = maximum<int64_t>(0, row.stop - first);
  for (int64_t j = 0; j < before; j += Float::width) {
    const Float position = counting() + broadcast(float(j + 1));
    store(score + j, where_at_most(position, broadcast(float(before)), hidden, load(score + j)));
  }
  for (int64_t j = after / Float::width * Float::width; j < count; j += Float::width) {
    const Float position = counting() + broadcast(float(j));
    store(score + j, where_at_most(broadcast(float(after)), position, hidden, load(score + j)));
  }
}

// Scale, softcap, bias and mask for keys first … first + count of one row. `slope`
// receives the derivative of the softcap.
inline void apply_modifiers(const Scores& s, int64_t batch, const Row& row, int64_t first, int64_t count, float* score,
                            float* slope) {
  float scale = keeps_raw_products(s) ? 1 : s.scale;  // by which the scores are still to be multiplied
  if (s.softcap != 0) {
    const Float inner = broadcast(scale / s.softcap), outer = broadcast(s.softcap), one = broadcast(1.0f);
    for (int64_t j = 0; j < count; j += Float::width) {
      const Float bent = tanh(inner * load(score + j));
      store(score + j, outer * bent);
      if (slope) store(slope + j, one - bent * bent);
    }
    scale = 1;
  }
  const int64_t known = minimum(count, s.keys - first);  // the rest of the panel is padding
  if (s.bias.data) {
    const int64_t offset =
        batch * s.bias.batch + row.head * s.bias.head + row.query * s.bias.row + first * s.bias.column;
    const char* bias = at(s.bias.data, s.bias_type, offset);
    with_type(s.bias_type, [&]<Type type>() {
      int64_t j = 0;
      if (s.bias.column == 1) {
        for (; j + Float::width <= known; j += Float::width)
          store(score + j, multiply_add(load(score + j), broadcast(scale), load_as<type>(bias, j)));
      }
      for (; j < known; j++) {
        float number;
        to_floats(at(bias, type, j * s.bias.column), type, &number, 1);
        score[j] = score[j] * scale + number;
      }
    });
  } else if (scale != 1) {
    for (int64_t j = 0; j < count; j++) score[j] *= scale;
  }
  if (s.mask.data) {
    const auto* mask = reinterpret_cast<const uint8_t*>(s.mask.data) + batch * s.mask.batch + row.head * s.mask.head +
                       row.query * s.mask.row + first * s.mask.column;
    if (s.mask.column == 1) {
      for (int64_t j = 0; j < known; j++) score[j] = mask[j] ? score[j] : -infinity;
    } else {
      for (int64_t j = 0; j < known; j++) score[j] = mask[j * s.mask.column] ? score[j] : -infinity;
    }
  }
  hide_outside(row, first, count, score);
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
      apply_modifiers(s, batch, row[r], first + keys.from, keys.to - keys.from, row_scores + keys.from,
                      slopes ? slopes + r * stride + keys.from : nullptr);
      tops[r] = largest_of(row_scores, keys);
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
    if (is_modified(s, row[r], first, keys)) {
      apply_modifiers(s, batch, row[r], first + keys.from, keys.to - keys.from, row_scores + keys.from, nullptr);
    }
    top[r] = largest(largest_of(row_scores, keys));
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

// The queries and keys of one head group, packed or, for a small query, the keys where they lie.
template <class Lane>
struct Blocks {
  const Scores& s;
  bool direct;                      // a small query reads keys where they lie
  Strided<const void> values = {};  // those of the keys, if they are read too
  int64_t value_dim = 0;
  int64_t lanes = lanes_of<Lane>(s.dim);                                    // of a query or key
  int64_t query_lanes = direct ? small_query_lanes(s.type, s.dim) : lanes;  // of one query, as it is packed

  // Fewer where they are long, so that they fit into the second-level cache.
  int64_t keys_at_once() const { return s.dim > 256 ? block_keys / 2 : block_keys; }
  int64_t panels_at() const { return direct ? 2 * largest_small_query * query_lanes : block_rows * lanes; }
  int64_t staging_at() const { return panels_at() + block_keys * (direct ? largest_small_query : lanes); }
  int64_t staging_size() const { return Float::width * round_up(lanes, Float::width); }
  int64_t size() const { return round_up(staging_at() + staging_size(), 16); }

  const char* query(int64_t batch, const Row& row) const {
    return at(s.query.data, s.type, batch * s.query.batch + row.head * s.query.head + row.query * s.query.row);
  }

  // Returns false where numbers that are not finite were split; so does `load_keys`, as `finite`.
  bool pack_query(int64_t batch, const Row& row, float* to) const {
    const char* from = query(batch, row);
    ask_for(from, s.query.row * 16 * bytes_of(s.type), s.dim * bytes_of(s.type));
    if (!direct) return pack_row<Lane>(from, s.type, s.dim, to, lanes);
    pack_small_query(from, s.type, s.dim, to);
    return true;
  }

  const char* key(int64_t batch, int64_t key_head, int64_t first) const {
    return at(s.key.data, s.type, batch * s.key.batch + key_head * s.key.head + first * s.key.row);
  }

  Keys load_keys(int64_t batch, int64_t key_head, int64_t first, int64_t known, float* panels, float* staging) const {
    const char* from = key(batch, key_head, first);
    if (direct) {
      const int64_t value = batch * values.batch + key_head * values.head + first * values.row;
      return {panels, from, false, Upcoming(values.data ? values.data : from, s.type, value, values.row, value_dim)};
    }
    Keys keys{panels, nullptr};
    keys.finite = pack_keys<Lane>(from, s.type, s.key.row, known, s.dim, panels, staging);
    return keys;
  }

  // For a small query whose rows fill the lanes: the queries turned, [lane][row]; and all products with a block of
  // keys.
  void turn_queries(int64_t count, float* memory) const {
    const int64_t columns = round_up(count, Float::width);
    __builtin_memset(memory + count * query_lanes, 0, (columns - count) * query_lanes * sizeof(float));
    for (int64_t r = 0; r < columns; r += Float::width) {
      for (int64_t lane = 0; lane < query_lanes; lane += Float::width) {
        transpose(memory + r * query_lanes + lane, query_lanes, turned(memory) + lane * columns + r, columns);
      }
    }
  }
  void multiply_by_rows(int64_t count, Keys keys, int64_t known, float* memory) const {
    const int64_t columns = round_up(count, Float::width);
    for (int64_t r = 0; r < columns; r += 2 * Float::width) {
      const float* query = turned(memory) + r;
      float* scores = memory + panels_at() + r * block_keys;
      with_constant<2>(int((columns - r) / Float::width), [&]<int vectors>() {
        with_type(s.type, [&]<Type type>() {
          products_by_rows<type, vectors>(query, columns, keys.direct, s.key.row, known, s.dim, keys.next, scores,
                                          block_keys);
        });
      });
    }
  }
  float* turned(float* memory) const { return memory + largest_small_query * query_lanes; }

  // Packs the queries; returns whether all of them are finite, or need not be.
  bool load_queries(const HeadGroup& group, const Row* rows, int64_t count, float* memory) const {
    bool finite = true;
    for (int64_t r = 0; r < count; r++) finite &= pack_query(group.batch, rows[r], memory + r * query_lanes);
    return finite;
  }

  // Visits all scores of `count` rows and a range of keys: for each block of keys it calls prepare(first, known), then
  // visit.operator()<rows>(tile) for at most tile_rows rows.
  template <class Prepare, class Visit>
  void visit(const HeadGroup& group, int64_t first_row, int64_t count, Range keys, float* memory, Prepare&& prepare,
             Visit&& visit) const {
    Row rows[block_rows];
    load_rows(s, group, first_row, count, keys, rows);
    [[maybe_unused]] const bool finite = load_queries(group, rows, count, memory);
    const bool by_rows = direct && rows_fill_lanes(s);
    if (by_rows) turn_queries(count, memory);
    [[maybe_unused]] const WithTiles<Lane> tiles;
    Keys loaded{};
    visit_tiles<Lane, rows_at_once<Lane>>(
        rows, count, keys_at_once(),
        [&](int64_t first, int64_t known) {
          loaded = load_keys(group.batch, group.key_head, first, known, memory + panels_at(), memory + staging_at());
          if (by_rows) multiply_by_rows(count, loaded, known, memory), loaded.have_products = true;
          prepare(first, known);
        },
        [&](int n, int64_t r, int64_t first, int64_t known, bool fresh, Range next, Range tile_keys) {
          alignas(64) float of_tile[rows_at_once<Lane> * block_keys];
          float top[rows_at_once<Lane>], *scores = by_rows ? memory + panels_at() + r * block_keys : of_tile;
          const float* query = memory + r * query_lanes;
#ifdef REGARD_TILES
          if constexpr (Lane::steps > 1) {
            multiply_in_tiles<Lane>(query, lanes, loaded.panels, tile_keys, scores, block_keys);
            if (!finite || !loaded.finite)
              multiply_nonfinite(n, group, rows + r, first, known, tile_keys, scores, block_keys);
            finish_scores(n, s, group.batch, rows + r, first, tile_keys, scores, block_keys, top);
          }
#endif
          for (int64_t from = 0; from < n; from += tile_rows) {
            with_constant<tile_rows>(int(minimum<int64_t>(tile_rows, n - from)), [&]<int some>() {
              float* part = scores + from * block_keys;
              if constexpr (Lane::steps == 1)
                score<Lane, some>(s, group.batch, rows + r, query, lanes, loaded, first, known, tile_keys, part,
                                  block_keys, top);
              visit.template operator()<some>(
                  Scored{rows + r + from, r + from, first, known, some, fresh, next, tile_keys, part, top + from});
            });
          }
        });
  }

  void multiply_nonfinite(int n, const HeadGroup& group, const Row* rows, int64_t first, int64_t known, Range keys,
                          float* scores, int64_t stride) const {
    const void* queries[rows_at_once<Lane>];
    for (int r = 0; r < n; r++) queries[r] = query(group.batch, rows[r]);
    REGARD_ISA::multiply_nonfinite(s.type, n, queries, key(group.batch, group.key_head, first), s.key.row, s.dim,
                                   {keys.from, minimum(known, keys.to)}, scores, stride);
  }
};

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
