"""The native kernel for processors: attention, its statistics and its gradient, never N × N. Its source is in csrc/.

PyTorch calls it through the operators of operator.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, TypedDict

import torch
from torch import Tensor

from regard.backends import gradient, streaming
from regard.backends.protocol import Capabilities, Gradients, Matrix, Results, Statistics, exceeds
from regard.mask import Block, select_broadcast
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
LARGEST_DIM, LARGEST_TOP = 512, 64
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
NUMBERS_AT_ONCE = 1 << 21  # answers of a mask that is a rule
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


def multiplies_bfloat16() -> bool:
    """Whether the instruction set in use has products of bfloat16; others widen them to float32."""
    return instruction_set() in {"amx", "avx512bf16"}


def available() -> bool:
    """Whether there is a kernel."""
    return not _missing


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


def execution() -> _Execution:
    """By which instruction set and how many threads: keyword arguments of every call."""
    return {"isa": instruction_set(), "threads": torch.get_num_threads()}


def _scores(
    scores: Scores, sinks: Tensor | None, rows: slice | None = None, given: Tensor | None = None
) -> _kernel.Scores:
    """The scores, or a run of their rows; `given` is the mask of these rows, that of the scores if not given."""
    mask, bias = scores.mask, scores.bias
    rows = slice(0, scores.shape[2]) if rows is None else rows
    start = stop = None
    if mask.bounded:
        start, stop = (bound[:, rows].contiguous() for bound in mask.spans)
    if given is None and isinstance(mask.given, Tensor):
        given = _of_rows(mask.given, rows)
    if bias is not None:
        bias = _of_rows(bias if bias.dtype in DTYPES else bias.float(), rows).resolve_neg()
    return _kernel.Scores(
        query=_with_dense_rows(scores.query[:, :, rows]),
        key=_with_dense_rows(scores.key),
        scale=scores.scale,
        softcap=scores.softcap or 0.0,
        start=start,
        stop=stop,
        mask=given,
        bias=bias,
        sinks=None if sinks is None else sinks.float().contiguous(),
    )


def _of_rows(tensor: Tensor, rows: slice) -> Tensor:
    """A run of rows of a tensor that broadcasts to (B,H,Q,K)."""
    return tensor if tensor.shape[2] == 1 else tensor[:, :, rows]


def _map(matrix: Matrix) -> _kernel.Map:
    gram, factors = matrix.gram, []
    for factor in matrix.factors:
        query, key = (None if t is None else _with_dense_rows(t.float()) for t in (factor.query, factor.key))
        factors.append(_kernel.Factor(query, key, factor.activation or ""))
    return _kernel.Map(
        _scores(matrix.scores, matrix.sinks),
        lse=matrix.lse.contiguous(),
        factors=factors,
        gram=None if gram is None else _with_dense_rows(gram.float().flatten(2)[:, None]),
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
        **execution(),
    )
    return output, lse, entropies, values, keys


def forward_by_rule(
    scores: Scores, value: Tensor, sinks: Tensor | None
) -> tuple[Float[Tensor, "B H Q E"], Float[Tensor, "B H Q"]]:
    """Output and lse where the mask is a callable: it says who may look in a block of rows, and the kernel computes.

    Memory stays bounded, as the blocks are, and so does what the rule computes its answers from. What it says without
    looking at the sequence or the head holds for all of them, and blocks are as many times as large.
    """
    value = _with_dense_rows(value)
    batch, heads, queries, keys = scores.shape
    output = _empty_by_position(value, heads, queries)
    lse = value.new_empty((batch, heads, queries), dtype=torch.float64)
    ruled = scores.mask
    rest = replace(scores, mask=replace(ruled, given=None))
    first = ruled.given_at(Block(slice(0, batch), slice(0, heads), slice(0, 1), slice(0, 1)), CPU)
    assert first is not None
    answers = NUMBERS_AT_ONCE * max(1, batch * heads // first.numel())
    for at in scores.blocks(answers):
        given = ruled.given_at(at._replace(columns=slice(0, keys)), CPU)
        assert given is not None
        given = given[(None,) * (4 - given.ndim)]
        of_heads, rows = rest.of_heads(at.batch, at.heads), at.rows
        assert isinstance(rows, slice)
        of_block = lse.new_empty((*of_heads.shape[:2], rows.stop - rows.start))
        _kernel.forward(
            _scores(of_heads, None if sinks is None else sinks[at.heads], rows, given),
            value=value[at.batch, scores.groups(at.heads)],
            output=output[at.batch, at.heads, rows],
            lse=of_block,
            **execution(),
        )
        lse[at.batch, at.heads, rows] = of_block
    return output, lse


def token(
    layers: Sequence[Sequence[Tensor | None]],
    state: Float[Tensor, "dim"],
    angles: tuple[Float[Tensor, "D"], Float[Tensor, "D"]] | None,
    scale: float,
    epsilon: float,
    kept: tuple[Float[Tensor, "L H D"], Float[Tensor, "L H"], Float[Tensor, "L H D"] | None] | None = None,
) -> None:
    """One token through all layers of a decoder, by `_kernel.token`: `state` becomes that after the last.

    `angles` are the cosines and sines of its position. `kept` is where its queries and lse are written and, unless it
    is None, what the heads give.
    """
    cosine, sine = angles or (None, None)
    queries, lse, attended = kept or (None, None, None)
    _kernel.token(layers, state, cosine, sine, queries, lse, attended, scale, epsilon, **execution())


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
    grad_query, grad_key, grad_value = (_empty_by_position(t, *t.shape[1:3]) for t in (scores.query, scores.key, value))
    grad_bias = bias.new_zeros(bias.shape, dtype=torch.float32) if bias_needs_grad and bias is not None else None
    delta = None if sinks is None else lse.new_empty(lse.shape, dtype=torch.float32)
    _kernel.backward(
        _scores(scores, sinks),
        lse=lse,
        value=_with_dense_rows(value),
        output=_with_dense_rows(output),
        grad_output=_with_dense_rows(grad_output),
        grad_lse=None if grad_lse is None else grad_lse.double().contiguous(),
        grad_query=grad_query,
        grad_key=grad_key,
        grad_value=grad_value,
        delta=delta,
        grad_bias=grad_bias,
        **execution(),
    )
    grad_sinks = None
    if sinks is not None and delta is not None:
        grad_sinks = -(streaming.sink_mass(sinks, lse) * delta).sum((0, 2))
    return grad_query, grad_key, grad_value, grad_bias, grad_sinks


# Reductions over the weights, and over maps of them


def statistics(matrix: Matrix, names: Sequence[str], rows: slice | None = None) -> Statistics:
    """Statistics of the rows of weights, or of a run of them: "entropy", "distance", "max_score", "topk:k".

    One pass computes all that are a number a row; each "topk" has a pass of its own.
    """
    statistics: Statistics = {}
    batch, heads, queries, _ = matrix.scores.shape
    rows = slice(0, queries) if rows is None else rows
    scores, shape = _scores(matrix.scores, matrix.sinks, rows), (batch, heads, rows.stop - rows.start)
    numbers = {name: torch.empty(shape, dtype=torch.float32, device=CPU) for name in names if ":" not in name}
    if numbers:
        _kernel.forward(scores, first_position=rows.start, **numbers, **execution())
    for name in names:
        top = 0 if name in numbers else int(name.removeprefix("topk:"))
        if top > LARGEST_TOP:
            statistics |= streaming.statistics(matrix, [name], rows)
        elif top:
            values = torch.empty((*shape, top), dtype=torch.float32, device=CPU)
            keys = torch.empty((*shape, top), dtype=torch.int64, device=CPU)
            lse = matrix.lse[:, :, rows].contiguous()
            _kernel.forward(scores, top_values=values, top_keys=keys, known_lse=lse, **execution())
            statistics[name] = values, keys
        else:
            statistics[name] = (numbers[name],)
    return statistics


def largest(matrix: Matrix, k: int, magnitude: bool) -> tuple[Float[Tensor, "B H Q k"], Int[Tensor, "B H Q k"]]:
    """The k largest numbers of each row, by value or by magnitude, and their keys; sorted, ties to the lower key."""
    if k > LARGEST_TOP:
        return streaming.largest(matrix, k, magnitude)
    shape = *matrix.shape[:3], k
    values = torch.empty(shape, dtype=torch.float32, device=CPU)
    keys = torch.empty(shape, dtype=torch.int64, device=CPU)
    _kernel.largest(_map(matrix), magnitude=magnitude, values=values, keys=keys, **execution())
    return values, keys


def apply(matrix: Matrix, x: Num[Tensor, "#B _ K F"]) -> Float[Tensor, "B H Q F"]:
    """M @ x."""
    batch, heads, queries, _ = matrix.shape
    x = _with_dense_rows(x.float())
    if not matrix.is_weights:
        return _product(_kernel.apply, matrix, x, queries)
    x = x.expand(batch, matrix.scores.key.shape[1] if x.shape[1] == 1 else x.shape[1], -1, -1)
    output = torch.empty(batch, heads, queries, x.shape[3], dtype=torch.float32, device=CPU)
    scores = _scores(_in_float32(matrix.scores), matrix.sinks)
    for vectors, result in zip(x.split(LARGEST_DIM, -1), output.split(LARGEST_DIM, -1), strict=True):
        _kernel.forward(scores, value=vectors, output=result, **execution())
    return output


def apply_transposed(matrix: Matrix, y: Num[Tensor, "#B _ Q F"]) -> Float[Tensor, "B H K F"]:
    """M.T @ y."""
    _, heads, _, keys = matrix.shape
    y = y if y.shape[1] in (1, heads) else y.repeat_interleave(matrix.scores.n_rep, 1)
    return _product(_kernel.transposed, matrix, _with_dense_rows(y.float()), keys)


def _product(multiply: Callable[..., None], matrix: Matrix, vectors: Tensor, rows: int) -> Tensor:
    """The map or its transpose times vectors, as many of their columns at a time as the kernel takes."""
    by, results = _map(matrix), []
    for columns in vectors.split(LARGEST_DIM, -1):
        result = torch.empty(*matrix.shape[:2], rows, columns.shape[3], dtype=torch.float32, device=CPU)
        multiply(by, vectors=columns, output=result, **execution())
        results.append(result)
    return torch.cat(results, -1) if len(results) > 1 else results[0]


def grouped(
    matrix: Matrix, queries: Int[Tensor, "Q"], keys: Int[Tensor, "K"], sizes: tuple[int, int], reduce: str
) -> Float[Tensor, "B H R C"]:
    """Numbers gathered into `sizes` cells: row i goes to cell queries[i], column j to keys[j]; −1 is left out.

    reduce: "sum" or "max" of the numbers of a cell.
    """
    cells = torch.empty(*matrix.shape[:2], *sizes, dtype=torch.float64, device=CPU)
    _kernel.pool(
        _map(matrix),
        row_cells=queries.contiguous(),
        column_cells=keys.contiguous(),
        cells=cells,
        largest=reduce == "max",
        **execution(),
    )
    return cells.float()


def dense(matrix: Matrix) -> Float[Tensor, "B H Q K"]:
    """The whole matrix."""
    return tile(matrix, Block(*(slice(0, size) for size in matrix.scores.shape)))


def tile(matrix: Matrix, at: Block) -> Float[Tensor, "b h q k"]:
    """A block of the matrix, whose heads make up whole groups or lie in one; all of them where they are combined."""
    if not (isinstance(at.rows, slice) and isinstance(at.columns, slice)):
        return streaming.tile(matrix, at)
    block = _of_heads(matrix, at.batch, at.heads)
    rows, columns = at.rows.stop - at.rows.start, at.columns.stop - at.columns.start
    numbers = torch.empty(*block.shape[:2], rows, columns, dtype=torch.float32, device=CPU)
    _kernel.in_large_pages(numbers)
    _kernel.tile(_map(block), first_row=at.rows.start, first_column=at.columns.start, numbers=numbers, **execution())
    return numbers


def diagonal(matrix: Matrix, rows: slice, columns: slice) -> Float[Tensor, "B H n"]:
    """The numbers of as many rows as columns, one with one."""
    numbers = torch.empty(*matrix.shape[:2], rows.stop - rows.start, dtype=torch.float32, device=CPU)
    _kernel.diagonal(_map(matrix), first_row=rows.start, first_column=columns.start, numbers=numbers, **execution())
    return numbers


def _of_heads(matrix: Matrix, batch: slice, heads: slice) -> Matrix:
    """The map of a run of sequences and a run of heads, which make up whole groups or lie in one; all if combined."""
    scores, gram = matrix.scores, matrix.gram
    groups = scores.groups(heads)

    def of(tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        return select_broadcast(tensor, batch, groups if tensor.shape[1] == scores.key.shape[1] else heads)

    return matrix._replace(
        scores=scores.of_heads(batch, heads),
        sinks=None if matrix.sinks is None else matrix.sinks[heads],
        lse=matrix.lse[batch, heads],
        factors=tuple(replace(factor, query=of(factor.query), key=of(factor.key)) for factor in matrix.factors),
        gram=None if gram is None else select_broadcast(gram, batch),
    )


def _in_float32(scores: Scores) -> Scores:
    """The same with queries and keys in float32, whose weights are not rounded to half precision on the way."""
    return replace(scores, query=scores.query.float(), key=scores.key.float())
