"""The layers of encoder and decoder: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.1."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from regard._internal.deprecated import renamed_arguments, warn
from regard.attention import Attention
from regard.nn.attention import MultiHeadAttention
from regard.nn.shapes import Lengths, Memory, Past, Vectors

ACTIVATIONS = {"gelu": nn.GELU(), "gelu_new": nn.GELU("tanh"), "relu": nn.ReLU()}


@renamed_arguments(inner="d_ff")
class FeedForward(nn.Module):
    """fc2(activation(fc1(x))) = activation(x W_1 + b_1) W_2 + b_2, position by position; (B,N,dim) → (B,N,dim).

    fc1 goes from dim to d_ff, fc2 back. Vaswani et al. 2017, section 3.3.

    >>> import torch, regard.nn
    >>> regard.nn.FeedForward(dim=8, d_ff=32)(torch.randn(1, 5, 8)).shape
    torch.Size([1, 5, 8])
    """

    def __init__(self, dim: int, d_ff: int, activation: str = "gelu", bias: bool = True) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"FeedForward: expected one of {', '.join(ACTIVATIONS)}. Got {activation!r}.")
        self.fc1, self.fc2 = nn.Linear(dim, d_ff, bias), nn.Linear(d_ff, dim, bias)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Vectors) -> Vectors:
        output: Tensor = self.fc2(self.activation(self.fc1(x)))
        return output

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Also loads what was saved when fc1 and fc2 were called widen and narrow."""
        for old, new in (("widen", "fc1"), ("narrow", "fc2")):
            for name in ("weight", "bias"):
                if f"{prefix}{old}.{name}" in state_dict:
                    state_dict[f"{prefix}{new}.{name}"] = state_dict.pop(f"{prefix}{old}.{name}")
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    @property
    def widen(self) -> nn.Linear:
        """The old name of `fc1`."""
        warn("FeedForward.widen is now called fc1.")
        return self.fc1

    @property
    def narrow(self) -> nn.Linear:
        """The old name of `fc2`."""
        warn("FeedForward.narrow is now called fc2.")
        return self.fc2


class GatedFeedForward(nn.Module):
    """fc2(silu(gate(x)) · fc1(x)): a second projection opens and closes each hidden number; (B,N,dim) → (B,N,dim).

    silu(x) = x / (1 + e^−x). SwiGLU of Shazeer 2020, https://arxiv.org/abs/2002.05202.

    >>> import torch, regard.nn
    >>> regard.nn.GatedFeedForward(dim=8, d_ff=32)(torch.randn(1, 5, 8)).shape
    torch.Size([1, 5, 8])
    """

    def __init__(self, dim: int, d_ff: int, bias: bool = False) -> None:
        super().__init__()
        self.gate, self.fc1, self.fc2 = (nn.Linear(*sizes, bias) for sizes in ((dim, d_ff), (dim, d_ff), (d_ff, dim)))

    def forward(self, x: Vectors) -> Vectors:
        hidden, opened = self.fc1(x), self.gate(x)
        if torch.is_grad_enabled():
            hidden = nn.functional.silu(opened) * hidden
        else:  # in place: a long text has many
            hidden = nn.functional.silu(opened, inplace=True).mul_(hidden)
        output: Tensor = self.fc2(hidden)
        return output


class Residual(nn.LayerNorm):
    """The norm of a residual connection: x ← norm(x + f(x)) or, with `pre_norm`, x ← x + f(norm(x)).

    The caller applies f to `before(x)` and passes the result to `after(x, change)`. After the sum as in Vaswani et al.
    2017; before it as in Xiong et al. 2020, https://arxiv.org/abs/2002.04745.
    """

    def __init__(self, dim: int, epsilon: float = 1e-5, pre_norm: bool = False, dropout: float = 0.0) -> None:
        super().__init__(dim, epsilon)
        self.pre_norm, self.dropout = pre_norm, nn.Dropout(dropout)

    def before(self, x: Tensor) -> Tensor:
        """The input of f."""
        return self(x) if self.pre_norm else x

    def after(self, x: Tensor, change: Tensor) -> Tensor:
        """x and f's output, added."""
        x = x + self.dropout(change)
        return x if self.pre_norm else self(x)


