"""What makes a matrix that is not stored pass for a tensor: operators, methods and functions, by way of `dense()`."""

# mypy: no-warn-return-any
# PyTorch's own operators are declared to return Any.

from __future__ import annotations

import builtins
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np

# Methods and attributes of tensors that shape, type and device answer.
METADATA = {
    "dim", "element_size", "is_complex", "is_conj", "is_contiguous", "is_floating_point", "is_inference", "is_neg",
    "is_nested", "is_quantized", "is_signed", "is_sparse", "itemsize", "layout", "nbytes", "ndimension", "nelement",
    "numel", "size", "storage_offset", "stride",
}  # fmt: skip
ON_DEVICE = {
    "get_device", "is_cpu", "is_cuda", "is_mps", "is_mtia", "is_xpu", "new", "new_empty", "new_full", "new_ones",
    "new_tensor", "new_zeros",
}  # fmt: skip
# What would act on a copy and leave no trace.
WITHOUT_EFFECT = {
    "__delitem__", "__iadd__", "__iand__", "__ifloordiv__", "__ilshift__", "__imod__", "__imul__", "__ior__",
    "__ipow__", "__irshift__", "__isub__", "__itruediv__", "__ixor__", "__setitem__", "data_ptr", "grad",
    "register_hook", "register_post_accumulate_grad_hook", "retain_grad", "retains_grad", "storage", "untyped_storage",
}  # fmt: skip


