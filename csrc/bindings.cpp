// regard._kernel: the kernel for Python. Takes tensors by name, checks their types, shapes and strides, and lets other
// Python threads run while it computes.

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "arrays.hpp"
#include "kernel/attention.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using namespace regard;

namespace {

using Optional = std::optional<Array>;
using Shape = std::initializer_list<int64_t>;

// Checks of arguments

Type type_named(const std::string& name) {
  if (name == "float32") return Type::float32;
  if (name == "bfloat16") return Type::bfloat16;
  expect(name == "float16", "dtype", "float32, bfloat16 or float16");
  return Type::float16;
}

bool has_type(const Array& array, nb::dlpack::dtype_code code, int bits) {
  return array.dtype.code == uint8_t(code) && array.dtype.bits == bits && array.dtype.lanes == 1;
}

Type type_of(const Array& array, const char* name) {
  if (has_type(array, nb::dlpack::dtype_code::Float, 32)) return Type::float32;
  if (has_type(array, nb::dlpack::dtype_code::Bfloat, 16)) return Type::bfloat16;
  expect(has_type(array, nb::dlpack::dtype_code::Float, 16), name, "float32, bfloat16 or float16");
  return Type::float16;
}

void expect_shape(const Array& array, Shape shape, const char* name) {
  if (array.ndim == int32_t(shape.size()) && std::equal(shape.begin(), shape.end(), array.shape)) return;
  std::string sizes;
  for (const int64_t size : shape) sizes += (sizes.empty() ? "" : ", ") + std::to_string(size);
  expect(false, name, ("shape (" + sizes + ")").c_str());
}

// Of this shape, without gaps.
void expect_contiguous(const Array& array, Shape shape, const char* name) {
  expect_shape(array, shape, name);
  int64_t next = 1;
  for (int32_t d = array.ndim - 1; d >= 0; d--) {
    expect(array.shape[d] == 1 || array.stride[d] == next || array.size() == 0, name, "contiguous");
    next *= array.shape[d];
  }
}

template <class T>
T* contiguous(const Array& array, Shape shape, const char* name);

template <>
float* contiguous(const Array& array, Shape shape, const char* name) {
  expect(has_type(array, nb::dlpack::dtype_code::Float, 32), name, "float32");
  expect_contiguous(array, shape, name);
  return array.as<float>();
}
template <>
double* contiguous(const Array& array, Shape shape, const char* name) {
  expect(has_type(array, nb::dlpack::dtype_code::Float, 64), name, "float64");
  expect_contiguous(array, shape, name);
  return array.as<double>();
}
template <>
int64_t* contiguous(const Array& array, Shape shape, const char* name) {
  expect(has_type(array, nb::dlpack::dtype_code::Int, 64), name, "int64");
  expect_contiguous(array, shape, name);
  return array.as<int64_t>();
}

template <class T>
T* contiguous_or_null(const Optional& array, Shape shape, const char* name) {
  return array ? contiguous<T>(*array, shape, name) : nullptr;
}

// A tensor (batch,heads,rows,dim) whose last dimension has no gaps.
template <class T>
Strided<T> strided(const Array& array, Type type, Shape shape, const char* name) {
  expect(type_of(array, name) == type, name, "the type of the query");
  expect_shape(array, shape, name);
  expect(array.shape[3] <= 1 || array.stride[3] == 1 || array.size() == 0, name, "a last dimension without gaps");
  return {array.as<T>(), array.stride[0], array.stride[1], array.stride[2]};
}

// A tensor that broadcasts to (batch,heads,queries,keys).
template <class T>
Broadcast<T> broadcast(const Optional& array, const Scores& s, const char* name) {
  if (!array) return {};
  const int64_t sizes[] = {s.batch, s.heads, s.queries, s.keys};
  bool fits = array->ndim == 4;
  for (int d = 0; d < 4; d++) fits = fits && (array->shape[d] == 1 || array->shape[d] == sizes[d]);
  expect(fits, name, "four dimensions that broadcast to batch, heads, queries and keys");
  return {array->as<T>(), array->stride[0], array->stride[1], array->stride[2], array->stride[3]};
}

const Kernel& kernel_of(const std::string& isa, int threads) {
  const Kernel* kernel = regard::kernel(isa.c_str());
  expect(kernel, "isa", "one of kernels()");
  expect(threads >= 1, "threads", "1 or more");
  return *kernel;
}

// What Python calls

struct BoundScores {
  Scores s;
  std::vector<nb::object> owners;  // of the memory that s points into

