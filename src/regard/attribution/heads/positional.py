"""`positional`: how much of what a head looks for is distance, and how much is content."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn.functional import pad

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

    from regard.attribution.heads.sample import Sample
    from regard.attribution.layers import Layer
    from regard.scores import Scores

ROWS = 64  # of a block of plain products: about D, so that they cost no more than the products of keys with keys
LEAST = 1e-10  # of Σ s²: scores that differ by less than 1e-5 of their size differ by rounding


class _Sums(NamedTuple):
    """What the share of the variance is made of, in float64.

    Attributes:
        squares: Σ s_ij², over all pairs.
        total: Σ c_ij², over all pairs.
        by_distance: Σ c_ij over the pairs of each distance i − j, from −(K − 1) to Q − 1.
        pairs: how many pairs each distance has.
    """

    squares: Float[Tensor, "H"]
    total: Float[Tensor, "H"]
    by_distance: Float[Tensor, "H Q+K-1"]
    pairs: Float[Tensor, "#H Q+K-1"]


@torch.no_grad()
def positional(layer: Layer, sample: Sample) -> Float[Tensor, "H"]:
    """The share of the variance of the scores, each row centred over the keys it sees, that i − j explains.

        c_ij = s_ij − mean_{j′ seen by i} s_ij′
        positional = Σ_d n_d (mean of c_ij over i − j = d)² / Σ_ij c_ij²        0 to 1

    over the pairs (i, j) of a row that counts and a key that it sees, n_d of them at the distance d: R² of the
    regression of c on the distance, as a category. Centring changes no weight; it takes off what a row adds to all its
    scores. 0 where Σ c² is less than 1e-10 of Σ s², which is rounding. Voita et al. 2019,
    https://arxiv.org/abs/1905.09418, name such heads positional, by where their largest weight lies.

    A short text says little: of N tokens at random, i − j explains 2/N.
    """
    scores, rows = layer.weights.scores, sample.rows.to(layer.weights.device)
    sums = _of_products(scores, rows) if _are_products(scores) else _of_blocks(scores, rows)
    explained = (sums.by_distance.square() / sums.pairs.clamp(min=1)).sum(-1)
    varies = (sums.total > LEAST * sums.squares) & (sums.total > 0)
    return torch.where(varies, explained / torch.where(varies, sums.total, 1.0), 0.0)


def _are_products(scores: Scores) -> bool:
    """Whether scores are scale · q_i·k_j, and a query sees all keys, or all up to itself."""
    mask = scores.mask
    others = (scores.bias, scores.softcap, mask.given, mask.lengths, mask.segments)
    if any(other is not None for other in others) or mask.window != (None, None):
        return False
    return not mask.bounded or mask.queries == mask.keys


def _of_blocks(scores: Scores, rows: Bool[Tensor, "Q"]) -> _Sums:
    """The sums of any scores, block by block."""
    exact = replace(scores, query=scores.query.double(), key=scores.key.double())
    _, heads, queries, keys = scores.shape
    squares, total = exact.query.new_zeros(2, heads).unbind()
    by_distance, pairs = exact.query.new_zeros(2, heads, queries + keys - 1).unbind()
    for at in exact.blocks():
        assert isinstance(at.rows, slice)
        assert isinstance(at.columns, slice)
        tile = exact.tile(at)[0]
        seen = (tile != -torch.inf) & rows[at.rows, None]
        tile = tile.masked_fill_(~seen, 0)
        centred = tile - tile.sum(-1, keepdim=True) / seen.sum(-1, keepdim=True).clamp(min=1)
        centred.masked_fill_(~seen, 0)
        squares[at.heads] += tile.square_().sum((-2, -1))
        total[at.heads] += centred.square().sum((-2, -1))
        first = at.rows.start - at.columns.stop + keys
        run = slice(first, first + sum(centred.shape[-2:]) - 1)
        by_distance[at.heads, run] += _diagonal_sums(centred)
        pairs[at.heads, run] += _diagonal_sums(seen.double())
    return _Sums(squares, total, by_distance, pairs)


def _diagonal_sums(block: Float[Tensor, "h q k"]) -> Float[Tensor, "h q+k-1"]:
    """The sum over each i − j, from −(k − 1) to q − 1: rows of k + q numbers, read as rows of one number fewer."""
    heads, rows, columns = block.shape
    moved = pad(block.flip(-1), (0, rows)).flatten(1)[:, : rows * (rows + columns - 1)]
    return moved.view(heads, rows, rows + columns - 1).sum(1)


def _of_products(scores: Scores, rows: Bool[Tensor, "Q"]) -> _Sums:
    """The sums of plain products without the scores: O(N·D·(D + log N)) in the place of O(N²·D).

    The sum along a diagonal, Σ_i q_i·k_{i−d}, is a cross-correlation, which the fast Fourier transform gives for all d;
    Σ_i (q_i·k_j)² needs the products of keys with keys alone; and the mean of a row that of its keys.
    """
    causal = scores.mask.bounded
    query = (scores.query[0].double() * scores.scale * rows[:, None]).unflatten(0, (scores.key.shape[1], -1))
    key = scores.key[0].double()[:, None]  # (G,1,K,D), beside (G,n,Q,D)
    queries, keys = query.shape[2], key.shape[2]
    place = torch.arange(queries, device=query.device)
    seen = (place + 1 if causal else torch.full_like(place, keys)) * rows  # by each row, how many keys
    sum_of_keys = key.cumsum(2) if causal else key.sum(2, keepdim=True)
    mean = (query * sum_of_keys).sum(-1).flatten(0, 1) / seen.clamp(min=1)  # (H,Q)
    squares = _sum_of_squares(query, key, causal).flatten()
    distance = torch.arange(1 - keys, queries, device=query.device)
    # A key at this distance have the rows from d on, and before K + d.
    of_means, pairs = (
        numbers.index_select(-1, (keys + distance).clamp(max=queries)) - numbers.index_select(-1, distance.clamp(min=0))
        for numbers in (pad(t.double().cumsum(-1), (1, 0)) for t in (mean, rows[None]))
    )
    by_distance = _correlations(query, key[:, 0], distance) - of_means
    if causal:
        by_distance, pairs = (numbers.masked_fill(distance < 0, 0) for numbers in (by_distance, pairs))
    return _Sums(squares, squares - (seen * mean.square()).sum(-1), by_distance, pairs)


def _sum_of_squares(query: Float[Tensor, "G n Q D"], key: Float[Tensor, "G 1 K D"], causal: bool) -> Tensor:
    """Σ_ij (q_i·k_j)² = Σ_i q_iᵀ (Σ_j k_j k_jᵀ) q_i, over all j or over j ≤ i; (G,n)."""
    if not causal:
        return ((query.mT @ query) * (key.mT @ key)).sum((-2, -1))
    total, before = query.new_zeros(query.shape[:2]), query.new_zeros(key.shape[0], 1, key.shape[3], key.shape[3])
    for some_queries, some_keys in zip(query.split(ROWS, 2), key.split(ROWS, 2), strict=True):
        total += ((some_queries.mT @ some_queries) * before).sum((-2, -1))
        total += (some_queries @ some_keys.mT).tril().square().sum((-2, -1))
        before += some_keys.mT @ some_keys
    return total


def _correlations(
    query: Float[Tensor, "G n Q D"], key: Float[Tensor, "G K D"], distance: Int[Tensor, "d"]
) -> Float[Tensor, "H d"]:
    """Σ_i q_i·k_{i−d} for these distances."""
    size = 1 << (query.shape[2] + key.shape[1] - 2).bit_length()
    of_head = []
    for of_group, own_key in zip(query, key, strict=True):  # a group after another: D transforms are large
        transformed = torch.fft.rfft(own_key.mT, size)
        of_head += [torch.linalg.vecdot(transformed, torch.fft.rfft(own.mT, size), dim=0) for own in of_group]
    sums: Tensor = torch.fft.irfft(torch.stack(of_head), size).index_select(-1, distance % size)
    return sums
