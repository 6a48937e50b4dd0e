// Rows of scores: who sees what, and what comes between the product q·k and the softmax.

#pragma once

namespace regard::REGARD_ISA {
namespace {

constexpr int64_t block_keys = 256;  // so many keys, and their values, stay in the second-level cache
constexpr int64_t block_rows = 384;  // that many rows, at most, use them before the next
constexpr int tile_rows = Float::tile_rows;

// The query heads that read one head of keys, row after row: row r is query r / repeat of head first + r % repeat.
struct Sharing {
  int64_t batch, group, first, repeat;
};

struct Row {
  int64_t query, head;
  int64_t start, stop;  // of the keys that it may see: none where start ≥ stop
};

inline Row row_of(const Scores& s, const Sharing& sharing, int64_t r) {
  Row row{r / sharing.repeat, sharing.first + r % sharing.repeat, 0, s.keys};
  if (s.start) {
    const int64_t at = sharing.batch * s.span_batch + row.query;
    row.start = most<int64_t>(s.start[at], 0), row.stop = least(s.stop[at], s.keys);
  }
  return row;
}

// A run of keys.
struct Range {
  int64_t from, to;
};

// The run that holds all the keys that some rows may see.
inline Range reach(const Row* rows, int64_t count) {
  Range keys{INT64_MAX, 0};
  for (int64_t r = 0; r < count; r++) {
    if (rows[r].start >= rows[r].stop) continue;
    keys.from = least(keys.from, rows[r].start), keys.to = most(keys.to, rows[r].stop);
  }
  return keys.from < keys.to ? keys : Range{0, 0};
}

// Where the rows end that share keys with those before them, as all do unless there are segments. A segment is thus
// computed in the same way wherever it lies.
inline int64_t together(const Row* rows, int64_t from, int64_t count) {
  int64_t to = from, stop = 0;
  while (to < count && (to == from || rows[to].start < stop)) stop = most(stop, rows[to++].stop);
  return to;
}

// Scores stay raw products q·k as long as they can: the scale is then applied on the way into exp, for nothing. Not by
// a scale so small or so large that it and its inverse are not both ordinary floats.
inline bool stays_raw(const Scores& s) { return s.scale > 1e-30f && s.scale < 1e30f && s.softcap == 0 && !s.bias.data; }

// What raw products, or else scores, are multiplied by to be powers of two.
inline float to_powers(const Scores& s) { return stays_raw(s) ? s.scale * log2_e : log2_e; }

// The least difference of scores that is still told apart from −∞: its power of two is 0.
inline float least_difference(float factor) { return least_power / factor; }

// Scale, softcap, bias and mask for keys first … first + count of one row. Where softcap has bent a score, `slope` gets
// the derivative.
inline void finish_row(const Scores& s, int64_t batch, const Row& row, int64_t first, int64_t count, float* score,
                       float* slope) {
  float scale = stays_raw(s) ? 1 : s.scale;  // by which the scores are still to be multiplied
  if (s.softcap != 0) {
    const Float inner = broadcast(scale / s.softcap), outer = broadcast(s.softcap), one = broadcast(1.0f);
    for (int64_t j = 0; j < count; j += Float::width) {
      const Float bent = tanh(inner * load(score + j));
      store(score + j, outer * bent);
      if (slope) store(slope + j, one - bent * bent);
    }
    scale = 1;
  }
  const int64_t known = least(count, s.keys - first);  // the others fill up the panel
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
        float one;
        to_floats(at(bias, type, j * s.bias.column), type, &one, 1);
        score[j] = score[j] * scale + one;
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
  for (int64_t j = 0, before = least(count, row.start - first); j < before; j++) score[j] = -infinity;
  for (int64_t j = most<int64_t>(0, row.stop - first); j < count; j++) score[j] = -infinity;
}

// Where the keys of a block are: packed as panels or, where rows are few, as they lie.
struct Keys {
  const float* panels;
  const char* direct;
};

// Scores of `rows` rows and the keys first + from … first + to of a block, from and to on the border of a panel, and
// the largest of each row. `known` keys are there.
template <class Cell, int rows>
inline void score(const Scores& s, int64_t batch, const Row* row, const float* query, int64_t cells, Keys block,
                  int64_t first, int64_t known, Range keys, float* scores, int64_t stride, float* top,
                  float* slopes = nullptr) {
  constexpr int vectors = Float::tile_vectors;
  Float tops[rows];
  for (int r = 0; r < rows; r++) tops[r] = broadcast(-infinity);
  if (block.direct) {
    with_type(s.type, [&]<Type type>() {
      products<type, rows>(query, at(block.direct, type, keys.from * s.key.row), s.key.row,
                           least(known, keys.to) - keys.from, s.dim, scores + keys.from, stride);
    });
    for (int r = 0; r < rows; r++) {
      float* some = scores + r * stride;
      for (int64_t j = round_up(least(known, keys.to), Float::width); j < keys.to; j += Float::width)
        store(some + j, tops[r]);
      for (int64_t j = keys.from; j < keys.to; j += Float::width) tops[r] = larger(tops[r], load(some + j));
    }
  }
  for (int64_t key = block.direct ? keys.to : keys.from; key < keys.to; key += panel_keys) {
    Float sums[rows][vectors];
    for (int r = 0; r < rows; r++)
      for (int n = 0; n < vectors; n++) sums[r][n] = broadcast(0.0f);
    multiply<Cell, rows, vectors>(Left{query, cells, 1}, Right{block.panels + key * cells, panel_keys}, cells, sums);
    for (int r = 0; r < rows; r++) {
      for (int n = 0; n < vectors; n++) {
        store(scores + r * stride + key + n * Float::width, sums[r][n]);
        tops[r] = larger(tops[r], sums[r][n]);
      }
    }
  }
  for (int r = 0; r < rows; r++) {
    if (!stays_raw(s) || s.mask.data || row[r].start > first + keys.from || row[r].stop < first + keys.to) {
      float* some = scores + r * stride + keys.from;
      finish_row(s, batch, row[r], first + keys.from, keys.to - keys.from, some,
                 slopes ? slopes + r * stride + keys.from : nullptr);
      tops[r] = broadcast(-infinity);
      for (int64_t j = keys.from; j < keys.to; j += Float::width)
        tops[r] = larger(tops[r], load(scores + r * stride + j));
    }
    top[r] = largest(tops[r]);
  }
}

// exp(score − lse) in place: 0 where the score is −∞, which a row that is nan elsewhere must be told.
inline void weigh(float* score, Range keys, float factor, double lse) {
  if (!(lse < infinity)) {  // a sink that takes everything, or nan
    const float weight = lse == infinity ? 0 : float(lse);
    for (int64_t j = keys.from; j < keys.to; j++) score[j] = score[j] == -infinity ? 0 : weight;
    return;
  }
  // The lse in the unit of the scores, as a float and what is left of it, so that a large one loses no digits. It is
  // taken off before the product with the factor: of two large numbers the difference is exact, their products' is not.
  const double level = lse == -infinity ? 0 : lse / (ln_2 * double(factor));
  const float near = least(most(float(level), -largest_float), largest_float);
  const Float scale = broadcast(factor), less = broadcast(near), rest = broadcast(float((near - level) * factor));
  const Float smallest = broadcast(least_difference(factor));
  for (int64_t j = keys.from; j < keys.to; j += Float::width) {
    store(score + j, exp2(larger(smallest, load(score + j) - less), scale, rest));
  }
}

// A tile of scores, as it is handed on: of some rows, row `at` of their block the first, and the keys first + keys.from
// … first + keys.to; `known` of the keys from first on are there.
struct Scored {
  const Row* rows;
  int64_t at, first, known;
  Range keys;
  float* scores;  // block_keys apart
  float* top;     // the largest of each row
};

// All scores of `count` rows and some keys, tile by tile: for each block of keys that anybody may see prepare(first,
// count), then visit.operator()<rows>(tile) for its rows.
template <class Cell>
struct Blocks {
  const Scores& s;
  bool direct;                            // for few rows: keys as they lie
  int64_t cells = cells_of<Cell>(s.dim);  // of a query or key

