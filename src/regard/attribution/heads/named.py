"""Heads named after a pattern: what the viewer, the lesson of a head and its choice say of where a head looks.

A head is named after a pattern that gets half of its weight (`NAMED_FROM`), the mean over the tokens of a text; a
single head follows a pattern strictly where every token gives a position more than nine tenths (`STRICT_FROM`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from regard.attribution.heads.edges import At, Edges, To
from regard.attribution.heads.sample import Sample, sample_of
from regard.attribution.heads.scores import NAMED_FROM, SCORES, STRICT_FROM
from regard.attribution.layers import layer_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jaxtyping import Bool, Float
    from torch import Tensor

    from regard.lens.reading import Reading

PATTERNS = {score.name: score.whom for score in SCORES.values() if score.whom and score.text == "text"}
POSITIONS = ("previous", "next", "itself", "first", "last")  # the patterns that depend on positions alone: O(N·D)
LONG = 16_384  # tokens from which on the other patterns, a pass over all weights each, are left out


def pattern_shares(reading: Reading, layer: int, names: Iterable[str] = PATTERNS) -> Float[Tensor, "H patterns"]:
    """The share of its weight that each head of a layer gives to each pattern: the mean over the text's tokens.

    0 for a pattern that this attention does not have, as the previous token in cross-attention. Of a text of more than
    `LONG` tokens, nan for those that are not `POSITIONS`: they would take twice as long as the attention itself.

    Args:
        reading: the text.
        layer: one with attention.
        names: of `PATTERNS`; all by default.

    >>> import regard
    >>> shares = pattern_shares(regard.Lens().read("Time flies like an arrow"), 0, ["previous", "next"])
    >>> shares[2].round(decimals=4)                               # of head 2
    tensor([1., 0.])
    """
    of_layer, sample = layer_of(reading, layer), sample_of(reading)
    none, is_long = torch.zeros(reading.heads_of(layer)), max(of_layer.weights.shape[-2:]) > LONG

    def share(name: str) -> Tensor:
        if SCORES[name].of not in (sample.kind, "both"):
            return none
        if is_long and name not in POSITIONS:
            return torch.full_like(none, torch.nan)
        return SCORES[name].compute(of_layer, sample).float().cpu()

    return torch.stack([share(name) for name in names], dim=1)


def are_positional(reading: Reading, layer: int) -> Bool[Tensor, "H"]:
    """Which heads of a layer are named after a position; none in a text of two tokens, which are too few to tell."""
    if sum(not token.special for token in reading.tokens) <= 2:
        return torch.zeros(reading.heads_of(layer), dtype=torch.bool)
    return (pattern_shares(reading, layer, POSITIONS) >= NAMED_FROM).any(1)


def strict_pattern(reading: Reading, layer: int, head: int) -> str | None:
    """The position to which every token of the text gives more than `STRICT_FROM` of its weight; None without one.

    At least three tokens must have such a position besides themselves.
    """
    weights, sample = layer_of(reading, layer).weights, sample_of(reading)
    for name in POSITIONS:
        edges = SCORES[name].edges
        if edges is None or SCORES[name].of not in (sample.kind, "both"):
            continue
        own = edges(sample)
        rows = sample.rows & _have_one(own, sample)
        if rows.sum() >= 3 and bool((own.share(weights)[head].cpu()[rows] > STRICT_FROM).all()):
            return name
    return None


def _have_one(edges: Edges, sample: Sample) -> Bool[Tensor, "Q"]:
    """Which queries have the position that these edges lead to, other than by being it."""
    query, keys = torch.arange(len(sample.rows)), len(sample.key_ids)
    if isinstance(edges, At):
        return (query + edges.offset >= 0) & (query + edges.offset < keys)
    if isinstance(edges, To) and sample.same_text:
        return ~edges.keys
    return torch.ones_like(sample.rows)
