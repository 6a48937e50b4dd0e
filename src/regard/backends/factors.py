"""Factors of a map: what the weights are multiplied by, pair by pair, as a rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float

Activation = Literal["relu", "abs"]


@dataclass(frozen=True, eq=False)
class Factor:
    """φ(a_i·b_j), from a (Q,F) and b (K,F); or φ(a_i) or φ(b_j) alone, of width 1.

    Attributes:
        query: a, for each query head or all.
        key: b, for each query head, each group of them, or all.
        activation: φ: "relu", "abs", or None for the product itself.
    """

    query: Float[Tensor, "#B #H Q F"] | None
    key: Float[Tensor, "#B _ K F"] | None
    activation: Activation | None = None
