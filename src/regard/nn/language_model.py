"""The decoder-only Transformer, which goes on writing a text: GPT-2, Llama."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from regard._internal.growing import KeyValueCache
from regard.attention import Attention
from regard.nn import checkpoint, decoders, token
from regard.nn.attention import MultiHeadAttention
from regard.nn.layers import FeedForward, GatedFeedForward
from regard.nn.shapes import Ids, Logits, Vectors

ROWS = 1024  # of a long text at a time in the feed-forward network, where nobody watches


class CausalLayer(nn.Module):
    """x ← x + attention(norm(x)), then x ← x + feed_forward(norm(x)), where no token sees a later one.

    (B,N,dim) → (B,N,dim), and the attention. As it stands, a layer of GPT-2 (Radford et al. 2019). With `rms_norm`,
    `rope_theta`, `gated` and without biases, one of Llama (Touvron et al. 2023, https://arxiv.org/abs/2302.13971).

    Args:
        dim, heads, d_ff: the sizes of the vectors, of the attention, and within the feed-forward network.
        groups: of heads that share keys and values; as many as heads if not given.
        rope_theta: the base of rotary positions; None for none.
        gated: `GatedFeedForward` instead of `FeedForward`.
        rms_norm: vectors are divided by their root mean square (Zhang and Sennrich 2019,
            https://arxiv.org/abs/1910.07467), instead of layer norm.
        bias: whether the projections have biases.
        activation: that of `FeedForward`.
        epsilon: of the norms.
        dropout: the probability of dropout.

    The forward pass takes `past`, the cache of the tokens before these, which gets theirs too; None if none follow.

    >>> import torch, regard.nn
    >>> layer = regard.nn.CausalLayer(dim=8, heads=2, d_ff=32)
    >>> x, attended = layer(torch.randn(1, 5, 8))
    >>> x.shape, (attended.weights[0, 0] > 0).sum(1)              # how many tokens each sees
    (torch.Size([1, 5, 8]), tensor([1, 2, 3, 4, 5]))
    """

    def __init__(
        self, dim: int, heads: int, d_ff: int, *, groups: int | None = None, rope_theta: float | None = None,
        gated: bool = False, rms_norm: bool = False, bias: bool = True, activation: str = "gelu_new",
        epsilon: float = 1e-5, dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.attention_norm, self.feed_forward_norm = (_norm(dim, epsilon, rms_norm) for _ in range(2))
        self.attention = MultiHeadAttention(dim, heads, groups, bias, rope_theta)
        self.feed_forward = GatedFeedForward(dim, d_ff, bias) if gated else FeedForward(dim, d_ff, activation, bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Vectors, past: KeyValueCache | None = None) -> tuple[Vectors, Attention]:
        if past is not None and (done := token.step(self, x, past)) is not None:
            return done  # one more token while nobody watches: the same in one call of the kernel
        start = 0 if past is None else past.length
        y = self.attention_norm(x)
        known = self.attention.keys_and_values(y, start)
        known = known if past is None else past.extend(*known)
        change, attended = self.attention(y, known, start=start, causal=True)
        x = x + self.dropout(change)
        if not token.is_plain(self, x):
            return x + self.dropout(self.feed_forward(self.feed_forward_norm(x))), attended
        for rows in x.split(ROWS, 1):  # in place, which saves more memory than the output takes
            rows += self.feed_forward(self.feed_forward_norm(rows))
        return x, attended


class Prediction(NamedTuple):
    """What a language model makes of a text.

    logits (B,N,V), of which softmax gives the probabilities of the next token after each; hidden, the L + 1 states
    (B,N,dim); attentions, those of the L layers.
    """

    logits: Logits
    hidden: list[Vectors]
    attentions: list[Attention]


class LanguageModel(nn.Module):
    """Predicts the next token from all before it: ids (B,N) → logits (B,N,V), hidden states and attentions.

    Token embeddings, learned positions if there are any, causal layers, a norm, and the product with the output
    embeddings, which are those of the input if they are `tied` (Press and Wolf 2017, https://arxiv.org/abs/1608.05859).
    No token sees a later one, so that padding on the right changes nothing before it.

    Args:
        vocab_size, layers, dim: the sizes.
        positions: how many positions are learned: the longest text. 0 for none, as with `rope_theta`.
        tied: whether input and output share one embedding table.
        layer: the keyword arguments of `CausalLayer`.

    A whole text at once and one token at a time give the same result. The caches from `begin` hold the keys and values
    of the tokens so far; each pass adds those of its own tokens.

    >>> import torch, regard.nn
    >>> model = regard.nn.LanguageModel(vocab_size=11, layers=2, dim=8, heads=2, d_ff=32, positions=5).eval()
    >>> logits, hidden, attentions = model(torch.tensor([[3, 1, 4]]))
    >>> logits.shape, len(hidden), attentions[-1].weights.shape
    (torch.Size([1, 3, 11]), 3, torch.Size([1, 2, 3, 3]))
    >>> past = model.begin()
    >>> for token in (3, 1, 4):
    ...     last = model(torch.tensor([[token]]), past)
    >>> torch.allclose(last.logits[:, -1], logits[:, -1], atol=1e-5)
    True
    """

    def __init__(
        self, vocab_size: int, layers: int, *, dim: int, positions: int = 0, tied: bool = True, **layer: Any
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, dim)
        self.positions = nn.Embedding(positions, dim) if positions else None
        for table in (self.tokens, self.positions):
            if table is not None:
                nn.init.normal_(table.weight, std=0.02)  # as GPT-2: the logits of tied embeddings are then small
        self.layers = nn.ModuleList(CausalLayer(dim, **layer) for _ in range(layers))
        self.norm = _norm(dim, layer.get("epsilon", 1e-5), layer.get("rms_norm", False))
        self.output = None if tied else nn.Linear(dim, vocab_size, bias=False)
        self.dropout = nn.Dropout(layer.get("dropout", 0.0))

    def begin(self) -> list[KeyValueCache]:
        """The caches before the first token, one a layer.

        >>> import torch, regard.nn
        >>> model = regard.nn.LanguageModel(vocab_size=11, layers=2, dim=8, heads=2, d_ff=32, positions=5)
        >>> past = model.begin()
        >>> _ = model(torch.tensor([[3, 1, 4]]), past)
        >>> past[0].length, past[0].keys.shape
        (3, torch.Size([1, 2, 3, 4]))
        """
        return [KeyValueCache() for _ in self.layers]

    def forward(self, ids: Ids, past: list[KeyValueCache] | None = None, *, last: bool = False) -> Prediction:
        """Logits, hidden states and attentions of tokens after those in the caches, if any are given.

        With `last`, the logits (B,1,V) are those of the last token, as long texts have many.
        """
        hidden, attentions = [], []
        for x, attended in self._states(ids, past):
            hidden.append(x)
            if attended is not None:
                attentions.append(attended)
        hidden[-1] = self.norm(hidden[-1])
        return Prediction(self._logits(hidden[-1][:, -1:] if last else hidden[-1]), hidden, attentions)

    def step(self, ids: Ids, past: list[KeyValueCache]) -> Tensor:
        """The logits (B,V) of the token after these (B,N): what writing needs, and nothing else is kept.

        >>> import torch, regard.nn
        >>> model = regard.nn.LanguageModel(vocab_size=11, layers=2, dim=8, heads=2, d_ff=32, positions=5).eval()
        >>> ids = torch.tensor([[3, 1, 4]])
        >>> torch.allclose(model.step(ids, model.begin()), model(ids).logits[:, -1], atol=1e-5)
        True
        """
        for x, _ in self._states(ids, past):  # noqa: B007
            pass
        return self._logits(self.norm(x[:, -1]))

    def _states(self, ids: Ids, past: list[KeyValueCache] | None) -> Iterator[tuple[Vectors, Attention | None]]:
        """The states one after the other, each with the attention of the layer that it comes from."""
        if past is not None and len(past) != len(self.layers):
            raise ValueError(f"LanguageModel: past: expected {len(self.layers)} caches, from begin(). Got {len(past)}.")
        x = self.dropout(self._embedded(ids, past[0].length if past else 0))
        yield x, None
        for n, layer in enumerate(self.layers):
            x, attended = layer(x, None if past is None else past[n])
            yield x, attended

    def _logits(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, (self.tokens if self.output is None else self.output).weight)

    def _embedded(self, ids: Ids, start: int) -> Vectors:
        x: Tensor = self.tokens(ids)
        if self.positions is None:
            return x
        stop, limit = start + ids.shape[1], self.positions.num_embeddings
        if stop > limit:
            raise ValueError(
                f"LanguageModel: expected at most {limit} positions, as many as it has learned. Got {stop}."
            )
        return x + self.positions.weight[start:stop]

    @torch.no_grad()
    def generate(self, ids: Ids, max_new_tokens: int, eos_id: int | None = None) -> Ids:
        """Continue texts (B,N), taking the likeliest token at every step; returns the new tokens alone.

        Args:
            ids: what is read first, at least one token.
            max_new_tokens: the most tokens to generate.
            eos_id: the token that ends a text, if any; whatever follows it is `eos_id` too.

        Raises ValueError where there is nothing to continue.

        >>> import torch, regard.nn
        >>> model = regard.nn.LanguageModel(vocab_size=11, layers=2, dim=8, heads=2, d_ff=32, positions=9).eval()
        >>> model.generate(torch.tensor([[3, 1, 4]]), max_new_tokens=4).shape
        torch.Size([1, 4])
        """
        if ids.shape[1] < 1:
            raise ValueError("LanguageModel.generate: expected texts of at least one token. Got none.")
        past, new = self.begin(), ids
        written = ids[:, :0]
        for _ in range(max_new_tokens):
            chosen = self.step(new, past).argmax(-1, keepdim=True)
            new = chosen if eos_id is None else chosen.masked_fill((written == eos_id).any(1, keepdim=True), eos_id)
            written = torch.cat((written, new), 1)
            if eos_id is not None and bool((new == eos_id).all()):
                break
        return written

    @classmethod
    def from_pretrained(cls, model: str | Path) -> LanguageModel:
        """Load GPT-2, Llama, SmolLM2 and the like, in evaluation mode.

        Args:
            model: a folder, or a name on the Hugging Face hub.

        Raises:
            ValueError: it is another architecture, or its files are damaged; the message names what does not fit.
            OSError: there is no such model, or it cannot be fetched.

        >>> import tempfile, torch, transformers, regard.nn
        >>> config = transformers.GPT2Config(vocab_size=11, n_embd=8, n_layer=2, n_head=2, n_positions=16)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     transformers.GPT2LMHeadModel(config).save_pretrained(folder)
        ...     model = regard.nn.LanguageModel.from_pretrained(folder)
        >>> model(torch.tensor([[3, 1, 4]])).logits.shape
        torch.Size([1, 3, 11])
        """
        folder = checkpoint.fetch(model)
        family, sizes = decoders.sizes(folder)
        with torch.device("meta"), checkpoint.NoInitialisation():  # shapes only: the numbers come from the file
            made = cls(**sizes)
        made.load_state_dict(checkpoint.tensors(folder, made.state_dict(), family), assign=True)
        return made.eval()


def _norm(dim: int, epsilon: float, rms: bool) -> nn.Module:
    return nn.RMSNorm(dim, epsilon) if rms else nn.LayerNorm(dim, epsilon)
