"""The scores that are weights on edges: of each text its edges, one definition a pattern.

The score of a head is the share of its weight that it gives to the edges, the mean over the rows of the sample:

    score = 1/|rows| Σ_{i ∈ rows} Σ_j w_ij [(i, j) is an edge]        0 to 1

A row without an edge, and one that sees nothing, counts as 0. Clark et al. 2019, https://arxiv.org/abs/1906.04341,
found such heads in BERT: for the previous token, for the next, for [SEP], for punctuation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from regard.attribution.heads.edges import Alike, At, Earlier, Edges, To

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from regard.attribution.heads.sample import Sample
    from regard.attribution.layers import Layer


def every_row(sample: Sample) -> Bool[Tensor, "Q"]:
    """All rows that count."""
    return sample.rows


def share_of(
    edges: Callable[[Sample], Edges], rows: Callable[[Sample], Bool[Tensor, "Q"]] = every_row
) -> Callable[[Layer, Sample], Float[Tensor, "H"]]:
    """The score of a layer's heads that these edges define: the mean over these rows."""
    return lambda layer, sample: sample.mean(edges(sample).share(layer.weights), rows(sample))


# On any text


def previous(sample: Sample) -> Edges:
    """w_{i,i−1}: the token before. Clark et al. 2019, https://arxiv.org/abs/1906.04341."""
    return At(-1)


def next_(sample: Sample) -> Edges:
    """w_{i,i+1}: the token after; no head of a causal model sees it. Clark et al. 2019."""
    return At(1)


def itself(sample: Sample) -> Edges:
    """w_ii: the query's own token. Clark et al. 2019."""
    return At(0)


def first(sample: Sample) -> Edges:
    """w_i0: the first token of all, special or not. Clark et al. 2019, of [CLS]; compare `sinks`."""
    return To(torch.arange(len(sample.key_ids)) == 0)


def last(sample: Sample) -> Edges:
    """w_i,K−1: the last token of all, special or not. Clark et al. 2019, of [SEP]."""
    return To(torch.arange(len(sample.key_ids)) == len(sample.key_ids) - 1)


def separator(sample: Sample) -> Edges:
    """Σ_j w_ij over the special tokens after the first place, such as [SEP] and </s>. Clark et al. 2019."""
    return To(sample.special & (torch.arange(len(sample.special)) > 0))


def punctuation(sample: Sample) -> Edges:
    """Σ_j w_ij over tokens without a letter or digit, other than the query itself. Clark et al. 2019."""
    return To(sample.punctuation, elsewhere=sample.same_text)


def same(sample: Sample) -> Edges:
    """Σ_j w_ij over tokens that read as the query's does, other than itself, before it or after it, regardless of case.

    Clark et al. 2019; of duplicate tokens, Wang et al. 2022, https://arxiv.org/abs/2211.00593.
    """
    return Alike(sample.ids, sample.key_ids, elsewhere=sample.same_text)


# On random tokens that come again after `period` of them, so that nothing but repetition says what follows


def duplicate(sample: Sample) -> Edges:
    """Σ_j w_ij over the earlier occurrences of token i: t_j = t_i, j < i.

    Wang et al. 2022, https://arxiv.org/abs/2211.00593, duplicate token heads.
    """
    return Earlier(sample.ids)


def induction(sample: Sample) -> Edges:
    """w_{i,i−period+1}: the token after the previous occurrence of token i, which comes next again.

    The mean is over the tokens that come the second time, `second`. Olsson et al. 2022,
    https://arxiv.org/abs/2209.11895. Of a text without a period, the same as `prefix`.
    """
    return At(1 - sample.period) if sample.period else prefix(sample)


def second(sample: Sample) -> Bool[Tensor, "Q"]:
    """The rows of the second period: later, a head has several places to choose from that go on in the same way."""
    place = torch.arange(len(sample.rows))
    return sample.rows & (place < sample.first + 2 * sample.period) if sample.period else sample.rows


def prefix(sample: Sample) -> Edges:
    """Σ_j w_ij over the tokens after each earlier occurrence of token i: t_{j−1} = t_i, j − 1 < i.

    Olsson et al. 2022, https://arxiv.org/abs/2209.11895, prefix matching. Where no token comes more than twice, this is
    `induction`.
    """
    return Earlier(sample.ids, after=1)
