// Tests of the kernel without Python, to be run under sanitizers and emulators: every function of every kernel that
// this machine has, on random and awkward shapes and options, in buffers that end where their numbers end.
//
//     driver [FIRST LAST [emulated]]
//
// runs the cases from number FIRST to before LAST, each of which is the same whenever it is run, and all that is not of
// random shape; "emulated" leaves out the fork, which emulators do not follow.

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>

#include "../kernel/attention.hpp"
#include "../kernel/parallel.hpp"
#include "naive.hpp"

using namespace regard;
using naive::number;

namespace {

std::string subject;  // what is being tested

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "%s: %s\n", subject.c_str(), what.c_str());
  std::exit(1);
}

struct Random {
  std::mt19937_64 bits;
  int64_t below(int64_t n) { return int64_t(bits() % uint64_t(n)); }
  bool chance(double p) { return double(below(1 << 20)) < p * (1 << 20); }
  template <class T>
  T one_of(std::initializer_list<T> options) {
    return options.begin()[below(int64_t(options.size()))];
  }
  // A multiple of 1/64, which every type can hold, and whose products a float sums up without rounding.
  float number() { return float(below(255) - 127) / 64; }
};

// An array on the heap without a byte to spare, that begins anywhere: AddressSanitizer sees the first step too far.
struct Array {
  std::unique_ptr<char[]> memory;
  char* data = nullptr;
  int64_t bytes = 0;

  Array() = default;
  Array(Random& random, int64_t count, int64_t size) : bytes(count * size) {
    const int64_t shift = random.below(4) * size;
    memory.reset(new char[shift + bytes]);
    data = memory.get() + shift;
    std::fill_n(data, bytes, char(0x5a));
  }
  template <class T>
  T* as() {
    return reinterpret_cast<T*>(data);
  }
};

enum class Layout { contiguous, by_row, with_gaps, repeated };

// A (B,H,N,D) tensor of random numbers.
template <class T>
Array make_strided(Random& random, Strided<T>& x, Type type, int64_t batch, int64_t heads, int64_t rows, int64_t n,
                   bool writable = false) {
  const auto layout = Layout(random.below(writable ? 3 : 4));
  const int64_t gap = layout == Layout::with_gaps ? random.below(5) : 0;
  x.row = n + gap, x.head = rows * x.row + gap, x.batch = heads * x.head + gap;
  if (layout == Layout::by_row) x.head = n, x.row = heads * n, x.batch = rows * x.row;
  if (layout == Layout::repeated) (random.chance(0.5) ? x.batch : x.head) = 0;
  const bool empty = batch * heads * rows * n == 0;
  const int64_t count = empty ? 0 : (batch - 1) * x.batch + (heads - 1) * x.head + (rows - 1) * x.row + n;
  Array memory(random, count, naive::size_of(type));
  x.data = reinterpret_cast<T*>(memory.data);
  for (int64_t i = 0; i < count && !writable; i++) naive::set_number(memory.data, type, i, random.number());
  return memory;
}

// The strides of a (B,H,Q,K) tensor that is repeated along some dimensions; returns how many numbers it has.
template <class T>
int64_t make_broadcast(Random& random, Broadcast<T>& x, const Scores& s) {
  int64_t* const strides[] = {&x.column, &x.row, &x.head, &x.batch};
  const int64_t sizes[] = {s.keys, s.queries, s.heads, s.batch};
  int order[] = {0, 1, 2, 3};
  if (random.chance(0.3)) std::swap(order[0], order[1]);
  int64_t count = 1;
  for (int dimension : order) {
    if (random.chance(0.4)) continue;
    *strides[dimension] = count;
    count *= sizes[dimension];
  }
  return count;
}

constexpr double exact = 3e-5;  // of what is computed in float32 throughout

// One set of shapes and options, and what it must come to.
struct Case {
  Random random;
  Scores s;
  int64_t value_dim = 0;
  Strided<const void> value;
  Array query_memory, key_memory, value_memory, start_memory, stop_memory, mask_memory, bias_memory, sinks_memory;
  std::unique_ptr<naive::Dense> dense;
  Array lse;  // (B,H,Q)
  Map map;    // of the weights
  std::vector<Factor> factors;
  std::vector<Array> map_memory;
  std::unique_ptr<naive::DenseMap> numbers;
  bool finite_factors = true;

