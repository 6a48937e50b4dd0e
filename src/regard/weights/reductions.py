"""The reductions of a map: how each is computed, and the derivative of a loss on it by the numbers of the map.

That derivative is written as a function of a block, G_ij = ∂L/∂M_ij for its rows i and columns j, so that it never
needs to be whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from regard._typing import Index
from regard.backends import ranking, streaming
from regard.backends.factors import repeated
from regard.backends.gradient import Cotangent, gradient_blocks
from regard.backends.protocol import Matrix, Reductions
from regard.mask import Block, positions, select, select_broadcast
from regard.scores import matmul
from regard.weights.autograd import Cotangents, Reduction, evaluate

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Num

BLOCK = 1 << 21  # weights at a time, where a part of the matrix is asked for


def serving(matrix: Matrix) -> Reductions:
    """Its own reductions, or streamed blocks where those cannot serve: on other devices, or if the lse is too large."""
    own = matrix.reductions
    return own if own.CAPABILITIES.hold(matrix) else streaming


# The normaliser


def _lse(matrix: Matrix) -> Float[Tensor, "B H Q"]:
    return matrix.lse.to(matrix.scores.dtype, copy=True)


LSE = Reduction(_lse, lambda matrix, grad: Cotangents(None, delta=-grad), traceable=True)


# Parts of the matrix


def _dense(matrix: Matrix) -> Float[Tensor, "B H Q K"]:
    return serving(matrix).dense(matrix)


DENSE = Reduction(_dense, lambda matrix, grad: Cotangents(lambda at, weights: grad[at]))


def _tile(
    matrix: Matrix, pairs: Int[Tensor, "n"], rows: Int[Tensor, "q"], columns: Int[Tensor, "k"]
) -> Float[Tensor, "n q k"]:
    """Some rows and columns of some heads, `pairs`, each of them sequence · H + head."""
    scores, sinks, lse = matrix.scores, matrix.sinks, matrix.lse
    _, heads, _, keys = matrix.shape
    row_run, column_run = run(rows), run(columns)
    # Whole rows are softmaxed afresh: they sum to one, and a large lse costs them no digits. A backend that keeps its
    # own lse in float64 makes the same scores again.
    whole = len(columns) == keys and matrix.is_weights
    by = streaming if whole else serving(matrix)
    if not (
        whole
        or (by.CAPABILITIES.largest_lse is not None and isinstance(row_run, slice) and isinstance(column_run, slice))
    ):
        used = lse if matrix.gram is not None else select(lse.flatten(0, 1), 0, run(pairs))[None]
        whole = not bool((select(used, 2, row_run).abs() < streaming.LARGEST_LSE).all())
    picked = lse.new_empty(len(pairs), len(rows), len(columns), dtype=scores.dtype)
    for place, batch, run_of_heads in _by_sequence(pairs.tolist(), heads):
        together = scores.shape[1] if matrix.gram is not None else place.stop - place.start
        step = max(1, BLOCK // max(1, (keys if whole else len(columns)) * together))
        for start in range(0, len(rows), step):
            rows_here = row_run if step >= len(rows) else run(rows[start : start + step])
            at = matrix.source(Block(batch, run_of_heads, rows_here, column_run))
            if whole:
                entire = scores.tile(at._replace(columns=slice(0, keys)))
                weights = streaming.softmax(entire, None if sinks is None else sinks[at.heads])[0]
                numbers = streaming.from_weights(matrix, at, select(weights, 3, column_run)).flatten(0, 1)
            else:
                numbers = by.tile(matrix, at).flatten(0, 1)
            if numbers.shape == picked.shape and numbers.is_contiguous():  # all that was asked for: no need of a copy
                return numbers
            picked[place, start : start + step] = numbers
    return picked


def _by_sequence(pairs: list[int], heads: int) -> Iterator[tuple[slice, slice, slice]]:
    """Where they stand, the sequence and the heads: all of a sequence's at once where they are asked for in order."""
    place = 0
    while place < len(pairs):
        batch, head = divmod(pairs[place], heads)
        together = pairs[place : place + heads] == list(range(batch * heads, (batch + 1) * heads))
        count = heads if together else 1
        yield slice(place, place + count), slice(batch, batch + 1), slice(head, head + count)
        place += count


def run(picked: Int[Tensor, "n"]) -> Index:
    """A slice where the positions follow one another: a view then, and no copy."""
    if len(picked) == 1 or (len(picked) and bool((picked.diff() == 1).all())):
        return slice(int(picked[0]), int(picked[-1]) + 1)
    return picked


