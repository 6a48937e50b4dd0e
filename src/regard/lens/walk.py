"""The walk: how attention makes the new vector of one word, step by step, with every number."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from regard.backends import streaming
from regard.mask import Block

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from regard.lens.reading import Reading, Word


@dataclass(frozen=True, eq=False)
class Walk:
    """Attention of one word, in one layer and head:

        scores_j = q·k_j     scaled_j = scale · scores_j     weights = softmax(scaled)     context = Σ_j weights_j v_j

    x (t,dim) is what enters the layer, for the t tokens of the word; query (t,D); keys (N,D) and values (N,E) of all
    tokens; scores, scaled and weights (t,N); context (t,E). For a word of several tokens the walk that is shown is
    their mean. `error` is the largest difference of context and weights from what the model itself computed.

    Between scaled and weights come, in models that have them, a softcap, a bias and a mask; sinks take part in the
    softmax. `hidden` are the keys that the word is not allowed to see. `habit`: every token of the text gives more
    than 0.9 of its weight to the "previous" token, the "next", to "itself", the "first" or the "last", so that the
    head says where a word stands, and nothing of what it means.
    """

    reading: Reading = field(repr=False)
    word: Word
    layer: int
    head: int
    chosen: bool  # layer and head were chosen by `Reading.most_telling`, not by the caller
    x: Float[Tensor, "t dim"] = field(repr=False)
    query: Float[Tensor, "t D"] = field(repr=False)
    keys: Float[Tensor, "N D"] = field(repr=False)
    values: Float[Tensor, "N E"] = field(repr=False)
    scale: float
    scores: Float[Tensor, "t N"] = field(repr=False)
    scaled: Float[Tensor, "t N"] = field(repr=False)
    hidden: Bool[Tensor, "N"] = field(repr=False)
    weights: Float[Tensor, "t N"] = field(repr=False)
    context: Float[Tensor, "t E"] = field(repr=False)
    error: float

    @cached_property
    def habit(self) -> str | None:
        """The place to which all tokens of the text look in this head, whatever they mean; or None."""
        return _habit(self.reading, self.layer, self.head)

    def to_dict(self) -> dict:
        """As plain lists, one number a token in reading order, for JSON."""
        return {
            "text": self.reading.text,
            "model": self.reading.model,
            "tokens": [token.text for token in self.reading.tokens],
            "words": [word.text for word in self.reading.words],
            "word": self.word.text,
            "layer": self.layer,
            "head": self.head,
            "query": self.query.mean(0).tolist(),
            "keys": self.keys.tolist(),
            "scores": self.scores.mean(0).tolist(),
            "scaled": self.scaled.mean(0).tolist(),
            "weights": self.weights.mean(0).tolist(),
            "context": self.context.mean(0).tolist(),
            "error": self.error,
        }


def walk(reading: Reading, word: Word, layer: int | None, head: int | None) -> Walk:
    """The walk of a word, in float64 from the model's own query, key and value."""
    chosen = layer is None or head is None
    layer, head = reading.most_telling(word, layer, head)
    attended = reading.attention[layer]
    scores = attended.weights.scores
    rows = torch.tensor(word.tokens)
    group = head // scores.repeat
    query = scores.query[0, head, rows].double()
    keys, values = scores.key[0, group].double(), attended.value[group].double()
    raw = query @ keys.T
    # Softcap, bias, mask and sinks, where the model has them, come between scaling and softmax.
    everything = Block(slice(0, 1), slice(head, head + 1), rows, slice(0, len(keys)))
    sinks = attended.weights.sinks
    adjusted = scores.finish(everything, (raw * scores.scale)[None, None])
    weights = streaming.softmax(adjusted, None if sinks is None else sinks[head : head + 1])[0][0, 0]
    context = weights @ values
    model_weights, model_context = attended.weights[head, rows], attended.output[head, rows]
    error = max(float((context - model_context).abs().max()), float((weights - model_weights).abs().max()))
    return Walk(
        reading=reading,
        word=word,
        layer=layer,
        head=head,
        chosen=chosen,
        x=reading.hidden[layer, rows],
        query=query,
        keys=keys,
        values=values,
        scale=scores.scale,
        scores=raw,
        scaled=raw * scores.scale,
        hidden=adjusted[0, 0].isneginf().all(0),
        weights=weights,
        context=context,
        error=error,
    )


def _habit(reading: Reading, layer: int, head: int) -> str | None:
    """The place to which all tokens of the text look, whatever they mean; None where three or more do not agree."""
    largest = reading.attention[layer].weights.max()
    weights, keys = largest.values[head].cpu(), largest.indices[head].cpu()
    here, count = torch.arange(len(keys)), len(keys)
    of_text = torch.tensor([not token.special for token in reading.tokens])
    places = {
        "previous": (here - 1, here > 0),  # (the place, for which tokens there is one besides themselves)
        "next": (here + 1, here < count - 1),
        "itself": (here, here >= 0),
        "first": (torch.zeros_like(here), here > 0),
        "last": (torch.full_like(here, count - 1), here < count - 1),
    }
    for name, (place, there) in places.items():
        asked = of_text & there
        if asked.sum() >= 3 and bool(((keys == place) & (weights > 0.9))[asked].all()):
            return name
    return None
