"""The layers of Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.1."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from regard.attention import Attention
from regard.nn.attention import MultiHeadAttention
from regard.nn.shapes import Lengths, Memory, Past, Vectors

ACTIVATIONS = {"gelu": nn.GELU(), "gelu_new": nn.GELU("tanh"), "relu": nn.ReLU()}


class FeedForward(nn.Module):
    """activation(x W_1 + b_1) W_2 + b_2, each position on its own; (B,N,dim) → (B,N,dim). Section 3.3."""

    def __init__(self, dim: int, inner: int, activation: str = "gelu") -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"FeedForward: expected one of {', '.join(ACTIVATIONS)}. Got {activation!r}.")
        self.widen, self.narrow = nn.Linear(dim, inner), nn.Linear(inner, dim)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Vectors) -> Vectors:
        return self.narrow(self.activation(self.widen(x)))


class Residual(nn.LayerNorm):
    """x ← norm(x + change(x)), as in the paper; with `pre_norm`, x ← x + change(norm(x)).

    The change is made by others, of what `before` gives. Xiong et al. 2020, https://arxiv.org/abs/2002.04745.
    """

    def __init__(self, dim: int, epsilon: float = 1e-5, pre_norm: bool = False, dropout: float = 0.0) -> None:
        super().__init__(dim, epsilon)
        self.pre_norm, self.dropout = pre_norm, nn.Dropout(dropout)

    def before(self, x: Tensor) -> Tensor:
        return self(x) if self.pre_norm else x

    def after(self, x: Tensor, change: Tensor) -> Tensor:
        x = x + self.dropout(change)
        return x if self.pre_norm else self(x)


class EncoderLayer(nn.Module):
    """Each word looks at all words, then thinks: (B,N,dim) → (B,N,dim), and the attention.

    `norm` are the keyword arguments of `Residual`; options those of `regard.attention`.
    """

    def __init__(self, dim: int, heads: int, inner: int, activation: str = "gelu", **norm: Any) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(dim, heads)
        self.attention_norm = Residual(dim, **norm)
        self.feed_forward = FeedForward(dim, inner, activation)
        self.feed_forward_norm = Residual(dim, **norm)

    def forward(self, x: Vectors, **options: Any) -> tuple[Vectors, Attention]:
        change, attended = self.attention(self.attention_norm.before(x), **options)
        x = self.attention_norm.after(x, change)
        return self.think(x), attended

    def think(self, x: Vectors) -> Vectors:
        return self.feed_forward_norm.after(x, self.feed_forward(self.feed_forward_norm.before(x)))


class DecoderLayer(EncoderLayer):
    """Each word looks at those before it, then at the memory, then thinks: (B,N,dim) → (B,N,dim).

    `past` holds what there is to look at: that of `begin(memory)` at first, then that which the layer gave last;
    lengths are those of the memory. The attentions are that to words and that to the memory.
    """

    def __init__(self, dim: int, heads: int, inner: int, activation: str = "gelu", **norm: Any) -> None:
        super().__init__(dim, heads, inner, activation, **norm)
        self.cross_attention = MultiHeadAttention(dim, heads)
        self.cross_attention_norm = Residual(dim, **norm)

    def begin(self, memory: Memory) -> Past:
        return *self.attention.keys_and_values(memory[:, :0]), *self.cross_attention.keys_and_values(memory)

    def forward(  # type: ignore[override]
        self, x: Vectors, past: Past, lengths: Lengths = None
    ) -> tuple[Vectors, tuple[Attention, Attention], Past]:
        y, memory = self.attention_norm.before(x), past[2:]
        new = self.attention.keys_and_values(y)
        words = (torch.cat((past[0], new[0]), 2), torch.cat((past[1], new[1]), 2)) if past[0].shape[2] else new
        change, attended = self.attention(y, words, causal=True)
        x = self.attention_norm.after(x, change)
        change, crossed = self.cross_attention(self.cross_attention_norm.before(x), memory, lengths=lengths)
        x = self.cross_attention_norm.after(x, change)
        return self.think(x), (attended, crossed), (*words, *memory)
