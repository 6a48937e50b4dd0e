"""The input of the first layer: token embeddings with their positions."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from regard._internal.deprecated import renamed_arguments
from regard.nn.shapes import Ids, Vectors


@renamed_arguments(vocabulary="vocab_size", padding="padding_idx")
class Embeddings(nn.Module):
    """x_i = norm(token_i + position_i + type_i), all of them learned; ids (B,N) → (B,N,dim).

    Devlin et al. 2019, https://arxiv.org/abs/1810.04805.

    Args:
        vocab_size, dim, positions, types: the sizes of the tables.
        padding_idx: for RoBERTa, whose positions start after this id and skip it; where it occurs in a text, its
            position is the id itself.
        epsilon: of the layer norm.
        dropout: the probability of dropout.

    The forward pass takes `start`, the position of the first id, and `types` (B,N), 0 for the first text of a pair and
    1 for the second; all 0 if not given.

    >>> import torch, regard.nn
    >>> embeddings = regard.nn.Embeddings(vocab_size=11, dim=8, positions=5)
    >>> embeddings(torch.tensor([[3, 1, 4]])).shape
    torch.Size([1, 3, 8])
    """

    def __init__(
        self, vocab_size: int, dim: int, positions: int, types: int = 0, *, padding_idx: int | None = None,
        epsilon: float = 1e-12, dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab_size, dim), nn.Embedding(positions, dim)
        self.types = nn.Embedding(types, dim) if types else None
        self.norm, self.dropout, self.padding_idx = nn.LayerNorm(dim, epsilon), nn.Dropout(dropout), padding_idx

    @property
    def max_length(self) -> int:
        """The longest text it has positions for, in tokens."""
        return self.positions.num_embeddings - (0 if self.padding_idx is None else self.padding_idx + 1)

    def position_ids(self, ids: Tensor, start: int = 0) -> Tensor:
        """The rows of ids (…,N) in the table of positions; (N,) where they do not depend on the ids.

        >>> import torch, regard.nn
        >>> ids = torch.tensor([[3, 4, 1, 1]])                        # 1 is the padding of RoBERTa
        >>> regard.nn.Embeddings(vocab_size=11, dim=8, positions=8, padding_idx=1).position_ids(ids)
        tensor([[2, 3, 1, 1]])
        """
        if self.padding_idx is None:
            return torch.arange(start, start + ids.shape[-1], device=ids.device)
        counted = ids != self.padding_idx
        return (counted.cumsum(-1) + start) * counted + self.padding_idx

    def forward(self, ids: Ids, start: int = 0, types: Ids | None = None) -> Vectors:
        stop = start + ids.shape[1]
        if stop > self.max_length:
            raise ValueError(
                f"Embeddings: expected at most {self.max_length} positions, as many as it has learned. Got {stop}."
            )
        x = self.tokens(ids) + self.positions.weight[self.position_ids(ids, start)]
        if self.types is not None:
            x = x + (self.types.weight[0] if types is None else self.types(types))
        embedded: Tensor = self.dropout(self.norm(x))
        return embedded


class SinusoidalPositions(nn.Module):
    """x_i + p_i with p_(i, 2d) = sin(i / 10000^(2d/dim)) and p_(i, 2d+1) = cos of the same, for any position i.

    (B,N,dim) → (B,N,dim); `start` is the position of the first vector. Nothing is learned. Vaswani et al. 2017,
    section 3.5.

    >>> import torch, regard.nn
    >>> regard.nn.SinusoidalPositions()(torch.zeros(1, 3, 4))
    tensor([[[ 0.0000,  1.0000,  0.0000,  1.0000],
             [ 0.8415,  0.5403,  0.0100,  0.9999],
             [ 0.9093, -0.4161,  0.0200,  0.9998]]])
    """

    def forward(self, x: Vectors, start: int = 0) -> Vectors:
        positions, dim = torch.arange(start, start + x.shape[1], device=x.device), x.shape[2]
        angles = positions[:, None] * torch.exp(torch.arange(0, dim, 2, device=x.device) * (-math.log(10_000) / dim))
        return x + torch.stack((angles.sin(), angles.cos()), -1).flatten(1)[:, :dim]


class RotaryPositions(nn.Module):
    """Turns each pair (x_d, x_(d+D/2)) of a query or key at position i by the angle i · theta^(−2d/D).

    The product of a query and a key then depends on how far apart they stand, and not on where. (…,N,D) → (…,N,D);
    `start` is the position of the first vector. Nothing is learned. Su et al. 2021, https://arxiv.org/abs/2104.09864,
    in the order of dimensions that Llama has.

    >>> import torch, regard.nn
    >>> rotary, (query, key) = regard.nn.RotaryPositions(), torch.randn(2, 1, 8)
    >>> near, far = (rotary(query, start) @ rotary(key, start + 3).T for start in (0, 100))
    >>> torch.allclose(near, far, atol=1e-4)
    True
    """

    def __init__(self, theta: float = 10_000.0) -> None:
        super().__init__()
        self.theta = theta

    def angles(self, x: Tensor, start: int = 0) -> tuple[Tensor, Tensor]:
        """Cosines and sines (N,D) of the angles of vectors (…,N,D), each twice.

        >>> import torch, regard.nn
        >>> cosine, sine = regard.nn.RotaryPositions(theta=100.0).angles(torch.zeros(2, 4))
        >>> cosine[1], sine[1]
        (tensor([0.5403, 0.9950, 0.5403, 0.9950]), tensor([0.8415, 0.0998, 0.8415, 0.0998]))
        """
        stop = start + x.shape[-2]
        if torch.compiler.is_compiling():
            cosine, sine = _angles(self.theta, x.shape[-1], stop, x.dtype, x.device)
        else:
            cosine, sine = _shared_angles(self.theta, x.shape[-1], 1 << max(6, stop.bit_length()), x.dtype, x.device)
        return cosine[start:stop], sine[start:stop]

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        cosine, sine = self.angles(x, start)
        half = x.shape[-1] // 2
        turned = x * cosine
        turned[..., :half].addcmul_(x[..., half:], sine[:, half:], value=-1)
        turned[..., half:].addcmul_(x[..., :half], sine[:, :half])
        return turned


def _angles(theta: float, dim: int, positions: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines (positions,dim), by way of float32, as models are trained."""
    frequencies = 1 / theta ** (torch.arange(0, dim, 2, device=device).float() / dim)
    angles = torch.outer(torch.arange(positions, device=device).float(), frequencies).repeat(1, 2)
    return angles.cos().to(dtype), angles.sin().to(dtype)


@lru_cache(maxsize=8)
def _shared_angles(*sizes: Any) -> tuple[Tensor, Tensor]:
    """Those of `_angles`, which all layers share; no tensors of inference mode, which could not be trained with."""
    with torch.inference_mode(False), torch.no_grad():
        return _angles(*sizes)


@renamed_arguments(vocabulary="vocab_size")
class SinusoidalEmbeddings(nn.Module):
    """x_i = √dim · token_i + p_i, for texts of any length; ids (B,N) → (B,N,dim). Vaswani et al. 2017, section 3.4.

    >>> import torch, regard.nn
    >>> regard.nn.SinusoidalEmbeddings(vocab_size=11, dim=8)(torch.tensor([[3, 1, 4]])).shape
    torch.Size([1, 3, 8])
    """

    def __init__(self, vocab_size: int, dim: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, dim)
        nn.init.normal_(self.tokens.weight, std=dim**-0.5)
        self.positions, self.dropout = SinusoidalPositions(), nn.Dropout(dropout)

    def forward(self, ids: Ids, start: int = 0) -> Vectors:
        x = self.tokens(ids) * math.sqrt(self.tokens.embedding_dim)
        embedded: Tensor = self.dropout(self.positions(x, start))
        return embedded
