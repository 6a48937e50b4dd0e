"""The walk: how attention makes the new vector of one word, step by step, with every number."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from regard._internal.deprecated import warn
from regard.backends import streaming
from regard.lens.contributions import surroundings_of, value_norms
from regard.mask import Block
from regard.models.projections import factor, rotate, rotation, tolerance

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from regard.lens.reading import Reading
    from regard.lens.units import Word
    from regard.models.projections import Projected


CAUTION = (
    "A weight says where a head looks, not what decides the model's answer. Only a run with the token switched off "
    "tells what depends on it."
)


@dataclass(frozen=True, eq=False)
class Made:
    """How a layer computes the query of a word from its input, recomputed with the model's own modules.

    Attributes:
        norm: the class of the norm before the projections, or "".
        normed: (t,dim), x after that norm; x itself where there is none.
        head_norm: whether query and key are normalised again after their projection.
        query: (t,D), before it is rotated; the query itself where it is not.
        rotated: whether query and key are rotated by position (rotary positions).
        factor: what they are multiplied by besides.
        error: the largest difference of query, key and value of the word's tokens, in all heads, from the model's own;
            of cross-attention, of the keys and values of all tokens of the source.
    """

    norm: str
    normed: Float[Tensor, "t dim"] = field(repr=False)
    head_norm: bool
    query: Float[Tensor, "t D"] = field(repr=False)
    rotated: bool
    factor: float
    error: float

    def to_dict(self) -> dict[str, Any]:
        """As plain lists for JSON; the mean over the word's tokens."""
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
    """The attention of a word in one layer and head, step by step:

        scores_j = q·k_j     scaled_j = scale · scores_j     weights = softmax(scaled)     context = Σ_j weights_j v_j

    In models that have them, a softcap, a bias and a mask come between scaled and weights, and sinks take part in the
    softmax. For a word of several tokens the walk that is shown is their mean.

    Attributes:
        reading, word, layer, head: what is explained.
        chosen: whether layer and head were chosen by `Reading.head_with_most_content`, and not by the caller.
        x: (t,dim), the input of the layer, for the t tokens of the word.
        query: (t,D), of the word.
        keys, values: (N,D) and (N,E), of all tokens; of cross-attention, those of the source.
        scale: by which the scores are multiplied.
        scores, scaled, weights: (t,N).
        hidden: (N,), the keys that the word may not attend to.
        context: (t,E).
        error: the largest difference of context and weights from those that the model itself computed.
        made: how query, key and value come from x, recomputed with the model's own modules; None where the model
            computes them in a way that is not known here. They are then the numbers that its attention received.
        carried: (t,N), each weight times ‖v_j W_O‖, the length of what the value adds, or ‖v_j‖ where W_O is not
            known. A token may have much of the weight and carry next to nothing: a sink, whose value is short.

    >>> import torch, regard
    >>> reading = regard.Lens().read("Time flies like an arrow")
    >>> walk = reading.explain("flies", layer=5, head=11)
    >>> walk.query.shape, walk.keys.shape                         # of the word, and of all seven tokens
    (torch.Size([1, 32]), torch.Size([7, 32]))
    >>> torch.allclose(walk.scaled.softmax(-1), walk.weights)
    True
    >>> torch.allclose(walk.weights @ walk.values, walk.context, atol=1e-6), walk.error < 1e-5
    (True, True)
    """

    reading: Reading = field(repr=False)
    word: Word
    layer: int
    head: int
    chosen: bool
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
        """Whether the word may attend to its own tokens only, as the first word of a causal model."""
        return self.reading.source is None and set((~self.hidden).nonzero().flatten().tolist()) <= set(self.word.tokens)

    @property
    def resting(self) -> list[int]:
        """The sinks: tokens with a tenth of the weight or more and less than half as much of what is carried."""
        if self.carried is None:
            return []
        weights, carried = self.weights.mean(0), self.carried.mean(0)
        share = carried / carried.sum().clamp(min=1e-30)
        return ((weights >= 0.1) & (share < weights / 2)).nonzero().flatten().tolist()

    @cached_property
    def pattern(self) -> str | None:
        """The position to which every token of the text gives more than 0.9 of its weight in this head, or None.

        "previous", "next", "itself", "first" or "last": such a head tells where words are, not what they mean.
        """
        from regard.lens.display import strict_pattern

        return strict_pattern(self.reading, self.layer, self.head)

    @property
    def habit(self) -> str | None:
        """The old name of `pattern`."""
        warn("Walk.habit is now called pattern.")
        return self.pattern

    def _repr_html_(self) -> str:
        """What a notebook shows: the lesson that `regard explain` prints."""
        from regard.lens.display import lesson

        return lesson(self)

    def to_dict(self) -> dict[str, Any]:
        """As plain lists for JSON, one number per token in reading order: those that are attended to.

        >>> import regard
        >>> walk = regard.Lens().read("Time flies like an arrow").explain("flies", layer=5, head=11)
        >>> walk.to_dict()["tokens"]
        ['[CLS]', 'Time', 'flies', 'like', 'an', 'arrow', '[SEP]']
        """
        keys = self.reading.columns
        return {
            "text": keys.text,
            **({"attention": self.reading.part} if self.reading.part else {}),
            **({"target_text": self.reading.text} if self.reading.source else {}),
            "model": self.reading.model,
            "tokens": [token.text for token in keys.tokens],
            "words": [word.text for word in keys.words],
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
            "pieces": [token.piece or token.text for token in keys.tokens],
            "unknown": [n for n, token in enumerate(keys.tokens) if token.unknown],
            "note": keys.note,
            "caution": CAUTION,
        }