  explicit Case(int64_t seed) : random{std::mt19937_64(uint64_t(seed))} {
    choose_shape();
    key_memory = make_strided(random, s.key, s.type, s.batch, s.groups, s.keys, s.dim);
    query_memory = make_strided(random, s.query, s.type, s.batch, s.heads, s.queries, s.dim);
    value_memory = make_strided(random, value, s.type, s.batch, s.groups, s.keys, value_dim);
    if (random.chance(0.1)) put(NAN, random.chance(0.5) ? query_memory : key_memory);
    if (random.chance(0.1)) put(random.one_of({NAN, INFINITY, -INFINITY}), value_memory);
    choose_options();
    dense = std::make_unique<naive::Dense>(s);
    lse = Array(random, rows(), sizeof(double));
    std::copy(dense->lse.begin(), dense->lse.end(), lse.as<double>());
    choose_map();
    numbers = std::make_unique<naive::DenseMap>(s, map, *dense, exact);
  }

  bool finite = true;  // all the numbers

  int64_t rows() const { return s.batch * s.heads * s.queries; }
  int64_t map_rows() const { return s.batch * numbers->heads * s.queries; }
  // Of all that went into a number of the map.
  double largest_weight(int64_t row, int64_t j) const {
    if (!map.gram.data) return dense->weights[row * s.keys + j];
    double largest = 0;
    for (int64_t h = 0; h < s.heads; h++)
      largest = std::max(largest,
                         dense->weights[((row / s.queries * s.heads + h) * s.queries + row % s.queries) * s.keys + j]);
    return largest;
  }
  bool any_bias() const { return s.bias.data != nullptr; }

  std::string text() const {
    const auto n = [](int64_t x) { return std::to_string(x); };
    return "B" + n(s.batch) + " H" + n(s.heads) + " G" + n(s.groups) + " Q" + n(s.queries) + " K" + n(s.keys) + " D" +
           n(s.dim) + " E" + n(value_dim) + " type " + n(int64_t(s.type)) + " scale " + std::to_string(s.scale) +
           (s.start ? " spans" : "") + (s.mask.data ? " mask" : "") + (any_bias() ? " bias" : "") +
           (s.sinks ? " sinks" : "") + (s.softcap != 0 ? " softcap" : "") +
           (finite && finite_factors ? "" : " not finite") + (map.gram.data ? " gram" : "") + " factors " +
           n(map.count);
  }

 private:
  void put(float x, Array& where) {
    if (where.bytes == 0) return;
    naive::set_number(where.data, s.type, random.below(where.bytes / naive::size_of(s.type)), x);
    finite = false;
  }

  int64_t choose_dim() {
    if (random.chance(0.5)) return random.one_of<int64_t>({8, 16, 32, 48, 64, 80, 96, 128, 256});
    return random.one_of<int64_t>({0, 1, 2, 3, 5, 7, 13, 17, 31, 33, 63, 65, 127, 129, 255, largest_dim});
  }
  int64_t choose_length() {
    if (random.chance(0.4)) return random.one_of<int64_t>({0, 1, 2, 3, 4, 5, 6, 7});
    if (random.chance(0.5)) return random.one_of<int64_t>({15, 16, 17, 31, 63, 64, 65, 95, 96, 97, 127, 128, 129});
    return random.one_of<int64_t>({191, 192, 193, 255, 256, 257, 300, 511, 512, 513, 769});
  }

  void choose_shape() {
    do {
      s.type = random.one_of({Type::float32, Type::bfloat16, Type::float16});
      s.batch = random.one_of<int64_t>({1, 1, 2, 3, 0});
      s.groups = random.one_of<int64_t>({1, 1, 2, 3});
      s.heads = s.groups * random.one_of<int64_t>({1, 1, 2, 3, 7});
      s.queries = choose_length(), s.keys = choose_length();
      if (random.chance(0.1)) s.queries = 1 + random.below(3), s.keys = 2000 + random.below(3000);  // as in decoding
      s.dim = choose_dim(), value_dim = choose_dim();
    } while (s.batch * s.heads * s.queries * s.keys * (s.dim + value_dim + 16) > 1000000);
  }

