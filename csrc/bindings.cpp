// regard._kernel: the kernel for Python. Takes tensors by name, checks their types, shapes and strides, and lets other
// Python threads run while it computes.

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "checks.hpp"
#include "kernel/attention.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using namespace regard;

namespace {

void forward(const BoundScores& scores, const Optional& value, const Optional& output, const Optional& lse,
             const Optional& entropy, const Optional& distance, int64_t first_position, const Optional& max_score,
             const Optional& top_values, const Optional& top_keys, const Optional& known_lse, const std::string& isa,
             int threads) {
  const Scores& s = scores.s;
  Forward f;
  f.value_heads = s.groups;
  expect(value.has_value() == output.has_value(), "value, output", "both, or none");
  if (value) {
    expect(value->ndim == 4, "value", "four dimensions");
    f.value_dim = value->shape[3], f.value_heads = value->shape[1];
    expect(f.value_dim >= 0 && f.value_dim <= largest_dim, "value", "a dim up to 512");
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
  f.known_lse = contiguous_or_null<double>(known_lse, {s.batch, s.heads, s.queries}, "known_lse");
  const Kernel& kernel = kernel_of(isa, threads);
  nb::gil_scoped_release release;
  kernel.forward(s, f, threads);
}

void backward(const BoundScores& scores, const Array& lse, const Array& value, const Array& output,
              const Array& grad_output, const Optional& grad_lse, const Array& grad_query, const Array& grad_key,
              const Array& grad_value, const Optional& delta, const Optional& grad_bias, const std::string& isa,
              int threads) {
  const Scores& s = scores.s;
  Backward b;
  expect(value.ndim == 4, "value", "four dimensions");
  b.value_dim = value.shape[3];
  expect(b.value_dim <= largest_dim, "value", "a dim up to 512");
  const Shape rows{s.batch, s.heads, s.queries}, outputs{s.batch, s.heads, s.queries, b.value_dim};
  b.lse = contiguous<double>(lse, rows, "lse");
  b.value = strided<const void>(value, s.type, {s.batch, s.groups, s.keys, b.value_dim}, "value");
  b.output = strided<const void>(output, s.type, outputs, "output");
  b.grad_output = strided<const void>(grad_output, s.type, outputs, "grad_output");
  b.grad_lse = contiguous_or_null<double>(grad_lse, rows, "grad_lse");
  b.delta = contiguous_or_null<float>(delta, rows, "delta");
  b.grad_type = type_of(grad_query, "grad_query");
  expect(b.grad_type == s.type || b.grad_type == Type::float32, "grad_query", "the type of the query, or float32");
  b.grad_query = strided<void>(grad_query, b.grad_type, {s.batch, s.heads, s.queries, s.dim}, "grad_query");
  b.grad_key = strided<void>(grad_key, b.grad_type, {s.batch, s.groups, s.keys, s.dim}, "grad_key");
  b.grad_value = strided<void>(grad_value, b.grad_type, {s.batch, s.groups, s.keys, b.value_dim}, "grad_value");
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

// Everything but the weight.
Linear bound_linear(const Array& x, const Array& bias, const Array& output, const std::string& activation,
                    const Optional& residual, const Optional& gain, const Optional& shift, double epsilon,
                    const Optional& sums) {
  Linear l;
  expect(x.ndim == 2 && x.shape[1] >= 1, "x", "two dimensions, and 1 or more inputs");
  expect(output.ndim == 2 && output.shape[1] >= 1, "output", "two dimensions, and 1 or more outputs");
  l.type = type_of(x, "x");
  l.rows = x.shape[0], l.inputs = x.shape[1], l.outputs = output.shape[1];
  l.x = matrix<const void>(x, l.type, l.rows, l.inputs, "x");
  l.output = matrix<void>(output, l.type, l.rows, l.outputs, "output");
  l.bias = contiguous<float>(bias, {l.outputs}, "bias");
  l.activation = activation_named(activation);
  if (residual) l.residual = matrix<const void>(*residual, l.type, l.rows, l.outputs, "residual");
  expect(gain.has_value() == shift.has_value(), "gain, shift", "both, or none");
  l.gain = contiguous_or_null<float>(gain, {l.outputs}, "gain");
  l.shift = contiguous_or_null<float>(shift, {l.outputs}, "shift");
  l.epsilon = float(epsilon);
  expect(!gain || sums || l.type == Type::float32, "sums", "for a norm of half precision");
  l.sums = contiguous_or_null<float>(sums, {l.rows, l.outputs}, "sums");
  return l;
}

void linear(const Array& x, const Array& weight, const Array& bias, const Array& output, const std::string& activation,
            const Optional& residual, const Optional& gain, const Optional& shift, double epsilon, const Optional& sums,
            const std::string& isa, int threads) {
  const Kernel& kernel = kernel_of(isa, threads);
  Linear l = bound_linear(x, bias, output, activation, residual, gain, shift, epsilon, sums);
  l.weight = contiguous<float>(weight, {kernel.linear_size(l.type, l.outputs, l.inputs)}, "weight");
  nb::gil_scoped_release release;
  kernel.linear(l, threads);
}

// Bytes, however PyTorch calls their type.
template <class T>
T* bytes_of(const Array& array, Shape shape, const char* name) {
  expect(array.dtype.bits == 8, name, "bytes");
  expect_contiguous(array, shape, name);
  return array.as<T>();
}

void quantized(const Array& x, const Array& weight, const Array& scales, const Array& totals, const Array& bias,
               const Array& output, const Optional& factors, const std::string& activation, const Optional& residual,
               const Optional& gain, const Optional& shift, double epsilon, const std::string& isa, int threads) {
  const Kernel& kernel = kernel_of(isa, threads);
  const Linear l = bound_linear(x, bias, output, activation, residual, gain, shift, epsilon, {});
  expect(l.type == Type::float32, "x", "float32");
  expect(l.inputs <= largest_quantized_inputs, "x", "at most 65,536 inputs");
  Quantized w;
  w.weight = bytes_of<void>(weight, {kernel.quantized_size(l.outputs, l.inputs)}, "weight");
  w.scales = contiguous<float>(scales, {l.outputs}, "scales");
  w.totals = contiguous<float>(totals, {l.outputs}, "totals");
  w.factors = contiguous_or_null<float>(factors, {l.inputs}, "factors");
  nb::gil_scoped_release release;
  kernel.quantized(l, w, threads);
}

int64_t quantized_size(const Array& weight, const std::string& isa) {
  expect(weight.ndim == 2 && weight.size() >= 1, "weight", "a matrix");
  return kernel_of(isa, 1).quantized_size(weight.shape[0], weight.shape[1]);
}

void pack_quantized(const Array& weight, const Array& packed, const std::string& isa) {
  const int64_t size = quantized_size(weight, isa), outputs = weight.shape[0], inputs = weight.shape[1];
  const auto* from = bytes_of<int8_t>(weight, {outputs, inputs}, "weight");
  void* to = bytes_of<void>(packed, {size}, "packed");
  const Kernel& kernel = kernel_of(isa, 1);
  nb::gil_scoped_release release;
  kernel.pack_quantized(outputs, inputs, from, to);
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
k ≤ 64 and k ≤ K. known_lse (B,H,Q), float64: that of these weights, where another call has given it.)";

constexpr const char* backward_doc = R"(The gradient of attention; writes into what is given.

lse and its gradient, grad_lse, or None for 0 (B,H,Q): float64. value (B,G,K,E), output and its gradient, grad_output
(B,H,Q,E), of the query's type.
grad_query, grad_key, grad_value: in the shapes of query, key and value, of their type or float32.
delta (B,H,Q), float32: Σ_e grad_output · output, less the gradient of the lse.
grad_bias, added to: float32 in four dimensions that broadcast to (B,H,Q,K).)";

constexpr const char* linear_doc = R"(output = norm(activation(x Wᵀ + bias) + residual), (R,I) to (R,O), row by row.

x, residual and output of one type; weight as pack_linear leaves it; bias, gain and shift (O) in float32.
activation: "gelu", "gelu_tanh", "relu", or "" for none. gain and shift: without them there is no norm.
sums (R,O), float32: memory to work in, for a norm of half precision.)";

constexpr const char* quantized_doc =
    R"(`linear` in float32, but for the product with W, which is made of whole numbers.

w_oi = scales_o · q_oi, x_ri = step_r · (q_ri − zero_r), of each row by itself. A row that is not finite gives nan.
weight: q as pack_quantized leaves it; scales and totals (O), float32: scales_o and Σ_i q_oi.
factors (I), float32: what x is multiplied by before it is rounded.)";

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
        "max_score"_a = nb::none(), "top_values"_a = nb::none(), "top_keys"_a = nb::none(), "known_lse"_a = nb::none(),
        "isa"_a, "threads"_a, forward_doc);
  bind_maps(m);
  bind_token(m);
  bind_plain(m);
  m.def("backward", &backward, "scores"_a, nb::kw_only(), "lse"_a, "value"_a, "output"_a, "grad_output"_a,
        "grad_lse"_a = nb::none(), "grad_query"_a, "grad_key"_a, "grad_value"_a, "delta"_a = nb::none(),
        "grad_bias"_a = nb::none(), "isa"_a, "threads"_a, backward_doc);
  m.def("linear", &linear, nb::kw_only(), "x"_a, "weight"_a, "bias"_a, "output"_a, "activation"_a = "",
        "residual"_a = nb::none(), "gain"_a = nb::none(), "shift"_a = nb::none(), "epsilon"_a = 0.0,
        "sums"_a = nb::none(), "isa"_a, "threads"_a, linear_doc);
  m.def("quantized", &quantized, nb::kw_only(), "x"_a, "weight"_a, "scales"_a, "totals"_a, "bias"_a, "output"_a,
        "factors"_a = nb::none(), "activation"_a = "", "residual"_a = nb::none(), "gain"_a = nb::none(),
        "shift"_a = nb::none(), "epsilon"_a = 0.0, "isa"_a, "threads"_a, quantized_doc);
  m.def("quantized_size", &quantized_size, "weight"_a, "isa"_a,
        "How many bytes pack_quantized writes for a weight (O,I).");
  m.def("pack_quantized", &pack_quantized, "weight"_a, "packed"_a, "isa"_a,
        "Brings an int8 weight (O,I) into the order in which `quantized` reads it: packed, of bytes.");
  m.def("linear_size", &linear_size, "weight"_a, "isa"_a, "How many floats pack_linear writes for a weight (O,I).");
  m.def("pack_linear", &pack_linear, "weight"_a, "packed"_a, "isa"_a,
        "Brings a weight (O,I) into the order in which `linear` reads it: packed, float32.");
  m.def("kernels", &kernel_names, "The instruction sets that this machine can run, the best first.");
  m.def("in_large_pages", &in_large_pages, "array"_a, "Asks the system for large pages, for fresh memory.");
  m.def("flops", &flops, "dtype"_a, "isa"_a, "threads"_a,
        "Floating-point operations a second, in registers, of all threads.");
  m.def("bytes", &bytes, "isa"_a, "threads"_a, "Bytes a second, read from memory, of all threads.");
}
