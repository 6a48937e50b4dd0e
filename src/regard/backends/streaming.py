"""Attention, its gradient and every statistic of its weights, a block of the matrix at a time, in O(N) memory.

A block holds whole rows, so that a softmax of its scores is exact there and then, and sums to one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from regard.backends.protocol import Capabilities, Matrix, Statistics
from regard.backends.ranking import topk
from regard.mask import Block, positions, select, select_broadcast
from regard.scores import Scores, matmul

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Num

CAPABILITIES = Capabilities()

Cotangent = Callable[[Block, Tensor], Tensor]  # G_ij = ∂L/∂w_ij of a block, from its place and its weights


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


def average(
    weights: Float[Tensor, "b h q k"], value: Float[Tensor, "#b g k e"], scores: Tensor | None = None
) -> Tensor:
    """Σ_j w_ij v_j (b,h,q,e). A value that is not finite reaches the rows that see it (weight > 0, without scores)."""
    if value.isfinite().all():
        return matmul(weights, value)
    seen = (weights != 0 if scores is None else scores != -torch.inf).to(weights.dtype)
    weighed = (weights > 0).to(weights.dtype)
    output = matmul(weights, value.masked_fill(~value.isfinite(), 0))
    plus, minus, nan = (test.to(weights.dtype) for test in (value == torch.inf, value == -torch.inf, value.isnan()))
    output = output.masked_fill(matmul(weighed, plus) > 0, torch.inf)
    output = output + torch.zeros_like(output).masked_fill_(matmul(weighed, minus) > 0, -torch.inf)
    return output.masked_fill(matmul(seen, nan) + matmul(seen - weighed, plus + minus) > 0, torch.nan)


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
def statistics(matrix: Matrix, names: Sequence[str]) -> Statistics:
    """Row statistics by name: "entropy", "distance", "topk:k"."""
    scores, sinks = matrix.scores, matrix.sinks
    results = _empty_statistics(scores, names)
    for at, weights, lse in weights_of(scores, sinks):
        mass = None if sinks is None else sink_mass(sinks[at.heads], lse)
        _write_statistics(results, at, weights, scores.shape[3], mass)
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


# Reductions over queries, keys or both


def apply(matrix: Matrix, x: Num[Tensor, "#B _ K F"]) -> Float[Tensor, "B H Q F"]:
    """w @ x."""
    scores, sinks = matrix.scores, matrix.sinks
    batch, heads, queries, _ = scores.shape
    output = scores.query.new_empty(batch, heads, queries, x.shape[-1], dtype=scores.dtype)
    for at, weights, _ in weights_of(scores, sinks):
        vectors = select_broadcast(x, at.batch, heads_of(x, scores, at), at.columns).to(scores.dtype)
        output[at.batch, at.heads, at.rows] = average(weights, vectors)
    return output


def apply_transposed(matrix: Matrix, y: Num[Tensor, "#B _ Q F"]) -> Float[Tensor, "B H K F"]:
    """w.T @ y."""
    scores, sinks = matrix.scores, matrix.sinks
    batch, heads, _, keys = scores.shape
    output = scores.query.new_zeros(batch, heads, keys, y.shape[-1], dtype=scores.dtype)
    for at, weights, _ in weights_of(scores, sinks):
        vectors = select_broadcast(y, at.batch, heads_of(y, scores, at), at.rows).to(scores.dtype)
        output[at.batch, at.heads, at.columns] += average(weights.mT, vectors)
    return output


def heads_of(vectors: Tensor, scores: Scores, at: Block) -> slice:
    """The heads of `vectors`, one for each query head or for each group, that a block needs."""
    return scores.groups(at.heads) if vectors.shape[1] == scores.key.shape[1] else at.heads


def dense(matrix: Matrix) -> Float[Tensor, "B H Q K"]:
    """The whole matrix."""
    scores, sinks = matrix.scores, matrix.sinks
    weights = scores.query.new_zeros(scores.shape, dtype=scores.dtype)
    for at, block, _ in weights_of(scores, sinks):
        weights[at.batch, at.heads, at.rows, at.columns] = block
    return weights


def tile(matrix: Matrix, at: Block) -> Float[Tensor, "b h q k"]:
    """A block of the matrix, whose heads make up whole groups or lie in one."""
    scores, lse = matrix.scores, matrix.lse
    tile = scores.tile(at)
    lse = select(lse[at.batch, at.heads], 2, at.rows)[..., None]
    return (tile - lse).exp_().masked_fill_(tile == -torch.inf, 0)


def received(matrix: Matrix) -> Float[Tensor, "B H K"]:
    """Σ_i w_ij, summed in float64."""
    scores, sinks = matrix.scores, matrix.sinks
    batch, heads, _, keys = scores.shape
    total = scores.query.new_zeros(batch, heads, keys, dtype=torch.float64)
    for at, weights, _ in weights_of(scores, sinks):
        total[at.batch, at.heads, at.columns] += weights.sum(-2)
    return total.to(scores.dtype)


def grouped(
    matrix: Matrix,
    queries: Int[Tensor, "Q"],
    keys: Int[Tensor, "K"],
    sizes: tuple[int, int],
    reduce: str,
    blocks: Iterable[Block] | None = None,
) -> Float[Tensor, "B H R C"]:
    """Weights gathered into `sizes` cells: row i goes to cell queries[i], column j to keys[j]; −1 is left out.

    reduce: "sum" or "max" of the weights that fall into a cell.
    """
    scores, sinks = matrix.scores, matrix.sinks
    batch, heads, _, _ = scores.shape
    cells = scores.query.new_zeros(batch, heads, *sizes, dtype=scores.dtype)
    for at, weights, _ in weights_of(scores, sinks, blocks):
        # Long rows are summed in float64: added up one by one in float32, they would be off by 1e-5.
        narrow = weights.new_zeros(*weights.shape[:3], sizes[1], dtype=torch.float64)
        put(narrow, -1, keys[at.columns], weights, reduce)
        put(cells[at.batch, at.heads], -2, queries[at.rows], narrow, reduce)
    return cells


def put(target: Tensor, dim: int, cell: Int[Tensor, "n"], tensor: Tensor, reduce: str) -> None:
    """Adds each slice of `tensor` to the slice of `target` that `cell` names, or takes the larger; −1 is left out."""
    if (cell < 0).any():
        kept = (cell >= 0).nonzero()[:, 0]
        tensor, cell = tensor.index_select(dim, kept), cell[kept]
    tensor = tensor.to(target.dtype)
    if reduce == "max":
        where = cell if dim == -1 else cell[:, None]
        target.scatter_reduce_(dim, where.expand_as(tensor), tensor, "amax")
    else:
        target.index_add_(dim, cell, tensor)


# The gradient

GRADIENT_BLOCK = 1 << 19  # on a processor; several tensors of a block's size are alive at once


def gradient_blocks(scores: Scores) -> Iterator[Block]:
    """The blocks in which `gradient` goes through all of the matrix."""
    return scores.blocks(GRADIENT_BLOCK if scores.query.device.type == "cpu" else None)


def backward(
    scores: Scores,
    value: Tensor,
    sinks: Tensor | None,
    output: Tensor,
    grad_output: Tensor,
    grad_lse: Tensor | None,
    bias_needs_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """Gradients of query, key, value, bias and sinks, from those of output and lse: G_ij = ∂L/∂output_i · v_j."""
    grad_value = torch.zeros_like(value, dtype=scores.dtype)
    grad_output = grad_output.to(scores.dtype)
    delta = (grad_output * output.to(scores.dtype)).sum(-1)  # (B, H, Q): Σ_k w_ik G_ik
    if grad_lse is not None:
        delta = delta - grad_lse

    def cotangent(at: Block, weights: Tensor) -> Tensor:
        groups, grad = scores.groups(at.heads), grad_output[at.batch, at.heads, at.rows]
        grad_value[at.batch, groups, at.columns] += _over_group(weights, grad, scores.n_rep)
        return matmul(grad, _finite(value[at.batch, groups, at.columns].to(scores.dtype)).mT)

    grads = gradient(scores, sinks, cotangent, delta=delta, bias_needs_grad=bias_needs_grad)
    return *grads[:2], grad_value, *grads[2:]


def gradient(
    scores: Scores,
    sinks: Tensor | None,
    cotangent: Cotangent | None,
    *,
    delta: Float[Tensor, "B H Q"] | None = None,
    blocks: Iterable[Block] | None = None,
    bias_needs_grad: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Gradients of query, key, bias and sinks, from that of the weights, which are computed again block by block.

        ∂L/∂s_ij = w_ij (G_ij − δ_i)      δ_i = Σ_k w_ik G_ik − ∂L/∂lse_i

    Args:
        cotangent: G; None where the loss depends on the lse alone.
        delta: δ, where it is known beforehand; without it the loss must not depend on the lse.
        blocks: the rows on which the loss depends, each once; all of them if not given.
    """
    grad_query = torch.zeros_like(scores.query, dtype=scores.dtype)
    grad_key = torch.zeros_like(scores.key, dtype=scores.dtype)
    grad_bias = None
    if bias_needs_grad and scores.bias is not None:
        grad_bias = torch.zeros_like(scores.bias, dtype=scores.dtype)
    grad_sinks = None if sinks is None else sinks.new_zeros(sinks.shape, dtype=scores.dtype)
    for at in gradient_blocks(scores) if blocks is None else blocks:
        groups = scores.groups(at.heads)
        tile = scores.tile(at)
        weights, lse = softmax(tile, None if sinks is None else sinks[at.heads])
        grad_weights = weights.new_zeros(()) if cotangent is None else cotangent(at, weights)
        row_delta = (grad_weights * weights).sum(-1) if delta is None else delta[at.batch, at.heads, at.rows]
        unseen = weights == 0
        grad_tile = weights.mul_((grad_weights - row_delta[..., None]).to(weights.dtype)).masked_fill_(unseen, 0)
        if grad_bias is not None:
            _add(grad_bias, at, grad_tile)
        if sinks is not None and grad_sinks is not None:
            grad_sinks[at.heads] -= (sink_mass(sinks[at.heads], lse) * row_delta).sum((0, 2))
        if scores.softcap is not None:  # the derivative of c·tanh(s/c) is 1 − tanh²
            grad_tile *= (1 - scores.tanh(at).square()).masked_fill_(unseen, 0)
        grad_tile = grad_tile.mul_(scores.scale)
        # What is not finite has made the weights of those who see it nan; the others must not meet it.
        query = _finite(select(scores.query[at.batch, at.heads], 2, at.rows).to(scores.dtype))
        key = _finite(select(scores.key[at.batch, groups], 2, at.columns).to(scores.dtype))
        repeat = max(1, grad_tile.shape[1] // max(1, key.shape[1]))
        grad_query[at.batch, at.heads, at.rows] = matmul(grad_tile, key)
        grad_key[at.batch, groups, at.columns] += _over_group(grad_tile, query, repeat)
    return grad_query, grad_key, grad_bias, grad_sinks


def _over_group(tile: Float[Tensor, "b h q k"], rows: Float[Tensor, "b h q f"], repeat: int) -> Tensor:
    """tileᵀ · rows, summed over the query heads of each group: (b,g,k,f)."""
    batch, heads, queries, columns = tile.shape
    folded = (batch, heads // repeat, repeat * queries)
    return matmul(tile.reshape(*folded, columns).mT, rows.reshape(*folded, rows.shape[-1]))


def _add(total: Tensor, at: Block, tile: Tensor) -> None:
    """Adds a block to its part of a broadcastable tensor, summed over dimensions of size 1."""
    target = select_broadcast(total, *at)
    tile = tile.sum_to_size(target.shape)
    if total.shape[2] == 1 or isinstance(at.rows, slice):
        target += tile
    else:  # rows one by one: `target` is a copy
        select_broadcast(total, at.batch, at.heads, slice(0, total.shape[2]), at.columns).index_add_(2, at.rows, tile)


def _finite(tensor: Tensor) -> Tensor:
    return tensor if tensor.isfinite().all() else tensor.nan_to_num(0, 0, 0)
