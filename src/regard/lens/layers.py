"""The attentions of a model's layers: of all, or of those that have one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from regard.attention import Attention
from regard.mask import Block


class SomeLayers(Sequence[Attention]):
    """The attentions of a model in which not every layer has one, by the number of the layer in the model.

    Iterating gives those that exist. Raises LookupError, naming the layers that have attention, for any other.
    """

    def __init__(self, attentions: Sequence[Attention | None]) -> None:
        self._attentions = list(attentions)
        self.layers = [n for n, attention in enumerate(self._attentions) if attention is not None]

    def __len__(self) -> int:
        return len(self._attentions)

    def __iter__(self) -> Iterator[Attention]:
        return (attention for attention in self._attentions if attention is not None)

    def __getitem__(self, layer: Any) -> Any:
        attention = self._attentions[layer]
        if attention is None:
            layers = ", ".join(map(str, self.layers))
            raise LookupError(f"Layer {layer % len(self)} has no attention. The layers with attention: {layers}.")
        return attention


def sees_ahead(attention: Attention) -> bool:
    """Whether a token may attend to the one after it, judged by nine of them at even distances."""
    scores = attention.weights.scores
    here = torch.arange(scores.shape[2])[:-1]
    if not len(here):
        return not scores.mask.causal
    return any(
        not scores.tile(Block(slice(0, 1), slice(0, scores.n_rep), slice(n, n + 1), slice(n + 1, n + 2)))
        .isneginf()
        .all()
        for n in here[:: max(1, len(here) // 8)].tolist()
    )


def without_attention(attentions: Sequence[Attention | None]) -> str:
    """A sentence about models in which not every layer has attention, or ""."""
    layers = [str(n) for n, attention in enumerate(attentions) if attention is not None]
    if len(layers) == len(attentions):
        return ""
    start = f"Layer {layers[0]} has" if len(layers) == 1 else f"Layers {', '.join(layers[:-1])} and {layers[-1]} have"
    others = len(attentions) - len(layers)
    return f"{start} attention; the other {others} of {len(attentions)} layers are of another kind."
