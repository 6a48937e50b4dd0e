"""All validation of what `regard.attention` is given: every argument checked and brought into one form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor
from torch._C import (
    DispatchKey,
    _get_tracing_state,
    _is_any_autocast_enabled,
    _len_torch_dispatch_stack,
    _len_torch_function_stack,
)
from torch._C import _dispatch_tls_is_dispatch_key_included as _includes_key
from torch._C._autograd import _profiler_enabled
from torch._C._functorch import peek_interpreter_stack
from torch.autograd import forward_ad
from torch.compiler import is_compiling

from regard._typing import MaskMod

TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
HELD_BY_ALL_TYPES = 1e38  # of the arithmetic
QueryKeyValue = tuple[Tensor, Tensor, Tensor]
_MODES_BEFORE_DISPATCH = DispatchKey.PreDispatch
_NOTHING_BUT_TENSORS = (Tensor, torch.nn.Parameter)


def under_autocast(tensors: QueryKeyValue) -> QueryKeyValue:
    """The tensors in autocast's type where it is on, as torch's scaled_dot_product_attention has it: not float64."""
    if not isinstance(tensors[0], Tensor) or tensors[0].is_meta:  # a device that autocast does not know
        return tensors
    if not torch.is_autocast_enabled(tensors[0].device.type):
        return tensors
    dtype = torch.get_autocast_dtype(tensors[0].device.type)
    return tuple(t.to(dtype) if isinstance(t, Tensor) and t.dtype in TYPES[:3] else t for t in tensors)  # type: ignore


def plain(query: Any, key: Any, value: Any, lengths: Any, mask: Any, bias: Any) -> bool:
    """Whether these are nothing but tensors, and nobody watches.

    Most calls are such, and what is left to ask of them, the kernel asks (`regard.backends.cpu.attend`). Where it is
    False, nothing need be wrong.
    """
    return (
        unwatched()
        and type(query) in _NOTHING_BUT_TENSORS
        and type(key) in _NOTHING_BUT_TENSORS
        and type(value) in _NOTHING_BUT_TENSORS
        and not (query.is_neg() or key.is_neg() or value.is_neg())
        and (lengths is None or type(lengths) in _NOTHING_BUT_TENSORS)
        and (mask is None or type(mask) in _NOTHING_BUT_TENSORS)
        and (bias is None or (type(bias) in _NOTHING_BUT_TENSORS and not bias.is_neg()))
    )


def unwatched() -> bool:
    """Whether nobody but the caller gets to know of an operation: no mode, transform, tracer, profiler or autocast."""
    return (
        not is_compiling()
        and _len_torch_dispatch_stack() == 0
        and _len_torch_function_stack() == 0
        and peek_interpreter_stack() is None
        and _get_tracing_state() is None
        and forward_ad._current_level < 0
        and not _profiler_enabled()
        and not _is_any_autocast_enabled()
        and not _includes_key(_MODES_BEFORE_DISPATCH)
    )


def four_dimensional(tensors: QueryKeyValue) -> tuple[tuple[int, ...], QueryKeyValue]:
    """Query, key and value with one batch dimension, and the leading dimensions, heads last, of what comes out."""
    for name, tensor in zip(("query", "key", "value"), tensors, strict=True):
        _check(name, tensor, tensors[0])
    ndim = tensors[0].ndim
    query, key, value = tensors if ndim >= 4 else tuple(tensor[(None,) * (4 - ndim)] for tensor in tensors)
    if query.shape[-1] == 0:
        raise ValueError("query: expected a dim of 1 at least. Got 0.")
    batch = _batch(query, key, value)
    _check_sizes(query, key, value)
    heads = query.shape[-3]
    if len(batch) > 1 or not query.shape[0] == key.shape[0] == value.shape[0]:
        query, key, value = (_flat(tensor, batch) for tensor in (query, key, value))
    return (*batch, heads)[max(0, 4 - ndim) :], (query, key, value)


def _check_sizes(query: Tensor, key: Tensor, value: Tensor) -> None:
    *_, heads, _, dim = query.shape
    *_, groups, keys, key_dim = key.shape
    if dim == key_dim and tuple(value.shape[-3:-1]) == (groups, keys) and groups and heads % groups == 0:
        return
    for name, axis, dim, tensor, like in (
        ("key", "dim", -1, key, query),
        ("value", "heads", -3, value, key),
        ("value", "keys", -2, value, key),
    ):
        if tensor.shape[dim] != like.shape[dim]:
            other = "query" if name == "key" else "key"
            expected = f"expected {axis} = {like.shape[dim]}, as the {other}"
            raise ValueError(f"{name}: {expected}. Got {tensor.shape[dim]}.")
    if (heads % groups if groups else heads) != 0:
        raise ValueError(f"key: expected a number of heads that divides the query's {heads}. Got {groups}.")


def _check(name: str, tensor: Any, query: Tensor) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor. Got {type(tensor).__name__}; torch.as_tensor makes one.")
    if tensor.dtype not in TYPES:
        raise TypeError(f"{name}: expected float32, bfloat16, float16 or float64. Got {tensor.dtype}.")
    strided(name, tensor)
    if tensor.is_meta:
        raise ValueError(f"{name}: expected a tensor with numbers in it. Got one on the meta device.")
    if tensor.dtype != query.dtype or tensor.device != query.device:
        got, wanted = f"{tensor.dtype} on {tensor.device}", f"{query.dtype} on {query.device}"
        raise TypeError(f"{name}: expected {wanted}, as the query. Got {got}.")
    if tensor.ndim < 2 or tensor.ndim != query.ndim:
        raise ValueError(
            f"{name}: expected (positions, dim), (heads, positions, dim) or (batch, …, heads, positions, dim), "
            f"with as many dimensions as the query. Got {tensor.ndim}."
        )


def _batch(query: Tensor, key: Tensor, value: Tensor) -> tuple[int, ...]:
    """The batch dimensions; one of size 1 is repeated for the others, as torch broadcasts."""
    batch = tuple(query.shape[:-3])
    if key.shape[:-3] == batch == value.shape[:-3]:
        return batch
    for name, tensor in (("key", key), ("value", value)):
        sizes = []
        for size, other in zip(tensor.shape[:-3], batch, strict=True):
            if size != other and size != 1 and other != 1:
                expected = f"expected batch = {other}, as the {'query' if name == 'key' else 'key'}"
                raise ValueError(f"{name}: {expected}. Got {size}; only a batch of 1 is repeated.")
            sizes.append(other if size == 1 else size)
        batch = tuple(sizes)
    return batch


def _flat(tensor: Tensor, batch: tuple[int, ...]) -> Tensor:
    if tensor.shape[:-3] != batch:
        tensor = tensor.expand(*batch, *tensor.shape[-3:])
    return tensor if len(batch) == 1 else tensor.flatten(0, -4)


def scale(given: float | None, query: Tensor) -> float:
    """1/√D if not given. Raises ValueError where the type of the arithmetic does not hold it."""
    if given is None:
        return float(float(query.shape[-1]) ** -0.5)  # torch.jit.trace has tensors for sizes
    number = _number("scale", given)
    if abs(number) < HELD_BY_ALL_TYPES:
        return number
    dtype = torch.promote_types(query.dtype, torch.float32)
    if abs(number) > torch.finfo(dtype).max:
        raise ValueError(f"scale: expected a number that {dtype} holds. Got {number}.")
    return number


def softcap(given: float | None) -> float | None:
    """A number > 0, or None."""
    if given is None:
        return None
    if (number := _number("softcap", given)) <= 0:
        raise ValueError(f"softcap: expected a number > 0. Got {given}.")
    return number


def _number(name: str, number: Any) -> float:
    """A float of Python's numbers and numpy's."""
    real = isinstance(number, (int, float, Real, Integral)) and not isinstance(number, bool)
    if not real or not abs(number) < float("inf"):
        raise ValueError(f"{name}: expected a finite number. Got {number!r}.")
    return float(number)


def bias(given: Tensor | None, shape: tuple[int, ...], query: Tensor) -> Tensor | None:
    """The bias in four dimensions, in float32 if it is float64 and the tensors are not."""
    if given is None:
        return None
    if not isinstance(given, Tensor) or not given.dtype.is_floating_point:
        got = given.dtype if isinstance(given, Tensor) else type(given).__name__
        raise TypeError(f"bias: expected a float tensor. Got {got}; who may look at whom is for mask=.")
    given = broadcastable("bias", given, shape, query.device).resolve_neg()
    return _in_float32(given) if given.dtype == torch.float64 != query.dtype else given


def _in_float32(bias: Tensor) -> Tensor:
    """A finite minus infinity of float64 stays finite: a row of nothing else is the mean, not one that sees none."""
    largest, infinite = torch.finfo(torch.float32).max, bias.isinf()
    finite = bias.masked_fill(infinite, 0)
    zero = finite - finite.detach()  # with the gradient that clamp would stop
    return (torch.where(infinite, bias, bias.clamp(-largest, largest)).detach() + zero).to(torch.float32)


def sinks(given: Tensor | None, query: Tensor) -> Tensor | None:
    """One logit a head; its numbers are checked unless they are not known yet."""
    if given is None:
        return None
    if not isinstance(given, Tensor) or not given.dtype.is_floating_point:
        raise TypeError(f"sinks: expected a float tensor. Got {getattr(given, 'dtype', type(given).__name__)}.")
    strided("sinks", given)
    if given.shape != query.shape[1:2] or given.device != query.device:
        got = f"{tuple(given.shape)} on {given.device}"
        raise ValueError(f"sinks: expected one logit a head, ({query.shape[1]},), on {query.device}. Got {got}.")
    if known(given):
        finite_sinks(given)
    return given.resolve_neg()


def finite_sinks(given: Tensor) -> None:
    """Raises ValueError for a sink of +inf."""
    if given.isposinf().any():
        raise ValueError(
            "sinks: expected numbers below infinity, or −inf for none. Got inf; a sink of 1e4 takes all of the weight."
        )


def names(collect: Iterable[str]) -> Iterable[str]:
    """The names of what to collect."""
    if isinstance(collect, str) or not isinstance(collect, Iterable):
        raise TypeError(f'collect: expected several names, as in collect=("entropy",). Got {collect!r}.')
    return collect


def described(*tensors: Tensor) -> str:
    """Query, key and value with their shapes and types, for messages."""

    def describe(tensor: Tensor) -> str:
        if not isinstance(tensor, Tensor):
            return type(tensor).__name__
        shape = "nested" if tensor.is_nested else tuple(tensor.shape)
        return f"{shape} {str(tensor.dtype).removeprefix('torch.')}"

    return ", ".join(f"{name} {describe(t)}" for name, t in zip(("query", "key", "value"), tensors, strict=True))


# Who may see whom


def aligned_to_lengths(causal: bool | str, lengths: Any, segments: Any) -> bool:
    if not isinstance(causal, str):
        return False
    if causal != "lengths":
        raise ValueError(f'causal: expected True, False or "lengths". Got {causal!r}.')
    if lengths is None or segments is not None:
        raise ValueError('causal: "lengths" needs lengths=, to which the last query is aligned, and no segments=.')
    return True


def window(given: tuple[int | None, int | None] | None) -> tuple[int | None, int | None]:
    if given is None:
        return None, None
    expected = "window: expected (left, right), each a number of keys ≥ 0 or None for no bound"
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise ValueError(f"{expected}. Got {given!r}.")
    for side in given:
        if side is not None and (not isinstance(side, (int, Integral)) or isinstance(side, bool) or side < 0):
            raise ValueError(f"{expected}. Got {given!r}.")
    left, right = (side if side is None else min(int(side), 1 << 62) for side in given)
    return left, right


def integers(name: str, values: Any, device: torch.device) -> Tensor:
    """A tensor of int64 on the device, from a tensor, an array or a sequence of integers."""
    if isinstance(values, Tensor):
        strided(name, values)
        tensor = values
    else:
        try:
            tensor = torch.as_tensor(values, device=device)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"{name}: expected integers. Got {values!r}.") from None
    if tensor.dtype.is_floating_point or tensor.dtype.is_complex or tensor.dtype == torch.bool:
        raise TypeError(f"{name}: expected integers. Got {tensor.dtype}.")
    return tensor.to(device, torch.long)


def segments(given: Any, device: torch.device) -> tuple[Tensor, Tensor] | None:
    if given is None:
        return None
    pair = isinstance(given, tuple) and len(given) == 2 and not isinstance(given[0], (int, Integral))
    both = given if pair else (given, given)
    query_bounds, key_bounds = (integers("segments", bounds, device) for bounds in both)
    for bounds in (query_bounds, key_bounds):
        if bounds.ndim != 1 or len(bounds) < 2:
            raise ValueError(f"segments: expected two boundaries at least, 0 and the end. Got {bounds.tolist()}.")
    return query_bounds, key_bounds


def mask_mod(given: MaskMod, shape: Sequence[int], device: torch.device) -> None:
    if not callable(given):
        raise TypeError(f"mask: expected a bool tensor or a callable(batch, head, query, key). Got {given!r}.")
    if 0 in shape:
        return
    first = torch.zeros(1, 1, 1, 1, dtype=torch.long, device=device)
    answer = given(first, first[0], first[0, 0], first[0, 0, 0])
    if not isinstance(answer, Tensor) or answer.dtype != torch.bool:
        raise TypeError(f"mask: expected a callable that returns a bool tensor, True = may look. Got {answer!r}.")


# Tensors


def strided(name: str, tensor: Tensor) -> None:
    """Raises TypeError for a tensor that is sparse or nested."""
    if tensor.is_nested or tensor.layout != torch.strided:
        kind = "a nested tensor" if tensor.is_nested else str(tensor.layout)
        dense = "segments= takes packed sequences" if tensor.is_nested else "to_dense() makes one"
        raise TypeError(f"{name}: expected a dense tensor. Got {kind}; {dense}.")


def broadcastable(name: str, tensor: Tensor, shape: Sequence[int], device: torch.device) -> Tensor:
    """`tensor` in four dimensions, checked against (…,H,Q,K); expanded only where some of several batch dims are 1."""
    strided(name, tensor)
    fits = tensor.ndim <= len(shape) and all(
        given in (1, full) for given, full in zip(tensor.shape, shape[len(shape) - tensor.ndim :], strict=True)
    )
    if not fits:
        letters = "(B,H,Q,K)" if len(shape) == 4 else "(…,H,Q,K)"
        expected = f"expected a shape that broadcasts to {letters} = {tuple(shape)}"
        raise ValueError(f"{name}: {expected}. Got {tuple(tensor.shape)}.")
    if tensor.device != device:
        raise ValueError(f"{name}: expected it on {device}, where the query is. Got {tensor.device}.")
    tensor = tensor[(None,) * (len(shape) - tensor.ndim)]
    if len(shape) == 4:
        return tensor
    if any(size != 1 for size in tensor.shape[:-3]):
        tensor = tensor.expand(*shape[:-3], *tensor.shape[-3:])
    return tensor.flatten(0, -4)


def known(*tensors: Tensor | None) -> bool:
    """Whether the numbers in tensors can be read now: not where torch.compile, torch.func or fake tensors stand in.

    Nor where they are traced: other numbers will take their place.
    """
    if traced() or torch._C._functorch.peek_interpreter_stack() is not None:
        return False
    return all(tensor is None or type(tensor) in (Tensor, torch.nn.Parameter) for tensor in tensors)


def traced() -> bool:
    """Whether torch.compile, torch.export, torch.jit.trace or make_fx records torch's operations, to run them later."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return True
    mode, keys = torch._C._get_dispatch_mode, torch._C._TorchDispatchModeKey
    return mode(keys.PROXY) is not None or mode(keys.FAKE) is not None or _includes_key(_MODES_BEFORE_DISPATCH)
