"""The native kernel for processors: attention, its statistics and its gradient, never N × N. Its source is in csrc/.

PyTorch calls it through the operators of operator.py.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from regard.backends import streaming
from regard.backends.protocol import Capabilities, Gradients, Results, Softmax, Statistics, exceeds
from regard.mask import Block, part
from regard.scores import Scores, fits_float32

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
# Beyond it a float64 lse is rounded by more than the last digit of a float32 weight; of scores of −1e30, which are
# meant as minus infinity, it says nothing at all. A softmax of whole rows does not need it.
LARGEST_LSE = 2.0**29
CAPABILITIES = Capabilities(
    device_types=frozenset({"cpu"}),
    dtypes=frozenset(TYPES),
    largest_dim=LARGEST_DIM,
    largest_top=LARGEST_TOP,
    callable_masks=False,
    reads_spans=True,
    largest_lse=LARGEST_LSE,
    ranks_by_score=True,
)
CPU = torch.device("cpu")  # said wherever a tensor is made: the default device may be another


def instruction_sets() -> list[str]:
    """Those of the kernel's instruction sets that this machine has, the best first."""
    return _kernel.kernels()


def instruction_set() -> str:
    """The instruction set in use: the best that this machine has, or what REGARD_ISA forces.

    Raises ValueError where it has none of that name.
    """
    return _instruction_set(os.environ.get("REGARD_ISA", ""))


@lru_cache
def _instruction_set(forced: str) -> str:
    there = instruction_sets()
    if not forced:
        return there[0]
    if forced.lower() not in there:
        raise ValueError(f"REGARD_ISA: expected one of {', '.join(there)}, which this machine has. Got {forced!r}.")
    return forced.lower()


def unavailable() -> str:
    """Why there is no kernel; empty where there is. Raises ValueError for a REGARD_ISA that this machine lacks."""
    if not _missing:
        instruction_set()
        return ""
    return (
        "regard was installed without its native kernel, because no C++ compiler was found; install a compiler, then "
        f"regard again ({_missing})"
    )


# As torch.compiler.assume_constant_result does, which would import torch._dynamo for it.
unavailable._dynamo_marked_constant = True  # type: ignore[attr-defined]


def reasons(scores: Scores, value: Tensor) -> list[str]:
    """Why this backend cannot serve.

    Raises ValueError for a REGARD_ISA that this machine lacks: to force one and get another would be no answer.
    """
    if why := unavailable():
        return [why]
    reasons = CAPABILITIES.reasons(scores, value)
    if scores.softcap is not None and not fits_float32(scores.softcap):
        reasons.append(f"softcap={scores.softcap} is beyond what float32 holds")
    return reasons


# What the kernel takes


class _Call:
    """The scores as the binding takes them; keeps the tensors alive whose addresses it hands out."""

    def __init__(self, query, key, start, stop, mask, bias, sinks, scale: float, softcap: float) -> None:
        batch, heads, queries, dim = query.shape
        self.query, self.key = _rows(query), _rows(key)
        self.spans = None if start is None else (start.contiguous(), stop.contiguous())
        self.bias = bias if bias is None else (bias if bias.dtype in TYPES else bias.float()).resolve_neg()
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
    def of(cls, scores: Scores, sinks: Tensor | None) -> _Call:
        mask = scores.mask
        start, stop = mask.spans if mask.bounded else (None, None)
        given = mask.given if isinstance(mask.given, Tensor) else None
        softcap = scores.softcap or 0.0
        return cls(scores.query, scores.key, start, stop, given, scores.bias, sinks, scores.scale, softcap)


def _rows(tensor: Tensor) -> Tensor:
    """The numbers of a row side by side, and no sign that is still to be turned: addresses tell of neither."""
    if tensor.is_neg():
        tensor = tensor.resolve_neg()
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


# Attention and its gradient


def forward(scores: Scores, value: Tensor, sinks: Tensor | None, entropy: bool, top: int) -> Results:
    """Output, lse, and the entropy and the `top` largest weights with their keys, where they are asked for."""
    call, value = _Call.of(scores, sinks), _rows(value)
    batch, heads, queries, _ = scores.shape
    rows = batch, heads, queries
    output = _by_position(value, heads, queries)
    lse = value.new_empty(rows, dtype=torch.float64)
    entropies = value.new_empty(rows if entropy else 0, dtype=torch.float32)
    values = value.new_empty((*rows, top), dtype=torch.float32)
    indices = value.new_empty((*rows, top), dtype=torch.int64)
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


def _by_position(like: Tensor, heads: int, rows: int, dtype: torch.dtype | None = None) -> Tensor:
    """An empty (B,H,N,D) that lies in memory as (B,N,H,D): a projection, or its gradient, takes it without a copy."""
    batch, dim = like.shape[0], like.shape[3]
    return like.new_empty((batch, rows, heads, dim), dtype=dtype or like.dtype).transpose(1, 2)


