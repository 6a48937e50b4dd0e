// Tensors as arguments of the bindings: where their numbers lie, of which type, shape and strides.
//
// PyTorch hands these out through a table of C functions, DLPack's exchange API
// (https://dmlc.github.io/dlpack/latest/c_api.html), in some nanoseconds. Releases without that table go through
// nanobind's own import, which calls the tensor's __dlpack__ in Python.

#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "kernel/attention.hpp"

namespace regard {

// Raises ValueError in Python.
inline void expect(bool holds, const char* name, const char* expected) {
  if (!holds) throw std::invalid_argument(std::string("regard._kernel: ") + name + ": expected " + expected);
}

// A tensor in the processor's memory.
struct Array {
  nanobind::object owner;  // keeps the memory
  char* data = nullptr;
  nanobind::dlpack::dtype dtype{};
  int32_t ndim = 0;
  int64_t shape[4] = {}, stride[4] = {};  // strides in elements, 0 where a dimension has one element

  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data);
  }
  int64_t size() const {
    int64_t size = 1;
    for (int32_t d = 0; d < ndim; d++) size *= shape[d];
    return size;
  }
};

// The layout of DLPack's structs, version 1; what is not used here has no type.
struct ManagedTensor {
  uint32_t major, minor;
  void* context;
  void (*deleter)(ManagedTensor*);
  uint64_t flags;
  nanobind::dlpack::dltensor view;
};
struct ExchangeTable {
  uint32_t major, minor;
  void* previous;
  int (*allocate)(const nanobind::dlpack::dltensor* like, ManagedTensor** tensor, void* context,
                  void (*set_error)(void* context, const char* kind, const char* message));
  void* managed_from_object;
  int (*managed_to_object)(ManagedTensor* tensor, void** object);
  int (*view_of_object)(void* object, nanobind::dlpack::dltensor* view);
};

// Null where the object's type has no table of the version that is known here.
inline const ExchangeTable* exchange_table(nanobind::handle object) {
  static PyTypeObject* cached_type = nullptr;  // types that have one live as long as the process
  static const ExchangeTable* cached = nullptr;
  PyTypeObject* type = Py_TYPE(object.ptr());
  if (type == cached_type) return cached;
  const nanobind::object capsule =
      nanobind::getattr(nanobind::handle((PyObject*)type), "__dlpack_c_exchange_api__", nanobind::none());
  const ExchangeTable* table = nullptr;
  if (PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api")) {
    table = static_cast<const ExchangeTable*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
    if (table->major != 1 || !table->view_of_object) table = nullptr;
  }
  if (table) cached_type = type, cached = table;
  return table;
}

// False where the object is no tensor in the processor's memory.
inline bool read_array(nanobind::handle object, Array& array) {
  if (const ExchangeTable* table = exchange_table(object)) {
    nanobind::dlpack::dltensor view{};
    if (table->view_of_object(object.ptr(), &view) != 0) {
      PyErr_Clear();
      return false;
    }
    if (view.device.device_type != nanobind::device::cpu::value || view.ndim > 4) return false;
    array.data = static_cast<char*>(view.data) + view.byte_offset, array.dtype = view.dtype, array.ndim = view.ndim;
    for (int32_t d = 0; d < view.ndim; d++) array.shape[d] = view.shape[d], array.stride[d] = view.strides[d];
  } else {
    nanobind::ndarray<> view;
    if (!nanobind::try_cast(object, view)) return false;
    if (view.device_type() != nanobind::device::cpu::value || view.ndim() > 4) return false;
    array.data = static_cast<char*>(view.data()), array.dtype = view.dtype(), array.ndim = int32_t(view.ndim());
    for (int32_t d = 0; d < array.ndim; d++) {
      array.shape[d] = int64_t(view.shape(size_t(d))), array.stride[d] = view.stride(size_t(d));
    }
  }
  for (int32_t d = 0; d < array.ndim; d++) {
    if (array.shape[d] == 1) array.stride[d] = 0;
  }
  array.owner = nanobind::borrow(object);
  return true;
}

// For memory so large that malloc has it fresh from the system each time, 2 MiB at a time instead of 4 KiB: of the time
// that short sequences take, a quarter would go into getting pages.
inline void in_large_pages([[maybe_unused]] const Array& array) {
#ifdef MADV_HUGEPAGE
  constexpr uint64_t page = uint64_t(2) << 20;
  const uint64_t bytes = uint64_t(array.size()) * array.dtype.bits / 8;
  const auto data = reinterpret_cast<uint64_t>(array.data);
  const uint64_t from = (data + page - 1) / page * page, to = (data + bytes) / page * page;
  if (bytes > 16 * page) madvise(reinterpret_cast<void*>(from), to - from, MADV_HUGEPAGE);  // a hint: may be ignored
#endif
}

}  // namespace regard

template <>
struct nanobind::detail::type_caster<regard::Array> {
  NB_TYPE_CASTER(regard::Array, const_name("torch.Tensor"))
  bool from_python(handle source, uint8_t, cleanup_list*) noexcept {
    try {
      return regard::read_array(source, value);
    } catch (const std::exception&) {
      return false;
    }
  }
};
