"""The native kernel for processors: attention, its statistics and its gradient, never N × N. Its source is in csrc/.

PyTorch calls it through the operators of operator.py.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, TypedDict

import torch
from torch import Tensor

from regard.backends import gradient, streaming
from regard.backends.protocol import Capabilities, Gradients, Matrix, Results, Statistics, exceeds
from regard.mask import Block
from regard.scores import Scores, fits_float32

try:
    from regard import _kernel
except ImportError as error:
    _missing = str(error)
else:
    _missing = ""

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Num

DTYPES = frozenset({torch.float32, torch.bfloat16, torch.float16})
LARGEST_DIM, LARGEST_TOP = 256, 64
# Beyond it a float64 lse is rounded by more than the last digit of a float32 weight; of scores of −1e30, which are
# meant as minus infinity, it says nothing at all. A softmax of whole rows does not need it.
LARGEST_LSE = 2.0**29
CAPABILITIES = Capabilities(
    device_types=frozenset({"cpu"}),
    dtypes=DTYPES,
    largest_dim=LARGEST_DIM,
    largest_top=LARGEST_TOP,
    callable_masks=False,
    reads_spans=True,
    largest_lse=LARGEST_LSE,
    ranks_by_score=True,
)
CPU = torch.device("cpu")  # named wherever a tensor is made: the default device may be another


def instruction_sets() -> list[str]:
    """Those of the kernel's instruction sets that this machine has, the best first."""
    return _kernel.kernels()


def instruction_set() -> str:
    """The instruction set in use: the best that this machine has, or what REGARD_ISA forces.

    Raises ValueError where the machine lacks the one that is forced.
    """
    return _instruction_set(os.environ.get("REGARD_ISA", ""))


@lru_cache
def _instruction_set(forced: str) -> str:
    available = instruction_sets()
    if not forced:
        return available[0]
    if forced.lower() not in available:
        expected = ", ".join(available)
        raise ValueError(f"REGARD_ISA: expected one of {expected}, which this machine has. Got {forced!r}.")
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


class _Execution(TypedDict):
    isa: str
    threads: int


def _execution() -> _Execution:
    """By which instruction set and how many threads: keyword arguments of every call."""
    return {"isa": instruction_set(), "threads": torch.get_num_threads()}


def _scores(scores: Scores, sinks: Tensor | None) -> _kernel.Scores:
    mask, bias = scores.mask, scores.bias
    start = stop = None
    if mask.bounded:
        start, stop = (bound.contiguous() for bound in mask.spans)
    if bias is not None:
        bias = (bias if bias.dtype in DTYPES else bias.float()).resolve_neg()
    return _kernel.Scores(
        query=_with_dense_rows(scores.query),
        key=_with_dense_rows(scores.key),
        scale=scores.scale,
        softcap=scores.softcap or 0.0,
        start=start,
        stop=stop,
        mask=mask.given if isinstance(mask.given, Tensor) else None,
        bias=bias,
        sinks=None if sinks is None else sinks.float().contiguous(),
    )


def _with_dense_rows(tensor: Tensor) -> Tensor:
    """The elements of a row side by side, and no negation that is still to be carried out: the kernel reads memory."""
    if tensor.is_neg():
        tensor = tensor.resolve_neg()
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] == 1 else tensor.contiguous()


def _empty_by_position(like: Tensor, heads: int, rows: int, dtype: torch.dtype | None = None) -> Tensor:
    """An empty (B,H,N,D) that lies in memory as (B,N,H,D): a projection, or its gradient, takes it without a copy."""
    batch, dim = like.shape[0], like.shape[3]
    return like.new_empty((batch, rows, heads, dim), dtype=dtype or like.dtype).transpose(1, 2)


# Attention and its gradient


