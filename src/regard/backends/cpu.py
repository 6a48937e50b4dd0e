"""The native kernel for processors: attention, its statistics and its gradient, never N × N. Its source is in csrc/.

PyTorch meets it as one operator, torch.ops.regard.attention, and the operator of its gradient.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from regard.backends import streaming
from regard.mask import Block, part
from regard.scores import Scores, Softmax

try:
    from regard import _kernel
except ImportError as error:
    _missing = str(error)
else:
    _missing = ""

if TYPE_CHECKING:
    from jaxtyping import Float, Int

TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
LARGEST_DIM, LARGEST_TOP = 256, 64


def instruction_sets() -> list[str]:
    """Those of the kernel's instruction sets that this machine has, the best first."""
    return _kernel.kernels()


def instruction_set() -> str:
    """The instruction set in use: the best that this machine has, or what REGARD_ISA forces.

    Raises ValueError where it has none of that name.
    """
    there = instruction_sets()
    forced = os.environ.get("REGARD_ISA")
    if forced and forced not in there:
        raise ValueError(f"REGARD_ISA: expected one of {', '.join(there)}, which this machine has. Got {forced!r}.")
    return forced or there[0]


def reasons(scores: Scores, value: Tensor) -> list[str]:
    """Why this backend cannot serve."""
    if _missing:
        return [f"regard was installed without its kernel, for want of a C++ compiler; install it again ({_missing})"]
    found = []
    try:
        instruction_set()
    except ValueError as error:
        found.append(str(error).rstrip("."))
    if scores.query.device.type != "cpu":
        found.append(f"the tensors are on {scores.query.device}")
    if scores.query.dtype not in TYPES:
        found.append(f"it computes in float32, and the tensors are {scores.query.dtype}")
    if max(scores.query.shape[3], value.shape[3]) > LARGEST_DIM:
        found.append(f"a dim of {max(scores.query.shape[3], value.shape[3])} is more than {LARGEST_DIM}")
    if scores.mask.given is not None and not isinstance(scores.mask.given, Tensor):
        found.append("mask= is a rule, which only Python can ask")
    return found


def run(
    scores: Scores, value: Tensor, sinks: Tensor | None, collect: Sequence[str]
) -> tuple[Tensor, Tensor, streaming.Statistics]:
    """Output, lse in float64 and statistics; the first two differentiable in query, key, value, bias and sinks."""
    top = max((_count(name) for name in collect if _count(name) <= LARGEST_TOP), default=0)
    arguments = _arguments(scores, value, sinks)
    output, lse, entropy, values, indices = _way_in(scores, value, sinks)(*arguments, "entropy" in collect, top)
    found: streaming.Statistics = {}
    for name in collect:
        if name == "entropy":
            found[name] = (entropy,)
        elif _count(name) <= top:
            found[name] = values[..., : _count(name)], indices[..., : _count(name)]
        else:
            found |= streaming.statistics(Softmax(scores, sinks, lse), [name])
    return output, lse, found


def _count(name: str) -> int:
    return int(name.removeprefix("topk:")) if name.startswith("topk:") else 0


def _way_in(scores: Scores, value: Tensor, sinks: Tensor | None) -> Callable[..., tuple[Tensor, ...]]:
    """The operator where autograd or torch.compile follows the computation, the kernel itself where nobody does."""
    tensors = [t for t in (scores.query, scores.key, value, scores.bias, sinks) if t is not None]
    if _functorch():
        return _Attention.apply
    recorded = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    plain = all(type(t) in (Tensor, torch.nn.Parameter) for t in tensors)
    return torch.ops.regard.attention if recorded or not plain or torch.compiler.is_compiling() else _attention


def _functorch() -> bool:
    return not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None


def _arguments(scores: Scores, value: Tensor, sinks: Tensor | None) -> tuple[Any, ...]:
    mask, bias = scores.mask, scores.bias
    start, stop = mask.spans if mask.bounded else (None, None)
    return (
        *(scores.query, scores.key, value, start, stop, mask.given, bias, sinks),
        *(scores.scale, scores.softcap or 0.0),
    )