  void choose_options() {
    s.scale = random.one_of({1 / std::sqrt(float(std::max<int64_t>(s.dim, 1))), 0.3f, 1.0f, 0.0f, -0.7f});
    if (random.chance(0.2)) s.softcap = random.one_of({0.8f, 20.0f});
    if (random.chance(0.5)) choose_spans();
    if (random.chance(0.3)) {
      mask_memory = Array(random, make_broadcast(random, s.mask, s), 1);
      const double share = random.one_of({0.1, 0.6, 0.95});
      for (int64_t i = 0; i < mask_memory.bytes; i++) mask_memory.as<bool>()[i] = random.chance(share);
      s.mask.data = mask_memory.as<bool>();
    }
    if (random.chance(0.3)) {
      s.bias_type = random.one_of({s.type, Type::float32});
      const int64_t count = make_broadcast(random, s.bias, s);
      bias_memory = Array(random, count, naive::size_of(s.bias_type));
      const double hidden = random.one_of({0.0, 0.0, 0.3});
      for (int64_t i = 0; i < count; i++) {
        naive::set_number(bias_memory.data, s.bias_type, i, random.chance(hidden) ? -INFINITY : random.number());
      }
      s.bias.data = bias_memory.data;
    }
    if (random.chance(0.2)) {
      sinks_memory = Array(random, s.heads, sizeof(float));
      for (int64_t h = 0; h < s.heads; h++) sinks_memory.as<float>()[h] = random.number();
      s.sinks = sinks_memory.as<float>();
    }
  }

  // Numbers for a map; a few of them not finite.
  Strided<const float> map_numbers(int64_t heads, int64_t rows, int64_t width) {
    Strided<const void> x;
    map_memory.push_back(make_strided(random, x, Type::float32, s.batch, heads, rows, width));
    if (random.chance(0.1) && map_memory.back().bytes > 0) {
      const int64_t at = random.below(map_memory.back().bytes / 4);
      map_memory.back().as<float>()[at] = random.one_of({float(NAN), INFINITY, -INFINITY});
      finite_factors = false;
    }
    return {static_cast<const float*>(x.data), x.batch, x.head, x.row};
  }

  // The weights themselves, or times factors, or combined over the heads.
  void choose_map() {
    map.lse = lse.as<double>();
    const bool combined = random.chance(0.3);
    const int64_t heads = combined ? 1 : s.heads, groups = combined ? 1 : s.groups;
    if (combined) choose_gram();
    for (int64_t n = random.one_of<int64_t>({0, 0, 1, 1, 2, 3}); n > 0; n--) {
      Factor f;
      f.rectifier = Rectifier(random.below(3));
      const int64_t sides = random.below(4);  // a row, a key, or both
      if (sides > 1) f.width = random.one_of<int64_t>({1, 3, 16, 33, 300});
      if (sides != 1) f.query = map_numbers(heads, s.queries, f.width);
      if (sides != 0) {
        f.key_repeat = random.chance(0.5) ? 1 : heads / groups;
        f.key = map_numbers(heads / f.key_repeat, s.keys, f.width);
      }
      factors.push_back(f);
    }
    map.factors = factors.data(), map.count = int64_t(factors.size());
  }

  // The products of vectors of few numbers, so that some matrices have a low rank.
  void choose_gram() {
    constexpr int64_t width = 3;
    const int64_t size = s.heads * s.heads, keys = s.batch * s.keys;
    Array memory(random, keys * size, sizeof(float));
    std::vector<float> vectors(s.heads * width);
    for (int64_t key = 0; key < keys; key++) {
      for (float& number : vectors) number = random.number();
      for (int64_t n = 0; n < size; n++) {
        float product = 0;
        for (int64_t e = 0; e < width; e++)
          product += vectors[n / s.heads * width + e] * vectors[n % s.heads * width + e];
        memory.as<float>()[key * size + n] = product;
      }
    }
    map.gram = {memory.as<float>(), s.keys * size, 0, size};
    map_memory.push_back(std::move(memory));
  }

