"""`sink`: how often a head rests on the first token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from regard.attribution.heads.sample import Sample
    from regard.attribution.layers import Layer

HEAVY = 0.3  # the weight from which on Gu et al. speak of a sink


def sink(layer: Layer, sample: Sample) -> Float[Tensor, "H"]:
    """The share of the rows after the first in which the first key has more than 0.3 of the weight.

        sink = |{i ∈ rows, i > 0: w_i0 > 0.3}| / |{i ∈ rows, i > 0}|        0 to 1

    Gu et al. 2024, https://arxiv.org/abs/2410.10781, with their threshold, which they set on the mean over the rows;
    a share of the rows tells a head that always rests from one that rests on some tokens with all its weight. A column
    of the weights: O(N·D).
    """
    heavy = layer.weights[..., 0] > HEAVY
    return sample.mean(heavy, sample.rows & (torch.arange(len(sample.rows)) > 0))