# What the kernel takes


class _Call:
    """The scores as the binding takes them; keeps the tensors alive whose addresses it hands out."""

    def __init__(self, query, key, start, stop, mask, bias, sinks, scale: float, softcap: float) -> None:
        batch, heads, queries, dim = query.shape
        self.query, self.key = _rows(query), _rows(key)
        self.spans = None if start is None else (start.contiguous(), stop.contiguous())
        self.bias = bias if bias is None or bias.dtype in TYPES else bias.float()
        self.sinks = None if sinks is None else sinks.float().contiguous()
        self.mask = mask
        self.rows = (batch, heads, queries)
        self.keys = key.shape[2]
        spans = (0, 0, 0)
        if self.spans is not None:
            spans = (*(bound.data_ptr() for bound in self.spans), queries if len(self.spans[0]) > 1 else 0)
        self.scores = (
            TYPES[query.dtype],
            (batch, heads, key.shape[1], queries, self.keys, dim),
            strided(self.query),
            strided(self.key),
            spans,
            broadcast(mask),
            broadcast(self.bias),
            0 if self.bias is None else TYPES[self.bias.dtype],
            0 if self.sinks is None else self.sinks.data_ptr(),
            scale,
            softcap,
        )

    @classmethod
    def of(cls, softmax: Softmax) -> _Call:
        scores, sinks, _ = softmax
        query, key, _, *rest = _arguments(scores, scores.key, sinks)
        return cls(query, key, *rest)


def _rows(tensor: Tensor) -> Tensor:
    """The numbers of a row must lie side by side."""
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


def strided(tensor: Tensor) -> tuple[int, ...]:
    """Address, and strides of batch, head and row."""
    return (tensor.data_ptr(), *tensor.stride()[:3])