  // Causal, a window, or anything; some beyond the keys, some of nothing.
  void choose_spans() {
    s.span_batch = random.chance(0.5) ? s.queries : 0;
    const int64_t count = s.span_batch ? s.batch * s.queries : s.queries;
    start_memory = Array(random, count, sizeof(int64_t)), stop_memory = Array(random, count, sizeof(int64_t));
    const int64_t kind = random.below(3), left = random.below(40), right = random.below(40);
    for (int64_t i = 0; i < count; i++) {
      const int64_t at = (s.span_batch ? i % s.queries : i) + s.keys - s.queries;
      int64_t start = kind == 0 ? 0 : at - left, stop = kind == 0 ? at + 1 : at + right;
      if (kind == 2) start = random.below(s.keys + 5) - 2, stop = random.below(s.keys + 5) - 2;
      start_memory.as<int64_t>()[i] = start, stop_memory.as<int64_t>()[i] = stop;
    }
    s.start = start_memory.as<int64_t>(), s.stop = stop_memory.as<int64_t>();
  }
};

void expect(const char* what, int64_t i, double computed, double expected, double tolerance) {
  if (computed == expected || (std::isnan(computed) && std::isnan(expected))) return;
  if (std::abs(computed - expected) <= tolerance * (1 + std::abs(expected))) return;
  fail(std::string(what) + "[" + std::to_string(i) + "]: expected " + std::to_string(expected) + ". Got " +
       std::to_string(computed) + ".");
}

// Of a weighted sum: where bfloat16 are multiplied in pairs, the weights are rounded to it as well.
double rounding(Type type) { return type == Type::float32 ? exact : type == Type::bfloat16 ? 2e-2 : 2e-3; }

// Results of a function, which must be the same for any number of threads, and stay within their buffers' numbers.
struct Results {
  std::vector<Array*> arrays;
  template <class Call>
  void compute(Call&& call) {
    std::vector<std::string> before, once;
    for (Array* array : arrays) before.emplace_back(array->data, array->bytes);
    call(1);
    for (size_t i = 0; i < arrays.size(); i++) {
      once.emplace_back(arrays[i]->data, arrays[i]->bytes);
      std::copy(before[i].begin(), before[i].end(), arrays[i]->data);
    }
    call(3);
    for (size_t i = 0; i < arrays.size(); i++) {
      if (std::memcmp(once[i].data(), arrays[i]->data, once[i].size()) != 0) fail("other bits on three threads");
    }
  }
};

void check_largest(const Case& c, const Forward& f) {
  // Scores of numbers with few digits are exact as long as nothing is added to them: then so is the order.
  const bool ordered = c.s.scale > 0 && c.s.softcap == 0 && !c.any_bias();
  std::vector<int64_t> keys(c.s.keys);
  for (int64_t row = 0; row < c.rows(); row++) {
    if (std::isnan(c.dense->lse[row])) continue;
    const double* weights = c.dense->weights.data() + row * c.s.keys;
    std::iota(keys.begin(), keys.end(), 0);
    std::stable_sort(keys.begin(), keys.end(), [&](int64_t a, int64_t b) { return weights[a] > weights[b]; });
    for (int64_t k = 0; k < f.top; k++) {
      const int64_t at = row * f.top + k, key = f.top_keys[at];
      if (key < 0 || key >= c.s.keys) fail("top_keys beyond the keys");
      if (ordered && key != keys[k]) fail("top_keys out of order");
      expect("top_values", at, f.top_values[at], weights[keys[k]], exact);
      expect("top_values' weights", at, f.top_values[at], weights[key], exact);
    }
  }
}

