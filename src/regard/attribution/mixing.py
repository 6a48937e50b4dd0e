"""How much of a token's new vector comes from the other tokens, and how much was its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from regard.attribution.layers import layer_of

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from regard.attribution.layers import Source


def mixing(source: Source, layer: int) -> Float[Tensor, "*B N"]:
    """The mixing ratio of each token, from 0, all its own, to 1, all from other tokens; (…,N).

        mixed_i = Σ_{j≠i} Σ_h w^h_ij f^h_j       kept_i = Σ_h w^h_ii f^h_i + x_i       f^h_j = v_j W_O^h
        ratio_i = ‖L(mixed_i)‖ / (‖L(mixed_i)‖ + ‖L(kept_i)‖)

    L is the norm after the sum in a post-norm model, u ↦ gain ⊙ (u − mean(u)) / σ_i, with σ_i that of the whole sum, so
    that it cancels; an RMSNorm takes off no mean. In a pre-norm model (GPT-2, Llama, T5) no norm follows the sum, and L
    is the identity: the norm before the attention has gone into v. Biases of output and norm belong to no token and are
    left out. Kobayashi et al. 2021, https://arxiv.org/abs/2109.07152, section 3. O(N): from the output of the attention
    and the diagonal of its weights; what all other tokens gave is never told apart.

    Args:
        source: a reading, or the list that `regard.hf.record()` collected.
        layer: the layer of the reading, or the place in that list.

    Raises: ValueError for cross-attention, where no token is its own, and, with the layer and the module, where output
    projection, residual stream or norm cannot be found.

    >>> import regard
    >>> from regard import attribution
    >>> reading = regard.Lens().read("Time flies like an arrow")
    >>> attribution.mixing(reading, layer=5)             # seven tokens, [CLS] first
    tensor([0.3217, 0.1806, 0.2844, 0.3953, 0.3696, 0.1563, 0.3505])
    """
    at = layer_of(source, layer)
    at.check_self_attention("mixing")
    own = at.own
    mixed, kept = at.joined(at.attention.output.to(own) - own), at.joined(own) + at.x.to(own)
    for norm in at.norms[:1]:
        mixed, kept = norm(mixed), norm(kept)
    others, itself = mixed.norm(dim=-1), kept.norm(dim=-1)
    ratio: Tensor = others / (others + itself).clamp(min=torch.finfo(others.dtype).tiny)
    return ratio
