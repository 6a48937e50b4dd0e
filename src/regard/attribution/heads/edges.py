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
    """Which keys each query would attend to if a head followed a pattern.

    >>> from regard.attribution.heads import SCORES, sample_of
    >>> import regard
    >>> SCORES["previous"].edges(sample_of(regard.Lens().read("Time flies")))
    At(offset=-1)
    """

    def share(self, weights: Map) -> Float[Tensor, "... Q"]:
        """Σ_j w_ij over the edges of each query; 0 for a query that has none.

        >>> import torch, regard
        >>> x = torch.ones(3, 8)
        >>> At(-1).share(regard.attention(x, x, x).weights)
        tensor([0.0000, 0.3333, 0.3333])
        """
        ...

    def rule(self) -> MaskMod:
        """(batch, head, query, key) → whether that is an edge, on index tensors that broadcast.

        >>> import torch
        >>> At(-1).rule()(torch.tensor(0), torch.tensor(0), torch.tensor(2), torch.arange(4))
        tensor([False,  True, False, False])
        """
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
        """w_{i,i+offset}: a diagonal, O(N·D).

        >>> import torch, regard
        >>> x = torch.ones(3, 8)
        >>> At(1).share(regard.attention(x, x, x).weights)
        tensor([0.3333, 0.3333, 0.0000])
        """
        queries = weights.shape[-2]
        diagonal = weights.diagonal(self.offset)
        before = min(queries, max(0, -self.offset))
        return pad(diagonal, (before, queries - before - diagonal.shape[-1]))

    def rule(self) -> MaskMod:
        """key − query = offset.

        >>> import torch
        >>> At(1).rule()(torch.tensor(0), torch.tensor(0), torch.tensor(2), torch.arange(4))
        tensor([False, False, False,  True])
        """
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
        """w @ keys, without the diagonal if it does not count; of one key its column, O(N·D), of none 0.

        >>> import torch, regard
        >>> x = torch.ones(4, 8)
        >>> To(torch.tensor([True, True, False, False]), elsewhere=True).share(regard.attention(x, x, x).weights)
        tensor([0.2500, 0.2500, 0.5000, 0.5000])
        """
        keys, places = self.keys.to(weights.device), self.keys.nonzero()[:, 0].tolist()
        if not places:
            return torch.zeros(weights.shape[:-1], dtype=weights.dtype, device=weights.device)
        share = weights[..., places[0]] if len(places) == 1 else weights @ keys.to(weights.dtype)
        return share - At(0).share(weights) * keys[: share.shape[-1]] if self.elsewhere else share

    def rule(self) -> MaskMod:
        """keys[key].

        >>> import torch
        >>> first = To(torch.tensor([True, False, False]))
        >>> first.rule()(torch.tensor(0), torch.tensor(0), torch.tensor(2), torch.arange(3))
        tensor([ True, False, False])
        """
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
        """Σ_j w_ij relu(bits(a_i)·bits(b_j) − F + 1): a pass over the weights.

        >>> import torch, regard
        >>> x, numbers = torch.ones(4, 8), torch.tensor([7, 3, 7, 7])
        >>> Alike(numbers, numbers).share(regard.attention(x, x, x).weights)
        tensor([0.7500, 0.2500, 0.7500, 0.7500])
        """
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
        """query[i] = key[j] ≥ 0.

        >>> import torch
        >>> numbers = torch.tensor([7, 3, 7])
        >>> Alike(numbers, numbers).rule()(torch.tensor(0), torch.tensor(0), torch.tensor(2), torch.arange(3))
        tensor([ True, False,  True])
        """

        def alike(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            numbers = self.query.to(query.device)[query]
            same = (numbers == self.key.to(key.device)[key]) & (numbers >= 0)
            return same & (query != key) if self.elsewhere else same

        return alike


@dataclass(frozen=True, eq=False)
class Earlier:
    """The keys `after` places after each earlier occurrence of the query's token: 0 are those occurrences themselves.

    Where r_i counts how often the token of i has occurred before it, an occurrence is an earlier one if its r is less.
    That is so where the bits of both agree from the left up to one that is 1 in r_i and 0 in r_j, and so the share is a
    sum of shares of `Alike`, one for each bit: one pass where no token occurs more than twice, whether the attention is
    causal or not.

    >>> import torch, regard
    >>> x, numbers = torch.ones(5, 8), torch.tensor([7, 3, 7, 3, 7])
    >>> weights = regard.attention(x, x, x).weights
    >>> Earlier(numbers).share(weights), Earlier(numbers, after=1).share(weights)
    (tensor([0.0000, 0.0000, 0.2000, 0.2000, 0.4000]), tensor([0.0000, 0.0000, 0.2000, 0.2000, 0.4000]))
    """

    ids: Int[Tensor, "N"]
    after: int = 0

    def share(self, weights: Map) -> Float[Tensor, "... Q"]:
        """Σ_j w_ij [ids of i and j − after are the same, and j − after < i]: a pass over the weights for each bit.

        >>> import torch, regard
        >>> x, ids = torch.ones(4, 8), torch.tensor([7, 3, 7, 3])
        >>> Earlier(ids).share(regard.attention(x, x, x, causal=True).weights)
        tensor([0.0000, 0.0000, 0.3333, 0.2500])
        """
        counts = _earlier_occurrences(self.ids)
        bits = int(counts.max()).bit_length() if len(counts) else 0
        shares = [torch.zeros(weights.shape[:-1], dtype=weights.dtype, device=weights.device)]
        for bit in range(bits):
            numbers = torch.stack([self.ids, counts >> (bit + 1)]).unique(dim=1, return_inverse=True)[1]
            is_one = (counts >> bit) % 2 == 1
            key = pad(numbers.masked_fill(is_one, -1), (self.after, 0), value=-1)[: len(numbers)]
            shares.append(Alike(numbers.masked_fill(~is_one, -1), key).share(weights))
        return torch.stack(shares).sum(0)

    def rule(self) -> MaskMod:
        """ids[query] = ids[key − after], and key − after < query.

        >>> import torch
        >>> after = Earlier(torch.tensor([7, 3, 7, 3]), after=1)
        >>> after.rule()(torch.tensor(0), torch.tensor(0), torch.tensor(2), torch.arange(4))
        tensor([False,  True, False, False])
        """

        def earlier(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            ids, place = self.ids.to(query.device), key - self.after
            return (ids[query] == ids[place.clamp(min=0)]) & (place >= 0) & (place < query)

        return earlier


def _earlier_occurrences(ids: Int[Tensor, "N"]) -> Int[Tensor, "N"]:
    """How often each token has occurred before."""
    order = ids.argsort(stable=True)
    sorted_ids = ids[order]
    place = torch.arange(len(ids), device=ids.device)
    starts = pad(sorted_ids.diff() != 0, (1, 0), value=True)[: len(ids)]
    first = torch.where(starts, place, 0).cummax(0).values if len(ids) else place
    counts = torch.empty_like(ids)
    counts[order] = (place - first).to(ids.dtype)
    return counts


def _bits(numbers: Int[Tensor, "n"], count: int) -> Float[Tensor, "n bits"]:
    """±1 for each bit of numbers."""
    powers = 2 ** torch.arange(count, device=numbers.device)
    return ((numbers[:, None] // powers) % 2).mul(2).sub(1).float()