void check_forward(const Kernel& kernel, Case& c) {
  const Scores& s = c.s;
  Forward f;
  f.value_dim = c.value_dim, f.value = c.value, f.value_heads = s.groups;
  f.output_type = c.random.one_of({s.type, Type::float32});
  f.top = c.random.chance(0.5) ? std::min(s.keys, c.random.one_of<int64_t>({1, 2, 8, 9, 63, largest_top})) : 0;
  Array output = make_strided(c.random, f.output, f.output_type, s.batch, s.heads, s.queries, f.value_dim, true);
  Array lse(c.random, c.rows(), sizeof(double)), top_values(c.random, c.rows() * f.top, sizeof(float));
  Array top_keys(c.random, c.rows() * f.top, sizeof(int64_t));
  Array entropy(c.random, c.rows(), sizeof(float)), distance(c.random, c.rows(), sizeof(float));
  Array max_score(c.random, c.rows(), sizeof(float));
  if (c.random.chance(0.2)) f.output.data = nullptr, f.value_dim = 0;
  f.lse = lse.as<double>();
  if (c.random.chance(0.5)) f.entropy = entropy.as<float>();
  if (c.random.chance(0.3)) f.distance = distance.as<float>(), f.first_position = c.random.below(9);
  if (c.random.chance(0.5)) f.max_score = max_score.as<float>();
  f.top_values = top_values.as<float>(), f.top_keys = top_keys.as<int64_t>();
  Results{{&output, &lse, &entropy, &distance, &max_score, &top_values, &top_keys}}.compute(
      [&](int threads) { kernel.forward(s, f, threads); });

  for (int64_t row = 0; row < c.rows(); row++) {
    const int64_t b = row / (s.heads * s.queries), h = row / s.queries % s.heads, i = row % s.queries;
    const double* weights = c.dense->weights.data() + row * s.keys;
    expect("lse", row, f.lse[row], c.dense->lse[row], exact);
    double entropies = 0, distances = 0;
    for (int64_t j = 0; j < s.keys; j++) {
      if (weights[j] != 0) entropies -= weights[j] * std::log(weights[j]);
      distances += weights[j] * double(std::abs(f.first_position + i - j));
    }
    if (f.entropy) expect("entropy", row, f.entropy[row], entropies, exact);
    if (f.max_score) expect("max_score", row, f.max_score[row], c.dense->largest[row], exact);
    if (f.distance) expect("distance", row, f.distance[row], distances, exact);
    for (int64_t e = 0; e < f.value_dim; e++) {
      double expected = 0;
      for (int64_t j = 0; j < s.keys; j++) {
        if (weights[j] == 0) continue;
        const int64_t value = naive::place(f.value, b, h / (s.heads / s.groups), j) + e;
        expected += weights[j] * number(f.value.data, s.type, value);
      }
      const double computed = number(f.output.data, f.output_type, naive::place(f.output, b, h, i) + e);
      expect("output", row * f.value_dim + e, computed, expected, rounding(s.type));
    }
  }
  check_largest(c, f);
}

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
  const int64_t count = s.batch * c.numbers->heads * tile.rows * tile.columns;
  Array computed(c.random, count, sizeof(float));
  tile.numbers = computed.as<float>();
  Results{{&computed}}.compute([&](int threads) { kernel.tile(s, c.map, tile, threads); });
  for (int64_t i = 0; i < count; i++) {
    const int64_t j = tile.first_column + i % tile.columns, r = i / tile.columns;
    const int64_t row = r / tile.rows * s.queries + tile.first_row + r % tile.rows, at = row * s.keys + j;
    const double expected = c.numbers->numbers[at];
    // A weight below the least float is 0, and whatever it is multiplied by stays 0.
    if (!std::isfinite(expected) && tile.numbers[i] == 0 && c.largest_weight(row, j) < 1e-37) continue;
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

void check_backward(const Kernel& kernel, Case& c) {
  const Scores& s = c.s;
  const int64_t values = c.value_dim, repeat = s.heads / s.groups;
  Backward b;
  b.lse = c.lse.as<double>(), b.value_dim = values, b.value = c.value;
  const Array grad_memory = make_strided(c.random, b.grad_output, s.type, s.batch, s.heads, s.queries, values);
  Array delta(c.random, c.rows(), sizeof(float));
  for (int64_t row = 0; row < c.rows(); row++) delta.as<float>()[row] = c.random.number();
  b.delta = delta.as<float>();
  const bool bias = c.any_bias() && c.random.chance(0.7);
  const int64_t queries = c.rows() * s.dim, keys = s.batch * s.groups * s.keys;
  const int64_t biases = bias ? c.bias_memory.bytes / naive::size_of(s.bias_type) : 0;
  Array computed[4];
  const int64_t counts[] = {queries, keys * s.dim, keys * values, biases};
  for (int n = 0; n < 4; n++) {
    computed[n] = Array(c.random, counts[n], sizeof(float));
    std::fill_n(computed[n].data, computed[n].bytes, 0);
  }
  b.grad_query = computed[0].as<float>(), b.grad_key = computed[1].as<float>(), b.grad_value = computed[2].as<float>();
  if (bias) b.grad_bias = {computed[3].as<float>(), s.bias.batch, s.bias.head, s.bias.row, s.bias.column};
  Results{{&computed[0], &computed[1], &computed[2], &computed[3]}}.compute(
      [&](int threads) { kernel.backward(s, b, threads); });

  if (!c.finite) return;
  // Each sum with the sum of its terms' sizes, which its error is measured against.
  std::vector<double> expected[4], sizes[4];
  for (int n = 0; n < 4; n++) expected[n].resize(counts[n]), sizes[n].resize(counts[n]);
  const auto add = [&](int which, int64_t at, double term) {
    expected[which][at] += term, sizes[which][at] += std::abs(term);
  };
  for (int64_t row = 0; row < c.rows(); row++) {
    const int64_t n = row / (s.heads * s.queries), h = row / s.queries % s.heads, i = row % s.queries;
    const int64_t group = h / repeat, query_at = (n * s.queries + i) * s.heads + h;  // by position
    for (int64_t j = 0; j < s.keys; j++) {
      const double weight = c.dense->weights[row * s.keys + j];
      if (weight == 0) continue;
      const int64_t key = (n * s.keys + j) * s.groups + group;
      double product = 0, size = 0;
      for (int64_t e = 0; e < values; e++) {
        const double grad = number(b.grad_output.data, s.type, naive::place(b.grad_output, n, h, i) + e);
        const double term = grad * number(b.value.data, s.type, naive::place(b.value, n, group, j) + e);
        product += term, size += std::abs(term);
        add(2, key * values + e, weight * grad);
      }
      const double grad = weight * (product - b.delta[row]);
      const double scaled = grad * c.dense->slopes[row * s.keys + j] * s.scale;
      if (bias) {
        const int64_t at = naive::place(b.grad_bias, n, h, i, j);
        add(3, at, grad), sizes[3][at] += size;
      }
      for (int64_t d = 0; d < s.dim; d++) {
        const double query = number(s.query.data, s.type, naive::place(s.query, n, h, i) + d);
        add(0, query_at * s.dim + d, scaled * number(s.key.data, s.type, naive::place(s.key, n, group, j) + d));
        add(1, key * s.dim + d, scaled * query);
      }
    }
  }
  const char* names[] = {"grad_query", "grad_key", "grad_value", "grad_bias"};
  for (int n = 0; n < 4; n++) {
    for (size_t i = 0; i < expected[n].size(); i++) {
      expect(names[n], int64_t(i), computed[n].as<float>()[i], expected[n][i], exact * (1 + sizes[n][i]));
    }
  }
}

// The average of a number with itself is that number, whatever it is; with its neighbour it lies between the two, and
// is rounded to the even one. Only what is less than the least normal float may become 0: the processor's product of
// bfloat16 does so.
void check_every_half(const Kernel& kernel) {
  constexpr int64_t count = 1 << 16;
  constexpr double largest = std::numeric_limits<float>::max(), smallest = std::numeric_limits<float>::min();
  for (const Type type : {Type::bfloat16, Type::float16}) {
    subject = std::string(kernel.name) + ", every number of type " + std::to_string(int(type));
    std::vector<uint16_t> zero(1), halves(count + 1), same(count), between(count);
    std::vector<float> wide(count);
    std::iota(halves.begin(), halves.end(), uint16_t(0));
    Scores s;
    s.type = type, s.batch = 1, s.heads = s.groups = 256, s.queries = s.dim = 1, s.keys = 2;
    s.query = s.key = {zero.data(), 0, 0, 0};
    Forward f;
    f.value_dim = 256, f.value_heads = 256;
    const auto average = [&](void* output, Type output_type, int64_t stride) {
      f.value = {halves.data(), 0, 256, stride}, f.output = {output, 0, 256, 0}, f.output_type = output_type;
      kernel.forward(s, f, 1);
    };
    average(same.data(), type, 0);
    average(wide.data(), Type::float32, 0);
    average(between.data(), type, 1);
    for (int64_t i = 0; i < count; i++) {
      const double current = number(halves.data(), type, i), next = number(halves.data(), type, i + 1);
      if (std::abs(2 * current) > largest && std::isfinite(current)) continue;  // the sum is beyond a float
      expect("same", i, number(same.data(), type, i), current, smallest);
      expect("wide", i, wide[i], current, smallest);
      if (std::isfinite(current + next))
        expect("between", i, number(between.data(), type, i), i % 2 ? next : current, smallest);
    }
  }
}

// A layer of random sizes and strides, with or without what may follow it; the same bits by one row and by three
// threads.
void check_linear(const Kernel& kernel, int64_t seed) {
  Random random{std::mt19937_64(uint64_t(seed))};
  Linear l;
  l.type = random.one_of({Type::float32, Type::bfloat16, Type::float16});
  const int64_t size = naive::size_of(l.type);
  const auto up_to = [&](int64_t limit) { return 1 + random.below(random.chance(0.1) ? 10 * limit : limit); };
  l.rows = up_to(30) - 1, l.inputs = up_to(40), l.outputs = up_to(100);
  l.activation = Activation(random.below(4));
  subject = std::string(kernel.name) + ", layer " + std::to_string(seed) + " (type " + std::to_string(int(l.type)) +
            ", " + std::to_string(l.rows) + " × " + std::to_string(l.inputs) + " → " + std::to_string(l.outputs) +
            ", activation " + std::to_string(int(l.activation)) + ")";
  const auto numbers = [&](int64_t count, Type type) {
    Array array(random, count, naive::size_of(type));
    for (int64_t i = 0; i < count; i++) naive::set_number(array.data, type, i, random.number());
    return array;
  };
  l.x.row = l.inputs + random.below(3), l.residual.row = l.outputs + random.below(3);
  l.output.row = l.outputs + random.below(3);
  const auto room = [&](int64_t row, int64_t width) { return l.rows ? (l.rows - 1) * row + width : 0; };
  const Array x = numbers(room(l.x.row, l.inputs), l.type), weight = numbers(l.outputs * l.inputs, l.type);
  Array bias = numbers(l.outputs, Type::float32), gain = numbers(l.outputs, Type::float32);
  Array shift = numbers(l.outputs, Type::float32), sums(random, l.rows * l.outputs, 4);
  const Array residual = numbers(room(l.residual.row, l.outputs), l.type);
  Array packed(random, kernel.linear_size(l.type, l.outputs, l.inputs), 4);
  kernel.pack_linear(l.type, l.outputs, l.inputs, weight.data, packed.as<float>());
  l.x.data = x.data, l.weight = packed.as<float>(), l.bias = bias.as<float>();
  if (random.chance(0.5)) l.residual.data = residual.data;
  if (random.chance(0.5)) {
    l.gain = gain.as<float>(), l.shift = shift.as<float>(), l.epsilon = 0.01f;
    if (l.type != Type::float32) l.sums = sums.as<float>();
  }
  Array output(random, room(l.output.row, l.outputs), size), again(random, room(l.output.row, l.outputs), size);
  l.output.data = output.data;
  kernel.linear(l, 3);
  l.output.data = again.data;
  Linear single = l;
  single.rows = 1;
  for (int64_t r = 0; r < l.rows; r++) {
    single.x.data = x.data + r * l.x.row * size, single.output.data = again.data + r * l.output.row * size;
    if (l.residual.data) single.residual.data = residual.data + r * l.residual.row * size;
    kernel.linear(single, 1);
  }
  const double digits = l.type == Type::float32 ? 4e-6 : l.type == Type::bfloat16 ? 1.0 / 128 : 1.0 / 1024;
  std::vector<double> y(l.outputs);
  for (int64_t r = 0; r < l.rows; r++) {
    double mean = 0, variance = 0, largest = 1;
    for (int64_t n = 0; n < l.outputs; n++) {
      double sum = bias.as<float>()[n];
      for (int64_t k = 0; k < l.inputs; k++)
        sum += number(x.data, l.type, r * l.x.row + k) * number(weight.data, l.type, n * l.inputs + k);
      largest = std::max(largest, std::abs(sum));
      if (l.activation == Activation::gelu) sum = sum / 2 * (1 + std::erf(sum / std::sqrt(2.0)));
      if (l.activation == Activation::gelu_tanh)
        sum = sum / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (sum + 0.044715 * sum * sum * sum)));
      if (l.activation == Activation::relu) sum = std::max(sum, 0.0);
      y[n] = sum + (l.residual.data ? number(residual.data, l.type, r * l.residual.row + n) : 0);
      mean += y[n] / double(l.outputs);
    }
    for (const double number : y) variance += (number - mean) * (number - mean) / double(l.outputs);
    const double deviation = l.gain ? std::sqrt(variance + l.epsilon) : 1;
    for (int64_t n = 0; n < l.outputs; n++) {
      const double normal = (y[n] - mean) / deviation * gain.as<float>()[n] + shift.as<float>()[n];
      const double expected = l.gain ? normal : y[n], computed = number(output.data, l.type, r * l.output.row + n);
      const double error = 4e-6 * (largest + std::abs(y[n])) / deviation + digits * std::abs(expected) + digits / 64;
      expect("y", r * l.outputs + n, computed, expected, error);
      if (std::memcmp(output.data + (r * l.output.row + n) * size, again.data + (r * l.output.row + n) * size,
                      size_t(size)) != 0)
        fail("another row beside it, or another thread, changed row " + std::to_string(r));
    }
  }
}

