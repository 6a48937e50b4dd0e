// regard._kernel: one token through the layers of a decoder.

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

// Two tensors of a layer in token_doc's order: a weight (outputs,inputs), which may be a transposed view, and its bias.
Projection projection(const Optional* tensors, int64_t outputs, int64_t inputs, const char* name) {
  expect(tensors[0].has_value(), name, "a weight");
  const Array& weight = *tensors[0];
  expect(type_of(weight, name) == Type::float32, name, "float32");
  expect_shape(weight, {outputs, inputs}, name);
  Projection p;
  p.by_input = weight.stride[1] != 1 && inputs > 1;
  expect(!p.by_input || weight.stride[0] == 1 || outputs == 1, name, "rows or columns without gaps");
  p.weight = weight.as<const float>(), p.step = weight.stride[p.by_input ? 1 : 0];
  p.bias = contiguous_or_null<float>(tensors[1], {outputs}, name);
  return p;
}

Norm norm(const Optional* tensors, int64_t dim, const char* name) {
  expect(tensors[0].has_value(), name, "a gain");
  return {contiguous<float>(*tensors[0], {dim}, name), contiguous_or_null<float>(tensors[1], {dim}, name)};
}

// The layer's tensors, in the order of token_doc.
TokenLayer token_layer(const std::vector<Optional>& tensors, int64_t dim) {
  expect(tensors.size() == 20, "layers", "twenty tensors for each");
  const Optional *query = &tensors[2], *up = &tensors[14];
  expect(tensors[18] && tensors[19] && *query && *up, "layers", "keys, values and weights");
  const Array &keys = *tensors[18], &values = *tensors[19];
  TokenLayer t;
  t.dim = dim;
  expect(keys.ndim == 4 && keys.shape[2] >= 1 && keys.shape[3] >= 1, "keys", "(1,groups,keys,head_dim)");
  t.groups = keys.shape[1], t.keys = keys.shape[2], t.head_dim = keys.shape[3];
  expect(t.groups >= 1 && t.head_dim <= largest_dim, "keys", "a dim up to 512");
  expect(t.keys < int64_t(1) << 31, "keys", "fewer than 2^31 positions");
  t.all_keys = strided<float>(keys, Type::float32, {1, t.groups, t.keys, t.head_dim}, "keys");
  t.all_values = strided<float>(values, Type::float32, {1, t.groups, t.keys, t.head_dim}, "values");
  expect((*query)->ndim == 2 && (*up)->ndim == 2, "query, up", "matrices");
  t.heads = (*query)->shape[0] / t.head_dim, t.hidden = (*up)->shape[0];
  expect(t.heads >= 1 && t.heads % t.groups == 0 && t.hidden >= 1, "query, up", "heads that the groups divide");
  const int64_t heads = t.heads * t.head_dim, groups = t.groups * t.head_dim;
  t.input_norm = norm(&tensors[0], dim, "input_norm"), t.norm = norm(&tensors[10], dim, "norm");
  t.query = projection(query, heads, dim, "query");
  t.key = projection(&tensors[4], groups, dim, "key");
  t.value = projection(&tensors[6], groups, dim, "value");
  t.output = projection(&tensors[8], dim, heads, "output");
  if (tensors[12]) t.gate = projection(&tensors[12], t.hidden, dim, "gate");
  t.up = projection(up, t.hidden, dim, "up");
  t.down = projection(&tensors[16], dim, t.hidden, "down");
  return t;
}

void token(const std::vector<std::vector<Optional>>& layers, const Array& state, const Optional& cosine,
           const Optional& sine, const Optional& queries, const Optional& lse, const Optional& attended, double scale,
           double epsilon, const std::string& isa, int threads) {
  expect(state.ndim == 1 && state.shape[0] >= 1, "state", "one dimension");
  expect(cosine.has_value() == sine.has_value(), "cosine, sine", "both, or none");
  expect(queries.has_value() == lse.has_value(), "queries, lse", "both, or none");
  std::vector<TokenLayer> bound;
  for (const std::vector<Optional>& tensors : layers) {
    TokenLayer t = token_layer(tensors, state.shape[0]);
    t.state = contiguous<float>(state, {t.dim}, "state");
    t.cosine = contiguous_or_null<float>(cosine, {t.head_dim}, "cosine");
    t.sine = contiguous_or_null<float>(sine, {t.head_dim}, "sine");
    expect(!cosine || t.head_dim % 2 == 0, "cosine", "an even dim, of pairs that are turned");
    t.scale = float(scale), t.epsilon = float(epsilon);
    if (queries) {
      const auto n = int64_t(bound.size()), count = int64_t(layers.size());
      t.queries = contiguous<float>(*queries, {count, t.heads, t.head_dim}, "queries") + n * t.heads * t.head_dim;
      t.lse = contiguous<double>(*lse, {count, t.heads}, "lse") + n * t.heads;
      if (attended)
        t.attended = contiguous<float>(*attended, {count, t.heads, t.head_dim}, "attended") + n * t.heads * t.head_dim;
    }
    bound.push_back(t);
  }
  const Kernel& kernel = kernel_of(isa, threads);
  nb::gil_scoped_release release;
  for (const TokenLayer& t : bound) kernel.token(t, threads);
}

constexpr const char* token_doc =
    R"(One token through all layers of a decoder, in float32: `state` (dim) becomes the last.

layers: for each twenty tensors, those of pairs: input_norm, query, key, value, output, norm, gate, up, down, and of
all tokens the keys and values (1,G,K,D), of which the last, the token's own, are written. A norm is a gain and a shift
(dim); without a shift it is a root mean square norm. A projection is a weight (outputs,inputs), which may be a
transposed view, and a bias, or None. Without a gate, up is followed by gelu_tanh; with one, it is silu(gate) · up.
cosine, sine (D): of the angles of the token's position, or None.
queries (L,H,D), lse (L,H), float64, attended (L,H,D): where the token's attention is wanted.)";

}  // namespace

void bind_token(nb::module_& m) {
  m.def("token", &token, "layers"_a, "state"_a, "cosine"_a, "sine"_a, "queries"_a, "lse"_a, "attended"_a, "scale"_a,
        "epsilon"_a, "isa"_a, "threads"_a, token_doc);
}

}  // namespace regard
