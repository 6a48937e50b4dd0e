// Random shapes and options, and what they must come to, for the driver.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "../kernel/attention.hpp"
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
    return random.one_of<int64_t>({0, 1, 2, 3, 5, 7, 13, 17, 31, 33, 63, 65, 127, 129, 255, 256, 300, largest_dim});
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
    if (random.chance(0.2) && map_memory.back().bytes > 0) {
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
    if (random.chance(0.2) && keys > 0) {
      memory.as<float>()[random.below(keys * size)] = NAN;
      finite_factors = false;
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

}  // namespace
