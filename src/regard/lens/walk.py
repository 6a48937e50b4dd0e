"""The walk: how attention makes the new vector of one word, step by step, with every number."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from regard.backends import streaming
from regard.lens.carried import lengths
from regard.mask import Block
from regard.models.inside import factor, rotate, rotation, tolerance

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from regard.lens.reading import Reading, Word


CAUTION = (
    "A weight says where a head looks, and not what decides the model's answer: much of it may go to a sink, a token "
    "that carries next to nothing. Only a run with the token switched off tells what depends on it."
)


@dataclass(frozen=True, eq=False)
class Made:
    """How a layer makes the query of a word of what enters it, computed again by the model's own modules.

    norm: the class of the norm that x goes through first, or "". normed (t,dim): what it makes of x; x itself where
    there is none. head_norm: whether query and key are normed after that, head by head or all together. query (t,D):
    before it is rotated, or the query itself. rotated: whether query and key are turned by their place in the text
    (rotary positions). factor: what else they are multiplied by. error: the largest difference of query, key and value
    of the word's tokens, in all heads, from those that the model itself used.
    """

    norm: str
    normed: Float[Tensor, "t dim"] = field(repr=False)
    head_norm: bool
    query: Float[Tensor, "t D"] = field(repr=False)
    rotated: bool
    factor: float
    error: float

    def to_dict(self) -> dict:
        """As plain lists, for JSON; the mean over the word's tokens."""
        return {
            "norm": self.norm or None,
            "normed": self.normed.mean(0).tolist(),
            "head_norm": self.head_norm,
            "query": self.query.mean(0).tolist(),
            "rotated": self.rotated,
            "factor": self.factor,
            "error": self.error,
        }


@dataclass(frozen=True, eq=False)
class Walk:
    """Attention of one word, in one layer and head:

        scores_j = q·k_j     scaled_j = scale · scores_j     weights = softmax(scaled)     context = Σ_j weights_j v_j

    x (t,dim) is what enters the layer, for the t tokens of the word; query (t,D); keys (N,D) and values (N,E) of all
    tokens; scores, scaled and weights (t,N); context (t,E). For a word of several tokens the walk that is shown is
    their mean. `error` is the largest difference of context and weights from what the model itself computed.

    `made` says how query, key and value come from x: the norm before, and the rotation by place after, each computed
    again with the model's own weights; None where the model does it in a way that is not known here, and then they are
    the numbers that its attention received, and no more is claimed.

    carried (t,N): each weight times the length of what the value adds, ‖v_j W_O‖, or ‖v_j‖ where W_O is not known. A
    token may have much of the weight and carry next to nothing: a sink, whose value is short.

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
    made: Made | None = field(default=None, repr=False)
    carried: Float[Tensor, "t N"] | None = field(default=None, repr=False)

    @property
    def sees_only_itself(self) -> bool:
        """Whether the word may look at nothing but its own tokens, as the first word of a causal model."""
        return set((~self.hidden).nonzero().flatten().tolist()) <= set(self.word.tokens)

    @property
    def resting(self) -> list[int]:
        """The tokens that have a tenth of the weight or more and carry less than half as much: sinks."""
        if self.carried is None:
            return []
        weights, carried = self.weights.mean(0), self.carried.mean(0)
        share = carried / carried.sum().clamp(min=1e-30)
        return ((weights >= 0.1) & (share < weights / 2)).nonzero().flatten().tolist()

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
            "carried": None if self.carried is None else self.carried.mean(0).tolist(),
            "made": None if self.made is None else self.made.to_dict(),
            "pieces": [token.piece or token.text for token in self.reading.tokens],
            "unknown": [n for n, token in enumerate(self.reading.tokens) if token.unknown],
            "note": self.reading.note,
            "caution": CAUTION,
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
        made=_made(reading, layer, head, word),
        carried=weights * lengths(reading, layer)[head].to(weights),
    )


@torch.inference_mode()
def _made(reading: Reading, layer: int, head: int, word: Word) -> Made | None:
    """Query, key and value of a word's tokens, made again of x; None where they do not come out as the model's."""
    inside = None if reading.lens is None else reading.lens.model.inside[layer]
    if inside is None:
        return None
    rows, attention = torch.tensor(word.tokens), reading.attention[layer]
    scores = attention.weights.scores
    query, key = scores.query[0][:, rows], scores.key[0][:, rows]
    normed, projected = inside(reading.hidden[layer, rows])
    (stretch, off), turn = factor(projected.query, query), None
    made = stretch * projected.query.transpose(0, 1), stretch * projected.key.transpose(0, 1)
    if off > 10 * tolerance(query.dtype):
        turn = rotation(projected.query, query)
        if turn is None:
            return None
        stretches = turn[0].abs()
        stretch = float(stretches.mean())
        if float((stretches / stretch - 1).abs().max()) > 100 * tolerance(query.dtype):
            return None  # not turned alone
        made = rotate(projected.query, turn).transpose(0, 1), rotate(projected.key, turn).transpose(0, 1)
    elif not 0.999 * stretch <= factor(projected.key, key)[0] <= 1.001 * stretch:
        made = made[0], projected.key.transpose(0, 1)  # the scale of the scores, put into the query alone
    pairs = (made[0], query), (made[1], key), (projected.value.transpose(0, 1), attention.value[:, rows])
    error = max(float((ours - theirs).abs().max()) for ours, theirs in pairs)
    if error > 100 * tolerance(query.dtype) * max(float(theirs.abs().max()) for _, theirs in pairs):
        return None
    return Made(
        norm="" if inside.norm is None else type(inside.norm).__name__,
        normed=normed,
        head_norm=inside.query_norm is not None,
        query=projected.query[:, head],
        rotated=inside.rotated or turn is not None,
        factor=round(stretch, 6),
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
