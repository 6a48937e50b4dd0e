"""Attention rollout: from one token of the last layer back to the tokens of the text, through all layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch

from regard.attribution.layers import layers_of
from regard.attribution.norms import gram
from regard.lens.reading import Reading
from regard.lens.units import Word

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from regard.attribution.layers import Layer, Source


@dataclass(frozen=True, eq=False)
class Relevance:
    """How much each token of the text matters for what was asked.

    Attributes:
        tokens: (…,N), a number a token.
        reading: the reading, where it is one.

    >>> import regard
    >>> from regard import attribution
    >>> reading = regard.Lens().read("Time flies like an arrow")
    >>> relevance = attribution.rollout(reading, word="flies")
    >>> relevance.tokens.sum().round(decimals=4), relevance.units.shape
    (tensor(1.), torch.Size([7]))
    """

    tokens: Float[Tensor, "*B N"]
    reading: Reading | None = field(default=None, repr=False)

    @property
    def units(self) -> Float[Tensor, "units"]:
        """A number for each of `reading.units`, the words and special tokens: the sum over its tokens."""
        if self.reading is None:
            raise ValueError("Relevance.units: what record() collected has no words; read the text with a regard.Lens.")
        return self.reading.by_unit(self.tokens)


def rollout(
    source: Source,
    *,
    tokens: int | Sequence[int] | None = None,
    word: str | int | Word | None = None,
    of: Literal["weights", "norms"] = "weights",
) -> Relevance:
    """How much of a token's last vector comes from each token of the text, if every layer mixes vectors as it attends.

    From the last layer to the first, with r the unit vector of the token, or the mean of several, at the beginning:

        r ← ½ (r + mean_h (w^h)ᵀ r)       of="weights": Abnar and Zuidema 2020, https://arxiv.org/abs/2005.00928
        r ← Mᵀ (r / Σ_j M_ij)             of="norms": GlobEnc, Modarressi et al. 2022, https://arxiv.org/abs/2205.03286

        M_ij = ‖L(Σ_h w^h_ij f^h_j + [i = j] x_i)‖       f^h_j = v_j W_O^h

    In a post-norm model L goes through both norms of the layer, u ↦ gain ⊙ (u − mean(u)) / σ_i each, the feed-forward
    network between them passed by on its residual connection as in GlobEnc; 1/σ_i is the same along a row and cancels,
    for the rows are normalised, as those of weights are. In a pre-norm model L is the identity, and the norm before the
    attention has gone into v; where a norm of what the heads take is added (Gemma 2), f^h_j goes through it. What an
    attention sink takes of a row of weights is lost.

    O(N) memory. A layer takes one pass over the matrix for weights, and two for norms.

    Args:
        source: a reading, or what `regard.hf.record()` collected from the layers of one stack.
        tokens: the token, or the tokens of a passage, whose last vector (or mean of vectors) is explained; −1 the last.
        word: or a word of the reading, as in `Reading.word`.
        of: what a layer mixes by.

    Returns: `Relevance`, which sums to 1 where there are no sinks.

    Raises: ValueError for anything but one of `tokens` and `word`, for layers that are not of one stack of
    self-attention, and where a module that norms need cannot be found; LookupError for a word or token that is not
    there.

    >>> import regard
    >>> from regard import attribution
    >>> reading = regard.Lens().read("Time flies like an arrow")
    >>> attribution.rollout(reading, word="flies").units              # [CLS] is the sink of every layer
    tensor([0.6985, 0.0312, 0.0495, 0.0265, 0.0254, 0.0234, 0.1454])
    >>> attribution.rollout(reading, word="flies", of="norms").units
    tensor([0.1052, 0.2189, 0.2534, 0.1021, 0.0644, 0.1393, 0.1166])
    """
    if of not in _STEPS:
        raise ValueError(f"rollout: of: expected 'weights' or 'norms'. Got {of!r}.")
    reading = source if isinstance(source, Reading) else None
    layers = layers_of(source)
    _check_stack(layers, reading)
    weights = layers[0].weights
    places = _places(weights.shape[-1], reading, tokens, word)
    relevance = torch.zeros(*weights.shape[:-3], weights.shape[-1], dtype=weights.dtype, device=weights.device)
    relevance[..., places] = 1 / len(places)
    for at in reversed(layers):
        relevance = _STEPS[of](at, relevance)
    return Relevance(relevance, reading)


def _by_weights(at: Layer, relevance: Float[Tensor, "*B N"]) -> Float[Tensor, "*B N"]:
    passed = at.weights.T @ relevance[..., None, :, None]  # (…,H,N,1)
    mixed: Tensor = (relevance + passed[..., 0].mean(-2)) / 2
    return mixed


def _by_norms(at: Layer, relevance: Float[Tensor, "*B N"]) -> Float[Tensor, "*B N"]:
    own = at.joined(at.own)
    by_head, x = at.joining_weight, at.x.to(own)
    for norm in at.norms:
        by_head, x, own = norm(by_head), norm(x), norm(own)
    taken = at.weights.combined(gram(at.attention.value, by_head))
    if at.scale is not None:
        taken = taken.times(query=at.scale[..., None])
    residual = (own + x).norm(dim=-1) - own.norm(dim=-1)  # what x adds to the diagonal
    share = relevance / (taken.sum() + residual).clamp(min=torch.finfo(residual.dtype).tiny)
    passed: Tensor = (taken.T @ share[..., None])[..., 0]
    relevance = passed + residual * share
    return relevance


_STEPS = {"weights": _by_weights, "norms": _by_norms}


def _check_stack(layers: Sequence[Layer], reading: Reading | None) -> None:
    if not layers:
        raise ValueError("rollout: source: record() collected no attention.")
    if reading is not None and len(layers) < reading.layers:
        others = ", ".join(str(n) for n in range(reading.layers) if n not in reading.attention_layers)
        raise ValueError(f"rollout: {reading.model}: the layers {others} mix tokens without attention, unseen here.")
    for at in layers:
        at.check_self_attention("rollout")
        if at.weights.shape[-1] != layers[0].weights.shape[-1]:
            raise ValueError(
                f"rollout: {at.name} has {at.weights.shape[-1]} tokens, and {layers[0].name} "
                f"{layers[0].weights.shape[-1]}: give the attentions of one stack of layers, such as source[:12]."
            )


def _places(
    count: int, reading: Reading | None, tokens: int | Sequence[int] | None, word: str | int | Word | None
) -> list[int]:
    """The tokens from which the rollout begins."""
    if (tokens is None) == (word is None):
        raise ValueError("rollout: give tokens= or word=, the one that is explained.")
    if word is not None:
        if reading is None:
            raise ValueError("rollout: word: what record() collected has no words; give tokens=, places of tokens.")
        return list((word if isinstance(word, Word) else reading.word(word)).tokens)
    places = [tokens] if isinstance(tokens, int) else list(tokens or ())
    if not places:
        raise ValueError("rollout: tokens: expected one token or more. Got none.")
    for place in places:
        if not -count <= place < count:
            raise LookupError(f"rollout: tokens: there is no token {place}: there are {count}, from 0 to {count - 1}.")
    return sorted({place % count for place in places})
