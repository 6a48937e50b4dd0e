"""Attention modules: without weights, one head, many heads. Each returns output and `regard.Attention`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from regard.attention import Attention, attention, attention_of_model
from regard.nn.embeddings import RotaryPositions
from regard.nn.shapes import KeysAndValues, Memory, Vectors


class SelfAttention(nn.Module):
    """x̄_i = Σ_j w_ij x_j with w = softmax(x xᵀ / √dim): each vector becomes a weighted average of all.

    Nothing is learned. x (B,N,dim) → (B,N,dim); the options are those of `regard.attention`: causal, lengths, …

    >>> import torch
    >>> output, attended = SelfAttention()(torch.eye(3)[None])
    >>> attended.weights[0, 0, 2]
    tensor([0.2645, 0.2645, 0.4711])
    """

    def forward(self, x: Vectors, **options: Any) -> tuple[Vectors, Attention]:
        x = x[:, None]
        attended = attention(x, x, x, **options)
        return attended.output[:, 0], attended


class AttentionHead(nn.Module):
    """attention(x W_q, x W_k, x W_v): query, key and value are learned projections of x.

    x (B,N,dim) → (B,N,head_dim). Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2.1.

    >>> import torch, regard.nn
    >>> head = regard.nn.AttentionHead(dim=8, head_dim=4)
    >>> output, attended = head(torch.randn(1, 5, 8), causal=True)
    >>> output.shape, attended.weights.shape
    (torch.Size([1, 5, 4]), torch.Size([1, 1, 5, 5]))
    """

    def __init__(self, dim: int, head_dim: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(dim, head_dim) for _ in range(3))

    def forward(self, x: Vectors, **options: Any) -> tuple[Tensor, Attention]:
        query, key, value = (project(x)[:, None] for project in (self.query, self.key, self.value))
        attended = attention(query, key, value, **options)
        return attended.output[:, 0], attended


class MultiHeadAttention(nn.Module):
    """concat_h(attention(x W_q, m W_k, m W_v)) W_o: every head has a query, key and value of its own.

    x (B,Q,dim) attends to itself or, in cross-attention, to a memory m (B,K,dim), which may also be given as its
    `keys_and_values`. With fewer `groups` than heads, the heads of a group share keys and values (grouped-query
    attention, Ainslie et al. 2023, https://arxiv.org/abs/2305.13245). With a `rope_theta`, queries and keys are turned
    by `RotaryPositions`; `start` is then the position of the first. Vaswani et al. 2017, section 3.2.2.

    >>> import torch
    >>> output, attended = MultiHeadAttention(8, heads=2)(torch.randn(1, 5, 8), causal=True)
    >>> output.shape, attended.weights.shape
    (torch.Size([1, 5, 8]), torch.Size([1, 2, 5, 5]))
    """

    def __init__(
        self, dim: int, heads: int, groups: int | None = None, bias: bool = True, rope_theta: float | None = None
    ) -> None:
        super().__init__()
        groups = heads if groups is None else groups
        if heads < 1 or dim % heads:
            raise ValueError(f"MultiHeadAttention: expected a dim that is divisible by {heads} heads. Got {dim}.")
        if groups < 1 or heads % groups:
            raise ValueError(f"MultiHeadAttention: expected groups that divide the {heads} heads. Got {groups}.")
        if rope_theta is not None and dim // heads % 2:
            raise ValueError(f"MultiHeadAttention: rope_theta: expected heads of an even dim. Got {dim // heads}.")
        self.heads, self.groups = heads, groups
        self.rotary = None if rope_theta is None else RotaryPositions(rope_theta)
        self.query = nn.Linear(dim, dim, bias)
        self.key, self.value = (nn.Linear(dim, dim // heads * groups, bias) for _ in range(2))
        self.output = nn.Linear(dim, dim, bias)

    def keys_and_values(self, memory: Memory, start: int = 0) -> KeysAndValues:
        """Keys and values by group: what a decoder caches of the tokens it has generated.

        >>> import torch, regard.nn
        >>> attention = regard.nn.MultiHeadAttention(8, heads=2)
        >>> keys, values = attention.keys_and_values(torch.randn(1, 5, 8))
        >>> keys.shape, values.shape
        (torch.Size([1, 2, 5, 4]), torch.Size([1, 2, 5, 4]))
        >>> output, attended = attention(torch.randn(1, 1, 8), (keys, values))      # a new token looks at the five
        >>> attended.weights.shape
        torch.Size([1, 2, 1, 5])
        """
        key, value = _by_head(self.key(memory), self.groups), _by_head(self.value(memory), self.groups)
        return key if self.rotary is None else self.rotary(key, start), value

    def forward(
        self, x: Vectors, memory: Memory | KeysAndValues | None = None, *, start: int = 0, **options: Any
    ) -> tuple[Vectors, Attention]:
        if not isinstance(memory, tuple):
            memory = self.keys_and_values(x, start) if memory is None else self.keys_and_values(memory)
        query = _by_head(self.query(x), self.heads)
        query = query if self.rotary is None else self.rotary(query, start)
        attended = attention_of_model(query, *memory, **options)
        return self.output(attended.output.transpose(1, 2).flatten(2)), attended


def _by_head(x: Vectors, heads: int) -> Tensor:
    return torch.unflatten(x, -1, (heads, -1)).transpose(1, 2)
