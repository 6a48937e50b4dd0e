"""What makes a map of weights: factors φ(a_i·b_j), and the combination of heads; block by block, with derivatives."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from regard._typing import Index
from regard.mask import Block, select_broadcast
from regard.scores import matmul

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

    def rows(self, at: Block, heads: int, dtype: torch.dtype) -> Float[Tensor, "#b #h q F"] | None:
        """a of a block of a matrix of so many heads."""
        return None if self.query is None else _part(self.query, at, at.rows, heads).to(dtype)

    def columns(self, at: Block, heads: int, dtype: torch.dtype) -> Float[Tensor, "#b _ k F"] | None:
        """b of a block."""
        return None if self.key is None else _part(self.key, at, at.columns, heads).to(dtype)

    def product(self, at: Block, heads: int, dtype: torch.dtype) -> Float[Tensor, "#b #h #q #k"]:
        """a_i·b_j of a block, before the activation; a row or a column where there is only one of them."""
        a, b = self.rows(at, heads, dtype), self.columns(at, heads, dtype)
        count = at.heads.stop - at.heads.start
        if a is not None and b is not None:
            return matmul(a.expand(at.batch.stop - at.batch.start, count, -1, -1), b.mT)
        if a is not None:
            return a
        assert b is not None
        return repeated(b, count).mT

    def activated(self, product: Tensor) -> Tensor:
        """φ of a product."""
        if self.activation is None:
            return product
        return product.relu() if self.activation == "relu" else product.abs()

    def derivative(self, product: Tensor) -> Tensor | None:
        """φ′ of a product, as torch has it: 0 at 0; None where it is 1 everywhere."""
        if self.activation is None:
            return None
        return (product > 0).to(product.dtype) if self.activation == "relu" else product.sign()

    def pairs(self, rows: slice, columns: slice, heads: int, dtype: torch.dtype) -> Float[Tensor, "#B #H n"]:
        """φ(a_i·b_j) of as many rows as columns, one with one."""
        a = None if self.query is None else self.query[:, :, rows].to(dtype)
        b = None if self.key is None else repeated(self.key[:, :, columns].to(dtype), heads)
        if a is not None and b is not None:
            return self.activated(torch.linalg.vecdot(a, b))
        alone = b if a is None else a
        assert alone is not None
        return self.activated(alone[..., 0])


def _part(vectors: Tensor, at: Block, positions: Index, heads: int) -> Tensor:
    """The vectors of a block: of its heads, of their groups, or of all."""
    repeat = max(1, heads // vectors.shape[1])
    of_heads = at.heads if vectors.shape[1] == heads else slice(at.heads.start // repeat, -(-at.heads.stop // repeat))
    return select_broadcast(vectors, at.batch, of_heads, positions)


def repeated(vectors: Float[Tensor, "b _ n F"], heads: int) -> Float[Tensor, "b _ n F"]:
    """Vectors of groups, once for each of so many query heads; those of all heads as they are."""
    return vectors if vectors.shape[1] in (1, heads) else vectors.repeat_interleave(heads // vectors.shape[1], 1)


def combined(weights: Float[Tensor, "b H q k"], gram: Float[Tensor, "#b k H H"]) -> tuple[Tensor, Tensor]:
    """√(Σ_hh′ w^h w^h′ G[h,h′]) as (b,1,q,k), and G w as (b,k,q,H)."""
    by_key = weights.permute(0, 3, 2, 1)
    moved = matmul(by_key, gram.to(weights.dtype))
    squares = (by_key * moved).sum(-1).mT
    return squares.clamp(min=0).sqrt()[:, None], moved


def multiply(values: Tensor, products: Iterable[Tensor]) -> Tensor:
    """The numbers of a block times its factors. What weighs 0 stays 0, whatever the factor is."""
    for product in products:
        hidden = None if bool(product.isfinite().all()) else values == 0
        values = values * product
        if hidden is not None:
            values = values.masked_fill(hidden, 0)
    return values


def add_to(total: Tensor, at: Block, positions: Index, tile: Float[Tensor, "b h n F"], heads: int) -> None:
    """Adds the derivative by the vectors of a block, summed over the heads and sequences that share them."""
    target = _part(total, at, positions, heads)
    if tile.shape[1] != target.shape[1]:
        tile = tile.unflatten(1, (target.shape[1], -1)).sum(2)
    tile = tile.sum_to_size(target.shape)
    if isinstance(positions, slice):
        target += tile
    else:  # rows one by one: `target` is a copy
        _part(total, at, slice(0, total.shape[2]), heads).index_add_(2, positions.to(total.device), tile)