  int64_t panels_at() const { return block_rows * cells; }
  int64_t staging_at() const { return panels_at() + block_keys * cells; }
  int64_t size() const { return round_up(staging_at() + Float::width * round_up(cells, Float::width), 16); }

  template <class Prepare, class Visit>
  void visit(const Sharing& sharing, int64_t first_row, int64_t count, Range keys, float* memory, Prepare&& prepare,
             Visit&& visit) const {
    Row rows[block_rows];
    const int64_t query_cells = direct ? few_cells(s.type, s.dim) : cells;  // of one query, as it is packed
    float *query = memory, *panels = memory + panels_at(), *staging = memory + staging_at();
    for (int64_t r = 0; r < count; r++) {
      rows[r] = row_of(s, sharing, first_row + r);
      const int64_t offset = sharing.batch * s.query.batch + rows[r].head * s.query.head + rows[r].query * s.query.row;
      if (direct)
        pack_few(at(s.query.data, s.type, offset), s.type, s.dim, query + r * query_cells);
      else
        pack_row<Cell>(at(s.query.data, s.type, offset), s.type, s.dim, query + r * query_cells, cells);
      rows[r].start = most(rows[r].start, keys.from), rows[r].stop = least(rows[r].stop, keys.to);
    }
    for (int64_t from = 0, to; from < count; from = to) {
      to = together(rows, from, count);
      const Range seen = reach(rows + from, to - from);
      for (int64_t first = seen.from; first < seen.to; first += block_keys) {
        const int64_t known = least(block_keys, seen.to - first);
        const int64_t key = sharing.batch * s.key.batch + sharing.group * s.key.head + first * s.key.row;
        const char* lying = at(s.key.data, s.type, key);
        if (!direct) pack_panels<Cell>(lying, s.type, s.key.row, known, s.dim, panels, staging);
        prepare(first, known);
        for (int64_t r = from; r < to; r += tile_rows) {
          with_constant<tile_rows>(int(least<int64_t>(tile_rows, to - r)), [&]<int n>() {
            Range some = reach(rows + r, n);
            some.from = most<int64_t>(0, some.from - first) / panel_keys * panel_keys;
            some.to = least(round_up(known, panel_keys), round_up(some.to - first, panel_keys));
            if (some.from >= some.to) return;
            alignas(64) float scores[tile_rows * block_keys];
            float top[tile_rows];
            score<Cell, n>(s, sharing.batch, rows + r, query + r * query_cells, cells,
                           Keys{panels, direct ? lying : nullptr}, first, known, some, scores, block_keys, top);
            visit.template operator()<n>(Scored{rows + r, r, first, known, some, scores, top});
          });
        }
      }
    }
  }
};

// The heads of one sequence that share keys, one after the other over all sequences.
inline Sharing sharing_of(const Scores& s, int64_t n, int64_t repeat) {
  const int64_t per_batch = s.heads / repeat, head = n % per_batch * repeat;
  return {n / per_batch, s.groups ? head / (s.heads / s.groups) : 0, head, repeat};
}

// Rows in blocks that are as large as one another, in whole tiles.
struct Cut {
  int64_t blocks, size;
  explicit Cut(int64_t rows, int64_t largest = block_rows)
      : blocks((rows + largest - 1) / largest), size(blocks ? round_up((rows + blocks - 1) / blocks, tile_rows) : 0) {}
};

}  // namespace
}  // namespace regard::REGARD_ISA
