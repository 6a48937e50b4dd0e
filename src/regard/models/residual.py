"""What a layer adds to the residual stream: the matrix W_O of each head, and the norms of the sum as linear maps.

Head h takes f^h_j = v_j W_O^h from token j, and the layer adds Σ_h Σ_j w^h_ij f^h_j + b_O to the residual stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from jaxtyping import Float


def output_by_head(module: nn.Module | None, heads: int) -> Float[Tensor, "H E dim"] | None:
    """W_O^h of each head; None for a module without a matrix of floating-point numbers."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        return None
    if isinstance(module, nn.Linear):
        weight = weight.T
    elif type(module).__name__ != "Conv1D":  # that of transformers, which keeps the transpose
        return None
    return torch.unflatten(weight.detach(), 0, (heads, -1))


def norms_after(values: Float[Tensor, "*B G N E"], by_head: Float[Tensor, "H E dim"]) -> Float[Tensor, "*B H N"]:
    """‖v_j W_O^h‖ = ‖v_j R_hᵀ‖, with W_O^h = (Q_h R_h)ᵀ: no vector of size dim is made. In float32 or better."""
    dtype = torch.promote_types(values.dtype, torch.float32)
    upper = torch.linalg.qr(by_head.to(dtype).mT, mode="r").R  # (H,E,E)
    norms: Tensor = (by_query_head(values.to(dtype), len(by_head)) @ upper.mT).norm(dim=-1)
    return norms


def by_query_head(values: Float[Tensor, "*B G N E"], heads: int) -> Float[Tensor, "*B H N E"]:
    """The values of each head: those of its group."""
    groups = values.shape[-3]
    return values if groups == heads else values.repeat_interleave(heads // groups, -3)


@dataclass(frozen=True, eq=False)
class Norm:
    """A norm, gain ⊙ (u − mean(u)) / σ + shift, of one summand of u: without the shift, and with σ that of the sum.

    Attributes:
        gain: (dim,).
        centred: whether the mean is taken off, as LayerNorm does and RMSNorm does not.
    """

    gain: Float[Tensor, "dim"]
    centred: bool

    def __call__(self, vectors: Float[Tensor, "*B dim"]) -> Float[Tensor, "*B dim"]:
        """gain ⊙ (u − mean(u)): what becomes of a summand, but for the factor 1/σ, the same for all of them."""
        centred = vectors - vectors.mean(-1, keepdim=True) if self.centred else vectors
        return centred * self.gain.to(vectors)


@torch.no_grad()
def norm_of(module: nn.Module, dim: int) -> Norm | None:
    """A module as a `Norm`, by its gain and by what it makes of a vector; None where it is another kind of norm."""
    weight = getattr(module, "weight", None)
    like = torch.empty(0) if weight is None else weight.detach()
    ones = torch.ones(dim, dtype=torch.float64, device=like.device)
    gains = [ones] if weight is None else [like.double(), 1 + like.double()]  # Gemma keeps what differs from 1
    probe = torch.linspace(-1, 2, dim).to(like)[None]
    try:
        result = (module(probe) - module(torch.zeros_like(probe)))[0].double()  # without the shift
    except (RuntimeError, TypeError):
        return None
    for norm in (Norm(gain, centred) for gain in gains for centred in (True, False) if gain.shape == (dim,)):
        deviation = Norm(ones, norm.centred)(probe[0].double()).square().mean().sqrt()
        expected = norm(probe[0].double()) / deviation
        tolerance = 1e-3 if like.dtype in (torch.float32, torch.float64) else 5e-2
        if float((result - expected).abs().max()) <= tolerance * float(expected.abs().max()):
            return norm
    return None
