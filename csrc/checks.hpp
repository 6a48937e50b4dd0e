// Checks of the arguments of the bindings: types, shapes and strides, by the name that Python gave them.

#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "arrays.hpp"
#include "kernel/attention.hpp"

namespace regard {

using Optional = std::optional<Array>;
using Shape = std::initializer_list<int64_t>;

inline Type type_named(const std::string& name) {
  if (name == "float32") return Type::float32;
  if (name == "bfloat16") return Type::bfloat16;
  expect(name == "float16", "dtype", "float32, bfloat16 or float16");
  return Type::float16;
}

inline bool has_type(const Array& array, nanobind::dlpack::dtype_code code, int bits) {
  return array.dtype.code == uint8_t(code) && array.dtype.bits == bits && array.dtype.lanes == 1;
}

// Nothing where the kernel does not compute with the type.
inline std::optional<Type> known_type(const Array& array) {
  if (has_type(array, nanobind::dlpack::dtype_code::Float, 32)) return Type::float32;
  if (has_type(array, nanobind::dlpack::dtype_code::Bfloat, 16)) return Type::bfloat16;
  if (has_type(array, nanobind::dlpack::dtype_code::Float, 16)) return Type::float16;
  return {};
}

inline Type type_of(const Array& array, const char* name) {
  const std::optional<Type> type = known_type(array);
  expect(type.has_value(), name, "float32, bfloat16 or float16");
  return *type;
}

inline void expect_shape(const Array& array, Shape shape, const char* name) {
  if (array.ndim == int32_t(shape.size()) && std::equal(shape.begin(), shape.end(), array.shape)) return;
  std::string sizes;
  for (const int64_t size : shape) sizes += (sizes.empty() ? "" : ", ") + std::to_string(size);
  expect(false, name, ("shape (" + sizes + ")").c_str());
}

// Of this shape, without gaps.
inline void expect_contiguous(const Array& array, Shape shape, const char* name) {
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
inline float* contiguous(const Array& array, Shape shape, const char* name) {
  expect(has_type(array, nanobind::dlpack::dtype_code::Float, 32), name, "float32");
  expect_contiguous(array, shape, name);
  return array.as<float>();
}
template <>
inline double* contiguous(const Array& array, Shape shape, const char* name) {
  expect(has_type(array, nanobind::dlpack::dtype_code::Float, 64), name, "float64");
  expect_contiguous(array, shape, name);
  return array.as<double>();
}
template <>
inline int64_t* contiguous(const Array& array, Shape shape, const char* name) {
  expect(has_type(array, nanobind::dlpack::dtype_code::Int, 64), name, "int64");
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

inline const Kernel& kernel_of(const std::string& isa, int threads) {
  const Kernel* kernel = regard::kernel(isa.c_str());
  expect(kernel, "isa", "one of kernels()");
  expect(threads >= 1, "threads", "1 or more");
  return *kernel;
}

// The scores as Python holds them.
struct BoundScores {
  Scores s;
  std::vector<nanobind::object> owners;  // of the memory that s points into

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
    expect(!mask || has_type(*mask, nanobind::dlpack::dtype_code::Bool, 8), "mask", "bool");
    s.mask = broadcast<const bool>(mask, s, "mask");
    s.bias = broadcast<const void>(bias, s, "bias");
    if (bias) s.bias_type = type_of(*bias, "bias");
    s.sinks = contiguous_or_null<float>(sinks, {s.heads}, "sinks");
    s.scale = float(scale), s.softcap = float(softcap);
    expect(s.softcap >= 0, "softcap", "0 for none, or more");
  }
};

// Reads query, key and value of an attention without options; false where they are not of the kernel's kind, do not fit
// together, or have no elements.
inline bool read_plain(const Array& query, const Array& key, const Array& value, Scores& s, Forward& f) {
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

// Adds to the module what is bound in maps.cpp.
void bind_maps(nanobind::module_& m);

}  // namespace regard