void check_ceilings(const Kernel& kernel) {
  subject = std::string(kernel.name) + ", ceilings";
  if (!(kernel.flops(Type::float32, 2) > 0 && kernel.flops(Type::bfloat16, 2) > 0)) fail("flops: none");
  if (!(kernel.bytes(2) > 0)) fail("bytes: none");
}

void check_all(const Kernel& kernel, int64_t seed) {
  Case c(seed);
  const auto call = [&](const char* function, auto check) {
    subject = std::string(kernel.name) + ", case " + std::to_string(seed) + " (" + c.text() + "), " + function;
    check(kernel, c);
  };
  call("forward", check_forward);
  call("pool", check_pool);
  call("tile", check_tile);
  call("apply", check_apply);
  call("transposed", check_transposed);
  call("largest", check_largest_of_rows);
  call("backward", check_backward);
}

void check_threads(bool emulated) {
  subject = "for_each";
  bool caught = false;
  try {
    for_each(1000, 4, [](int64_t item) {
      if (item == 500) throw std::runtime_error("500");
    });
  } catch (const std::runtime_error&) {
    caught = true;
  }
  if (!caught) fail("an exception was lost");

  subject = "several threads at once";
  const auto some_cases = [](int64_t first) {
    for (int64_t seed = first; seed < first + 20; seed++) {
      Case c(seed);
      check_forward(*kernel(nullptr), c);
    }
  };
  std::vector<std::thread> threads;
  for (int n = 0; n < 4; n++) threads.emplace_back(some_cases, 20 * n);
  for (std::thread& thread : threads) thread.join();
  if (emulated) return;

  subject = "the child of a fork";
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);  // ends a child that hangs
    some_cases(0);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  if (status != 0) fail("it hangs, or is wrong");
}

}  // namespace

int main(int count, char** arguments) {
  const int64_t first = count > 2 ? std::atoll(arguments[1]) : 0, last = count > 2 ? std::atoll(arguments[2]) : 2000;
  for (const Kernel* const* kernel = kernels(); *kernel; kernel++) {
    for (int64_t seed = first; seed < last; seed++) check_all(**kernel, seed), check_linear(**kernel, seed);
    check_every_half(**kernel);
    check_ceilings(**kernel);
    std::printf("%s: %ld cases agree\n", (*kernel)->name, long(last - first));
  }
  check_threads(count > 3 && std::strcmp(arguments[3], "emulated") == 0);
  std::puts("exceptions and threads: as they should be");
}
