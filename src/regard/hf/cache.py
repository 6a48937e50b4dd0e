"""What a cache of keys and values could do without: the numbers that methods of eviction go by, and what each loses.

A model that writes keeps the keys and values of every token. Methods of eviction (H2O, SnapKV, TOVA, KVzip) drop those
of tokens that receive little attention, and have to read the weights for it, which fast attention does not give. Here
they are computed from the weights that are never stored, in O(N) memory:

    out = model(**inputs, output_attentions=True)
    for weights in out.attentions:                                   # of each layer
        scores = regard.hf.cache.snapkv(weights)                     # (B,G,K): by group of heads and key
        kept = regard.hf.cache.kept(scores, 256)                     # (B,G,K): which 256 keys of each group stay
        lost = regard.hf.cache.lost(weights, kept, slice(-32, None)) # (B,H,32): the mass on what does not

Each takes the weights of one layer of causal self-attention, (B,H,Q,K) or (H,Q,K): those of a forward pass, of an
attention that `record` collected, of `reading.attention[layer]`; or the steps of one layer, whose keys go on from one
another, as `[step[layer] for step in out.attentions]` of `generate`. The heads of a group share their keys, so that an
eviction is one of the group: numbers are combined over its heads as each method does. All are of the whole cache; a
method that evicts again and again, as a model writes, sees weights that its own evictions have changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from regard.weights import Weights
from regard.weights.arguments import check_reduce, describe

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

Reduce = Literal["sum", "mean", "max"]
FEW = 1 << 24  # numbers: rows of a few queries, which take up to 64 MiB


def received(
    weights: Weights | Sequence[Weights], reduce: Reduce = "sum", last: int | None = None, tokens: int | None = None
) -> Float[Tensor, "... H K"]:
    """The mass that each key receives in each head, Σ_i w_ij, or the mean or the largest of the w_ij.

    The mean is over the queries that stand at the key or after it: early keys are not preferred for having been seen
    more often. (That of `Weights.received` is over all queries.)

    Args:
        weights: of a layer, or of its steps, as described above.
        reduce: "sum", "mean" or "max".
        last: only the last so many queries; all that there are if not given.
        tokens: as if the text ended after so many tokens, which changes nothing that came before: K and the last
            queries are then counted from there.

    Raises:
        ValueError: the queries that are asked for are not there; the last query does not see the last key, as in a
            static cache with room for more, or where padding stands on the right.

    >>> import regard
    >>> x = torch.zeros(1, 4, 8)                            # every query looks at all keys alike
    >>> weights = regard.attention(x, x, x, causal=True).weights
    >>> received(weights)                                   # 1 + 1/2 + 1/3 + 1/4, …
    tensor([[2.0833, 1.0833, 0.5833, 0.2500]])
    >>> received(weights, "mean", last=2)
    tensor([[0.2917, 0.2917, 0.2917, 0.2500]])
    """
    check_reduce("received", reduce)
    steps, end = _steps(weights, tokens)
    first = _first(steps, end, last)
    if reduce == "mean":
        counts = end - torch.arange(end, device=steps[0].device).clamp(min=first)
        return _received(steps, "sum", range(first, end), end) / counts
    return _received(steps, reduce, range(first, end), end)


def h2o(weights: Weights | Sequence[Weights], window: int, tokens: int | None = None) -> Float[Tensor, "... G K"]:
    """H2O: the mass that a key has received from all queries; the last `window` keys stay, and are inf here.

        s_j = mean_h Σ_i w^h_ij

    Zhang et al. 2023, https://arxiv.org/abs/2306.14048, which has a head to each group. kvpress'
    ObservedAttentionPress is `received(weights, "mean")`, averaged over the group, without a window.

    Args:
        window: the last keys, which stay; half of the budget in the paper.
        weights, tokens: as in `received`.

    Raises ValueError as `received`.

    >>> import torch, regard
    >>> from regard.hf import cache
    >>> x = torch.ones(2, 5, 8)                                   # every query looks at all keys before it alike
    >>> w = regard.attention(x, x, x, causal=True).weights
    >>> cache.h2o(w, window=1)
    tensor([[2.2833, 1.2833, 0.7833, 0.4500,    inf],
            [2.2833, 1.2833, 0.7833, 0.4500,    inf]])
    """
    return _protected(_by_group(received(weights, tokens=tokens), weights), window, "h2o")


def snapkv(
    weights: Weights | Sequence[Weights],
    window: int = 32,
    kernel: int = 5,
    pooling: Literal["mean", "max"] = "mean",
    tokens: int | None = None,
) -> Float[Tensor, "... G K"]:
    """SnapKV: the mass from the last `window` queries, pooled over neighbouring keys; their own keys stay, and are inf.

        s_j = mean_h pool_{|l| ≤ kernel/2} Σ_{i in window} w^h_i,j+l

    Li et al. 2024, https://arxiv.org/abs/2404.14469. Pooled are the keys before the window, with zeros around them.
    The authors' code has a head to each group, as the mean over heads is by kvpress. The defaults are of their code.

    Args:
        window: the queries that judge.
        kernel: how many neighbouring keys are pooled; odd, 1 for none.
        pooling: "mean" or "max".
        weights, tokens: as in `received`.

    Raises ValueError for an even kernel, and as `received`.

    >>> import torch, regard
    >>> from regard.hf import cache
    >>> x = torch.ones(2, 6, 8)
    >>> w = regard.attention(x, x, x, causal=True).weights
    >>> cache.snapkv(w, window=2, kernel=1)
    tensor([[0.3667, 0.3667, 0.3667, 0.3667,    inf,    inf],
            [0.3667, 0.3667, 0.3667, 0.3667,    inf,    inf]])
    """
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"snapkv: kernel: expected an odd number, so that it has a middle. Got {kernel}.")
    if pooling not in ("mean", "max"):
        raise ValueError(f"snapkv: pooling: expected 'mean' or 'max'. Got {pooling!r}.")
    end = _steps(weights, tokens)[1]
    mass = received(weights, last=min(window, end), tokens=tokens)
    before = mass[..., : max(0, end - window)]
    if before.shape[-1]:
        pool = F.avg_pool1d if pooling == "mean" else F.max_pool1d
        pooled = pool(before.flatten(0, -2)[None], kernel, stride=1, padding=kernel // 2)[0].reshape(before.shape)
        mass = torch.cat([pooled, mass[..., end - window :]], -1)
    return _protected(_by_group(mass, weights), window, "snapkv")


def tova(weights: Weights | Sequence[Weights], tokens: int | None = None) -> Float[Tensor, "... G K"]:
    """TOVA: the weight of each key for the last query, the mean over all heads of the layer: all groups keep the same.

        s_j = mean_h w^h_Qj

    Oren et al. 2024, https://arxiv.org/abs/2401.06104. The last key has no privilege there; in kvpress it stays.

    Args:
        weights, tokens: as in `received`.

    Raises ValueError as `received`.

    >>> import torch, regard
    >>> from regard.hf import cache
    >>> x = torch.eye(4)[None] * 2
    >>> cache.tova(regard.attention(x, x, x, causal=True).weights)
    tensor([[0.0963, 0.0963, 0.0963, 0.7112]])
    """
    mass = received(weights, last=1, tokens=tokens)
    return mass.mean(-2, keepdim=True).expand(*mass.shape[:-2], _groups(weights), -1)


def kvzip(weights: Weights | Sequence[Weights], tokens: int) -> Float[Tensor, "... G K"]:
    """KVzip: the largest weight that a key has for any query of a pass in which the model repeats the context.

        s_j = max_h max_i w^h_ij      i the queries after the context, j the keys of the context

    Kim et al. 2025, https://arxiv.org/abs/2505.23416. The model reads the context, "Repeat the previous context
    exactly.", and the context again. The authors repeat long contexts in pieces of 2,000 tokens, and softmax over the
    piece that is repeated instead of the whole. Theirs is one budget for all groups and layers: see `kept`.

    Args:
        weights: of the pass over both, or of that over what follows the context, by which the keys are in the cache.
        tokens: of the context.

    Raises ValueError where nothing follows the context.

    >>> import torch, regard
    >>> from regard.hf import cache
    >>> x = torch.eye(3).repeat(2, 1)[None] * 2                   # three tokens, and the same again
    >>> cache.kvzip(regard.attention(x, x, x, causal=True).weights, tokens=3)
    tensor([[0.4548, 0.4352, 0.4171]])
    """
    steps, end = _steps(weights, None)
    if not 1 <= tokens < end:
        raise ValueError(f"kvzip: tokens: expected those of the context, 1 to {end - 1} of {end:,}. Got {tokens}.")
    first = max(tokens, _first(steps, end, None))
    return _by_group(_received(steps, "max", range(first, end), tokens), weights, largest=True)


def kept(scores: Float[Tensor, "... K"], budget: int) -> Bool[Tensor, "... K"]:
    """Which keys stay: the `budget` largest numbers of each group, ties to the lower key; all where there are no more.

    For a budget that groups and layers share, as KVzip has it, flatten their numbers into the last dimension.

    Raises ValueError where more keys than that must stay.

    >>> kept(torch.tensor([[0.1, 0.5, 0.3, torch.inf]]), 2)
    tensor([[False,  True, False,  True]])
    """
    needed = int(scores.isposinf().sum(-1).max()) if scores.numel() else 0
    if not isinstance(budget, int) or budget < max(1, needed):
        window = f", for the window of {needed} always stays" if needed else ""
        raise ValueError(f"kept: budget: expected a number of keys, at least {max(1, needed)}{window}. Got {budget}.")
    order = scores.sort(dim=-1, descending=True, stable=True).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, order[..., :budget], True)


def lost(
    weights: Weights | Sequence[Weights], kept: Bool[Tensor, "... G k"], queries: slice = slice(None)
) -> Float[Tensor, "... H q"]:
    """The mass of each query, in each head, on keys that do not stay: Σ_{j not kept} w_ij, at least 0 and at most 1.

    An eviction changes what the queries after it see. Their keys are not judged, and stay: `kept` may be of fewer keys
    than the weights, the first. `.mean(-1)` and `.amax(-1)` are the mean and the worst row of each head.

    Args:
        weights: as in `received`.
        kept: which keys stay, for each group of heads.
        queries: a slice of them; of all steps, counted together.

    Raises ValueError where the weights have other groups, or fewer keys.

    >>> import regard
    >>> query, key = torch.randn(2, 6, 100, 8), torch.randn(2, 3, 100, 8)
    >>> weights = regard.attention(query, key, key, causal=True).weights
    >>> stay = kept(tova(weights, tokens=80), 40)       # at the 80th token, 40 of 80 keys
    >>> lost(weights, stay, slice(80, None)).mean(-1).shape            # for the 20 after it
    torch.Size([2, 6])
    """
    steps, _ = _steps(weights, None)
    expected = (*steps[0].shape[:-3], _groups(steps))
    if kept.shape[:-1] != expected or kept.shape[-1] > steps[0].shape[-1] or kept.dtype != torch.bool:
        raise ValueError(
            f"lost: kept: expected bool {(*expected, 'keys')}, for each group of heads, with at most "
            f"{steps[0].shape[-1]:,} keys. Got {tuple(kept.shape)} {kept.dtype}."
        )
    rows = []
    for step in steps:
        evicted = F.pad(~kept, (0, step.shape[-1] - kept.shape[-1])).to(step.dtype)
        rows.append((step @ evicted[..., None])[..., 0])
    return torch.cat(rows, -1)[..., queries]


# Steps, queries and groups


def _steps(weights: Weights | Sequence[Weights], tokens: int | None) -> tuple[Sequence[Weights], int]:
    """The steps of a layer, and the number of tokens at their end, or at a given one."""
    steps = [weights] if isinstance(weights, Weights) else list(weights)
    if not steps or not all(isinstance(step, Weights) and step.ndim > 2 for step in steps):
        raise TypeError(
            "regard.hf.cache: expected regard.Weights (…,H,Q,K), of a layer or of its steps, from a model with "
            f'attn_implementation="regard". Got {", ".join(sorted({describe(step) for step in steps})) or "nothing"}.'
        )
    for before, after in pairwise(steps):
        if after.shape[-1] != before.shape[-1] + after.shape[-2] or after.shape[:-2] != before.shape[:-2]:
            raise ValueError(
                f"regard.hf.cache: {tuple(after.shape)} does not go on from {tuple(before.shape)}: keys have to grow "
                "by the queries of a step. Those of a static or a sliding cache do not, nor do different layers."
            )
    end = steps[-1].shape[-1]
    if tokens is not None and not 1 <= tokens <= end:
        raise ValueError(f"regard.hf.cache: tokens: expected 1 to {end:,}, as many as there are keys. Got {tokens}.")
    return steps, end if tokens is None else tokens


def _first(steps: Sequence[Weights], end: int, last: int | None) -> int:
    """The position of the first query that is asked for. Raises ValueError where it is not there, or sees no end."""
    there = steps[0].shape[-1] - steps[0].shape[-2]
    if last is not None and last < 1:
        raise ValueError(f"regard.hf.cache: expected 1 query or more. Got {last}.")
    first = there if last is None else end - last
    if first < max(0, there) or end <= there:
        raise ValueError(
            f"regard.hf.cache: the last {last or 1:,} of {end:,} queries are not there: the first is that of token "
            f"{there}. Give the steps before, too."
        )
    step = next(step for step in steps if step.shape[-1] >= end)
    own = step[..., end - 1 - step.shape[-1], end - 1]  # of each head
    if not bool((own > 0).any(-1).all()):
        raise ValueError(
            "regard.hf.cache: the last query does not see the last key, as in a static cache with room for more, or "
            "with padding on the right. Pad on the left, or give the number of tokens."
        )
    return first


def _received(steps: Sequence[Weights], reduce: Reduce, queries: range, keys: int) -> Float[Tensor, "... H K"]:
    """What the first keys get from queries at these positions: the sum, or the largest."""
    total: Tensor | None = None
    both = torch.maximum if reduce == "max" else torch.add
    for step, rows in _rows(steps, queries):
        mass = _mass(step, rows, reduce)
        mass = F.pad(mass, (0, keys - mass.shape[-1]))  # or cut off
        total = mass if total is None else both(total, mass)
    assert total is not None
    return total


def _rows(steps: Sequence[Weights], queries: range) -> Iterator[tuple[Weights, slice]]:
    """The steps that have queries at these positions, and which of theirs these are."""
    for step in steps:
        size, keys = step.shape[-2:]
        rows = slice(max(0, queries.start - keys + size), min(size, queries.stop - keys + size))
        if rows.start < rows.stop:
            yield step, rows


def _mass(step: Weights, rows: slice, reduce: Reduce) -> Float[Tensor, "... H K"]:
    """What all keys get from a run of queries: of a few from their rows, of many without them."""
    if step.shape[:-2].numel() * (rows.stop - rows.start) * step.shape[-1] > FEW:
        return step.received(reduce, rows)
    weights = step[..., rows, :]
    return weights.amax(-2) if reduce == "max" else weights.sum(-2)


def _groups(weights: Weights | Sequence[Weights]) -> int:
    step = weights if isinstance(weights, Weights) else weights[0]
    groups: int = step.scores.key.shape[1]
    return groups


def _by_group(
    mass: Float[Tensor, "... H K"], weights: Weights | Sequence[Weights], largest: bool = False
) -> Float[Tensor, "... G K"]:
    heads: Tensor = mass.unflatten(-2, (_groups(weights), -1))
    return heads.amax(-2) if largest else heads.mean(-2)


def _protected(scores: Float[Tensor, "... G K"], window: int, call: str) -> Float[Tensor, "... G K"]:
    """The last keys as inf."""
    if window < 0:
        raise ValueError(f"{call}: window: expected 0 or more. Got {window}.")
    last = torch.arange(scores.shape[-1], device=scores.device) >= scores.shape[-1] - window
    return scores.masked_fill(last, torch.inf)
