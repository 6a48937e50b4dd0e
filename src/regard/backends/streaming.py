"""Attention, its gradient and every statistic of its weights, a block of the matrix at a time, in O(N) memory.

A block holds whole rows, so that a softmax of its scores is exact there and then, and sums to one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from regard.mask import Block, part, positions, select
from regard.scores import Scores, matmul

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Statistics = dict[str, "Tensor | tuple[Tensor, Tensor]"]


def softmax(scores: Float[Tensor, "b h q k"], sinks: Float[Tensor, "h"] | None) -> tuple[Tensor, Tensor]:
    """Weights and lse of whole rows. A row of nothing but −inf gets weights 0 and lse −inf (or its sink)."""
    if scores.shape[-1] == 0:
        weights, lse = scores, scores.new_full(scores.shape[:-1], -torch.inf)
    else:
        weights = scores.softmax(-1)
        largest = scores.amax(-1)
        lse = largest - weights.amax(-1).log()  # the largest weight is exp(largest − lse)
        empty = largest == -torch.inf
        if empty.any():
            weights = weights.masked_fill(empty[..., None], 0)
            lse = lse.masked_fill(empty, -torch.inf)
        if lse.isnan().any():
            weights = weights.masked_fill(scores == -torch.inf, 0)  # nan goes where it was seen, and no further
    if sinks is None:
        return weights, lse
    with_sink = lse.logaddexp(sinks.to(lse.dtype)[:, None])
    return weights * (lse - with_sink).exp()[..., None], with_sink


def weights_of(scores: Scores, sinks: Tensor | None) -> Iterator[tuple[Block, Tensor, Tensor]]:
    """Block by block: where, the weights (b,h,rows,columns) and the lse (b,h,rows)."""
    for at in scores.blocks():
        yield at, *softmax(scores.tile(at), None if sinks is None else sinks[at.heads])


def average(weights: Float[Tensor, "b h q k"], value: Float[Tensor, "b g k e"], scores: Tensor | None = None) -> Tensor:
    """Σ_j w_ij v_j (b,h,q,e). A value that is not finite reaches the rows that see it (weight > 0, without scores)."""
    if value.isfinite().all():
        return matmul(weights, value)
    seen = (weights != 0 if scores is None else scores != -torch.inf).to(weights.dtype)
    weighed = (weights > 0).to(weights.dtype)
    output = matmul(weights, value.masked_fill(~value.isfinite(), 0))
    plus, minus, nan = ((test).to(weights.dtype) for test in (value == torch.inf, value == -torch.inf, value.isnan()))
    output = output.masked_fill(matmul(weighed, plus) > 0, torch.inf)
    output = output + torch.zeros_like(output).masked_fill_(matmul(weighed, minus) > 0, -torch.inf)
    return output.masked_fill(matmul(seen, nan) + matmul(seen - weighed, plus + minus) > 0, torch.nan)


# The forward pass


def forward(
    scores: Scores, value: Float[Tensor, "B G K E"], sinks: Tensor | None, collect: Sequence[str] = ()
) -> tuple[Float[Tensor, "B H Q E"], Float[Tensor, "B H Q"], Statistics]:
    """Output, lse, and the statistics asked for, in one pass over the matrix."""
    batch, heads, queries, _ = scores.shape
    output = value.new_empty(batch, queries, heads, value.shape[-1]).transpose(
        1, 2
    )  # heads side by side, as models want
    lse = value.new_empty(batch, heads, queries, dtype=scores.dtype)
    gather = _Gather(scores, collect)
    for at in scores.blocks():
        tile = scores.tile(at)
        weights, row_lse = softmax(tile, None if sinks is None else sinks[at.heads])
        some = select(value[at.batch, scores.groups(at.heads)], 2, at.columns).to(scores.dtype)
        output[at.batch, at.heads, at.rows] = average(weights, some, tile).to(output.dtype)
        lse[at.batch, at.heads, at.rows] = row_lse
        gather.add(at, weights)
    return output, lse, gather.statistics


def statistics(scores: Scores, sinks: Tensor | None, names: Sequence[str]) -> Statistics:
    """Row statistics by name: "entropy", "max", "topk:k", "distance"."""
    gather = _Gather(scores, names)
    for at, weights, _ in weights_of(scores, sinks):
        gather.add(at, weights)
    return gather.statistics


class _Gather:
    """Collects statistics of rows as the blocks go by."""

    def __init__(self, scores: Scores, names: Sequence[str]) -> None:
        self.keys = scores.shape[-1]
        self.statistics: Statistics = {}
        for name in names:
            self.statistics[name] = self._empty(name, scores)

    @staticmethod
    def _empty(name: str, scores: Scores) -> Tensor | tuple[Tensor, Tensor]:
        rows = scores.query.new_zeros(scores.shape[:3], dtype=scores.dtype)
        if name == "max":
            return rows, torch.zeros_like(rows, dtype=torch.long)
        if name.startswith("topk:"):
            values = rows[..., None].repeat(1, 1, 1, int(name.removeprefix("topk:")))
            return values, torch.zeros_like(values, dtype=torch.long)
        return rows

    def add(self, at: Block, weights: Tensor) -> None:
        for name, whole in self.statistics.items():
            first = at.columns.start if isinstance(at.columns, slice) else 0
            if name == "entropy":
                found: tuple[Tensor, ...] = (entropy(weights),)
            elif name == "distance":
                found = (distance(weights, at),)
            else:
                k = 1 if name == "max" else whole[0].shape[-1]
                values, indices = topk(weights, k, first, self.keys)
                found = (values[..., 0], indices[..., 0]) if name == "max" else (values, indices)
            for target, part_found in zip(whole if isinstance(whole, tuple) else (whole,), found, strict=True):
                target[at.batch, at.heads, at.rows] = part_found


def entropy(weights: Float[Tensor, "b h q k"]) -> Float[Tensor, "b h q"]:
    """−Σ_j w ln w, in nats."""
    tiny = torch.finfo(weights.dtype).tiny
    return -(weights * weights.clamp(min=tiny).log()).sum(-1)


def distance(weights: Float[Tensor, "b h q k"], at: Block) -> Float[Tensor, "b h q"]:
    """Σ_j w_ij |i − j|."""
    rows, columns = positions(at.rows, weights.device), positions(at.columns, weights.device)
    return (weights * (rows[:, None] - columns).abs()).sum(-1)


def topk(
    weights: Float[Tensor, "b h q n"], k: int, first: int, keys: int
) -> tuple[Float[Tensor, "b h q k"], Int[Tensor, "b h q k"]]:
    """The k largest weights of each row and their keys, sorted, ties to the lower key.

    `weights` are those of the keys from `first` on; all the others of the `keys` weigh 0.
    """
    found = min(k, weights.shape[-1])
    values, indices = weights.topk(found, dim=-1)
    # torch.topk breaks ties as it likes. Inside the k: order by key, then stably by weight.
    indices, order = indices.sort(-1)
    values, again = values.gather(-1, order).sort(dim=-1, descending=True, stable=True)
    indices = indices.gather(-1, again)
    # At the edge: where more keys have the least of these weights than fit, take the first of them.
    if found:
        least = values[..., -1:]
        wanted = (values == least).sum(-1)
        tied = ((weights == least).sum(-1) > wanted) & (least[..., 0] > 0)
        for b, h, q in tied.nonzero().tolist():
            n = int(wanted[b, h, q])
            indices[b, h, q, -n:] = (weights[b, h, q] == least[b, h, q]).nonzero()[:n, 0]
    values = torch.nn.functional.pad(values, (0, k - found))
    indices = torch.nn.functional.pad(indices + first, (0, k - found))
    if (values == 0).any():
        indices = _first_of_no_weight(values, indices)
    return values, indices


def _first_of_no_weight(values: Tensor, indices: Tensor) -> Tensor:
    """Where fewer than k keys have weight, the rest of the k are the first keys that have none."""
    k = values.shape[-1]
    weighed = values != 0  # nan too
    taken = torch.zeros(*values.shape[:-1], k + 1, dtype=torch.bool, device=values.device)
    taken.scatter_(-1, torch.where(weighed, indices, k).clamp(max=k), True)
    free = taken[..., :k].long().sort(dim=-1, stable=True).indices  # the keys below k, those without weight first
    nth = (~weighed).cumsum(-1) - 1
    return torch.where(weighed, indices, free.gather(-1, nth.clamp(min=0)))


# Reductions over queries, keys or both


def apply(scores: Scores, sinks: Tensor | None, value: Float[Tensor, "B g K F"]) -> Float[Tensor, "B H Q F"]:
    """w @ value."""
    batch, heads, queries, _ = scores.shape
    output = scores.query.new_empty(batch, heads, queries, value.shape[-1], dtype=scores.dtype)
    for at, weights, _ in weights_of(scores, sinks):
        shared = value.shape[1] not in (1, heads)  # one a group
        some = value if value.shape[0] == 1 else value[at.batch]
        some = some[:, scores.groups(at.heads)] if shared else some if value.shape[1] == 1 else some[:, at.heads]
        some = select(some, 2, at.columns).to(scores.dtype).expand(weights.shape[0], -1, -1, -1)
        output[at.batch, at.heads, at.rows] = average(weights, some)
    return output


def apply_transposed(scores: Scores, sinks: Tensor | None, y: Float[Tensor, "B|1 H|1 Q F"]) -> Float[Tensor, "B H K F"]:
    """w.T @ y."""
    batch, heads, _, keys = scores.shape
    output = scores.query.new_zeros(batch, heads, keys, y.shape[-1], dtype=scores.dtype)
    for at, weights, _ in weights_of(scores, sinks):
        some = select(part(y, at.batch, at.heads), 2, at.rows).to(scores.dtype)
        output[at.batch, at.heads, at.columns] += weights.mT @ some
    return output


def received(scores: Scores, sinks: Tensor | None) -> Float[Tensor, "B H K"]:
    """Σ_i w_ij, summed in float64."""
    batch, heads, _, keys = scores.shape
    total = scores.query.new_zeros(batch, heads, keys, dtype=torch.float64)
    for at, weights, _ in weights_of(scores, sinks):
        total[at.batch, at.heads, at.columns] += weights.sum(-2)
    return total.to(scores.dtype)


def grouped(
    scores: Scores,
    sinks: Tensor | None,
    queries: Int[Tensor, "Q"],
    keys: Int[Tensor, "K"],
    sizes: tuple[int, int],
    reduce: str,
) -> Float[Tensor, "B H R C"]:
    """Weights gathered into `sizes` cells: row i goes to cell queries[i], column j to keys[j]; −1 is left out.

    reduce: "sum" or "max" of the weights that fall into a cell.
    """
    batch, heads, _, _ = scores.shape
    cells = scores.query.new_zeros(batch, heads, *sizes, dtype=scores.dtype)
    for at, weights, _ in weights_of(scores, sinks):
        row, column = queries[at.rows], keys[at.columns]
        narrow = _gather_last(weights, column, sizes[1], reduce)  # (b, h, rows, C)
        target = cells[at.batch, at.heads].mT  # a view: adds to cells
        found = _gather_last(narrow.mT, row, sizes[0], reduce)
        target.copy_(target.maximum(found) if reduce == "max" else target + found)
    return cells


def _gather_last(tensor: Tensor, cell: Int[Tensor, "n"], cells: int, reduce: str) -> Tensor:
    if (cell < 0).any():
        kept = (cell >= 0).nonzero()[:, 0]
        tensor, cell = tensor.index_select(-1, kept), cell[kept]
    out = tensor.new_zeros(*tensor.shape[:-1], cells)
    if reduce == "max":
        return out.scatter_reduce_(-1, cell.expand_as(tensor), tensor, "amax")
    return out.index_add_(-1, cell, tensor)


# The gradient


def backward(
    scores: Scores,
    value: Tensor,
    sinks: Tensor | None,
    output: Tensor,
    grad_output: Tensor,
    grad_lse: Tensor | None,
    bias_needs_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """Gradients of query, key, value, bias and sinks, from the weights computed again block by block.

    With g the gradient of the output and l that of the lse: ds_ij = w_ij (g_i·v_j − g_i·output_i + l_i).
    """
    grad_query = torch.zeros_like(scores.query, dtype=scores.dtype)
    grad_key = torch.zeros_like(scores.key, dtype=scores.dtype)
    grad_value = torch.zeros_like(value, dtype=scores.dtype)
    grad_bias = None
    if bias_needs_grad and scores.bias is not None:
        grad_bias = torch.zeros_like(scores.bias, dtype=scores.dtype)
    grad_sinks = None if sinks is None else sinks.new_zeros(sinks.shape, dtype=scores.dtype)
    grad_output = grad_output.to(scores.dtype)
    through = (grad_output * output.to(scores.dtype)).sum(-1)  # (B, H, Q): what the normaliser takes back
    if grad_lse is not None:
        through = through - grad_lse
    for at in scores.blocks():
        groups = scores.groups(at.heads)
        tile = scores.tile(at)
        weights, lse = softmax(tile, None if sinks is None else sinks[at.heads])
        query = select(scores.query[at.batch, at.heads], 2, at.rows).to(scores.dtype)
        key, some_value = (
            select(tensor[at.batch, groups], 2, at.columns).to(scores.dtype) for tensor in (scores.key, value)
        )
        grad, taken = grad_output[at.batch, at.heads, at.rows], through[at.batch, at.heads, at.rows]
        grad_value[at.batch, groups, at.columns] += _over_group(weights, grad, scores.repeat)
        grad_tile = matmul(grad, some_value.mT).sub_(taken[..., None]).mul_(weights)
        if grad_bias is not None:
            part(grad_bias, *at).add_(grad_tile.sum_to_size(part(grad_bias, *at).shape))
        if sinks is not None and grad_sinks is not None:
            mass = (sinks[at.heads].to(lse.dtype)[:, None] - lse).exp()
            grad_sinks[at.heads] -= (mass * taken).sum((0, 2))
        if scores.softcap is not None:  # the derivative of c·tanh(s/c) is 1 − tanh²
            if scores.bias is not None:
                tile = tile - part(scores.bias, *at)
            grad_tile = grad_tile * (1 - (tile / scores.softcap).square()).masked_fill(weights == 0, 0)
        grad_tile = grad_tile.mul_(scores.scale)
        grad_query[at.batch, at.heads, at.rows] = matmul(grad_tile, key)
        grad_key[at.batch, groups, at.columns] += _over_group(grad_tile, query, scores.repeat)
    return grad_query, grad_key, grad_value, grad_bias, grad_sinks


def _over_group(tile: Float[Tensor, "b h q k"], rows: Float[Tensor, "b h q f"], repeat: int) -> Tensor:
    """tileᵀ · rows, summed over the query heads of each group: (b,g,k,f)."""
    batch, heads, _, columns = tile.shape
    folded = tile.reshape(batch, heads // repeat, -1, columns).mT
    return folded @ rows.reshape(batch, heads // repeat, -1, rows.shape[-1])
