// regard._kernel: maps of the weights, and what is asked of them.

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <string>
#include <vector>

#include "arrays.hpp"
#include "checks.hpp"
#include "kernel/attention.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace regard {
namespace {

Rectifier rectifier_named(const std::string& name) {
  if (name == "relu") return Rectifier::relu;
  if (name == "abs") return Rectifier::absolute;
  expect(name.empty(), "activation", "relu, abs or the empty string");
  return Rectifier::none;
}

struct BoundFactor {
  Optional query, key;
  Rectifier rectifier;

  BoundFactor(const Optional& query, const Optional& key, const std::string& activation)
      : query(query), key(key), rectifier(rectifier_named(activation)) {
    expect(query || key, "query, key", "one of them, or both");
  }
};

// A tensor (1|batch,…,rows,dim) in float32 whose last dimension has no gaps; a dimension of size 1 repeats.
Strided<const float> repeated(const Array& array, int64_t batch, int64_t rows, int64_t dim, const char* name) {
  expect(type_of(array, name) == Type::float32, name, "float32");
  expect(array.ndim == 4 && (array.shape[0] == 1 || array.shape[0] == batch), name,
         "four dimensions, the first of them 1 or the sequences");
  expect_shape(array, {array.shape[0], array.shape[1], rows, dim}, name);
  expect(array.shape[3] <= 1 || array.stride[3] == 1 || array.size() == 0, name, "a last dimension without gaps");
  return {array.as<float>(), array.stride[0], array.stride[1], array.stride[2]};
}

struct BoundMap {
  Scores s;
  Map m;
  int64_t heads;
  std::vector<nb::object> owners;
  std::vector<Factor> factors;

  BoundMap(const BoundScores& scores, const Array& lse, const std::vector<BoundFactor>& given, const Optional& gram)
      : s(scores.s), heads(gram ? 1 : s.heads), owners(scores.owners) {
    owners.push_back(lse.owner);
    m.lse = contiguous<double>(lse, {s.batch, s.heads, s.queries}, "lse");
    if (gram) {
      owners.push_back(gram->owner);
      m.gram = repeated(*gram, s.batch, s.keys, s.heads * s.heads, "gram");
      expect(gram->shape[1] == 1, "gram", "a second dimension of 1");
    }
    for (const BoundFactor& factor : given) factors.push_back(checked(factor));
    m.factors = factors.data(), m.count = int64_t(factors.size());
  }
  BoundMap(const BoundMap&) = delete;  // m points into factors

