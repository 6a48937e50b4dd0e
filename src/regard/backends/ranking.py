"""The largest weights of each row and their keys, equal weights in the order of their keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def topk(
    weights: Float[Tensor, "b h q n"], k: int, first: int, keys: int
) -> tuple[Float[Tensor, "b h q k"], Int[Tensor, "b h q k"]]:
    """The k largest weights of each row and their keys, sorted, ties to the lower key.

    `weights` are those of the keys from `first` on; all the others of the `keys` weigh 0.
    """
    count = min(k, weights.shape[-1])
    if not bool(weights.sum(-1).isfinite().all()):  # nan comes first, as in torch, and stands above every weight here
        values, indices = topk(weights.nan_to_num(nan=2), k, first, keys)
        return values.masked_fill(values == 2, torch.nan), indices
    if count == 1:
        values, indices = weights.max(-1, keepdim=True)  # the first of them
    else:
        values, indices = _topk(weights, count)
    values = torch.nn.functional.pad(values, (0, k - count))
    indices = torch.nn.functional.pad(indices + first, (0, k - count))
    if (values == 0).any():
        indices = _first_of_no_weight(values, indices)
    return values, indices


def signed_topk(
    numbers: Float[Tensor, "b h q K"], k: int, magnitude: bool
) -> tuple[Float[Tensor, "b h q k"], Int[Tensor, "b h q k"]]:
    """The k largest numbers of whole rows, by value or by magnitude, sorted, ties to the lower key; nan first."""
    ranked = (numbers.abs() if magnitude else numbers).sort(dim=-1, descending=True, stable=True).indices[..., :k]
    return numbers.gather(-1, ranked), ranked


def _topk(weights: Float[Tensor, "b h q n"], k: int) -> tuple[Float[Tensor, "b h q k"], Int[Tensor, "b h q k"]]:
    """torch.topk with ties to the lower index, which torch breaks as it likes."""
    values, indices = _by_weight_and_key(*weights.topk(k, dim=-1))
    # At the edge: where more keys have the least of these weights than fit, take the first of them.
    least = values[..., -1:]
    fit = (values == least).sum(-1)
    tied = ((weights == least).sum(-1) > fit) & (least[..., 0] > 0)
    if tied.any():
        keys = torch.arange(weights.shape[-1], 0, -1, dtype=torch.int32, device=weights.device)
        first = ((weights[tied] == least[tied]) * keys).topk(k).indices  # (rows, k): the lowest of the tied come first
        nth = torch.arange(k, device=weights.device) - (k - fit[tied])[:, None]  # which of the tied a place is for
        indices[tied] = torch.where(nth < 0, indices[tied], first.gather(-1, nth.clamp(min=0)))
    return values, indices


def _by_weight_and_key(values: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    indices, order = indices.sort(-1)
    values, again = values.gather(-1, order).sort(dim=-1, descending=True, stable=True)
    return values, indices.gather(-1, again)


def in_order(
    values: Float[Tensor, "... k"], indices: Int[Tensor, "... k"]
) -> tuple[Float[Tensor, "... k"], Int[Tensor, "... k"]]:
    """The k largest weights and their keys, sorted; equal weights by their keys."""
    values, indices = _by_weight_and_key(values, indices)
    return values, _first_of_no_weight(values, indices) if (values == 0).any() else indices


def _first_of_no_weight(values: Tensor, indices: Tensor) -> Tensor:
    """Where fewer than k keys have weight, the rest of the k are the first keys that have none."""
    k = values.shape[-1]
    weighed = values != 0  # nan too
    taken = torch.zeros(*values.shape[:-1], k + 1, dtype=torch.bool, device=values.device)
    taken.scatter_(-1, torch.where(weighed, indices, k).clamp(max=k), True)
    free = taken[..., :k].long().sort(dim=-1, stable=True).indices  # the keys below k, those without weight first
    nth = (~weighed).cumsum(-1) - 1
    return torch.where(weighed, indices, free.gather(-1, nth.clamp(min=0)))
