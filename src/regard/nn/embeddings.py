"""What goes into the first layer: what the words are, and where they stand."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from regard.nn.shapes import Ids, Vectors


class Embeddings(nn.Module):
    """x_i = norm(token_i + position_i + type_i), all of them learned; ids (B,N) → (B,N,dim).

    Devlin et al. 2019, https://arxiv.org/abs/1810.04805. `start` is the place of the first id. RoBERTa counts on from
    the id of its `padding`, and does not count such ids: where it stands in a text, it has its own number as its place.
    `types` (B,N) tell the second text of a pair, 1, from the first, 0; not given, all are 0.
    """

    def __init__(
        self, vocabulary: int, dim: int, positions: int, types: int = 0, *, padding: int | None = None,
        epsilon: float = 1e-12, dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, dim), nn.Embedding(positions, dim)
        self.types = nn.Embedding(types, dim) if types else None
        self.norm, self.dropout, self.padding = nn.LayerNorm(dim, epsilon), nn.Dropout(dropout), padding

    @property
    def limit(self) -> int:
        """How many places it has learned."""
        return self.positions.num_embeddings - (0 if self.padding is None else self.padding + 1)

    def places(self, ids: Tensor, start: int = 0) -> Tensor:
        """The rows of ids (…,N) in the table of positions, (N,) where they do not depend on the ids."""
        if self.padding is None:
            return torch.arange(start, start + ids.shape[-1], device=ids.device)
        counted = ids != self.padding
        return (counted.cumsum(-1) + start) * counted + self.padding

    def forward(self, ids: Ids, start: int = 0, types: Ids | None = None) -> Vectors:
        stop = start + ids.shape[1]
        if stop > self.limit:
            raise ValueError(f"Embeddings: expected {self.limit} positions at most, as it has learned. Got {stop}.")
        x = self.tokens(ids) + self.positions.weight[self.places(ids, start)]
        if self.types is not None:
            x = x + (self.types.weight[0] if types is None else self.types(types))
        return self.dropout(self.norm(x))


class SinusoidalPositions(nn.Module):
    """x_i + p_i with p_(i, 2d) = sin(i / 10000^(2d/dim)) and p_(i, 2d+1) = cos of the same: a place for any i.

    (B,N,dim) → (B,N,dim); `start` is the place of the first. Nothing is learned. Vaswani et al. 2017, section 3.5.
    """

    def forward(self, x: Vectors, start: int = 0) -> Vectors:
        places, dim = torch.arange(start, start + x.shape[1], device=x.device), x.shape[2]
        angles = places[:, None] * torch.exp(torch.arange(0, dim, 2, device=x.device) * (-math.log(10_000) / dim))
        return x + torch.stack((angles.sin(), angles.cos()), -1).flatten(1)[:, :dim]


class SinusoidalEmbeddings(nn.Module):
    """x_i = √dim · token_i + p_i, for texts of any length; ids (B,N) → (B,N,dim). Section 3.4 of the same paper."""

    def __init__(self, vocabulary: int, dim: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, dim)
        nn.init.normal_(self.tokens.weight, std=dim**-0.5)
        self.positions, self.dropout = SinusoidalPositions(), nn.Dropout(dropout)

    def forward(self, ids: Ids, start: int = 0) -> Vectors:
        x = self.tokens(ids) * math.sqrt(self.tokens.embedding_dim)
        return self.dropout(self.positions(x, start))