def forward(scores: Scores, value: Tensor, sinks: Tensor | None, entropy: bool, top: int) -> Results:
    """Output, lse, and the entropy and the `top` largest weights with their keys, where they are asked for."""
    value = _with_dense_rows(value)
    batch, heads, queries, _ = scores.shape
    rows = batch, heads, queries
    output = _empty_by_position(value, heads, queries)
    lse = value.new_empty(rows, dtype=torch.float64)
    entropies = value.new_empty(rows if entropy else 0, dtype=torch.float32)
    values = value.new_empty((*rows, top), dtype=torch.float32)
    keys = value.new_empty((*rows, top), dtype=torch.int64)
    _kernel.in_large_pages(output)
    _kernel.forward(
        _scores(scores, sinks),
        value=value,
        output=output,
        lse=lse,
        entropy=entropies if entropy else None,
        top_values=values if top else None,
        top_keys=keys if top else None,
        **_execution(),
    )
    return output, lse, entropies, values, keys


def backward(
    scores: Scores,
    value: Tensor,
    sinks: Tensor | None,
    output: Tensor,
    lse: Tensor,
    grad_output: Tensor,
    grad_lse: Tensor | None,
    bias_needs_grad: bool,
) -> Gradients:
    """Gradients of query, key, value, bias and sinks."""
    if exceeds(lse, LARGEST_LSE):
        return gradient.backward(scores, value, sinks, output, grad_output, grad_lse, bias_needs_grad)
    bias = scores.bias
    delta = (grad_output.float() * output.float()).sum(-1)  # (B, H, Q)
    if grad_lse is not None:
        delta = delta - grad_lse.float()
    grad_query, grad_key, grad_value = (
        _empty_by_position(t, t.shape[1], t.shape[2], torch.float32).zero_() for t in (scores.query, scores.key, value)
    )
    grad_bias = bias.new_zeros(bias.shape, dtype=torch.float32) if bias_needs_grad and bias is not None else None
    _kernel.backward(
        _scores(scores, sinks),
        lse=lse,
        value=_with_dense_rows(value),
        grad_output=_with_dense_rows(grad_output),
        delta=delta.contiguous(),
        grad_query=grad_query,
        grad_key=grad_key,
        grad_value=grad_value,
        grad_bias=grad_bias,
        **_execution(),
    )
    grad_sinks = None
    if sinks is not None:
        grad_sinks = -(streaming.sink_mass(sinks, lse) * delta).sum((0, 2))
    return grad_query, grad_key, grad_value, grad_bias, grad_sinks


# Reductions over the weights


def statistics(matrix: Matrix, names: Sequence[str], rows_: slice | None = None) -> Statistics:
    """Row statistics by name: "entropy", "distance", "topk:k"."""
    statistics: Statistics = {}
    if rows_ is not None or "max_score" in names:
        return streaming.statistics(matrix, names, rows_)
    scores, rows = _scores(matrix.scores, matrix.sinks), matrix.scores.shape[:3]
    for name in names:
        top = int(name.removeprefix("topk:")) if name.startswith("topk:") else 0
        if top > LARGEST_TOP:
            statistics |= streaming.statistics(matrix, [name])
        elif top:
            values = torch.empty((*rows, top), dtype=torch.float32, device=CPU)
            keys = torch.empty((*rows, top), dtype=torch.int64, device=CPU)
            _kernel.forward(scores, top_values=values, top_keys=keys, **_execution())
            statistics[name] = values, keys
        else:
            row = torch.empty(rows, dtype=torch.float32, device=CPU)
            entropy, distance = (row, None) if name == "entropy" else (None, row)
            _kernel.forward(scores, entropy=entropy, distance=distance, **_execution())
            statistics[name] = (row,)
    return statistics