def _tile_cotangents(matrix: Matrix, grad: Tensor, pairs: Tensor, rows: Tensor, columns: Tensor) -> Cotangents:
    """The derivatives of a row that was selected twice are added up, in a single block."""
    _, heads, queries, keys = matrix.shape
    device = grad.device
    pairs, nth_pair = pairs.unique(return_inverse=True)
    rows, nth_row = rows.unique(return_inverse=True)
    once = grad.new_zeros(len(pairs), *grad.shape[1:]).index_add_(0, nth_pair.to(device), grad)
    once = grad.new_zeros(len(pairs), len(rows), len(columns)).index_add_(1, nth_row.to(device), once)
    columns = columns.to(device)
    place_of_pair = {pair: place for place, pair in enumerate(pairs.tolist())}
    place_of_row = torch.zeros(queries, dtype=torch.long, device=device)
    place_of_row[rows.to(device)] = torch.arange(len(rows), device=device)

    def cotangent(at: Block, weights: Tensor) -> Tensor:
        rows_of_block = once[place_of_pair[at.batch.start * heads + at.heads.start], place_of_row[at.rows]]
        return torch.zeros_like(weights).index_add_(3, columns, rows_of_block[None, None])

    def blocks() -> Iterator[Block]:
        step = max(1, BLOCK // max(1, keys))
        for pair in place_of_pair:
            batch, head = divmod(pair, heads)
            for start in range(0, len(rows), step):
                run_of_rows = run(rows[start : start + step])
                yield Block(slice(batch, batch + 1), slice(head, head + 1), run_of_rows, slice(0, keys))

    return Cotangents(cotangent, blocks=blocks())


TILE = Reduction(_tile, _tile_cotangents)


def diagonal(offset: int) -> Reduction:
    """The numbers at i, i + offset, as torch.diagonal counts them; none where that lies outside of the matrix."""

    def places(matrix: Matrix) -> tuple[slice, slice]:
        queries, keys = matrix.shape[2:]
        first_row, first_column = min(queries, max(0, -offset)), min(keys, max(0, offset))
        count = min(queries - first_row, keys - first_column)
        return slice(first_row, first_row + count), slice(first_column, first_column + count)

    def compute(matrix: Matrix) -> Float[Tensor, "B H n"]:
        return serving(matrix).diagonal(matrix, *places(matrix))

    def cotangents(matrix: Matrix, grad: Tensor) -> Cotangents:
        start = places(matrix)[0].start

        def cotangent(at: Block, numbers: Tensor) -> Tensor:
            assert isinstance(at.rows, slice)
            assert isinstance(at.columns, slice)
            result = torch.zeros_like(numbers)
            first, stop = streaming.rows_on_diagonal(at, offset)
            if first < stop:
                strip = result[..., first - at.rows.start : stop - at.rows.start, :]
                line = strip.diagonal(first + offset - at.columns.start, -2, -1)
                line.copy_(grad[at.batch, at.heads, first - start : stop - start])
            return result

        return Cotangents(cotangent)

    return Reduction(compute, cotangents)


# Statistics of rows; what was collected before is handed over as tensors


def statistic(name: str, rows: slice | None = None) -> Reduction:
    """ "entropy", "distance" or "max_score" of all rows of weights, or of a run of them."""

    def compute(matrix: Matrix, *known: Tensor) -> Float[Tensor, "B H q"]:
        if known:
            return known[0].clone()  # it stays right if the result is changed in place
        return serving(matrix).statistics(matrix, [name], rows)[name][0]

    def cotangents(matrix: Matrix, grad: Tensor, *known: Tensor) -> Cotangents:
        if rows is None:
            return _COTANGENTS[name](matrix, grad)
        whole = grad.new_zeros(matrix.scores.shape[:3])
        whole[:, :, rows] = grad
        cotangent, delta, _ = _COTANGENTS[name](matrix, whole)
        return Cotangents(cotangent, delta, matrix.scores.blocks(BLOCK, rows=rows))

    return Reduction(compute, cotangents)


def _entropy_cotangents(matrix: Matrix, grad: Tensor) -> Cotangents:
    def cotangent(at: Block, weights: Tensor) -> Tensor:
        logs = weights.clamp(min=torch.finfo(weights.dtype).tiny).log_()
        return logs.add_(1).mul_(-grad[at.batch, at.heads, at.rows, None])

    return Cotangents(cotangent)


def _distance_cotangents(matrix: Matrix, grad: Tensor) -> Cotangents:
    def cotangent(at: Block, weights: Tensor) -> Tensor:
        rows, columns = positions(at.rows, grad.device), positions(at.columns, grad.device)
        return grad[at.batch, at.heads, at.rows, None] * (rows[:, None] - columns).abs()

    return Cotangents(cotangent)


def _max_score_cotangents(matrix: Matrix, grad: Tensor) -> Cotangents:
    """∂ max_j s_ij / ∂s_ij is 1 at the largest, shared where several are: w_ij G_ij, with G = 1/w there."""

    def cotangent(at: Block, weights: Tensor) -> Tensor:
        largest = weights.amax(-1, keepdim=True)
        alike = (weights == largest) & (largest > 0)
        share = grad[at.batch, at.heads, at.rows, None] / (largest * alike.sum(-1, keepdim=True).clamp(min=1))
        return torch.where(alike, share, 0)

    return Cotangents(cotangent, delta=torch.zeros_like(grad))


_COTANGENTS = {"entropy": _entropy_cotangents, "distance": _distance_cotangents, "max_score": _max_score_cotangents}
STATISTICS = {name: statistic(name) for name in _COTANGENTS}  # of all rows


def topk(k: int, settled: bool = False) -> Reduction:
    """The k largest weights of each row and their keys; `settled` where what was collected is in its final order."""

    def compute(matrix: Matrix, *known: Tensor) -> tuple[Tensor, Tensor]:
        if settled:
            values, indices = known
            return values[..., :k].clone(), indices[..., :k].clone()
        # What is known was collected by the softmax's own reductions, even where they do not serve now.
        by = matrix.reductions if known else serving(matrix)
        ranks_by_score, largest = by.CAPABILITIES.ranks_by_score, by.CAPABILITIES.largest_top
        count = min(k + 1, matrix.scores.shape[3]) if ranks_by_score else k
        if ranks_by_score and largest is not None and count > largest:
            return _again(matrix, k)
        if not known:
            known = by.statistics(matrix, [f"topk:{count}"])[f"topk:{count}"]
        if ranks_by_score:
            return _settle(matrix, known[0], known[1], k)
        return known[0][..., :k].clone(), known[1][..., :k].clone()

    return Reduction(compute, _topk_cotangents)


def _settle(matrix: Matrix, values: Tensor, indices: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest, equal weights in the order of their keys, from k + 1 that were ranked by their scores.

    Scores that differ may round to the same weight. Where that may have left a lower key out, and where a row is nan,
    the row is looked at again.
    """
    unsure = ~(matrix.lse < torch.inf)
    if values.shape[-1] > k:
        unsure = unsure | ((values[..., k - 1] == values[..., k]) & (values[..., k] > 0))
    values, indices = ranking.in_order(values[..., :k], indices[..., :k])
    if unsure.any():
        unsure = unsure[..., None]
        again = _again(matrix, k, unsure[..., 0])
        values, indices = torch.where(unsure, again[0], values), torch.where(unsure, again[1], indices)
    return values, indices


def largest(k: int, magnitude: bool) -> Reduction:
    """The k largest numbers of each row of a map, by value or by magnitude, and their keys."""

    def compute(matrix: Matrix) -> tuple[Tensor, Tensor]:
        return serving(matrix).largest(matrix, k, magnitude)

    return Reduction(compute, _topk_cotangents)


def _again(matrix: Matrix, k: int, wanted: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k largest of the weights as `dense` has them, block by block; of the rows that are wanted, at least."""
    batch, heads, queries, keys = matrix.scores.shape
    values = matrix.lse.new_zeros(batch, heads, queries, k, dtype=matrix.scores.dtype)
    indices = torch.zeros_like(values, dtype=torch.long)
    step = max(1, BLOCK // max(1, keys))
    for pair in range(batch * heads):
        sequence, head = divmod(pair, heads)
        for start in range(0, queries, step):
            rows = slice(start, min(start + step, queries))
            at = Block(slice(sequence, sequence + 1), slice(head, head + 1), rows, slice(0, keys))
            if wanted is None or wanted[at[:3]].any():
                weights = _whole_rows(matrix, at)
                values[at[:3]], indices[at[:3]] = ranking.topk(weights, k, 0, keys)
    return values, indices


def _whole_rows(matrix: Matrix, at: Block) -> Float[Tensor, "b h q K"]:
    by = serving(matrix)
    if by.CAPABILITIES.ranks_by_score:  # the weights must be those that it ranked
        return by.tile(matrix, at)
    sinks = None if matrix.sinks is None else matrix.sinks[at.heads]
    return streaming.softmax(matrix.scores.tile(at), sinks)[0]


def _topk_cotangents(matrix: Matrix, grad: Tensor, *tensors: Tensor) -> Cotangents:
    indices = tensors[-1]  # of the result, whatever was known before

    def cotangent(at: Block, weights: Tensor) -> Tensor:
        assert isinstance(at.columns, slice)
        there = indices[at.batch, at.heads, at.rows] - at.columns.start
        outside = (there < 0) | (there >= weights.shape[-1])  # keys that no row of the block may see: their weight is 0
        values = grad[at.batch, at.heads, at.rows].masked_fill(outside, 0)
        return torch.zeros_like(weights).scatter_add_(-1, there.masked_fill(outside, 0), values)

    return Cotangents(cotangent)


# Reductions over queries, keys or both


def grouped(sizes: tuple[int, int], reduce: str) -> Reduction:
    """The sum or "max" of the numbers in each cell, given the cell of each query and of each key; −1 is in none."""

    def compute(matrix: Matrix, queries: Tensor, keys: Tensor) -> Float[Tensor, "B H R C"]:
        return serving(matrix).grouped(matrix, queries, keys, sizes, reduce)

    def cotangents(matrix: Matrix, grad: Tensor, queries: Tensor, keys: Tensor) -> Cotangents:
        spread = _spread(grad, queries, keys)
        return Cotangents(spread) if reduce == "sum" else _largest_cotangents(matrix, grad, queries, keys)

    return Reduction(compute, cotangents)


def _spread(cells: Float[Tensor, "B H R C"], queries: Tensor, keys: Tensor) -> Cotangent:
    """The number of its cell for each number of the matrix, 0 for those in none."""
    framed = pad(cells, (0, 1, 0, 1))  # so that −1 is a cell of zeros

    def cotangent(at: Block, numbers: Tensor) -> Tensor:
        return framed[at.batch, at.heads][:, :, queries[at.rows]][..., keys[at.columns]]

    return cotangent


def _largest_cotangents(matrix: Matrix, grad: Tensor, queries: Tensor, keys: Tensor) -> Cotangents:
    """All numbers that are as large as the largest of their cell share its derivative alike, as in torch.amax.

    The largest is looked for again, in the blocks in which the gradient is computed: the same numbers to the last bit.
    """
    sizes = grad.shape[2], grad.shape[3]
    largest = _spread(streaming.grouped(matrix, queries, keys, sizes, "max", gradient_blocks(matrix)), queries, keys)
    ties = torch.zeros_like(grad)
    for _, at, numbers in streaming.values_of(matrix, gradient_blocks(matrix)):
        alike = (numbers == largest(at, numbers)).to(grad.dtype)
        narrow = alike.new_zeros(*alike.shape[:3], sizes[1])
        streaming.put(narrow, -1, keys[at.columns], alike, "sum")
        streaming.put(ties[at.batch, at.heads], -2, queries[at.rows], narrow, "sum")
    share = _spread(grad / ties.clamp(min=1), queries, keys)
    return Cotangents(lambda at, numbers: share(at, numbers) * (numbers == largest(at, numbers)))


# Applied to other vectors


def _apply(matrix: Matrix, x: Num[Tensor, "#B _ K F"]) -> Float[Tensor, "B H Q F"]:
    return serving(matrix).apply(matrix, x)


def _apply_cotangents(matrix: Matrix, grad: Tensor, x: Tensor) -> Cotangents:
    def cotangent(at: Block, numbers: Tensor) -> Tensor:
        vectors = select_broadcast(x, at.batch, streaming.heads_of(x, matrix, at), at.columns)
        return matmul(grad[at.batch, at.heads, at.rows], vectors.to(grad.dtype).mT)

    return Cotangents(cotangent)


def _apply_transposed(matrix: Matrix, y: Num[Tensor, "#B _ Q F"]) -> Float[Tensor, "B H K F"]:
    return serving(matrix).apply_transposed(matrix, y)


def _transposed_cotangents(matrix: Matrix, grad: Tensor, y: Tensor) -> Cotangents:
    y = repeated(y, matrix.shape[1])

    def cotangent(at: Block, numbers: Tensor) -> Tensor:
        vectors = select_broadcast(y, at.batch, at.heads, at.rows).to(grad.dtype)
        return vectors @ grad[at.batch, at.heads, at.columns].mT

    return Cotangents(cotangent)


# Each is linear in its vectors, and the gradient of the other.
APPLY: Reduction = Reduction(_apply, _apply_cotangents, lambda matrix, grad: evaluate(TRANSPOSED, matrix, grad))
TRANSPOSED: Reduction = Reduction(
    _apply_transposed, _transposed_cotangents, lambda matrix, grad: evaluate(APPLY, matrix, grad)
)
