"""‖Σ_h w^h_ij f^h_j‖: the length of what all heads together take, without a vector a pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from regard.attribution.layers import layer_of
from regard.models.residual import by_query_head

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from regard.attribution.layers import Source
    from regard.weights import Map

BLOCK = 1 << 21  # numbers


def norms(source: Source, layer: int) -> Map:
    """How much a layer takes from each token, over all its heads: a map (…,N,N), lazy like the weights.

        M_ij = ‖Σ_h w^h_ij f^h_j‖ = √(Σ_hh′ w^h_ij w^h′_ij G_j[h,h′])      G_j[h,h′] = f^h_j · f^h′_j
        f^h_j = (x_j W_V^h + b_V^h) W_O^h = v_j W_O^h

    Heads that take opposite things cancel, so this is at most the sum of `value_weighted` over the heads. Kobayashi et
    al. 2020, https://arxiv.org/abs/2004.10102, equation 7. Costs the weights and H² products a pair; G takes H² numbers
    a token, and nothing has a vector for each pair. Output bias, residual stream and norm are left out: see `mixing`.

    Args:
        source: a reading, or the list that `regard.hf.record()` collected.
        layer: the layer of the reading, or the place in that list.

    Raises: ValueError, with the layer and the module, where the output projection W_O cannot be found.

    >>> import regard
    >>> from regard import attribution
    >>> reading = regard.Lens().read("Time flies like an arrow")
    >>> taken = attribution.norms(reading, layer=5)
    >>> taken
    Map(shape=(7, 7), dtype=torch.float32, device=cpu)
    >>> taken[2] / taken[2].sum()                        # what "flies" takes; [CLS] gives little
    tensor([0.0364, 0.3301, 0.2515, 0.0468, 0.0202, 0.2886, 0.0264])
    """
    at = layer_of(source, layer)
    return at.weights.combined(gram(at.attention.value, at.output_weight))


def gram(values: Float[Tensor, "*B G N E"], by_head: Float[Tensor, "H E dim"]) -> Float[Tensor, "*B N H H"]:
    """G_j[h,h′] = f^h_j · f^h′_j of f^h_j = v_j W_O^h, in blocks of tokens; in float32 or better."""
    heads, _, dim = by_head.shape
    dtype = torch.promote_types(values.dtype, torch.float32)
    by_head, blocks = by_head.to(dtype), []
    for block in values.to(dtype).split(max(1, BLOCK // (heads * dim)), -2):
        vectors = (by_query_head(block, heads) @ by_head).transpose(-3, -2)  # (…,n,H,dim)
        blocks.append(vectors @ vectors.mT)
    return torch.cat(blocks, -3)
