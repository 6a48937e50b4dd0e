"""Edges: the pairs of a query and a key that a pattern of attention is about, and the weight that a head gives them.

    share_i = Σ_j w_ij [(i, j) is an edge]

One description serves all uses: the weight on the edges is streamed, exact, in O(N) memory, and the same edges, written
as a rule, are what a knockout cuts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    from regard._typing import MaskMod
    from regard.weights import Map


class Edges(Protocol):
    """Which keys each query would attend to if a head followed a pattern."""

    def share(self, weights: Map) -> Float[Tensor, "... Q"]:
        """Σ_j w_ij over the edges of each query; 0 for a query that has none."""
        ...

    def rule(self) -> MaskMod:
        """(batch, head, query, key) → whether that is an edge, on index tensors that broadcast."""
        ...


@dataclass(frozen=True)
class At:
    """The key `offset` places after the query: −1 is the previous one.

    >>> import torch, regard
    >>> x = torch.ones(4, 8)
    >>> At(-1).share(regard.attention(x, x, x, causal=True).weights)
    tensor([0.0000, 0.5000, 0.3333, 0.2500])
    """

    offset: int

    def share(self, weights: Map) -> Float[Tensor, "... Q"]:
        """w_{i,i+offset}: a diagonal, O(N·D)."""
        queries = weights.shape[-2]
        diagonal = weights.diagonal(self.offset)
        before = min(queries, max(0, -self.offset))
        return pad(diagonal, (before, queries - before - diagonal.shape[-1]))

    def rule(self) -> MaskMod:
        """key − query = offset."""
        return lambda batch, head, query, key: key == query + self.offset


@dataclass(frozen=True, eq=False)
class To:
    """Certain keys, whatever the query; with `elsewhere`, not the query's own place.

    >>> import torch, regard
    >>> x = torch.ones(3, 8)
    >>> To(torch.tensor([True, False, False])).share(regard.attention(x, x, x, causal=True).weights)
    tensor([1.0000, 0.5000, 0.3333])
    """

    keys: Bool[Tensor, "K"]
    elsewhere: bool = False

    def share(self, weights: Map) -> Float[Tensor, "... Q"]:
        """w @ keys, without the diagonal if it does not count."""
        keys = self.keys.to(weights.device)
        share = (weights @ keys[:, None].to(weights.dtype))[..., 0]
        return share - At(0).share(weights) * keys[: share.shape[-1]] if self.elsewhere else share

    def rule(self) -> MaskMod:
        """keys[key]."""
        return lambda batch, head, query, key: (
            self.keys.to(key.device)[key] & (key != query if self.elsewhere else True)
        )


@dataclass(frozen=True, eq=False)
class Alike:
    """The keys whose number is the query's; −1 is like nothing. With `elsewhere`, not the query's own place.

    A number's bits, written as ±1, make [a = b] a function of a product: with F bits, relu(bits(a)·bits(b) − F + 1) is
    1 where a = b and 0 elsewhere, exactly. So the share is the sum of a map of the weights, and no pair is stored.

    >>> import torch, regard
    >>> x, numbers = torch.ones(4, 8), torch.tensor([7, 3, 7, 7])
    >>> Alike(numbers, numbers, elsewhere=True).share(regard.attention(x, x, x, causal=True).weights)
    tensor([0.0000, 0.0000, 0.3333, 0.5000])
    """

    query: Int[Tensor, "Q"]
    key: Int[Tensor, "K"]
    elsewhere: bool = False

    def share(self, weights: Map) -> Float[Tensor, "... Q"]:
        """Σ_j w_ij relu(bits(a_i)·bits(b_j) − F + 1): a pass over the weights."""
        largest = max(int(numbers.max()) for numbers in (self.query, self.key)) if len(self.query) else 0
        count = max(1, largest.bit_length())
        query, key = (_bits(numbers.to(weights.device), count).to(weights.dtype) for numbers in (self.query, self.key))
        query, key = pad(query, (0, 1), value=1.0), pad(key, (0, 1), value=1.0 - count)
        query = query * (self.query.to(query.device) >= 0)[:, None]  # products of 0 with all
        key = key * (self.key.to(key.device) >= 0)[:, None]
        share = weights.times(query=query, key=key, activation="relu").sum()
        if not self.elsewhere:
            return share
        own = (self.query == self.key)[: share.shape[-1]] & (self.query >= 0)
        return share - At(0).share(weights) * own.to(share.device)

    def rule(self) -> MaskMod:
        """query[i] = key[j] ≥ 0."""

        def alike(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            numbers = self.query.to(query.device)[query]
            same = (numbers == self.key.to(key.device)[key]) & (numbers >= 0)
            return same & (query != key) if self.elsewhere else same

        return alike


def _bits(numbers: Int[Tensor, "n"], count: int) -> Float[Tensor, "n bits"]:
    """±1 for each bit of numbers."""
    powers = 2 ** torch.arange(count, device=numbers.device)
    return ((numbers[:, None] // powers) % 2).mul(2).sub(1).float()
