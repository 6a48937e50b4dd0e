"""A diagonal of a map: M_{i,i+offset} from query, key and lse alone, in O(N·D)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from regard.backends import streaming
from regard.backends.factors import combined, multiply
from regard.backends.protocol import Matrix
from regard.mask import Block, select
from regard.weights.autograd import Cotangents, Reduction
from regard.weights.reductions import LARGEST_LSE, serving

if TYPE_CHECKING:
    from jaxtyping import Float


def diagonal(offset: int) -> Reduction:
    """The numbers at i, i + offset, as torch.diagonal counts them."""

    def compute(matrix: Matrix) -> Float[Tensor, "B H n"]:
        rows, columns = _places(matrix, offset)
        scores, lse = matrix.scores.pairs(rows, columns), matrix.lse[:, :, rows]
        if serving(matrix).CAPABILITIES.largest_lse is None and bool((lse.abs() >= LARGEST_LSE).any()):
            weights = _of_whole_rows(matrix, offset)  # a large lse in float32 has lost their last digits
        else:
            weights = (scores - lse).exp_().masked_fill_(scores == -torch.inf, 0).to(scores.dtype)
        if matrix.gram is not None:
            weights = combined(weights[:, :, None], matrix.gram[:, columns])[0][:, :, 0]
        heads = matrix.shape[1]
        return multiply(weights, (factor.pairs(rows, columns, heads, scores.dtype) for factor in matrix.factors))

    def cotangents(matrix: Matrix, grad: Tensor) -> Cotangents:
        rows, _ = _places(matrix, offset)

        def cotangent(at: Block, numbers: Tensor) -> Tensor:
            result = torch.zeros_like(numbers)
            first, stop = _within(at, rows, offset)
            if first < stop:
                assert isinstance(at.rows, slice)
                assert isinstance(at.columns, slice)
                strip = result[..., first - at.rows.start : stop - at.rows.start, :]
                line = strip.diagonal(first + offset - at.columns.start, -2, -1)
                line.copy_(grad[at.batch, at.heads, first - rows.start : stop - rows.start])
            return result

        return Cotangents(cotangent)

    return Reduction(compute, cotangents)


def _places(matrix: Matrix, offset: int) -> tuple[slice, slice]:
    """The rows and columns of a diagonal; none where it lies outside of the matrix."""
    queries, keys = matrix.shape[2:]
    first_row, first_column = min(queries, max(0, -offset)), min(keys, max(0, offset))
    count = min(queries - first_row, keys - first_column)
    return slice(first_row, first_row + count), slice(first_column, first_column + count)


def _within(at: Block, rows: slice, offset: int) -> tuple[int, int]:
    """The rows of a block in whose columns the diagonal lies."""
    assert isinstance(at.rows, slice)
    assert isinstance(at.columns, slice)
    first = max(at.rows.start, rows.start, at.columns.start - offset)
    return first, min(at.rows.stop, rows.stop, at.columns.stop - offset)


def _of_whole_rows(matrix: Matrix, offset: int) -> Float[Tensor, "B H n"]:
    """The weights of a diagonal from a softmax of whole rows."""
    scores, sinks = matrix.scores, matrix.sinks
    rows, _ = _places(matrix, offset)
    line = scores.query.new_zeros(*scores.shape[:2], rows.stop - rows.start, dtype=scores.dtype)
    for at in scores.blocks(rows=rows):
        weights, _ = streaming.softmax(scores.tile(at), None if sinks is None else sinks[at.heads])
        first, stop = _within(at, rows, offset)
        if first < stop:
            assert isinstance(at.rows, slice)
            assert isinstance(at.columns, slice)
            strip = select(weights, 2, slice(first - at.rows.start, stop - at.rows.start))
            picked = strip.diagonal(first + offset - at.columns.start, -2, -1)
            line[at.batch, at.heads, first - rows.start : stop - rows.start] = picked
    return line