 private:
  Factor checked(const BoundFactor& given) {
    Factor f;
    f.rectifier = given.rectifier;
    for (const Optional* array : {&given.query, &given.key}) {
      if (!*array) continue;
      owners.push_back((*array)->owner);
      expect((*array)->ndim == 4, "factors", "four dimensions");
      f.width = (*array)->shape[3];
    }
    expect(f.width == 1 || (given.query && given.key), "factors", "a width of 1 of a row or a key alone");
    if (given.query) {
      const int64_t own = given.query->shape[1];
      expect(own == 1 || own == heads, "factors", "one a head, or one for all, of the queries");
      f.query = repeated(*given.query, s.batch, s.queries, f.width, "factors");
    }
    if (given.key) {
      const int64_t own = given.key->shape[1];
      expect(own == 1 || own == heads || own == s.groups, "factors",
             "one a head or group, or one for all, of the keys");
      f.key = repeated(*given.key, s.batch, s.keys, f.width, "factors");
      f.key_repeat = own == 1 || own == 0 ? 1 : heads / own;
    }
    return f;
  }
};

void pool(const BoundMap& map, const Array& row_cells, const Array& column_cells, const Array& cells, bool largest,
          const std::string& isa, int threads) {
  const Scores& s = map.s;
  Pool p;
  expect(cells.ndim == 4, "cells", "four dimensions");
  p.rows = cells.shape[2], p.columns = cells.shape[3], p.largest = largest;
  p.row_cells = contiguous<int64_t>(row_cells, {s.queries}, "row_cells");
  p.column_cells = contiguous<int64_t>(column_cells, {s.keys}, "column_cells");
  p.cells = contiguous<double>(cells, {s.batch, map.heads, p.rows, p.columns}, "cells");
  for (int64_t i = 0; i < s.queries; i++) {
    expect(p.row_cells[i] >= -1 && p.row_cells[i] < p.rows, "row_cells", "−1 to the rows of cells − 1");
  }
  for (int64_t j = 0; j < s.keys; j++) {
    expect(p.column_cells[j] >= -1 && p.column_cells[j] < p.columns, "column_cells", "−1 to the columns of cells − 1");
  }
  const Kernel& kernel = kernel_of(isa, threads);
  nb::gil_scoped_release release;
  kernel.pool(s, map.m, p, threads);
}

void tile(const BoundMap& map, int64_t first_row, int64_t first_column, const Array& numbers, const std::string& isa,
          int threads) {
  const Scores& s = map.s;
  Tile t;
  expect(numbers.ndim == 4, "numbers", "four dimensions");
  t.first_row = first_row, t.rows = numbers.shape[2], t.first_column = first_column, t.columns = numbers.shape[3];
  expect(first_row >= 0 && first_row + t.rows <= s.queries, "first_row",
         "with the rows of numbers, within the queries");
  expect(first_column >= 0 && first_column + t.columns <= s.keys, "first_column",
         "with the columns of numbers, within the keys");
  t.numbers = contiguous<float>(numbers, {s.batch, map.heads, t.rows, t.columns}, "numbers");
  const Kernel& kernel = kernel_of(isa, threads);
  nb::gil_scoped_release release;
  kernel.tile(s, map.m, t, threads);
}

void diagonal(const BoundMap& map, int64_t first_row, int64_t first_column, const Array& numbers,
              const std::string& isa, int threads) {
  const Scores& s = map.s;
  Diagonal d;
  expect(numbers.ndim == 3, "numbers", "three dimensions");
  d.first_row = first_row, d.first_column = first_column, d.count = numbers.shape[2];
  expect(first_row >= 0 && first_row + d.count <= s.queries, "first_row",
         "with as many rows as numbers, within the queries");
  expect(first_column >= 0 && first_column + d.count <= s.keys, "first_column",
         "with as many columns as numbers, within the keys");
  d.numbers = contiguous<float>(numbers, {s.batch, map.heads, d.count}, "numbers");
  const Kernel& kernel = kernel_of(isa, threads);
  nb::gil_scoped_release release;
  kernel.diagonal(s, map.m, d, threads);
}

void apply(const BoundMap& map, const Array& vectors, const Array& output, const std::string& isa, int threads) {
  const Scores& s = map.s;
  Apply a;
  expect(vectors.ndim == 4, "vectors", "four dimensions");
  a.width = vectors.shape[3];
  expect(a.width <= largest_dim, "vectors", "a dim up to 512");
  const int64_t own = vectors.shape[1];
  expect(own == 1 || own == map.heads || own == s.groups, "vectors", "one a head or group, or one for all");
  a.vectors = repeated(vectors, s.batch, s.keys, a.width, "vectors"), a.repeat = own <= 1 ? 1 : map.heads / own;
  a.output = contiguous<float>(output, {s.batch, map.heads, s.queries, a.width}, "output");
  const Kernel& kernel = kernel_of(isa, threads);
  nb::gil_scoped_release release;
  kernel.apply(s, map.m, a, threads);
}

void transposed(const BoundMap& map, const Array& vectors, const Array& output, const std::string& isa, int threads) {
  const Scores& s = map.s;
  Transposed t;
  expect(vectors.ndim == 4, "vectors", "four dimensions");
  t.width = vectors.shape[3];
  expect(t.width <= largest_dim, "vectors", "a dim up to 512");
  expect(vectors.shape[1] == 1 || vectors.shape[1] == map.heads, "vectors", "one a head, or one for all");
  t.vectors = repeated(vectors, s.batch, s.queries, t.width, "vectors");
  t.output = contiguous<float>(output, {s.batch, map.heads, s.keys, t.width}, "output");
  const Kernel& kernel = kernel_of(isa, threads);
  nb::gil_scoped_release release;
  kernel.transposed(s, map.m, t, threads);
}

void largest(const BoundMap& map, bool magnitude, const Array& values, const Array& keys, const std::string& isa,
             int threads) {
  const Scores& s = map.s;
  Largest l;
  expect(values.ndim == 4, "values", "four dimensions");
  l.count = values.shape[3], l.magnitude = magnitude;
  expect(l.count <= largest_top && l.count <= s.keys, "values", "at most 64, and no more than the keys");
  l.values = contiguous<float>(values, {s.batch, map.heads, s.queries, l.count}, "values");
  l.keys = contiguous<int64_t>(keys, {s.batch, map.heads, s.queries, l.count}, "keys");
  const Kernel& kernel = kernel_of(isa, threads);
  nb::gil_scoped_release release;
  kernel.largest(s, map.m, l, threads);
}

constexpr const char* factor_doc = R"(A factor φ(a·b) of a map; φ(a) or φ(b) alone, of width 1.

a: query (1|B,1|H,Q,F), b: key (1|B,1|G|H,K,F), float32, without gaps in the last dimension.
φ: activation "relu", "abs", or "" for the product itself.)";

