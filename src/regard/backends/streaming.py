"""Attention, its gradient and every statistic of its weights, a block of the matrix at a time, in O(N) memory.

A block holds whole rows, so that a softmax of its scores is exact there and then, and sums to one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from regard.backends.factors import combined, multiply
from regard.backends.protocol import Capabilities, Matrix, Statistics
from regard.backends.ranking import signed_topk, topk
from regard.mask import Block, positions, select, select_broadcast
from regard.scores import Scores, matmul

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Num

CAPABILITIES = Capabilities()
LARGEST_LSE = 64  # in exp(s − lse), the rounding of a float32 of this size costs 4e-6 of a weight


def softmax(scores: Float[Tensor, "b h q k"], sinks: Float[Tensor, "h"] | None) -> tuple[Tensor, Tensor]:
    """Weights and lse of whole rows. A row of nothing but −inf gets weights 0 and lse −inf (or its sink)."""
    if scores.shape[-1] == 0:
        weights, lse = scores, scores.new_full(scores.shape[:-1], -torch.inf)
    else:
        weights = scores.softmax(-1)
        weights /= weights.sum(-1, keepdim=True)  # torch's rows of some thousand keys sum to one only within 4e-6
        largest, largest_weight = scores.amax(-1), weights.amax(-1)
        lse = largest - largest_weight.log()  # the largest weight is exp(largest − lse)
        empty = largest == -torch.inf
        if sinks is not None:  # not by the lse, whose last digits are few where it is large
            sink = (sinks.to(lse.dtype)[:, None] - largest).exp() * largest_weight  # for a mass of one on the keys
            weights /= 1 + sink[..., None]
        if empty.any():
            weights.masked_fill_(empty[..., None], 0)
            lse.masked_fill_(empty, -torch.inf)
    if sinks is not None:
        lse = lse.logaddexp(sinks.to(lse.dtype)[:, None])
    if lse.isnan().any():
        weights.masked_fill_(scores == -torch.inf, 0)  # nan goes where it was seen, and no further
    return weights, lse


def with_sinks(output: Tensor, lse: Tensor, sinks: Tensor) -> tuple[Tensor, Tensor]:
    """Output and lse of rows with sinks, from those without."""
    sinks = sinks.to(lse.dtype)[:, None]
    kept = (lse - sinks).sigmoid().masked_fill(lse == -torch.inf, 0)
    return (output * kept[..., None]).to(output.dtype), lse.logaddexp(sinks)


def sink_mass(sinks: Float[Tensor, "h"], lse: Float[Tensor, "b h q"]) -> Float[Tensor, "b h q"]:
    """What the sink of each head takes from each row; nothing where the lse is −inf."""
    return (sinks.to(lse.dtype)[:, None] - lse).exp().masked_fill(lse == -torch.inf, 0)


def weights_of(
    scores: Scores, sinks: Tensor | None, blocks: Iterable[Block] | None = None
) -> Iterator[tuple[Block, Tensor, Tensor]]:
    """Block by block: where, the weights (b,h,rows,columns) and the lse (b,h,rows)."""
    for at in scores.blocks() if blocks is None else blocks:
        yield at, *softmax(scores.tile(at), None if sinks is None else sinks[at.heads])


def values_of(
    matrix: Matrix, blocks: Iterable[Block] | None = None
) -> Iterator[tuple[Block, Block, Float[Tensor, "b h q k"]]]:
    """Block by block: where among the scores, where in the matrix, and its numbers."""
    for at in blocks_of(matrix) if blocks is None else blocks:
        weights, _ = softmax(matrix.scores.tile(at), None if matrix.sinks is None else matrix.sinks[at.heads])
        yield at, matrix.place(at), from_weights(matrix, at, weights)


def blocks_of(matrix: Matrix, numbers: int | None = None) -> Iterator[Block]:
    """Blocks of the scores that cover the matrix: with all heads where the heads are combined."""
    return matrix.scores.blocks(numbers, heads_together=matrix.gram is not None)


def from_weights(matrix: Matrix, at: Block, weights: Float[Tensor, "b _ q k"]) -> Float[Tensor, "b _ q k"]:
    """The numbers of a block of a map, from its weights."""
    if matrix.is_weights:
        return weights
    values = weights
    if matrix.gram is not None:
        values, _ = combined(weights, select_broadcast(matrix.gram, at.batch, at.columns))
    place, heads = matrix.place(at), matrix.shape[1]
    products = (factor.activated(factor.product(place, heads, weights.dtype)) for factor in matrix.factors)
    return multiply(values, products)


def average(
    weights: Float[Tensor, "b h q k"], value: Float[Tensor, "#b g k e"], scores: Tensor | None = None
) -> Tensor:
    """Σ_j w_ij v_j (b,h,q,e). A value that is not finite reaches the rows that see it (weight ≠ 0, without scores)."""
    if value.isfinite().all():
        return matmul(weights, value)
    seen = (weights != 0 if scores is None else scores != -torch.inf).to(weights.dtype)
    above, below = (weights > 0).to(weights.dtype), (weights < 0).to(weights.dtype)
    output = matmul(weights, value.masked_fill(~value.isfinite(), 0))
    plus, minus, nan = (test.to(weights.dtype) for test in (value == torch.inf, value == -torch.inf, value.isnan()))
    output = output.masked_fill(matmul(above, plus) + matmul(below, minus) > 0, torch.inf)
    to_minus = matmul(above, minus) + matmul(below, plus) > 0
    output = output + torch.zeros_like(output).masked_fill_(to_minus, -torch.inf)
    unsure = matmul(seen, nan) + matmul(seen - above - below, plus + minus)
    return output.masked_fill(unsure > 0, torch.nan)


# The forward pass


def forward(
    scores: Scores, value: Float[Tensor, "B G K E"], sinks: Tensor | None, collect: Sequence[str] = ()
) -> tuple[Float[Tensor, "B H Q E"], Float[Tensor, "B H Q"], Statistics]:
    """Output, lse, and the statistics asked for, in one pass over the matrix."""
    batch, heads, queries, _ = scores.shape
    # Heads side by side in memory, as models want them.
    output = value.new_empty(batch, queries, heads, value.shape[-1]).transpose(1, 2)
    lse = value.new_empty(batch, heads, queries, dtype=scores.dtype)
    statistics = _empty_statistics(scores, collect)
    for at in scores.blocks():
        tile = scores.tile(at)
        weights, row_lse = softmax(tile, None if sinks is None else sinks[at.heads])
        values = select(value[at.batch, scores.groups(at.heads)], 2, at.columns).to(scores.dtype)
        output[at.batch, at.heads, at.rows] = average(weights, values, tile).to(output.dtype)
        lse[at.batch, at.heads, at.rows] = row_lse
        mass = None if sinks is None else sink_mass(sinks[at.heads], row_lse)
        _write_statistics(statistics, at, weights, scores.shape[3], mass)
    return output, lse, statistics


@torch.no_grad()  # their gradient is streamed too
def statistics(matrix: Matrix, names: Sequence[str], rows: slice | None = None) -> Statistics:
    """Statistics of the rows of weights, or of a run of them: "entropy", "distance", "max_score", "topk:k"."""
    scores, sinks = matrix.scores, matrix.sinks
    results = _empty_statistics(scores, names)
    for at in scores.blocks(rows=rows):
        tile = scores.tile(at)
        if "max_score" in results:
            results["max_score"][0][at.batch, at.heads, at.rows] = tile.amax(-1) if tile.shape[-1] else -torch.inf
        weights, lse = softmax(tile, None if sinks is None else sinks[at.heads])
        mass = None if sinks is None else sink_mass(sinks[at.heads], lse)
        _write_statistics(results, at, weights, scores.shape[3], mass)
    if rows is not None:
        results = {name: tuple(tensor[:, :, rows] for tensor in tensors) for name, tensors in results.items()}
    return results


def _empty_statistics(scores: Scores, names: Sequence[str]) -> Statistics:
    rows = scores.query.new_zeros(scores.shape[:3], dtype=scores.dtype)
    statistics: Statistics = {}
    for name in names:
        if name.startswith("topk:"):
            values = rows.new_zeros(*rows.shape, int(name.removeprefix("topk:")))
            statistics[name] = values, torch.zeros_like(values, dtype=torch.long)
        else:
            statistics[name] = (torch.zeros_like(rows),)
    return statistics


def _write_statistics(statistics: Statistics, at: Block, weights: Tensor, keys: int, mass: Tensor | None) -> None:
    """Writes the statistics of the rows of a block; `mass` is what their sinks took."""
    for name, targets in statistics.items():
        if name == "entropy":
            results: tuple[Tensor, ...] = (entropy(weights, mass),)
        elif name == "distance":
            results = (distance(weights, at),)
        elif name == "max_score":
            continue  # it is taken from the scores
        else:
            first = at.columns.start if isinstance(at.columns, slice) else 0
            results = topk(weights, targets[0].shape[-1], first, keys)
        for target, result in zip(targets, results, strict=True):
            target[at.batch, at.heads, at.rows] = result


def entropy(weights: Float[Tensor, "b h q k"], mass: Float[Tensor, "b h q"] | None = None) -> Float[Tensor, "b h q"]:
    """−Σ_j w ln w, in nats; `mass` is what a sink took from each row.

    Of a weight near one, the logarithm of its rounded value has no digits left. So the largest weight w of a row adds
    w (ln(1 + R) − ln Σ w), with R what the other weights come to beside it.
    """
    if weights.shape[-1] == 0:
        return weights.sum(-1)
    tiny = torch.finfo(weights.dtype).tiny
    largest = weights.max(-1, keepdim=True)
    others = weights.scatter(-1, largest.indices, 0)
    top, rest = largest.values[..., 0], others.sum(-1)
    own = (rest / top.clamp(min=tiny)).log1p()
    if mass is not None:
        own -= torch.where(mass < 0.5, (-mass).log1p(), (top + rest).clamp(min=tiny).log())
    return own.mul_(top) - others.clamp(min=tiny).log_().mul_(others).sum(-1)


def distance(weights: Float[Tensor, "b h q k"], at: Block) -> Float[Tensor, "b h q"]:
    """Σ_j w_ij |i − j|."""
    rows, columns = positions(at.rows, weights.device), positions(at.columns, weights.device)
    return (weights * (rows[:, None] - columns).abs()).sum(-1)


@torch.no_grad()
def largest(matrix: Matrix, k: int, magnitude: bool) -> tuple[Tensor, Tensor]:
    """The k largest numbers of each row of a map, by value or by magnitude, and their keys; unseen keys count as 0."""
    batch, heads, queries, _ = matrix.shape
    values = matrix.scores.query.new_zeros(batch, heads, queries, k, dtype=matrix.scores.dtype)
    keys = torch.zeros_like(values, dtype=torch.long)
    for _, place, numbers in values_of(matrix):
        values[place[:3]], keys[place[:3]] = signed_topk(_whole(matrix, place, numbers), k, magnitude)
    return values, keys


def _whole(matrix: Matrix, place: Block, numbers: Tensor) -> Float[Tensor, "b h q K"]:
    """The whole rows of a block, with 0 for the keys that it leaves out."""
    whole = numbers.new_zeros(*numbers.shape[:3], matrix.shape[3])
    whole[..., place.columns] = numbers
    return whole


# Reductions over queries, keys or both


def apply(matrix: Matrix, x: Num[Tensor, "#B _ K F"]) -> Float[Tensor, "B H Q F"]:
    """M @ x."""
    scores, (batch, heads, queries, _) = matrix.scores, matrix.shape
    output = scores.query.new_empty(batch, heads, queries, x.shape[-1], dtype=scores.dtype)
    for _, place, numbers in values_of(matrix):
        vectors = select_broadcast(x, place.batch, heads_of(x, matrix, place), place.columns).to(scores.dtype)
        output[place[:3]] = average(numbers, vectors)
    return output


def apply_transposed(matrix: Matrix, y: Num[Tensor, "#B _ Q F"]) -> Float[Tensor, "B H K F"]:
    """M.T @ y."""
    scores, (batch, heads, _, keys) = matrix.scores, matrix.shape
    output = scores.query.new_zeros(batch, heads, keys, y.shape[-1], dtype=scores.dtype)
    for _, place, numbers in values_of(matrix):
        vectors = select_broadcast(y, place.batch, heads_of(y, matrix, place), place.rows).to(scores.dtype)
        output[place.batch, place.heads, place.columns] += average(numbers.mT, vectors)
    return output


def heads_of(vectors: Tensor, matrix: Matrix, at: Block) -> slice:
    """The heads of `vectors`, one for each query head or for each group, that a block needs."""
    grouped = matrix.gram is None and vectors.shape[1] == matrix.scores.key.shape[1]
    return matrix.scores.groups(at.heads) if grouped else at.heads


def dense(matrix: Matrix) -> Float[Tensor, "B H Q K"]:
    """The whole matrix."""
    whole = matrix.scores.query.new_zeros(matrix.shape, dtype=matrix.scores.dtype)
    for _, place, numbers in values_of(matrix):
        whole[place] = numbers
    return whole


def tile(matrix: Matrix, at: Block) -> Float[Tensor, "b h q k"]:
    """A block of the matrix, whose heads make up whole groups or lie in one; all of them where they are combined."""
    scores, lse = matrix.scores, matrix.lse
    tile = scores.tile(at)
    lse = select(lse[at.batch, at.heads], 2, at.rows)[..., None]
    weights = (tile - lse).exp_().masked_fill_(tile == -torch.inf, 0)
    return from_weights(matrix, at, weights.to(scores.dtype))


def diagonal(matrix: Matrix, rows: slice, columns: slice) -> Float[Tensor, "B H n"]:
    """The numbers of as many rows as columns, one with one."""
    scores, lse = matrix.scores.pairs(rows, columns), matrix.lse[:, :, rows]
    if bool((lse.abs() >= LARGEST_LSE).any()):
        weights = _diagonal_of_whole_rows(matrix, rows, columns)
    else:
        weights = (scores - lse).exp_().masked_fill_(scores == -torch.inf, 0).to(scores.dtype)
    if matrix.gram is not None:
        weights = combined(weights[:, :, None], matrix.gram[:, columns])[0][:, :, 0]
    heads = matrix.shape[1]
    return multiply(weights, (factor.pairs(rows, columns, heads, scores.dtype) for factor in matrix.factors))


def _diagonal_of_whole_rows(matrix: Matrix, rows: slice, columns: slice) -> Float[Tensor, "B H n"]:
    """The weights of a diagonal from a softmax of whole rows."""
    scores, sinks, offset = matrix.scores, matrix.sinks, columns.start - rows.start
    line = scores.query.new_zeros(*scores.shape[:2], rows.stop - rows.start, dtype=scores.dtype)
    for at in scores.blocks(rows=rows):
        weights, _ = softmax(scores.tile(at), None if sinks is None else sinks[at.heads])
        first, stop = rows_on_diagonal(at, offset)
        if first < stop:
            strip = weights[..., first - at.rows.start : stop - at.rows.start, :]  # type: ignore[union-attr]
            picked = strip.diagonal(first + offset - at.columns.start, -2, -1)  # type: ignore[union-attr]
            line[at.batch, at.heads, first - rows.start : stop - rows.start] = picked
    return line


def rows_on_diagonal(at: Block, offset: int) -> tuple[int, int]:
    """The first row of a block in whose columns i + offset lies, and the one after the last."""
    assert isinstance(at.rows, slice)
    assert isinstance(at.columns, slice)
    return max(at.rows.start, at.columns.start - offset), min(at.rows.stop, at.columns.stop - offset)


def grouped(
    matrix: Matrix,
    queries: Int[Tensor, "Q"],
    keys: Int[Tensor, "K"],
    sizes: tuple[int, int],
    reduce: str,
    blocks: Iterable[Block] | None = None,
) -> Float[Tensor, "B H R C"]:
    """Numbers gathered into `sizes` cells: row i goes to cell queries[i], column j to keys[j]; −1 is left out.

    reduce: "sum" or "max" of the numbers that fall into a cell; 0 for a cell without any. Sums are made in float64: of
    many float32 numbers, added up one by one, they would be off by 1e-5.
    """
    scores, batch, heads = matrix.scores, *matrix.shape[:2]
    lowest = 0.0 if reduce == "sum" or matrix.is_weights else -torch.inf
    cells = scores.query.new_full((batch, heads, *sizes), lowest, dtype=torch.float64)
    by_key = sizes[1] == len(keys) and bool((keys == positions(slice(0, len(keys)), keys.device)).all())
    for _, place, numbers in values_of(matrix, blocks):
        if lowest:
            numbers, place = _whole(matrix, place, numbers), place._replace(columns=slice(0, len(keys)))
        target = cells[place.batch, place.heads]
        if by_key:  # a column a key: nothing to be gathered
            narrow, target = numbers.double(), target[..., place.columns]
        else:
            narrow = numbers.new_full((*numbers.shape[:3], sizes[1]), lowest, dtype=torch.float64)
            put(narrow, -1, keys[place.columns], numbers, reduce)
        put(target, -2, queries[place.rows], narrow, reduce)
    if lowest:
        empty = torch.bincount(queries[queries >= 0], minlength=sizes[0])[:, None] == 0
        cells = cells.masked_fill(empty | (torch.bincount(keys[keys >= 0], minlength=sizes[1]) == 0), 0)
    return cells.to(scores.dtype)


def put(target: Tensor, dim: int, cell: Int[Tensor, "n"], tensor: Tensor, reduce: str) -> None:
    """Adds each slice of `tensor` to the slice of `target` that `cell` names, or takes the larger; −1 is left out."""
    if reduce == "sum" and len(cell) and bool((cell == cell[0]).all()):  # all in the same
        if cell[0] >= 0:
            target.select(dim, int(cell[0])).add_(tensor.sum(dim))
        return
    if (cell < 0).any():
        kept = (cell >= 0).nonzero()[:, 0]
        tensor, cell = tensor.index_select(dim, kept), cell[kept]
    tensor = tensor.to(target.dtype)
    if reduce == "max":
        where = cell if dim == -1 else cell[:, None]
        target.scatter_reduce_(dim, where.expand_as(tensor), tensor, "amax")
    else:
        target.index_add_(dim, cell, tensor)
