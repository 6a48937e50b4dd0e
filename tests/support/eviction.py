"""Each published method of eviction in a few dense lines, from weights (B,H,Q,K) as eager attention gives them."""

from __future__ import annotations

import torch
from torch import Tensor


def of_groups(numbers: Tensor, groups: int) -> Tensor:
    """The heads (B,H,…) as (B,G,H/G,…)."""
    return numbers.unflatten(1, (groups, -1))


def dense_h2o(w: Tensor, groups: int, window: int) -> Tensor:
    """Accumulated over the queries, for each key; the recent ones stay."""
    numbers = of_groups(w.sum(2), groups).mean(2)
    numbers[..., max(0, w.shape[3] - window) :] = torch.inf
    return numbers


def dense_snapkv(w: Tensor, groups: int, window: int, kernel: int, pooling: str) -> Tensor:
    """What the last queries give to the keys before them, pooled over neighbours with zeros at both ends."""
    keys, half = w.shape[3], kernel // 2
    numbers = torch.full((w.shape[0], groups, keys), torch.inf, dtype=w.dtype)
    before = max(0, keys - window)
    votes = w[:, :, max(0, w.shape[2] - window) :, :before].sum(2)
    framed = torch.nn.functional.pad(votes, (half, half))
    for key in range(before):
        near = framed[..., key : key + kernel]
        pooled = near.mean(-1) if pooling == "mean" else near.amax(-1)
        numbers[..., key] = of_groups(pooled, groups).mean(2)
    return numbers


def dense_tova(w: Tensor, groups: int) -> Tensor:
    """The last query, averaged over heads; the same for every group."""
    return w[:, :, -1].mean(1)[:, None].expand(-1, groups, -1)


def dense_kvzip(w: Tensor, groups: int, tokens: int) -> Tensor:
    """The largest weight in the pass that repeats the first tokens, over its queries and the heads of a group."""
    return of_groups(w[:, :, tokens:, :tokens].amax(2), groups).amax(2)


def dense_kept(numbers: Tensor, budget: int) -> Tensor:
    """The largest numbers of each group, ties to the lower key."""
    keys = torch.zeros(numbers.shape, dtype=torch.bool)
    for row, values in zip(keys.flatten(0, -2), numbers.flatten(0, -2).tolist(), strict=True):
        order = sorted(range(len(values)), key=lambda n: (-values[n], n))
        row[order[:budget]] = True
    return keys
