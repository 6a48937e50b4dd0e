// regard._kernel: attention where little is asked, and its gradient, each in one call that makes its own results.

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

#include "arrays.hpp"
#include "checks.hpp"
#include "kernel/attention.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace regard {
namespace {

// Reads query, key and value of an attention without options; false where they are not of the kernel's kind, do not fit
// together, or have no elements.
bool read_plain(const Array& query, const Array& key, const Array& value, Scores& s, Forward& f) {
  for (const Array* array : {&query, &key, &value}) {
    if (array->ndim != 4 || array->size() == 0 || (array->shape[3] > 1 && array->stride[3] != 1)) return false;
    if (array->dtype.code != query.dtype.code || array->dtype.bits != query.dtype.bits) return false;
  }
  const std::optional<Type> type = known_type(query);
  if (!type) return false;
  s.type = *type;
  s.batch = query.shape[0], s.heads = query.shape[1], s.queries = query.shape[2], s.dim = query.shape[3];
  s.groups = key.shape[1], s.keys = key.shape[2];
  f.value_heads = s.groups, f.value_dim = value.shape[3];
  for (const int d : {0, 1, 2}) {
    if (value.shape[d] != key.shape[d]) return false;
  }
  if (key.shape[0] != s.batch || key.shape[3] != s.dim || s.heads % s.groups != 0) return false;
  if (s.dim > largest_dim || f.value_dim > largest_dim || std::max(s.queries, s.keys) >= int64_t(1) << 31) return false;
  s.query = {query.data, query.stride[0], query.stride[1], query.stride[2]};
  s.key = {key.data, key.stride[0], key.stride[1], key.stride[2]};
  f.value = {value.data, value.stride[0], value.stride[1], value.stride[2]};
  return true;
}

// Reads a tensor of up to four dimensions that broadcasts to (batch,heads,queries,keys); false where it does not.
template <class T>
bool read_broadcast(const Array& array, const Scores& s, Broadcast<T>& to) {
  const int64_t sizes[] = {s.batch, s.heads, s.queries, s.keys};
  int64_t stride[4] = {};
  for (int32_t d = 0; d < array.ndim; d++) {
    const int32_t place = 4 - array.ndim + d;
    if (array.shape[d] != 1 && array.shape[d] != sizes[place]) return false;
    stride[place] = array.stride[d];
  }
  to = {array.as<T>(), stride[0], stride[1], stride[2], stride[3]};
  return true;
}

// An empty tensor beside `like`, of its type or of `dtype`, and what it is in memory.
nb::object empty_beside(nb::handle like, nb::handle sizes, nb::handle strides, nb::handle dtype, Array& array) {
  static const nb::handle name = nb::str("new_empty_strided").release();
  nb::object tensor = like.attr(name)(sizes, strides, "dtype"_a = dtype);
  expect(read_array(tensor, array), "output", "a tensor in the processor's memory");
  return tensor;
}

// The same where PyTorch hands out memory through the exchange API, in half the time: its own function parses Python's
// arguments and asks its dispatcher.
nb::object empty_tensor(nb::handle like, int32_t ndim, const int64_t* sizes, const int64_t* strides,
                        nb::dlpack::dtype type, nb::handle dtype, Array& array) {
  nb::dlpack::dltensor wanted{};
  wanted.device = {nb::device::cpu::value, 0}, wanted.ndim = ndim, wanted.dtype = type;
  wanted.shape = const_cast<int64_t*>(sizes);
  ManagedTensor* managed = nullptr;
  const ExchangeTable* table = exchange_table(like);
  const auto no_message = [](void*, const char*, const char*) {};
  if (!table || !table->allocate || table->allocate(&wanted, &managed, nullptr, no_message) != 0) {
    nb::list of_sizes, of_strides;
    for (int32_t d = 0; d < ndim; d++) of_sizes.append(sizes[d]), of_strides.append(strides[d]);
    return empty_beside(like, of_sizes, of_strides, dtype, array);
  }
  nb::dlpack::dltensor& view = managed->view;
  view.shape = wanted.shape, view.strides = const_cast<int64_t*>(strides);  // read once, below
  array.data = static_cast<char*>(view.data) + view.byte_offset, array.dtype = type, array.ndim = ndim;
  for (int32_t d = 0; d < ndim; d++) array.shape[d] = sizes[d], array.stride[d] = strides[d];
  void* object = nullptr;
  if (table->managed_to_object(managed, &object) != 0) throw nb::python_error();
  return nb::steal(static_cast<PyObject*>(object));
}

// The spans of attention that is causal or has lengths, which s then points into; none where all see all.
std::vector<int64_t> plain_spans(Scores& s, bool causal, const int64_t* lengths) {
  causal = causal && s.queries > 1;  // a single query is the last: it sees all
  if (!causal && !lengths) return {};
  const int64_t sequences = lengths ? s.batch : 1, count = sequences * s.queries;
  std::vector<int64_t> spans(size_t(2 * count));
  for (int64_t n = 0; n < count; n++) {
    const int64_t seen = causal ? n % s.queries + 1 + s.keys - s.queries : s.keys;
    spans[size_t(count + n)] = lengths ? std::min(seen, lengths[n / s.queries]) : seen;
  }
  s.start = spans.data(), s.stop = spans.data() + count;
  s.span_batch = lengths ? s.queries : 0;
  return spans;
}

// Reads what else scores are made of, and makes the spans, which s points into; false where something does not fit.
bool read_options(std::optional<double> scale, bool causal, nb::handle lengths, nb::handle mask, nb::handle bias,
                  Scores& s, std::vector<int64_t>& spans) {
  s.scale = float(scale ? *scale : std::pow(double(s.dim), -0.5));
  if (!mask.is_none()) {
    Array m;
    if (!read_array(mask, m) || !has_type(m, nb::dlpack::dtype_code::Bool, 8) || !read_broadcast(m, s, s.mask)) {
      return false;
    }
  }
  if (!bias.is_none()) {
    Array b;
    if (!read_array(bias, b) || !known_type(b) || !read_broadcast(b, s, s.bias)) return false;
    s.bias_type = *known_type(b);
  }
  Array l;
  if (!lengths.is_none()) {
    if (!read_array(lengths, l) || !has_type(l, nb::dlpack::dtype_code::Int, 64) || l.ndim != 1) return false;
    if (l.shape[0] != s.batch || (s.batch > 1 && l.stride[0] != 1)) return false;
    for (int64_t n = 0; n < s.batch; n++) {
      if (l.as<int64_t>()[n] < 0 || l.as<int64_t>()[n] > s.keys) return false;
    }
  }
  spans = plain_spans(s, causal, l.as<int64_t>());
  return true;
}

// The instruction set that REGARD_ISA forces, or the best; null where the machine lacks it.
const Kernel* chosen_kernel() {
  const char* forced = std::getenv("REGARD_ISA");
  return regard::kernel(forced && *forced ? forced : nullptr);
}

// Attention where nothing special is asked, in one call: what Scores and forward do for all others. Tensors of another
// kind, or that do not fit together, are for others to serve or to refuse: None.
nb::object attend(nb::handle query, nb::handle key, nb::handle value, std::optional<double> scale, bool causal,
                  nb::handle lengths, nb::handle mask, nb::handle bias, nb::handle double_precision, int threads) {
  const Kernel* kernel = chosen_kernel();
  Array q, k, v, output, lse;
  if (!kernel || !read_array(query, q) || !read_array(key, k) || !read_array(value, v)) return nb::none();
  Scores s;
  Forward f;
  std::vector<int64_t> spans;
  if (!read_plain(q, k, v, s, f) || !read_options(scale, causal, lengths, mask, bias, s, spans)) return nb::none();
  const int64_t row = s.heads * f.value_dim;  // (B,Q,H,E) in memory, as models want it
  const int64_t sizes[] = {s.batch, s.heads, s.queries, f.value_dim};
  const int64_t strides[] = {s.queries * row, f.value_dim, row, 1}, lse_strides[] = {s.heads * s.queries, s.queries, 1};
  const nb::dlpack::dtype float64{uint8_t(nb::dlpack::dtype_code::Float), 64, 1};
  const auto of_output = empty_tensor(value, 4, sizes, strides, v.dtype, nb::none(), output);
  const auto of_lse = empty_tensor(value, 3, sizes, lse_strides, float64, double_precision, lse);
  f.output = {output.data, s.queries * row, f.value_dim, row};
  f.output_type = s.type;
  f.lse = lse.as<double>();
  in_large_pages(output);
  {
    nb::gil_scoped_release release;
    kernel->forward(s, f, threads);
  }
  return nb::make_tuple(of_output, of_lse);
}

// An empty gradient of a (B,H,N,D) tensor, which lies in memory as it does: autograd would copy another layout.
nb::object empty_gradient(nb::handle like, Strided<void>& to) {
  static const nb::handle empty_like = nb::object(nb::module_::import_("torch").attr("empty_like")).release();
  Array array;
  nb::object tensor = empty_like(like);
  expect(read_array(tensor, array), "gradient", "a tensor in the processor's memory");
  in_large_pages(array);
  to = {array.data, array.stride[0], array.stride[1], array.stride[2]};
  return tensor;
}

// The gradient of `attend`: query, key, value and options as they went in there. None where weights cannot be had from
// the lse, or where grad_output is of another kind.
nb::object attend_backward(nb::handle query, nb::handle key, nb::handle value, std::optional<double> scale, bool causal,
                           nb::handle lengths, nb::handle mask, nb::handle bias, const Array& output, const Array& lse,
                           nb::handle grad_output, nb::handle grad_lse, nb::handle grad_bias, double largest_lse,
                           int threads) {
  const Kernel* kernel = chosen_kernel();
  Array q, k, v, g;
  Scores s;
  Forward f;
  Backward b;
  std::vector<int64_t> spans;
  if (!kernel || !read_array(query, q) || !read_array(key, k) || !read_array(value, v) || !read_array(grad_output, g) ||
      !read_plain(q, k, v, s, f) || !read_options(scale, causal, lengths, mask, bias, s, spans) ||
      known_type(g) != s.type || (g.shape[3] > 1 && g.stride[3] != 1)) {
    return nb::none();
  }
  const Shape rows{s.batch, s.heads, s.queries}, outputs{s.batch, s.heads, s.queries, f.value_dim};
  b.value_dim = f.value_dim, b.value = f.value;
  b.output = strided<const void>(output, s.type, outputs, "output");
  b.grad_output = strided<const void>(g, s.type, outputs, "grad_output");
  b.lse = contiguous<double>(lse, rows, "lse");
  Array of_lse, of_bias;
  if (!grad_lse.is_none()) {
    expect(read_array(grad_lse, of_lse), "grad_lse", "a tensor in the processor's memory");
    b.grad_lse = contiguous<double>(of_lse, rows, "grad_lse");
  }
  if (!grad_bias.is_none()) {
    expect(read_array(grad_bias, of_bias) && known_type(of_bias) == Type::float32 &&
               read_broadcast(of_bias, s, b.grad_bias),
           "grad_bias", "float32 that broadcasts to batch, heads, queries and keys");
  }
  bool says_weights = true;
  for (int64_t n = 0; n < lse.size(); n++)
    says_weights &= !(std::abs(b.lse[n]) > largest_lse) | !std::isfinite(b.lse[n]);
  if (!says_weights) return nb::none();
  b.grad_type = s.type;
  const nb::object of_query = empty_gradient(query, b.grad_query), of_key = empty_gradient(key, b.grad_key);
  const nb::object of_value = empty_gradient(value, b.grad_value);
  {
    nb::gil_scoped_release release;
    kernel->backward(s, b, threads);
  }
  return nb::make_tuple(of_query, of_key, of_value);
}

constexpr const char* attend_doc = R"(Attention where nothing special is asked, in one call: (output, lse) or None.

query (B,H,Q,D), key (B,G,K,D) and value (B,G,K,E) of one type that the kernel computes with; None for others, for
shapes that do not fit together or have no elements, and where REGARD_ISA forces what the machine lacks.
scale: 1/√D if not given. causal: query i sees the keys j ≤ i + (K − Q). double_precision: torch.float64.
lengths (B), int64: keys at or past the length are unseen. mask, bool, True = may look, and bias, float, of up to four
dimensions that broadcast to (B,H,Q,K). None for each is none.
output (B,H,Q,E), in memory as (B,Q,H,E), of their type; lse (B,H,Q): float64.)";

constexpr const char* attend_backward_doc =
    R"(The gradient of attend: (grad_query, grad_key, grad_value), of their types.

output, lse: what attend gave. grad_output: of the type of output; grad_lse (B,H,Q), float64, or None for 0. grad_bias,
added to: float32 in the shape of the bias, or None. None where an lse beyond largest_lse does not say the weights, or
where grad_output is not of the query's type with dense rows.)";

}  // namespace

void bind_plain(nb::module_& m) {
  m.def("attend", &attend, "query"_a, "key"_a, "value"_a, "scale"_a.none(), "causal"_a, "lengths"_a.none(),
        "mask"_a.none(), "bias"_a.none(), "double_precision"_a, "threads"_a, attend_doc);
  m.def("attend_backward", &attend_backward, "query"_a, "key"_a, "value"_a, "scale"_a.none(), "causal"_a,
        "lengths"_a.none(), "mask"_a.none(), "bias"_a.none(), "output"_a, "lse"_a, "grad_output"_a, "grad_lse"_a.none(),
        "grad_bias"_a.none(), "largest_lse"_a, "threads"_a, attend_backward_doc);
}

}  // namespace regard