constexpr const char* map_doc = R"(A map of the weights, as a rule: w_ij · Π φ(a_i·b_j).

lse (B,H,Q): float64. gram (1|B,1,K,H·H), float32: the map is √(Σ_hh′ w^h_ij w^h′_ij G_j[h,h′]) · Π φ(a_i·b_j), and has
one head, as its factors then have. Without factors and gram, the weights themselves.

The tensors are kept, not copied.)";

constexpr const char* pool_doc =
    R"(The numbers of a map gathered into cells (B,H,R,C), float64: their sums, or the largest.

M_ij goes to cell (row_cells[i], column_cells[j]), int64 (Q) and (K); −1 is left out. 0 where nothing goes.)";

constexpr const char* tile_doc = R"(A part of a map itself: numbers (B,H,R,C), float32.

Its first row and column are first_row and first_column.)";

constexpr const char* diagonal_doc =
    R"(A diagonal of a map, from first_row and first_column on: numbers (B,H,n), float32.)";

constexpr const char* apply_doc = R"(M x: vectors x (1|B,1|G|H,K,F), F ≤ 512, to output (B,H,Q,F), both float32.)";

constexpr const char* transposed_doc = R"(Mᵀ y: vectors y (1|B,1|H,Q,F), F ≤ 512, to output (B,H,K,F), both float32.)";

constexpr const char* largest_doc = R"(The k largest numbers of each row, by value or by magnitude, and their keys.

values (B,H,Q,k), float32, and keys, int64: sorted, ties to the lower key; hidden keys have the number 0.
k ≤ 64 and k ≤ K.)";

}  // namespace

void bind_maps(nb::module_& m) {
  nb::class_<BoundFactor>(m, "Factor", factor_doc)
      .def(nb::init<const Optional&, const Optional&, const std::string&>(), "query"_a = nb::none(),
           "key"_a = nb::none(), "activation"_a = "");
  nb::class_<BoundMap>(m, "Map", map_doc)
      .def(nb::init<const BoundScores&, const Array&, const std::vector<BoundFactor>&, const Optional&>(), "scores"_a,
           nb::kw_only(), "lse"_a, "factors"_a = std::vector<BoundFactor>(), "gram"_a = nb::none());
  m.def("pool", &pool, "map"_a, nb::kw_only(), "row_cells"_a, "column_cells"_a, "cells"_a, "largest"_a, "isa"_a,
        "threads"_a, pool_doc);
  m.def("tile", &tile, "map"_a, nb::kw_only(), "first_row"_a, "first_column"_a, "numbers"_a, "isa"_a, "threads"_a,
        tile_doc);
  m.def("diagonal", &diagonal, "map"_a, nb::kw_only(), "first_row"_a, "first_column"_a, "numbers"_a, "isa"_a,
        "threads"_a, diagonal_doc);
  m.def("apply", &apply, "map"_a, nb::kw_only(), "vectors"_a, "output"_a, "isa"_a, "threads"_a, apply_doc);
  m.def("transposed", &transposed, "map"_a, nb::kw_only(), "vectors"_a, "output"_a, "isa"_a, "threads"_a,
        transposed_doc);
  m.def("largest", &largest, "map"_a, nb::kw_only(), "magnitude"_a, "values"_a, "keys"_a, "isa"_a, "threads"_a,
        largest_doc);
}

}  // namespace regard