def walk(reading: Reading, word: Word, layer: int | None, head: int | None) -> Walk:
    """The walk of a word, in float64 from the model's own query, key and value."""
    chosen = layer is None or head is None
    layer, head = reading.head_with_most_content(word, layer, head)
    attended = reading.attention[layer]
    scores = attended.weights.scores
    rows = torch.tensor(word.tokens)
    group = head // scores.n_rep
    query = scores.query[0, head, rows].double()
    keys, values = scores.key[0, group].double(), attended.value[group].double()
    raw = query @ keys.T
    # Softcap, bias, mask and sinks, where the model has them, come between scaling and softmax.
    block = Block(slice(0, 1), slice(head, head + 1), rows, slice(0, len(keys)))
    sinks = attended.weights.sinks
    adjusted = scores.apply_modifiers(block, (raw * scores.scale)[None, None])
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
        x=reading.input_of(layer)[rows],
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
        carried=weights * value_norms(reading, layer)[head].to(weights),
    )


@torch.inference_mode()
def _made(reading: Reading, layer: int, head: int, word: Word) -> Made | None:
    """Query, key and value of a word's tokens, recomputed from x; None where they differ from the model's own."""
    projections = surroundings_of(reading, layer).projections
    if projections is None:
        return None
    rows, attention = torch.tensor(word.tokens), reading.attention[layer]
    scores = attention.weights.scores
    query, key, value = scores.query[0][:, rows], scores.key[0], attention.value
    if reading.source is None:
        key, value = key[:, rows], value[:, rows]
    source = reading.opened.source if reading.opened is not None else None
    normed, projected = projections(reading.input_of(layer)[rows], source)
    aligned = _aligned(projected, query, key)
    if aligned is None:
        return None
    own_query, own_key, factor_of_query, is_rotated = aligned
    pairs = (own_query, query), (own_key, key), (projected.value.transpose(0, 1), value)
    error = max(float((own - model).abs().max()) for own, model in pairs)
    if error > 100 * tolerance(query.dtype) * max(float(model.abs().max()) for _, model in pairs):
        return None
    return Made(
        norm="" if projections.norm is None else type(projections.norm).__name__,
        normed=normed,
        head_norm=projections.query_norm is not None,
        query=projected.query[:, head],
        rotated=projections.rotated or is_rotated,
        factor=round(factor_of_query, 6),
        error=error,
    )


def _aligned(projected: Projected, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor, float, bool] | None:
    """Query and key (H,t,D) after what the model does to the projected ones: multiplying or rotating them.

    Also the factor, and whether they are rotated. None where it is neither.
    """
    size, difference = factor(projected.query, query)
    if difference > 10 * tolerance(query.dtype):
        turn = rotation(projected.query, query)
        if turn is None:
            return None
        sizes = turn[0].abs()
        size = float(sizes.mean())
        if float((sizes / size - 1).abs().max()) > 100 * tolerance(query.dtype):
            return None  # more than a rotation
        own_query, own_key = (rotate(heads, turn).transpose(0, 1) for heads in (projected.query, projected.key))
        return own_query, own_key, size, True
    own_query, own_key = size * projected.query.transpose(0, 1), projected.key.transpose(0, 1)
    if (
        0.999 * size <= factor(projected.key, key)[0] <= 1.001 * size
    ):  # else the scale of the scores, put into the query
        own_key = size * own_key
    return own_query, own_key, size, False