@renamed_arguments(inner="d_ff")
class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward, each with a residual connection: (B,N,dim) → (B,N,dim), and the attention.

    `norm` are the keyword arguments of `Residual`; options those of `regard.attention`.

    >>> import torch, regard.nn
    >>> layer = regard.nn.EncoderLayer(dim=8, heads=2, d_ff=32)
    >>> x, attended = layer(torch.randn(1, 5, 8))
    >>> x.shape, attended.weights.shape
    (torch.Size([1, 5, 8]), torch.Size([1, 2, 5, 5]))
    """

    def __init__(self, dim: int, heads: int, d_ff: int, activation: str = "gelu", **norm: Any) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(dim, heads)
        self.attention_norm = Residual(dim, **norm)
        self.feed_forward = FeedForward(dim, d_ff, activation)
        self.feed_forward_norm = Residual(dim, **norm)

    def forward(self, x: Vectors, **options: Any) -> tuple[Vectors, Attention]:
        change, attended = self.attention(self.attention_norm.before(x), **options)
        x = self.attention_norm.after(x, change)
        return self._fed_forward(x), attended

    def _fed_forward(self, x: Vectors) -> Vectors:
        return self.feed_forward_norm.after(x, self.feed_forward(self.feed_forward_norm.before(x)))


@renamed_arguments(inner="d_ff")
class DecoderLayer(EncoderLayer):
    """Causal self-attention, cross-attention to a memory, then feed-forward: (B,N,dim) → (B,N,dim).

    `past` is the key-value cache: from `begin(memory)` at first, then the one that the last call returned. `lengths`
    are those of the memory. The attentions are that to the tokens so far and that to the memory.

    >>> import torch, regard.nn
    >>> layer = regard.nn.DecoderLayer(dim=8, heads=2, d_ff=32)
    >>> past = layer.begin(torch.randn(1, 7, 8))                  # a source of seven tokens
    >>> x, (attended, crossed), past = layer(torch.randn(1, 3, 8), past)
    >>> attended.weights.shape, crossed.weights.shape
    (torch.Size([1, 2, 3, 3]), torch.Size([1, 2, 3, 7]))
    """

    def __init__(self, dim: int, heads: int, d_ff: int, activation: str = "gelu", **norm: Any) -> None:
        super().__init__(dim, heads, d_ff, activation, **norm)
        self.cross_attention = MultiHeadAttention(dim, heads)
        self.cross_attention_norm = Residual(dim, **norm)

    def begin(self, memory: Memory) -> Past:
        """The cache before the first token.

        >>> import torch, regard.nn
        >>> past = regard.nn.DecoderLayer(dim=8, heads=2, d_ff=32).begin(torch.randn(1, 7, 8))
        >>> [part.shape[2] for part in past]                      # no tokens of its own yet, seven of the source
        [0, 0, 7, 7]
        """
        return *self.attention.keys_and_values(memory[:, :0]), *self.cross_attention.keys_and_values(memory)

    def forward(  # type: ignore[override]
        self, x: Vectors, past: Past, lengths: Lengths = None
    ) -> tuple[Vectors, tuple[Attention, Attention], Past]:
        y, memory = self.attention_norm.before(x), past[2:]
        new = self.attention.keys_and_values(y)
        cached = (torch.cat((past[0], new[0]), 2), torch.cat((past[1], new[1]), 2)) if past[0].shape[2] else new
        change, attended = self.attention(y, cached, causal=True)
        x = self.attention_norm.after(x, change)
        change, crossed = self.cross_attention(self.cross_attention_norm.before(x), memory, lengths=lengths)
        x = self.cross_attention_norm.after(x, change)
        return self._fed_forward(x), (attended, crossed), (*cached, *memory)