def backward(
    scores: Scores,
    value: Tensor,
    sinks: Tensor | None,
    output: Tensor,
    lse: Tensor,
    grad_output: Tensor,
    grad_lse: Tensor | None,
    wants_bias: bool,
) -> Gradients:
    """Gradients of query, key, value, bias and sinks."""
    if exceeds(lse, LARGEST_LSE):
        return streaming.backward(scores, value, sinks, output, grad_output, grad_lse, wants_bias)
    call, value, grad_output, bias = _Call.of(scores, sinks), _rows(value), _rows(grad_output), scores.bias
    through = (grad_output.float() * output.float()).sum(-1)  # (B, H, Q): what the normaliser takes back
    if grad_lse is not None:
        through = through - grad_lse.float()
    through = through.contiguous()
    grad_query, grad_key, grad_value = (
        _by_position(t, t.shape[1], t.shape[2], torch.float32).zero_() for t in (scores.query, scores.key, value)
    )
    grad_bias = bias.new_zeros(bias.shape, dtype=torch.float32) if wants_bias and bias is not None else None
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
        broadcast(grad_bias),
        *_how(),
    )
    grad_sinks = None
    if sinks is not None:
        taken = (sinks.double()[:, None] - lse).exp().masked_fill(lse == -torch.inf, 0)
        grad_sinks = -(taken * through).sum((0, 2))
    return grad_query, grad_key, grad_value, grad_bias, grad_sinks


# Reductions over the weights: the functions of streaming.py, of the same names and meaning


def statistics(softmax: Softmax, names: Sequence[str]) -> Statistics:
    """Row statistics by name: "entropy", "distance", "topk:k"."""
    found: Statistics = {}
    call = _Call.of(softmax.scores, softmax.sinks)
    for name in names:
        top = int(name.removeprefix("topk:")) if name.startswith("topk:") else 0
        if top > LARGEST_TOP:
            found |= streaming.statistics(softmax, [name])
            continue
        numbers = torch.empty((*call.rows, top) if top else call.rows, dtype=torch.float32, device=CPU)
        indices = torch.empty((*call.rows, top), dtype=torch.int64, device=CPU)
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
    call, groups = _Call.of(_in_float32(softmax.scores), softmax.sinks), softmax.scores.key.shape[1]
    heads = groups if x.shape[1] == 1 else x.shape[1]
    x = _rows(x.float()).expand(call.rows[0], heads, -1, -1)
    output = torch.empty(*call.rows, x.shape[3], dtype=torch.float32, device=CPU)
    for first in range(0, x.shape[3], LARGEST_DIM):
        some, to = x[..., first : first + LARGEST_DIM], output[..., first : first + LARGEST_DIM]
        _kernel.forward(
            *(call.scores, some.shape[3], strided(some), heads, strided(to), 0, 0, 0, 0, 0, 0, 0),
            *_how(),
        )
    return output


def apply_transposed(softmax: Softmax, y: Float[Tensor, "B|1 H|G|1 Q F"]) -> Float[Tensor, "B H K F"]:
    """w.T @ y."""
    call, (batch, heads, _) = _Call.of(softmax.scores, softmax.sinks), softmax.scores.query.shape[:3]
    y = _rows(y.float())
    y = (y if y.shape[1] in (1, heads) else y.repeat_interleave(softmax.scores.repeat, 1)).expand(batch, heads, -1, -1)
    parts = []
    for first in range(0, y.shape[3], LARGEST_DIM):
        some = y[..., first : first + LARGEST_DIM]
        part = torch.empty(batch, heads, call.keys, some.shape[3], dtype=torch.float32, device=CPU)
        _kernel.transposed(call.scores, softmax.lse.data_ptr(), some.shape[3], strided(some), part.data_ptr(), *_how())
        parts.append(part)
    return torch.cat(parts, -1) if parts else y.new_empty(batch, heads, call.keys, 0)


def received(softmax: Softmax) -> Float[Tensor, "B H K"]:
    """Σ_i w_ij, summed in float64."""
    queries, keys = softmax.scores.shape[2:]
    one, each = torch.zeros(queries, dtype=torch.long, device=CPU), torch.arange(keys, device=CPU)
    return grouped(softmax, one, each, (1, keys), "sum")[..., 0, :]


def grouped(
    softmax: Softmax, queries: Int[Tensor, "Q"], keys: Int[Tensor, "K"], sizes: tuple[int, int], reduce: str
) -> Float[Tensor, "B H R C"]:
    """Weights gathered into `sizes` cells: row i goes to cell queries[i], column j to keys[j]; −1 is left out.

    reduce: "sum" or "max" of the weights that fall into a cell.
    """
    call = _Call.of(softmax.scores, softmax.sinks)
    cells = torch.empty(*call.rows[:2], *sizes, dtype=torch.float64, device=CPU)
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
    scores, sinks, lse = softmax.scores, softmax.sinks, softmax.lse[at.batch, at.heads].contiguous()
    mask, bias = scores.mask, scores.bias
    start, stop = (part(bound, at.batch) for bound in mask.spans) if mask.bounded else (None, None)
    given = part(mask.given, at.batch, at.heads) if isinstance(mask.given, Tensor) else None
    bias = None if bias is None else part(bias, at.batch, at.heads)
    query, key = scores.query[at.batch, at.heads], scores.key[at.batch, scores.groups(at.heads)]
    sinks = None if sinks is None else sinks[at.heads]
    call = _Call(query, key, start, stop, given, bias, sinks, scores.scale, scores.softcap or 0.0)
    rows, columns = at.rows.stop - at.rows.start, at.columns.stop - at.columns.start
    weights = torch.empty(*call.rows[:2], rows, columns, dtype=torch.float32, device=CPU)
    _kernel.in_large_pages(weights.data_ptr(), weights.nbytes)
    where = at.rows.start, rows, at.columns.start, columns
    _kernel.tile(call.scores, lse.data_ptr(), *where, weights.data_ptr(), *_how())
    return weights


def _in_float32(scores: Scores) -> Scores:
    """The same with queries and keys in float32, whose weights are not rounded to half precision on the way."""
    return replace(scores, query=scores.query.float(), key=scores.key.float())