def broadcast(tensor: Tensor | None) -> tuple[int, ...]:
    """Address, and strides of all four dimensions, 0 where it is broadcast."""
    if tensor is None:
        return (0, 0, 0, 0, 0)
    strides = (0 if size == 1 else stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (tensor.data_ptr(), *strides)


def _how() -> tuple[str, int]:
    return instruction_set(), torch.get_num_threads()


# The operator


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    start: Tensor | None,
    stop: Tensor | None,
    mask: Tensor | None,
    bias: Tensor | None,
    sinks: Tensor | None,
    scale: float,
    softcap: float,
    entropy: bool,
    top: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    call, value = _Call(query, key, start, stop, mask, bias, sinks, scale, softcap), _rows(value)
    output, lse, entropies, values, indices = _room(query, value, entropy, top)
    _kernel.in_large_pages(output.data_ptr(), output.nbytes)
    _kernel.forward(
        call.scores,
        value.shape[3],
        strided(value),
        value.shape[1],
        strided(output),
        TYPES[output.dtype],
        lse.data_ptr(),
        entropies.data_ptr() if entropy else 0,
        0,
        top,
        values.data_ptr(),
        indices.data_ptr(),
        *_how(),
    )
    return output, lse, entropies, values, indices


def _room(query: Tensor, value: Tensor, entropy: bool, top: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Empty tensors for what the operator gives; those of no numbers were not asked for."""
    batch, heads, queries, _ = query.shape
    rows = (batch, heads, queries)
    return (
        value.new_empty(batch, queries, heads, value.shape[3]).transpose(1, 2),  # as models want it
        query.new_empty(rows, dtype=torch.float64),
        query.new_empty(rows if entropy else 0, dtype=torch.float32),
        query.new_empty((*rows, top), dtype=torch.float32),
        query.new_empty((*rows, top), dtype=torch.int64),
    )


def _by_position(like: Tensor, dtype: torch.dtype) -> Tensor:
    """An empty (B,H,N,D) that lies in memory as (B,N,H,D): a projection's gradient takes it without a copy."""
    batch, heads, rows, dim = like.shape
    return like.new_empty((batch, rows, heads, dim), dtype=dtype).transpose(1, 2)


def _attention_backward(
    grad_output: Tensor,
    grad_lse: Tensor | None,
    output: Tensor,
    lse: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    start: Tensor | None,
    stop: Tensor | None,
    mask: Tensor | None,
    bias: Tensor | None,
    sinks: Tensor | None,
    scale: float,
    softcap: float,
    wants_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    call, value, grad_output = (
        _Call(query, key, start, stop, mask, bias, sinks, scale, softcap),
        _rows(value),
        _rows(grad_output),
    )
    through = (grad_output.float() * output.float()).sum(-1)  # (B, H, Q): what the normaliser takes back
    if grad_lse is not None:
        through = through - grad_lse.float()
    through = through.contiguous()
    grad_query, grad_key, grad_value = (_by_position(t, torch.float32).zero_() for t in (query, key, value))
    grad_bias = torch.zeros(bias.shape if wants_bias and bias is not None else (0, 0, 0, 0), dtype=torch.float32)
    _kernel.backward(
        call.scores,
        lse.data_ptr(),
        value.shape[3],
        strided(value),
        strided(grad_output),
        through.data_ptr(),
        grad_query.data_ptr(),
        grad_key.data_ptr(),
        grad_value.data_ptr(),
        broadcast(grad_bias if wants_bias else None),
        *_how(),
    )
    grad_sinks = query.new_zeros(0, dtype=torch.float32)
    if sinks is not None:
        taken = (sinks.double()[:, None] - lse).exp().masked_fill(lse == -torch.inf, 0)
        grad_sinks = -(taken * through).sum((0, 2)).to(sinks.dtype)
    return (
        grad_query.to(query.dtype),
        grad_key.to(key.dtype),
        grad_value.to(value.dtype),
        grad_bias if bias is None else grad_bias.to(bias.dtype),
        grad_sinks,
    )


_OPERATOR = torch.library.custom_op("regard::attention", _attention, mutates_args=(), device_types="cpu")
_BACKWARD = torch.library.custom_op(
    "regard::attention_backward", _attention_backward, mutates_args=(), device_types="cpu"
)


@_OPERATOR.register_fake
def _(query, key, value, start, stop, mask, bias, sinks, scale, softcap, entropy, top):
    return _room(query, value, entropy, top)


@_BACKWARD.register_fake
def _(
    grad_output, grad_lse, output, lse, query, key, value, start, stop, mask, bias, sinks, scale, softcap, wants_bias
):
    grad_bias = query.new_empty(bias.shape, dtype=bias.dtype) if wants_bias else query.new_empty((0, 0, 0, 0))
    grads = (_by_position(t, t.dtype) for t in (query, key, value))
    return *grads, grad_bias, query.new_empty(0) if sinks is None else sinks.new_empty(sinks.shape)


def _setup(ctx, inputs, output) -> None:
    *tensors, scale, softcap, _, _ = inputs
    ctx.save_for_backward(*tensors, *output[:2])
    ctx.numbers = scale, softcap
    ctx.mark_non_differentiable(*output[2:])
    ctx.set_materialize_grads(False)


def _differentiate(ctx, grad_output, grad_lse, *_):
    *tensors, output, lse = ctx.saved_tensors
    bias, sinks = tensors[-2:]
    if grad_output is None:
        grad_output = torch.zeros_like(output)
    wants_bias = bias is not None and ctx.needs_input_grad[6]
    backward = _AttentionBackward.apply if _functorch() else torch.ops.regard.attention_backward
    grads = backward(grad_output, grad_lse, output, lse, *tensors, *ctx.numbers, wants_bias)
    grad_query, grad_key, grad_value, grad_bias, grad_sinks = grads
    return (
        *(grad_query, grad_key, grad_value, None, None, None),
        *(grad_bias if wants_bias else None, None if sinks is None else grad_sinks),
        *(None, None, None, None),
    )


def _no_second_derivative(ctx, *grads):
    raise RuntimeError("attention: there is no second derivative; take the gradient without create_graph=True.")


_OPERATOR.register_autograd(_differentiate, setup_context=_setup)
_BACKWARD.register_autograd(_no_second_derivative)


def _one_by_one(operator):
    """The rule of torch.vmap: the operator for each, stacked."""

    def rule(info, in_dims, *arguments):
        each = [
            operator(*(a if d is None else a.select(d, n) for a, d in zip(arguments, in_dims, strict=True)))
            for n in range(info.batch_size)
        ]
        return tuple(torch.stack(parts) for parts in zip(*each, strict=True)), (0,) * len(each[0])

    return rule


def _function(operator, setup, differentiate) -> type[torch.autograd.Function]:
    """An operator for torch.func, which looks for its gradient there and not where operators register it."""

    def forward(*arguments):
        with torch.no_grad():
            return operator(*arguments)

    methods = {"forward": forward, "setup_context": setup, "backward": differentiate}
    members: dict[str, Any] = {name: staticmethod(method) for name, method in methods.items()}
    return type("Attention", (torch.autograd.Function,), {"generate_vmap_rule": True} | members)


_Attention = _function(torch.ops.regard.attention, _setup, _differentiate)
_AttentionBackward = _function(torch.ops.regard.attention_backward, lambda *_: None, _no_second_derivative)

_OPERATOR.register_vmap(_one_by_one(_OPERATOR))
_BACKWARD.register_vmap(_one_by_one(_BACKWARD))


# Reductions over the weights: the functions of streaming.py, of the same names and meaning


def statistics(softmax: Softmax, names: Sequence[str]) -> streaming.Statistics:
    """Row statistics by name: "entropy", "distance", "topk:k"."""
    found: streaming.Statistics = {}
    call = _Call.of(softmax)
    for name in names:
        top = _count(name)
        if top > LARGEST_TOP:
            found |= streaming.statistics(softmax, [name])
            continue
        numbers = torch.empty((*call.rows, top) if top else call.rows, dtype=torch.float32)
        indices = torch.empty((*call.rows, top), dtype=torch.int64)
        wanted = {name.partition(":")[0]: numbers.data_ptr()}
        _kernel.forward(
            *(call.scores, 0, (0, 0, 0, 0), call.scores[1][2], (0, 0, 0, 0), 0, 0),
            *(wanted.get("entropy", 0), wanted.get("distance", 0), top, wanted.get("topk", 0), indices.data_ptr()),
            *_how(),
        )
        found[name] = (numbers, indices) if top else (numbers,)
    return found


def apply(softmax: Softmax, x: Float[Tensor, "B|1 H|G|1 K F"]) -> Float[Tensor, "B H Q F"]:
    """w @ x."""
    call, groups = _Call.of(_in_float32(softmax)), softmax.scores.key.shape[1]
    heads = groups if x.shape[1] == 1 else x.shape[1]
    x = _rows(x.float()).expand(call.rows[0], heads, -1, -1)
    output = torch.empty(*call.rows, x.shape[3], dtype=torch.float32)
    for first in range(0, x.shape[3], LARGEST_DIM):
        some, to = x[..., first : first + LARGEST_DIM], output[..., first : first + LARGEST_DIM]
        _kernel.forward(
            *(call.scores, some.shape[3], strided(some), heads, strided(to), 0, 0, 0, 0, 0, 0, 0),
            *_how(),
        )
    return output


def apply_transposed(softmax: Softmax, y: Float[Tensor, "B|1 H|G|1 Q F"]) -> Float[Tensor, "B H K F"]:
    """w.T @ y."""
    call, (batch, heads, _) = _Call.of(softmax), softmax.scores.query.shape[:3]
    y = _rows(y.float())
    y = (y if y.shape[1] in (1, heads) else y.repeat_interleave(softmax.scores.repeat, 1)).expand(batch, heads, -1, -1)
    parts = []
    for first in range(0, y.shape[3], LARGEST_DIM):
        some = y[..., first : first + LARGEST_DIM]
        part = torch.empty(batch, heads, call.keys, some.shape[3], dtype=torch.float32)
        _kernel.transposed(call.scores, softmax.lse.data_ptr(), some.shape[3], strided(some), part.data_ptr(), *_how())
        parts.append(part)
    return torch.cat(parts, -1) if parts else torch.empty(batch, heads, call.keys, 0)


def received(softmax: Softmax) -> Float[Tensor, "B H K"]:
    """Σ_i w_ij, summed in float64."""
    queries, keys = softmax.scores.shape[2:]
    one, each = torch.zeros(queries, dtype=torch.long), torch.arange(keys)
    return grouped(softmax, one, each, (1, keys), "sum")[..., 0, :]


def grouped(
    softmax: Softmax, queries: Int[Tensor, "Q"], keys: Int[Tensor, "K"], sizes: tuple[int, int], reduce: str
) -> Float[Tensor, "B H R C"]:
    """Weights gathered into `sizes` cells: row i goes to cell queries[i], column j to keys[j]; −1 is left out.

    reduce: "sum" or "max" of the weights that fall into a cell.
    """
    call = _Call.of(softmax)
    cells = torch.empty(*call.rows[:2], *sizes, dtype=torch.float64)
    queries, keys = queries.contiguous(), keys.contiguous()
    _kernel.cells(
        call.scores,
        softmax.lse.data_ptr(),
        queries.data_ptr(),
        keys.data_ptr(),
        *sizes,
        reduce == "max",
        cells.data_ptr(),
        *_how(),
    )
    return cells.float()


def dense(softmax: Softmax) -> Float[Tensor, "B H Q K"]:
    """All of the matrix."""
    return tile(softmax, Block(*(slice(0, size) for size in softmax.scores.shape)))


def tile(softmax: Softmax, at: Block) -> Float[Tensor, "b h q k"]:
    """A part of the matrix, whose heads make up whole groups or lie in one."""
    if not (isinstance(at.rows, slice) and isinstance(at.columns, slice)):
        return streaming.tile(softmax, at)
    scores, lse = softmax.scores, softmax.lse[at.batch, at.heads].contiguous()
    query, key, _, start, stop, mask, bias, sinks, *numbers = _arguments(scores, scores.key, softmax.sinks)
    start, stop = (t if t is None else part(t, at.batch) for t in (start, stop))
    mask, bias = (t if t is None else part(t, at.batch, at.heads) for t in (mask, bias))
    query, key = query[at.batch, at.heads], key[at.batch, scores.groups(at.heads)]
    call = _Call(query, key, start, stop, mask, bias, None if sinks is None else sinks[at.heads], *numbers)
    rows, columns = at.rows.stop - at.rows.start, at.columns.stop - at.columns.start
    weights = torch.empty(*call.rows[:2], rows, columns, dtype=torch.float32)
    _kernel.in_large_pages(weights.data_ptr(), weights.nbytes)
    where = at.rows.start, rows, at.columns.start, columns
    _kernel.tile(call.scores, lse.data_ptr(), *where, weights.data_ptr(), *_how())
    return weights


def _in_float32(softmax: Softmax) -> Softmax:
    """The same with queries and keys in float32, whose weights are not rounded to half precision on the way."""
    scores, sinks, lse = softmax
    query, key = scores.query.float(), scores.key.float()
    return Softmax(Scores(query, key, scores.mask, scores.scale, scores.bias, scores.softcap), sinks, lse)


def serves(softmax: Softmax) -> bool:
    """Whether the reductions are for this module: where the lse is its own, in float64 beside float32 scores."""
    scores = softmax.scores
    return softmax.lse.dtype != scores.dtype and not reasons(scores, scores.key) and not _too_large(softmax.lse)


def _too_large(lse: Float[Tensor, "B H Q"]) -> bool:
    """Whether exp(score − lse) is no longer a weight to the last digit of a float32.

    Beyond 2²⁹ a float64 lse is rounded by more than that; of scores of −1e30, which are meant as minus infinity, it
    says nothing at all. A softmax of whole rows does not need it.
    """
    return bool(((lse.abs() > 2.0**29) & lse.isfinite()).any())
