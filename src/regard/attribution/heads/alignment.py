"""`alignment`: whether cross-attention goes through the source in step with the target."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from regard.attribution.heads.sample import Sample
    from regard.attribution.layers import Layer

LEAST = 1e-6  # of a variance, in tokens², and of the weight of a row


def alignment(layer: Layer, sample: Sample) -> Float[Tensor, "H"]:
    """The correlation of i and j when a pair of query and key is drawn in proportion to its weight.

        p_ij = w_ij / Σ_{i ∈ rows} Σ_j w_ij        alignment = cov(i, j) / √(var(i) var(j))        −1 to 1

    1 where a head moves through the source at the pace of the target, as in speech; 0 where i or j has no variance, and
    where the head has no weight on any key, both less than 1e-6. After Raffel et al. 2017,
    https://arxiv.org/abs/1704.00784, on monotonic alignments. Two products of the weights with positions.
    """
    weights, dtype = layer.weights, layer.weights.dtype
    queries, keys = (torch.arange(size, device=weights.device) for size in weights.shape[-2:])
    counted = sample.rows.to(weights.device)

    def of_keys(numbers: Tensor) -> Tensor:
        """Σ_j w_ij x_j, in float64, 0 for the rows that do not count."""
        return (weights @ numbers.to(dtype)).double() * counted[:, None]

    mass = of_keys(torch.stack([torch.ones_like(keys), keys], -1))  # (H,Q,2)
    total = mass[..., 0].sum(-1).clamp(min=torch.finfo(dtype).tiny)
    mean_query, mean_key = (mass[..., 0] @ queries.double()) / total, mass[..., 1].sum(-1) / total
    apart = keys - mean_key[:, None]  # from the mean itself, so that little variance is not lost in rounding
    moments = of_keys(torch.stack([apart, apart.square()], -1))
    from_mean = queries - mean_query[:, None]
    covariance = (moments[..., 0] * from_mean).sum(-1) / total
    variance_of_key = moments[..., 1].sum(-1) / total
    variance_of_query = (mass[..., 0] * from_mean.square()).sum(-1) / total
    varies = (variance_of_key >= LEAST) & (variance_of_query >= LEAST) & (total >= LEAST * counted.sum())
    correlation = covariance / (variance_of_key * variance_of_query).clamp(min=LEAST**2).sqrt()
    return torch.where(varies, correlation, 0.0)