class TensorLike(ABC):
    """A matrix with the shape, type and device of a tensor, and its operators, methods and functions.

    What a subclass does not define itself acts on `dense()`, and is refused with the size where that is too large. What
    changes a tensor in place is refused: it would change a copy.
    """

    @property
    @abstractmethod
    def shape(self) -> torch.Size:
        """The size of each dimension."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """The type of its numbers."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where it is computed."""

    @abstractmethod
    def dense(self) -> Tensor:
        """The tensor itself."""

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    @property
    def _label(self) -> str:
        """Class and shape, for messages."""
        return f"{type(self).__name__}{tuple(self.shape)}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={tuple(self.shape)}, dtype={self.dtype}, device={self.device})"

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Tensor:
        return self.dense()[index]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[n] for n in range(len(self)))

    def __reversed__(self) -> Tensor:
        return self.dense().__reversed__()

    def __contains__(self, number: Any) -> bool:
        return number in self.dense()

    # Numbers

    def _only(self, error: Callable[[str], Exception] = ValueError) -> Tensor:
        if self.shape.numel() != 1:
            raise error(
                f"{self._label}: expected a single number, as its truth or value. Take a "
                "part of it, or any() or all() of dense()."
            )
        return self.dense()

    def __bool__(self) -> bool:
        return bool(self._only(RuntimeError))

    def __float__(self) -> builtins.float:
        return builtins.float(self._only())

    def __int__(self) -> int:
        return int(self._only())

    def __complex__(self) -> complex:
        return complex(self._only())

    def __index__(self) -> int:
        return self._only(TypeError).__index__()

    # Comparison

    __hash__ = object.__hash__

    def __eq__(self, other: Any) -> Any:
        return False if other is None else self.dense() == other

    def __ne__(self, other: Any) -> Any:
        return True if other is None else self.dense() != other

    def __lt__(self, other: Any) -> Tensor:
        return self.dense() < other

    def __le__(self, other: Any) -> Tensor:
        return self.dense() <= other

    def __gt__(self, other: Any) -> Tensor:
        return self.dense() > other

    def __ge__(self, other: Any) -> Tensor:
        return self.dense() >= other

    # Arithmetic

    def __neg__(self) -> Tensor:
        return -self.dense()

    def __pos__(self) -> Tensor:
        return +self.dense()

    def __abs__(self) -> Tensor:
        return abs(self.dense())

    def __invert__(self) -> Tensor:
        return ~self.dense()

    def __add__(self, other: Any) -> Tensor:
        return self.dense() + other

    def __radd__(self, other: Any) -> Tensor:
        return other + self.dense()

    def __sub__(self, other: Any) -> Tensor:
        return self.dense() - other

    def __rsub__(self, other: Any) -> Tensor:
        return other - self.dense()

    def __mul__(self, other: Any) -> Tensor:
        return self.dense() * other

    def __rmul__(self, other: Any) -> Tensor:
        return other * self.dense()

    def __truediv__(self, other: Any) -> Tensor:
        return self.dense() / other

    def __rtruediv__(self, other: Any) -> Tensor:
        return other / self.dense()

    def __floordiv__(self, other: Any) -> Tensor:
        return self.dense() // other

    def __rfloordiv__(self, other: Any) -> Tensor:
        return other // self.dense()

    def __mod__(self, other: Any) -> Tensor:
        return self.dense() % other

    def __rmod__(self, other: Any) -> Tensor:
        return other % self.dense()

    def __pow__(self, other: Any) -> Tensor:
        return self.dense() ** other

    def __rpow__(self, other: Any) -> Tensor:
        return other ** self.dense()

    def __matmul__(self, other: Any) -> Tensor:
        return self.dense() @ other

    def __rmatmul__(self, other: Any) -> Tensor:
        return torch.matmul(other, self.dense())

    # Of bits: torch refuses them for numbers with a fraction, in its own words

    def __and__(self, other: Any) -> Tensor:
        return self.dense() & other

    def __rand__(self, other: Any) -> Tensor:
        return other & self.dense()

    def __or__(self, other: Any) -> Tensor:
        return self.dense() | other

    def __ror__(self, other: Any) -> Tensor:
        return other | self.dense()

    def __xor__(self, other: Any) -> Tensor:
        return self.dense() ^ other

    def __rxor__(self, other: Any) -> Tensor:
        return other ^ self.dense()

    def __lshift__(self, other: Any) -> Tensor:
        return self.dense() << other

    def __rlshift__(self, other: Any) -> Tensor:
        return other << self.dense()

    def __rshift__(self, other: Any) -> Tensor:
        return self.dense() >> other

    def __rrshift__(self, other: Any) -> Tensor:
        return other >> self.dense()

    # Elsewhere, and of another type

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """On another device or of another type, as torch.Tensor.to."""
        return self.dense().to(*args, **kwargs)

    def cpu(self) -> Any:
        """On the processor."""
        return self.to("cpu")

    def cuda(self, device: Any = None, non_blocking: bool = False) -> Any:
        """On a GPU; the current one if not given."""
        return self.to("cuda" if device is None else device, non_blocking=non_blocking)

    def float(self) -> Any:
        """With results in float32."""
        return self.to(torch.float32)

    def double(self) -> Any:
        """With results in float64; they have the digits of the scores."""
        return self.to(torch.float64)

    def half(self) -> Any:
        """With results in float16."""
        return self.to(torch.float16)

    def bfloat16(self) -> Any:
        """With results in bfloat16."""
        return self.to(torch.bfloat16)

    def type(self, dtype: Any = None, non_blocking: bool = False) -> Any:
        """The name of the type, or the same matrix with results of another."""
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        return like.type() if dtype is None else self.to(like.type(dtype), non_blocking=non_blocking)

    def type_as(self, other: Any) -> Any:
        """With the type and device of another tensor."""
        return self.to(other)

    def contiguous(self, memory_format: torch.memory_format = torch.contiguous_format) -> Any:
        """The same: what is asked for is contiguous."""
        return self

    # In place

    def _refuse(self, what: str, error: Callable[[str], Exception] = TypeError) -> NoReturn:
        raise error(
            f"{self._label}: {what} needs a stored tensor, and this one is computed when it "
            "is looked at. Take dense() and use that."
        )

    def _refuse_in_place(self, *arguments: Any) -> NoReturn:
        self._refuse("changing it in place")

    __setitem__ = __delitem__ = __iadd__ = __isub__ = __imul__ = __itruediv__ = __ifloordiv__ = __imod__ = __ipow__ = (
        __iand__
    ) = __ior__ = __ixor__ = __ilshift__ = __irshift__ = _refuse_in_place

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            self._refuse(f"setting .{name}", AttributeError)
        super().__setattr__(name, value)

    # Methods and functions

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(Tensor, name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if name in METADATA:
            return getattr(torch.empty(self.shape, dtype=self.dtype, device="meta"), name)
        if name in ON_DEVICE:
            return getattr(torch.empty(0, dtype=self.dtype, device=self.device), name)
        if not callable(getattr(Tensor, name)):
            return self._refuse(f".{name}", AttributeError) if name in WITHOUT_EFFECT else getattr(self.dense(), name)
        if name.endswith("_") or name in WITHOUT_EFFECT:
            return lambda *args, **kwargs: self._refuse(f"{name}()")
        return lambda *args, **kwargs: getattr(self.dense(), name)(*densely(args), **densely(kwargs))

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name, first = function.__name__, args[0] if args else next(iter(kwargs.values()))
        if isinstance(first, TensorLike) and name in METADATA:
            attribute = getattr(first, name)
            return attribute(*args[1:], **kwargs) if callable(attribute) else attribute
        if function is Tensor.matmul and not isinstance(first, TensorLike):  # x @ w
            return args[1].__rmatmul__(first)
        in_place = name in WITHOUT_EFFECT or (name.endswith("_") and not name.endswith("__")) or kwargs.get("inplace")
        changed = [kwargs.get("out"), first if in_place else None]
        for thing in _inside(changed):
            thing._refuse(f"{name}(), which writes into it,")
        return function(*densely(args), **densely(kwargs))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError(f"{self._label}: there is no array yet that need not be copied.")
        array = self.dense().detach().cpu().numpy()
        return array if dtype is None else array.astype(dtype, copy=False)

    def __dlpack__(self, **options: Any) -> Any:
        return self.dense().__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return torch.empty(0, device=self.device).__dlpack_device__()


def _inside(thing: Any) -> Iterator[TensorLike]:
    if isinstance(thing, TensorLike):
        yield thing
    elif isinstance(thing, list | tuple):
        for item in thing:
            yield from _inside(item)


def densely(thing: Any) -> Any:
    """The same with tensors in the place of what only looks like them, in lists, tuples and dictionaries too."""
    if isinstance(thing, TensorLike):
        return thing.dense()
    if isinstance(thing, list | tuple):
        items = [densely(item) for item in thing]
        return type(thing)(*items) if hasattr(thing, "_fields") else type(thing)(items)
    if isinstance(thing, dict):
        return {name: densely(item) for name, item in thing.items()}
    return thing
