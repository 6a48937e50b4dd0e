// regard._kernel: the kernel for Python. Takes addresses and strides, checks them once more, and lets other Python
// threads run meanwhile. What the arguments mean stands in attention.hpp.

#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "attention.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using namespace regard;

namespace {

using Address = uintptr_t;
using StridedArgument = std::array<int64_t, 4>;    // address; strides of batch, head, row
using BroadcastArgument = std::array<int64_t, 5>;  // address; strides of batch, head, row, column
// type; B H G Q K D; query; key; start, stop and their batch stride; mask; bias; type of the bias; sinks; scale;
// softcap
using ScoresArgument = std::tuple<int, std::array<int64_t, 6>, StridedArgument, StridedArgument, std::array<int64_t, 3>,
                                  BroadcastArgument, BroadcastArgument, int, Address, double, double>;

void expect(bool holds, const std::string& what) {
  if (!holds) throw std::invalid_argument("regard._kernel: expected " + what);
}

template <class T>
T* pointer(Address address) {
  return reinterpret_cast<T*>(address);
}

Type type_of(int code, const char* name) {
  expect(code >= 0 && code <= 2, std::string(name) + ": a type from 0 to 2");
  return Type(code);
}

template <class T>
Strided<T> strided(const StridedArgument& a, int64_t numbers, const char* name) {
  expect(a[0] != 0 || numbers == 0, std::string(name) + ": an address");
  return {pointer<T>(Address(a[0])), a[1], a[2], a[3]};
}

template <class T>
Broadcast<T> broadcast(const BroadcastArgument& a) {
  return {pointer<T>(Address(a[0])), a[1], a[2], a[3], a[4]};
}

// An address that may be left out.
template <class T>
T* optional(Address address) {
  return pointer<T>(address);
}

template <class T>
T* required(Address address, int64_t numbers, const char* name) {
  expect(address != 0 || numbers == 0, std::string(name) + ": an address");
  return pointer<T>(address);
}

Scores scores_of(const ScoresArgument& argument) {
  const auto& [type, sizes, query, key, spans, mask, bias, bias_type, sinks, scale, softcap] = argument;
  Scores s;
  s.type = type_of(type, "scores");
  for (int64_t size : sizes) expect(size >= 0, "scores: sizes of 0 or more");
  std::tie(s.batch, s.heads, s.groups, s.queries, s.keys, s.dim) = std::tuple_cat(sizes);
  expect(s.dim >= 1 && s.dim <= largest_dim, "scores: a dim from 1 to 256");
  expect(s.groups == 0 ? s.heads == 0 : s.heads % s.groups == 0, "scores: heads in groups of one size");
  expect(s.keys < int64_t(1) << 31 && s.queries < int64_t(1) << 31, "scores: fewer than 2^31 positions");
  s.query = strided<const void>(query, s.batch * s.heads * s.queries, "query");
  s.key = strided<const void>(key, s.batch * s.groups * s.keys, "key");
  expect((spans[0] == 0) == (spans[1] == 0), "spans: both of start and stop, or none");
  s.start = optional<const int64_t>(Address(spans[0])), s.stop = optional<const int64_t>(Address(spans[1]));
  s.span_batch = spans[2];
  s.mask = broadcast<const bool>(mask);
  s.bias = broadcast<const void>(bias);
  s.bias_type = type_of(bias_type, "bias");
  s.sinks = optional<const float>(sinks);
  s.scale = float(scale), s.softcap = float(softcap);
  expect(s.softcap >= 0, "softcap: 0 for none, or more");
  return s;
}

const Kernel& kernel_of(const std::string& isa, int threads) {
  const Kernel* found = kernel(isa.empty() ? nullptr : isa.c_str());
  expect(found, "isa: one of kernels()");
  expect(threads >= 1, "threads: 1 or more");
  return *found;
}

std::vector<std::string> kernel_names() {
  std::vector<std::string> names;
  for (const Kernel* const* each = kernels(); *each; each++) names.push_back((*each)->name);
  return names;
}

void forward(const ScoresArgument& scores, int64_t value_dim, const StridedArgument& value, int64_t value_heads,
             const StridedArgument& output, int output_type, Address lse, Address entropy, Address distance,
             int64_t top, Address top_values, Address top_indices, const std::string& isa, int threads) {
  const Scores s = scores_of(scores);
  Forward f;
  const int64_t rows = s.batch * s.heads * s.queries;
  expect(value_dim >= 0 && value_dim <= largest_dim, "value_dim: 0 to 256");
  expect(value_heads == s.groups || value_heads == s.heads, "value_heads: the groups or the heads");
  expect(top >= 0 && top <= largest_top && top <= s.keys, "top: 0 to 64, and no more than the keys");
  f.value_dim = value_dim, f.value_heads = value_heads, f.top = top;
  if (value_dim > 0) {
    f.value = strided<const void>(value, s.batch * value_heads * s.keys, "value");
    f.output = strided<void>(output, rows, "output");
  }
  f.output_type = type_of(output_type, "output");
  expect(f.output_type == s.type || f.output_type == Type::float32, "output: the scores' type, or float32");
  f.lse = optional<double>(lse), f.entropy = optional<float>(entropy), f.distance = optional<float>(distance);
  f.top_values = required<float>(top_values, top * rows, "top_values");
  f.top_indices = required<int64_t>(top_indices, top * rows, "top_indices");
  nb::gil_scoped_release release;
  kernel_of(isa, threads).forward(s, f, threads);
}

void cells(const ScoresArgument& scores, Address lse, Address row_cell, Address column_cell, int64_t rows,
           int64_t columns, bool largest, Address to, const std::string& isa, int threads) {
  const Scores s = scores_of(scores);
  expect(rows >= 0 && columns >= 0, "rows, columns: 0 or more");
  Cells c;
  c.rows = rows, c.columns = columns, c.largest = largest;
  c.lse = required<const double>(lse, s.batch * s.heads * s.queries, "lse");
  c.row_cell = required<const int64_t>(row_cell, s.queries, "row_cell");
  c.column_cell = required<const int64_t>(column_cell, s.keys, "column_cell");
  c.cells = required<double>(to, s.batch * s.heads * rows * columns, "cells");
  for (int64_t i = 0; i < s.queries; i++)
    expect(c.row_cell[i] >= -1 && c.row_cell[i] < rows, "row_cell: −1 to rows − 1");
  for (int64_t j = 0; j < s.keys; j++) {
    expect(c.column_cell[j] >= -1 && c.column_cell[j] < columns, "column_cell: −1 to columns − 1");
  }
  nb::gil_scoped_release release;
  kernel_of(isa, threads).cells(s, c, threads);
}

void tile(const ScoresArgument& scores, Address lse, int64_t first_row, int64_t rows, int64_t first_column,
          int64_t columns, Address weights, const std::string& isa, int threads) {
  const Scores s = scores_of(scores);
  expect(first_row >= 0 && rows >= 0 && first_row + rows <= s.queries, "rows: within the queries");
  expect(first_column >= 0 && columns >= 0 && first_column + columns <= s.keys, "columns: within the keys");
  Tile t;
  t.first_row = first_row, t.rows = rows, t.first_column = first_column, t.columns = columns;
  t.lse = required<const double>(lse, s.batch * s.heads * s.queries, "lse");
  t.weights = required<float>(weights, s.batch * s.heads * rows * columns, "weights");
  nb::gil_scoped_release release;
  kernel_of(isa, threads).tile(s, t, threads);
}

void transposed(const ScoresArgument& scores, Address lse, int64_t width, const StridedArgument& vectors,
                Address output, const std::string& isa, int threads) {
  const Scores s = scores_of(scores);
  expect(width >= 0 && width <= largest_dim, "width: 0 to 256");
  Transposed t;
  t.width = width;
  t.lse = required<const double>(lse, s.batch * s.heads * s.queries, "lse");
  t.vectors = strided<const float>(vectors, s.batch * s.heads * s.queries * width, "vectors");
  t.output = required<float>(output, s.batch * s.heads * s.keys * width, "output");
  nb::gil_scoped_release release;
  kernel_of(isa, threads).transposed(s, t, threads);
}

void backward(const ScoresArgument& scores, Address lse, int64_t value_dim, const StridedArgument& value,
              const StridedArgument& grad_output, Address through, Address grad_query, Address grad_key,
              Address grad_value, const BroadcastArgument& grad_bias, const std::string& isa, int threads) {
  const Scores s = scores_of(scores);
  const int64_t rows = s.batch * s.heads * s.queries, keys = s.batch * s.groups * s.keys;
  expect(value_dim >= 0 && value_dim <= largest_dim, "value_dim: 0 to 256");
  Backward b;
  b.value_dim = value_dim;
  b.lse = required<const double>(lse, rows, "lse");
  b.value = strided<const void>(value, keys * value_dim, "value");
  b.grad_output = strided<const void>(grad_output, rows * value_dim, "grad_output");
  b.through = required<const float>(through, rows, "through");
  b.grad_query = required<float>(grad_query, rows, "grad_query");
  b.grad_key = required<float>(grad_key, keys, "grad_key");
  b.grad_value = required<float>(grad_value, keys * value_dim, "grad_value");
  b.grad_bias = broadcast<float>(grad_bias);
  nb::gil_scoped_release release;
  kernel_of(isa, threads).backward(s, b, threads);
}

using RowsArgument = std::array<int64_t, 2>;  // address; stride

template <class T>
Rows<T> rows_of(const RowsArgument& a, int64_t numbers, const char* name) {
  return {required<T>(Address(a[0]), numbers, name), a[1]};
}

void linear(int type, const std::array<int64_t, 3>& sizes, const RowsArgument& x, Address weight, Address bias,
            int activation, const RowsArgument& residual, Address gain, Address shift, double epsilon, Address sums,
            const RowsArgument& output, const std::string& isa, int threads) {
  Linear l;
  l.type = type_of(type, "type");
  std::tie(l.rows, l.inputs, l.outputs) = std::tuple_cat(sizes);
  expect(l.rows >= 0 && l.inputs >= 1 && l.outputs >= 1, "sizes: 0 or more rows, 1 or more inputs and outputs");
  l.x = rows_of<const void>(x, l.rows, "x");
  l.weight = required<const float>(weight, 1, "weight");
  l.bias = required<const float>(bias, 1, "bias");
  expect(activation >= 0 && activation <= 3, "activation: 0 to 3");
  l.activation = Activation(activation);
  l.residual = {pointer<const void>(Address(residual[0])), residual[1]};
  l.gain = optional<const float>(gain), l.shift = optional<const float>(shift), l.epsilon = float(epsilon);
  expect((gain == 0) == (shift == 0), "gain, shift: both, or none");
  l.sums = optional<float>(sums);
  expect(gain == 0 || sums != 0 || l.rows == 0 || l.type == Type::float32,
         "sums: an address, for a norm of half precision");
  l.output = rows_of<void>(output, l.rows, "output");
  nb::gil_scoped_release release;
  kernel_of(isa, threads).linear(l, threads);
}

int64_t linear_size(int type, int64_t outputs, int64_t inputs, const std::string& isa) {
  expect(outputs >= 1 && inputs >= 1, "sizes: 1 or more");
  return kernel_of(isa, 1).linear_size(type_of(type, "type"), outputs, inputs);
}

void pack_linear(int type, int64_t outputs, int64_t inputs, Address weight, Address to, const std::string& isa) {
  expect(outputs >= 1 && inputs >= 1, "sizes: 1 or more");
  const auto* from = required<const void>(weight, 1, "weight");
  auto* packed = required<float>(to, 1, "to");
  nb::gil_scoped_release release;
  kernel_of(isa, 1).pack_linear(type_of(type, "type"), outputs, inputs, from, packed);
}

// For memory so large that malloc has it fresh from the system each time, 2 MiB at a time instead of 4 KiB: of the time
// that short sequences take, a quarter would go into getting pages.
void in_large_pages(Address data, uint64_t bytes) {
#ifdef MADV_HUGEPAGE
  constexpr uint64_t page = uint64_t(2) << 20;
  const uint64_t from = (data + page - 1) / page * page, to = (data + bytes) / page * page;
  if (bytes > 16 * page) madvise(reinterpret_cast<void*>(from), to - from, MADV_HUGEPAGE);  // a hint: may be ignored
#else
  (void)data, (void)bytes;
#endif
}

}  // namespace

NB_MODULE(_kernel, m) {
  m.doc() = "Attention, its statistics and its gradient, and linear layers, on the CPU. For regard.backends.";
  m.def("kernels", &kernel_names, "The instruction sets that this machine can run, the best first.");
  m.def("in_large_pages", &in_large_pages, "data"_a, "bytes"_a, "Asks the system for large pages, for fresh memory.");
  m.def("forward", &forward);
  m.def("cells", &cells);
  m.def("tile", &tile);
  m.def("transposed", &transposed);
  m.def("backward", &backward);
  m.def("linear", &linear);
  m.def("linear_size", &linear_size);
  m.def("pack_linear", &pack_linear);
  m.def(
      "flops",
      [](int type, const std::string& isa, int threads) {
        const Type which = type_of(type, "type");
        nb::gil_scoped_release release;
        return kernel_of(isa, threads).flops(which, threads);
      },
      "type"_a, "isa"_a, "threads"_a, "Floating-point operations a second, in registers, of all threads.");
  m.def(
      "bytes",
      [](const std::string& isa, int threads) {
        nb::gil_scoped_release release;
        return kernel_of(isa, threads).bytes(threads);
      },
      "isa"_a, "threads"_a, "Bytes a second, read from memory, of all threads.");
}