  BoundScores(const Array& query, const Array& key, double scale, double softcap, const Optional& start,
              const Optional& stop, const Optional& mask, const Optional& bias, const Optional& sinks)
      : owners{query.owner, key.owner} {
    for (const Optional* array : {&start, &stop, &mask, &bias, &sinks}) {
      if (*array) owners.push_back((*array)->owner);
    }
    expect(query.ndim == 4, "query", "four dimensions");
    expect(key.ndim == 4, "key", "four dimensions");
    s.type = type_of(query, "query");
    s.batch = query.shape[0], s.heads = query.shape[1], s.queries = query.shape[2], s.dim = query.shape[3];
    s.groups = key.shape[1], s.keys = key.shape[2];
    expect(s.dim >= 1 && s.dim <= largest_dim, "query", "a dim from 1 to 256");
    expect(s.groups == 0 ? s.heads == 0 : s.heads % s.groups == 0, "key", "heads that divide the query's");
    expect(s.keys < int64_t(1) << 31 && s.queries < int64_t(1) << 31, "query, key", "fewer than 2^31 positions");
    s.query = strided<const void>(query, s.type, {s.batch, s.heads, s.queries, s.dim}, "query");
    s.key = strided<const void>(key, s.type, {s.batch, s.groups, s.keys, s.dim}, "key");
    expect(start.has_value() == stop.has_value(), "start, stop", "both, or none");
    if (start) {
      const int64_t sequences = start->shape[0] == 1 ? 1 : s.batch;
      s.start = contiguous<int64_t>(*start, {sequences, s.queries}, "start");
      s.stop = contiguous<int64_t>(*stop, {sequences, s.queries}, "stop");
      s.span_batch = sequences == 1 ? 0 : s.queries;
    }
    expect(!mask || has_type(*mask, nb::dlpack::dtype_code::Bool, 8), "mask", "bool");
    s.mask = broadcast<const bool>(mask, s, "mask");
    s.bias = broadcast<const void>(bias, s, "bias");
    if (bias) s.bias_type = type_of(*bias, "bias");
    s.sinks = contiguous_or_null<float>(sinks, {s.heads}, "sinks");
    s.scale = float(scale), s.softcap = float(softcap);
    expect(s.softcap >= 0, "softcap", "0 for none, or more");
  }
};

void forward(const BoundScores& scores, const Optional& value, const Optional& output, const Optional& lse,
             const Optional& entropy, const Optional& distance, int64_t first_position, const Optional& max_score,
             const Optional& top_values, const Optional& top_keys, const std::string& isa, int threads) {
  const Scores& s = scores.s;
  Forward f;
  f.value_heads = s.groups;
  expect(value.has_value() == output.has_value(), "value, output", "both, or none");
  if (value) {
    expect(value->ndim == 4, "value", "four dimensions");
    f.value_dim = value->shape[3], f.value_heads = value->shape[1];
    expect(f.value_dim >= 0 && f.value_dim <= largest_dim, "value", "a dim up to 256");
    expect(f.value_heads == s.groups || f.value_heads == s.heads, "value", "the heads of the key or of the query");
    f.value = strided<const void>(*value, s.type, {s.batch, f.value_heads, s.keys, f.value_dim}, "value");
    f.output_type = type_of(*output, "output");
    expect(f.output_type == s.type || f.output_type == Type::float32, "output", "the type of the query, or float32");
    f.output = strided<void>(*output, f.output_type, {s.batch, s.heads, s.queries, f.value_dim}, "output");
    if (f.value_dim == 0) f.output = {};
  }
  f.lse = contiguous_or_null<double>(lse, {s.batch, s.heads, s.queries}, "lse");
  f.entropy = contiguous_or_null<float>(entropy, {s.batch, s.heads, s.queries}, "entropy");
  f.distance = contiguous_or_null<float>(distance, {s.batch, s.heads, s.queries}, "distance");
  f.first_position = first_position;
  f.max_score = contiguous_or_null<float>(max_score, {s.batch, s.heads, s.queries}, "max_score");
  expect(top_values.has_value() == top_keys.has_value(), "top_values, top_keys", "both, or none");
  if (top_values) {
    f.top = top_values->shape[3];
    expect(f.top <= largest_top && f.top <= s.keys, "top_values", "at most 64, and no more than the keys");
    f.top_values = contiguous<float>(*top_values, {s.batch, s.heads, s.queries, f.top}, "top_values");
    f.top_keys = contiguous<int64_t>(*top_keys, {s.batch, s.heads, s.queries, f.top}, "top_keys");
  }
  const Kernel& kernel = kernel_of(isa, threads);
  nb::gil_scoped_release release;
  kernel.forward(s, f, threads);
}

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
  expect(a.width <= largest_dim, "vectors", "a dim up to 256");
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
  expect(t.width <= largest_dim, "vectors", "a dim up to 256");
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

// A gradient (batch,heads,rows,dim) in float32 that lies in memory as (batch,rows,heads,dim).
float* gradient(const Array& array, int64_t batch, int64_t heads, int64_t rows, int64_t dim, const char* name) {
  expect_shape(array, {batch, heads, rows, dim}, name);
  Array by_row = array;
  std::swap(by_row.shape[1], by_row.shape[2]), std::swap(by_row.stride[1], by_row.stride[2]);
  return contiguous<float>(by_row, {batch, rows, heads, dim}, name);
}

void backward(const BoundScores& scores, const Array& lse, const Array& value, const Array& grad_output,
              const Array& delta, const Array& grad_query, const Array& grad_key, const Array& grad_value,
              const Optional& grad_bias, const std::string& isa, int threads) {
  const Scores& s = scores.s;
  Backward b;
  expect(value.ndim == 4, "value", "four dimensions");
  b.value_dim = value.shape[3];
  expect(b.value_dim <= largest_dim, "value", "a dim up to 256");
  b.lse = contiguous<double>(lse, {s.batch, s.heads, s.queries}, "lse");
  b.value = strided<const void>(value, s.type, {s.batch, s.groups, s.keys, b.value_dim}, "value");
  b.grad_output = strided<const void>(grad_output, s.type, {s.batch, s.heads, s.queries, b.value_dim}, "grad_output");
  b.delta = contiguous<float>(delta, {s.batch, s.heads, s.queries}, "delta");
  b.grad_query = gradient(grad_query, s.batch, s.heads, s.queries, s.dim, "grad_query");
  b.grad_key = gradient(grad_key, s.batch, s.groups, s.keys, s.dim, "grad_key");
  b.grad_value = gradient(grad_value, s.batch, s.groups, s.keys, b.value_dim, "grad_value");
  expect(!grad_bias || type_of(*grad_bias, "grad_bias") == Type::float32, "grad_bias", "float32");
  b.grad_bias = broadcast<float>(grad_bias, s, "grad_bias");
  const Kernel& kernel = kernel_of(isa, threads);
  nb::gil_scoped_release release;
  kernel.backward(s, b, threads);
}

// A matrix of a type whose rows have no gaps.
template <class T>
Rows<T> matrix(const Array& array, Type type, int64_t rows, int64_t columns, const char* name) {
  expect(type_of(array, name) == type, name, "the type of x");
  expect_shape(array, {rows, columns}, name);
  expect(columns <= 1 || array.stride[1] == 1 || rows == 0, name, "rows without gaps");
  return {array.as<T>(), array.stride[0]};
}

Activation activation_named(const std::string& name) {
  if (name == "gelu") return Activation::gelu;
  if (name == "gelu_tanh") return Activation::gelu_tanh;
  if (name == "relu") return Activation::relu;
  expect(name.empty(), "activation", "gelu, gelu_tanh, relu or the empty string");
  return Activation::none;
}

void linear(const Array& x, const Array& weight, const Array& bias, const Array& output, const std::string& activation,
            const Optional& residual, const Optional& gain, const Optional& shift, double epsilon, const Optional& sums,
            const std::string& isa, int threads) {
  const Kernel& kernel = kernel_of(isa, threads);
  Linear l;
  expect(x.ndim == 2 && x.shape[1] >= 1, "x", "two dimensions, and 1 or more inputs");
  expect(output.ndim == 2 && output.shape[1] >= 1, "output", "two dimensions, and 1 or more outputs");
  l.type = type_of(x, "x");
  l.rows = x.shape[0], l.inputs = x.shape[1], l.outputs = output.shape[1];
  l.x = matrix<const void>(x, l.type, l.rows, l.inputs, "x");
  l.output = matrix<void>(output, l.type, l.rows, l.outputs, "output");
  l.weight = contiguous<float>(weight, {kernel.linear_size(l.type, l.outputs, l.inputs)}, "weight");
  l.bias = contiguous<float>(bias, {l.outputs}, "bias");
  l.activation = activation_named(activation);
  if (residual) l.residual = matrix<const void>(*residual, l.type, l.rows, l.outputs, "residual");
  expect(gain.has_value() == shift.has_value(), "gain, shift", "both, or none");
  l.gain = contiguous_or_null<float>(gain, {l.outputs}, "gain");
  l.shift = contiguous_or_null<float>(shift, {l.outputs}, "shift");
  l.epsilon = float(epsilon);
  expect(!gain || sums || l.type == Type::float32, "sums", "for a norm of half precision");
  l.sums = contiguous_or_null<float>(sums, {l.rows, l.outputs}, "sums");
  nb::gil_scoped_release release;
  kernel.linear(l, threads);
}

int64_t linear_size(const Array& weight, const std::string& isa) {
  expect(weight.ndim == 2 && weight.size() >= 1, "weight", "a matrix");
  return kernel_of(isa, 1).linear_size(type_of(weight, "weight"), weight.shape[0], weight.shape[1]);
}

void pack_linear(const Array& weight, const Array& packed, const std::string& isa) {
  const int64_t size = linear_size(weight, isa), outputs = weight.shape[0], inputs = weight.shape[1];
  const Type type = type_of(weight, "weight");
  expect_contiguous(weight, {outputs, inputs}, "weight");
  auto* to = contiguous<float>(packed, {size}, "packed");
  const Kernel& kernel = kernel_of(isa, 1);
  nb::gil_scoped_release release;
  kernel.pack_linear(type, outputs, inputs, weight.data, to);
}

// For memory so large that malloc has it fresh from the system each time, 2 MiB at a time instead of 4 KiB: of the time
// that short sequences take, a quarter would go into getting pages.
void in_large_pages([[maybe_unused]] const Array& array) {
#ifdef MADV_HUGEPAGE
  constexpr uint64_t page = uint64_t(2) << 20;
  const uint64_t bytes = uint64_t(array.size()) * array.dtype.bits / 8;
  const auto data = reinterpret_cast<uint64_t>(array.data);
  const uint64_t from = (data + page - 1) / page * page, to = (data + bytes) / page * page;
  if (bytes > 16 * page) madvise(reinterpret_cast<void*>(from), to - from, MADV_HUGEPAGE);  // a hint: may be ignored
#endif
}

double flops(const std::string& dtype, const std::string& isa, int threads) {
  const Type type = type_named(dtype);
  const Kernel& kernel = kernel_of(isa, threads);
  nb::gil_scoped_release release;
  return kernel.flops(type, threads);
}

double bytes(const std::string& isa, int threads) {
  const Kernel& kernel = kernel_of(isa, threads);
  nb::gil_scoped_release release;
  return kernel.bytes(threads);
}

std::vector<std::string> kernel_names() {
  std::vector<std::string> names;
  for (const Kernel* const* kernel = kernels(); *kernel; kernel++) names.push_back((*kernel)->name);
  return names;
}

constexpr const char* scores_doc =
    R"(The scores of attention, as a rule: softcap(scale · q·k) + bias, −inf where hidden.

query (B,H,Q,D), key (B,G,K,D): float32, bfloat16 or float16, without gaps in the last dimension.
scale; softcap: 0 for none.
start, stop (B|1,Q): int64; query i sees the keys start[i] ≤ j < stop[i]. Without them it sees all.
mask: bool, True = may look, and bias, float, in four dimensions that broadcast to (B,H,Q,K).
sinks (H): float32.

The tensors are kept, not copied.)";

