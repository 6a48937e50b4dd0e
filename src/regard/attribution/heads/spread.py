"""`entropy` and `distance`: over how many keys a head spreads its weight, and how far it looks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from regard.attribution.heads.sample import Sample
    from regard.attribution.layers import Layer
    from regard.weights import Weights


def entropy(layer: Layer, sample: Sample) -> Float[Tensor, "H"]:
    """The mean over the rows of −Σ_j w_ij ln w_ij, in nats: 0 to ln K.

    Clark et al. 2019, https://arxiv.org/abs/1906.04341, section 3.3. `Weights.entropy`.
    """
    return sample.mean(_collected(layer).entropy())


def distance(layer: Layer, sample: Sample) -> Float[Tensor, "H"]:
    """The mean over the rows of Σ_j w_ij |i − j|, in tokens: 0 to K − 1.

    Vig and Belinkov 2019, https://arxiv.org/abs/1906.04284, section 4.4. `Weights.distance`.
    """
    return sample.mean(_collected(layer).distance())


def _collected(layer: Layer) -> Weights:
    """The weights, once both are known: one pass computes them together."""
    weights = layer.weights
    weights.collect("entropy", "distance")
    return weights
