// Checks of what is asked of maps, for the driver.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "cases.hpp"

namespace {

void check_pool(const Kernel& kernel, Case& c) {
  const Scores& s = c.s;
  Pool pool;
  pool.rows = c.random.below(std::min<int64_t>(s.queries, 20) + 1);
  pool.columns = c.random.below(std::min<int64_t>(s.keys, 20) + 1);
  pool.largest = c.random.chance(0.5);
  Array row_cells(c.random, s.queries, sizeof(int64_t)), column_cells(c.random, s.keys, sizeof(int64_t));
  const bool in_order = c.random.chance(0.5);
  const auto assign = [&](Array& to, int64_t count, int64_t parts) {
    for (int64_t i = 0; i < count; i++) {
      to.as<int64_t>()[i] = in_order && parts > 0 ? i * parts / count : c.random.below(parts + 1) - 1;
    }
  };
  assign(row_cells, s.queries, pool.rows), assign(column_cells, s.keys, pool.columns);
  pool.row_cells = row_cells.as<int64_t>(), pool.column_cells = column_cells.as<int64_t>();
  const int64_t per_head = pool.rows * pool.columns, count = s.batch * c.numbers->heads * per_head;
  Array computed(c.random, count, sizeof(double));
  pool.cells = computed.as<double>();
  Results{{&computed}}.compute([&](int threads) { kernel.pool(s, c.map, pool, threads); });

  std::vector<double> expected(count), errors(count, 1e-12);
  std::vector<bool> filled(count);
  for (int64_t row = 0; row < c.map_rows(); row++) {
    for (int64_t j = 0; j < s.keys; j++) {
      const int64_t r = pool.row_cells[row % s.queries], column = pool.column_cells[j];
      if (r < 0 || column < 0) continue;
      const int64_t cell = row / s.queries * per_head + r * pool.columns + column;
      const double number = c.numbers->numbers[row * s.keys + j], error = c.numbers->errors[row * s.keys + j];
      expected[cell] = !filled[cell]  ? number
                       : pool.largest ? std::max(expected[cell], number)
                                      : expected[cell] + number;
      errors[cell] = pool.largest ? std::max(errors[cell], error) : errors[cell] + error;
      filled[cell] = true;
    }
  }
  if (!c.finite || !c.finite_factors) return;
  for (int64_t i = 0; i < count; i++) expect("cells", i, pool.cells[i], expected[i], exact / 10 + errors[i]);
}

void check_tile(const Kernel& kernel, Case& c) {
  const Scores& s = c.s;
  Tile tile;
  tile.first_row = c.random.below(s.queries + 1), tile.rows = c.random.below(s.queries - tile.first_row + 1);
  tile.first_column = c.random.below(s.keys + 1), tile.columns = c.random.below(s.keys - tile.first_column + 1);
  if (!c.finite_factors) tile = {0, s.queries, 0, s.keys};  // the few numbers that are not finite are there too
  const int64_t count = s.batch * c.numbers->heads * tile.rows * tile.columns;
  Array computed(c.random, count, sizeof(float));
  tile.numbers = computed.as<float>();
  Results{{&computed}}.compute([&](int threads) { kernel.tile(s, c.map, tile, threads); });
  for (int64_t i = 0; i < count; i++) {
    const int64_t j = tile.first_column + i % tile.columns, r = i / tile.columns;
    const int64_t row = r / tile.rows * s.queries + tile.first_row + r % tile.rows, at = row * s.keys + j;
    const double expected = c.numbers->numbers[at];
    // A weight below the least float is 0, as is its square where heads are combined, and what it is multiplied by.
    const double least = c.map.gram.data ? std::sqrt(1e-37) : 1e-37;
    if (!std::isfinite(expected) && tile.numbers[i] == 0 && c.largest_weight(row, j) < least) continue;
    expect("numbers", i, tile.numbers[i], expected, std::isfinite(expected) ? 1e-12 + c.numbers->errors[at] : 0);
  }
}

// Products of the map with vectors, of its rows or its columns.
void check_product(Case& c, const char* what, bool by_row, int64_t width, const Strided<const float>& vectors,
                   int64_t repeat, const float* output) {
  const Scores& s = c.s;
  const int64_t heads = c.numbers->heads, to = by_row ? s.queries : s.keys;
  std::vector<double> expected(s.batch * heads * to * width), errors(expected.size(), exact / 10);
  for (int64_t row = 0; row < c.map_rows(); row++) {
    const int64_t pair = row / s.queries, b = pair / heads, h = pair % heads, i = row % s.queries;
    for (int64_t j = 0; j < s.keys; j++) {
      const double number = c.numbers->numbers[row * s.keys + j], error = c.numbers->errors[row * s.keys + j];
      const float* vector = vectors.data + naive::place(vectors, b, h / repeat, by_row ? j : i);
      for (int64_t e = 0; e < width && (number != 0 || error != 0); e++) {
        const int64_t at = (pair * to + (by_row ? i : j)) * width + e;
        expected[at] += number * vector[e];
        errors[at] += (error + exact / 10 * std::abs(number)) * std::abs(vector[e]);
      }
    }
  }
  if (!c.finite || !c.finite_factors) return;
  for (size_t i = 0; i < expected.size(); i++) expect(what, int64_t(i), output[i], expected[i], errors[i]);
}

void check_apply(const Kernel& kernel, Case& c) {
  const Scores& s = c.s;
  const int64_t heads = c.numbers->heads;
  Apply a;
  a.width = c.random.one_of<int64_t>({0, 1, 5, 16, 33, 64});
  a.repeat = heads > 1 && c.random.chance(0.5) ? s.heads / s.groups : 1;
  Strided<const void> vectors;
  const Array memory = make_strided(c.random, vectors, Type::float32, s.batch, heads / a.repeat, s.keys, a.width);
  a.vectors = {static_cast<const float*>(vectors.data), vectors.batch, vectors.head, vectors.row};
  Array computed(c.random, s.batch * heads * s.queries * a.width, sizeof(float));
  a.output = computed.as<float>();
  Results{{&computed}}.compute([&](int threads) { kernel.apply(s, c.map, a, threads); });
  check_product(c, "apply", true, a.width, a.vectors, a.repeat, a.output);
}

void check_transposed(const Kernel& kernel, Case& c) {
  const Scores& s = c.s;
  Transposed t;
  t.width = c.random.one_of<int64_t>({0, 1, 5, 6, 7, 16, 33, 64});
  Strided<const void> vectors;
  const Array memory = make_strided(c.random, vectors, Type::float32, s.batch, c.numbers->heads, s.queries, t.width);
  t.vectors = {static_cast<const float*>(vectors.data), vectors.batch, vectors.head, vectors.row};
  Array computed(c.random, s.batch * c.numbers->heads * s.keys * t.width, sizeof(float));
  t.output = computed.as<float>();
  Results{{&computed}}.compute([&](int threads) { kernel.transposed(s, c.map, t, threads); });
  check_product(c, "transposed", false, t.width, t.vectors, 1, t.output);
}

// The numbers are those of the map in order, each at a key of its own that has it; equal ones by their keys.
void check_largest_of_rows(const Kernel& kernel, Case& c) {
  const Scores& s = c.s;
  Largest l;
  l.count = std::min(s.keys, c.random.one_of<int64_t>({0, 1, 2, 8, 9, 63, largest_top}));
  l.magnitude = c.random.chance(0.5);
  Array values(c.random, c.map_rows() * l.count, sizeof(float)),
      keys(c.random, c.map_rows() * l.count, sizeof(int64_t));
  l.values = values.as<float>(), l.keys = keys.as<int64_t>();
  Results{{&values, &keys}}.compute([&](int threads) { kernel.largest(s, c.map, l, threads); });
  if (l.count == 0) return;
  const auto size = [&](double number) { return l.magnitude ? std::abs(number) : number; };
  for (int64_t row = 0; row < c.map_rows(); row++) {
    const double *numbers = c.numbers->numbers.data() + row * s.keys, *errors = c.numbers->errors.data() + row * s.keys;
    const double error = 1e-12 + *std::max_element(errors, errors + s.keys);
    std::vector<double> sorted(numbers, numbers + s.keys);
    std::stable_sort(sorted.begin(), sorted.end(), [&](double a, double b) { return size(a) > size(b); });
    std::vector<bool> listed(s.keys);
    for (int64_t k = 0; k < l.count; k++) {
      const int64_t at = row * l.count + k, key = l.keys[at];
      if (key < 0 || key >= s.keys) fail("keys beyond the keys");
      if (listed[key]) fail("a key twice");
      listed[key] = true;
      const bool later = k > 0 && size(l.values[at]) == size(l.values[at - 1]) && key < l.keys[at - 1];
      if (later || (k > 0 && size(l.values[at]) > size(l.values[at - 1]))) fail("largest: out of order");
      if (!c.finite || !c.finite_factors) continue;
      expect("largest at its key", at, l.values[at], numbers[key], error);
      expect("largest", at, size(l.values[at]), size(sorted[k]), error);
    }
    for (int64_t key = 0, last = row * l.count + l.count - 1; key < s.keys && c.finite; key++) {
      const bool zero = numbers[key] == 0 && errors[key] == 0 && l.values[last] == 0;
      if (zero && !listed[key] && key < l.keys[last]) fail("largest: a lower key left out");
    }
  }
}

void check_diagonal(const Kernel& kernel, Case& c) {
  const Scores& s = c.s;
  Diagonal d;
  d.first_row = c.random.below(s.queries + 1), d.first_column = c.random.below(s.keys + 1);
  d.count = c.random.below(std::min(s.queries - d.first_row, s.keys - d.first_column) + 1);
  Array computed(c.random, s.batch * c.numbers->heads * d.count, sizeof(float));
  d.numbers = computed.as<float>();
  Results{{&computed}}.compute([&](int threads) { kernel.diagonal(s, c.map, d, threads); });
  if (!c.finite || !c.finite_factors) return;
  for (int64_t i = 0; i < s.batch * c.numbers->heads * d.count; i++) {
    const int64_t at = (i / d.count * s.queries + d.first_row + i % d.count) * s.keys + d.first_column + i % d.count;
    expect("diagonal", i, d.numbers[i], c.numbers->numbers[at], 1e-12 + c.numbers->errors[at]);
  }
}

}  // namespace