constexpr const char* forward_doc = R"(Attention, and statistics of its rows, in one pass; writes into what is given.

value (B,G|H,K,E) of the query's type, and output (B,H,Q,E) of that type or float32: both, or none.
lse (B,H,Q): float64. (B,H,Q), float32: entropy, in nats; distance, Σ_j w_ij |i − j|, of queries counted from
first_position; max_score, the largest score that a row sees, −inf where it sees nothing.
top_values (B,H,Q,k), float32, and top_keys, int64: the k largest weights by their scores, ties to the lower key;
k ≤ 64 and k ≤ K.)";

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

constexpr const char* apply_doc = R"(M x: vectors x (1|B,1|G|H,K,F), F ≤ 256, to output (B,H,Q,F), both float32.)";

constexpr const char* transposed_doc = R"(Mᵀ y: vectors y (1|B,1|H,Q,F), F ≤ 256, to output (B,H,K,F), both float32.)";

constexpr const char* largest_doc = R"(The k largest numbers of each row, by value or by magnitude, and their keys.

values (B,H,Q,k), float32, and keys, int64: sorted, ties to the lower key; hidden keys have the number 0.
k ≤ 64 and k ≤ K.)";

constexpr const char* backward_doc = R"(The gradient of attention, added to gradients that the caller has zeroed.