def apply(matrix: Matrix, x: Num[Tensor, "#B _ K F"]) -> Float[Tensor, "B H Q F"]:
    """w @ x."""
    if not matrix.is_weights:
        return streaming.apply(matrix, x)
    batch, heads, queries, _ = matrix.scores.shape
    value_heads = matrix.scores.key.shape[1] if x.shape[1] == 1 else x.shape[1]
    x = _with_dense_rows(x.float()).expand(batch, value_heads, -1, -1)
    output = torch.empty(batch, heads, queries, x.shape[3], dtype=torch.float32, device=CPU)
    scores = _scores(_in_float32(matrix.scores), matrix.sinks)
    for vectors, result in zip(x.split(LARGEST_DIM, -1), output.split(LARGEST_DIM, -1), strict=True):
        _kernel.forward(scores, value=vectors, output=result, **_execution())
    return output


def apply_transposed(matrix: Matrix, y: Num[Tensor, "#B _ Q F"]) -> Float[Tensor, "B H K F"]:
    """w.T @ y."""
    if not matrix.is_weights:
        return streaming.apply_transposed(matrix, y)
    batch, heads, _, keys = matrix.scores.shape
    y = _with_dense_rows(y.float())
    y = (y if y.shape[1] in (1, heads) else y.repeat_interleave(matrix.scores.n_rep, 1)).expand(batch, heads, -1, -1)
    scores = _scores(matrix.scores, matrix.sinks)
    results = []
    for vectors in y.split(LARGEST_DIM, -1):
        result = torch.empty(batch, heads, keys, vectors.shape[3], dtype=torch.float32, device=CPU)
        _kernel.transposed(scores, lse=matrix.lse, vectors=vectors, output=result, **_execution())
        results.append(result)
    return torch.cat(results, -1)


def largest(matrix: Matrix, k: int, magnitude: bool) -> tuple[Tensor, Tensor]:
    """The k largest numbers of each row of a map."""
    return streaming.largest(matrix, k, magnitude)


def grouped(
    matrix: Matrix, queries: Int[Tensor, "Q"], keys: Int[Tensor, "K"], sizes: tuple[int, int], reduce: str
) -> Float[Tensor, "B H R C"]:
    """Weights gathered into `sizes` cells: row i goes to cell queries[i], column j to keys[j]; −1 is left out.

    reduce: "sum" or "max" of the weights of a cell.
    """
    if not matrix.is_weights:
        return streaming.grouped(matrix, queries, keys, sizes, reduce)
    batch, heads, _, _ = matrix.scores.shape
    cells = torch.empty(batch, heads, *sizes, dtype=torch.float64, device=CPU)
    _kernel.pool(
        _scores(matrix.scores, matrix.sinks),
        lse=matrix.lse,
        row_cells=queries.contiguous(),
        column_cells=keys.contiguous(),
        cells=cells,
        largest=reduce == "max",
        **_execution(),
    )
    return cells.float()


def dense(matrix: Matrix) -> Float[Tensor, "B H Q K"]:
    """The whole matrix."""
    return tile(matrix, Block(*(slice(0, size) for size in matrix.scores.shape)))


def tile(matrix: Matrix, at: Block) -> Float[Tensor, "b h q k"]:
    """A block of the matrix, whose heads make up whole groups or lie in one."""
    if not matrix.is_weights or not (isinstance(at.rows, slice) and isinstance(at.columns, slice)):
        return streaming.tile(matrix, at)
    scores, lse = matrix.scores.of_heads(at.batch, at.heads), matrix.lse[at.batch, at.heads].contiguous()
    sinks = None if matrix.sinks is None else matrix.sinks[at.heads]
    rows, columns = at.rows.stop - at.rows.start, at.columns.stop - at.columns.start
    weights = torch.empty(*scores.shape[:2], rows, columns, dtype=torch.float32, device=CPU)
    _kernel.in_large_pages(weights)
    _kernel.tile(
        _scores(scores, sinks),
        lse=lse,
        first_row=at.rows.start,
        first_column=at.columns.start,
        weights=weights,
        **_execution(),
    )
    return weights


def _in_float32(scores: Scores) -> Scores:
    """The same with queries and keys in float32, whose weights are not rounded to half precision on the way."""
    return replace(scores, query=scores.query.float(), key=scores.key.float())