lse (B,H,Q): float64. value (B,G,K,E) and grad_output (B,H,Q,E) of the query's type.
delta (B,H,Q), float32: Σ_e grad_output · output, less the gradient of the lse.
grad_query, grad_key, grad_value in float32, in the shapes of query, key and value, and in memory as (B,N,H,D).
grad_bias: float32 in four dimensions that broadcast to (B,H,Q,K).)";

constexpr const char* linear_doc = R"(output = norm(activation(x Wᵀ + bias) + residual), (R,I) to (R,O), row by row.

x, residual and output of one type; weight as pack_linear leaves it; bias, gain and shift (O) in float32.
activation: "gelu", "gelu_tanh", "relu", or "" for none. gain and shift: without them there is no norm.
sums (R,O), float32: memory to work in, for a norm of half precision.)";

}  // namespace

NB_MODULE(_kernel, m) {
  m.doc() = "Attention, its statistics and its gradient, and linear layers, on the CPU. For regard.backends.";
  nb::class_<BoundScores>(m, "Scores", scores_doc)
      .def(nb::init<const Array&, const Array&, double, double, const Optional&, const Optional&, const Optional&,
                    const Optional&, const Optional&>(),
           "query"_a, "key"_a, nb::kw_only(), "scale"_a, "softcap"_a = 0.0, "start"_a = nb::none(),
           "stop"_a = nb::none(), "mask"_a = nb::none(), "bias"_a = nb::none(), "sinks"_a = nb::none());
  m.def("forward", &forward, "scores"_a, nb::kw_only(), "value"_a = nb::none(), "output"_a = nb::none(),
        "lse"_a = nb::none(), "entropy"_a = nb::none(), "distance"_a = nb::none(), "first_position"_a = 0,
        "max_score"_a = nb::none(), "top_values"_a = nb::none(), "top_keys"_a = nb::none(), "isa"_a, "threads"_a,
        forward_doc);
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
  m.def("backward", &backward, "scores"_a, nb::kw_only(), "lse"_a, "value"_a, "grad_output"_a, "delta"_a,
        "grad_query"_a, "grad_key"_a, "grad_value"_a, "grad_bias"_a = nb::none(), "isa"_a, "threads"_a, backward_doc);
  m.def("linear", &linear, nb::kw_only(), "x"_a, "weight"_a, "bias"_a, "output"_a, "activation"_a = "",
        "residual"_a = nb::none(), "gain"_a = nb::none(), "shift"_a = nb::none(), "epsilon"_a = 0.0,
        "sums"_a = nb::none(), "isa"_a, "threads"_a, linear_doc);
  m.def("linear_size", &linear_size, "weight"_a, "isa"_a, "How many floats pack_linear writes for a weight (O,I).");
  m.def("pack_linear", &pack_linear, "weight"_a, "packed"_a, "isa"_a,
        "Brings a weight (O,I) into the order in which `linear` reads it: packed, float32.");
  m.def("kernels", &kernel_names, "The instruction sets that this machine can run, the best first.");
  m.def("in_large_pages", &in_large_pages, "array"_a, "Asks the system for large pages, for fresh memory.");
  m.def("flops", &flops, "dtype"_a, "isa"_a, "threads"_a,
        "Floating-point operations a second, in registers, of all threads.");
  m.def("bytes", &bytes, "isa"_a, "threads"_a, "Bytes a second, read from memory, of all threads.");
}
