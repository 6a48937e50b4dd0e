"""The methods side by side, with the knockout as their judge: `agreement`.

The rank correlation of Spearman 1904 is that of Pearson between ranks: 1 where a method puts the words in the order in
which they matter, 0 where its order says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch

from regard.attribution.gradient import gradients, relevance
from regard.attribution.knockout import knockouts
from regard.attribution.logits import logits
from regard.attribution.maps import MAPS, map_of
from regard.attribution.rollout import rollout

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from regard.attribution import Target
    from regard.lens.display import Picture
    from regard.lens.reading import Reading

    Method = Callable[[Reading, Target], Float[Tensor, "N"]]


@dataclass(frozen=True, eq=False)
class Agreement:
    """How much each unit of a text matters to a target, by each method and by the knockout.

    Attributes:
        reading, target: what is explained.
        layer, head: where, or None for all of the model, or all heads of the layer.
        knockout: (units,), what the target loses when no other unit may look at this one: `knockouts`, with the sign
            turned, so that what is needed is positive.
        relevance: (units,) by the name of the method.
        judged: (units,), the units that are compared: the words. Not special tokens, which are sinks: a head that may
            not rest on them spreads its weight over the words, which says more about the cut than about what they gave.
            Not the word whose vector is explained, which keeps most of itself whoever looks at it.
        left_out: by the name of a method that this model or target does not serve, why.

    >>> import regard
    >>> from regard import attribution
    >>> reading = regard.Lens().read("Time flies like an arrow")
    >>> result = attribution.agreement(reading, attribution.Target.similarity(reading, "Time passes quickly"))
    >>> list(result.correlation)
    ['weights, rollout', 'norms, rollout', 'gradient']
    """

    reading: Reading = field(repr=False)
    target: Target
    layer: int | None
    head: int | None
    knockout: Float[Tensor, "units"]
    relevance: Mapping[str, Float[Tensor, "units"]]
    judged: Bool[Tensor, "units"]
    left_out: Mapping[str, str]

    @property
    def correlation(self) -> dict[str, float]:
        """The rank correlation of each method with the size of the knockout; NaN for fewer than three words."""
        knockout = self.knockout[self.judged].abs()
        return {name: rank_correlation(values[self.judged].abs(), knockout) for name, values in self.relevance.items()}

    def _repr_png_(self) -> Picture | None:
        """What a notebook shows: the picture that `regard attribute --save` draws."""
        from regard.lens.display import still_of_agreement

        return still_of_agreement(self)

    def to_dict(self) -> dict[str, Any]:
        """As plain lists for JSON, one number a unit.

        >>> import regard
        >>> from regard import attribution
        >>> reading = regard.Lens().read("Time flies like an arrow")
        >>> result = attribution.agreement(reading, attribution.Target.word(reading, "flies"), layer=5)
        >>> result.to_dict()["target"]
        'the vector of “flies”'
        """
        return {
            "text": self.reading.text,
            "model": self.reading.model,
            "target": self.target.name,
            "layer": self.layer,
            "head": self.head,
            "units": [unit.text for unit in self.reading.units],
            "judged": self.judged.tolist(),
            "knockout": self.knockout.tolist(),
            "relevance": {name: values.tolist() for name, values in self.relevance.items()},
            "correlation": {name: _number(value) for name, value in self.correlation.items()},
            "left_out": dict(self.left_out),
            "note": self.reading.note,
        }


def agreement(
    reading: Reading,
    target: Target,
    layer: int | None = None,
    head: int | None = None,
    *,
    advance: Callable[[int], object] = lambda units: None,
) -> Agreement:
    """Every method that the model serves for this target, beside the knockout of each unit.

    | method, of all layers | relevance of a token |
    |---|---|
    | weights, rollout | `rollout` of the tokens that the target reads |
    | norms, rollout | the same of `norms` |
    | gradient | `relevance`, without what the token had at the beginning as one that the target reads |
    | logits | the sum of `logits` over layers and heads, at the token that predicts |

    Of one layer, they are the maps of `MAPS`, over the heads their mean, or the sum of signed numbers: what is taken
    from a token by those that the target reads, r M with r their shares; by all tokens, of maps that are about the
    target; of logits, by the token that predicts. The knockout is in this layer alone, too.

    Words of several tokens have the sum of their tokens. Cost: a forward pass a unit, in batches, besides the methods'.

    Args:
        reading: the text.
        target: what is explained.
        layer: of this layer alone, instead of the model.
        head: and of this head, by the maps that have heads.
        advance: called with the number of units whose knockout is done, each time.

    Raises:
        ValueError: a head without a layer; or as `gradient` and `knockouts`, where the reading cannot be read again.
        IndexError: there is no such layer or head.

    >>> import regard
    >>> from regard.attribution import Target, agreement
    >>> reading = regard.Lens().read("Time flies like an arrow")
    >>> list(agreement(reading, Target.sentence(reading)).correlation)
    ['weights, rollout', 'norms, rollout', 'gradient']
    """
    reading.check(layer, head)
    if layer is None and head is not None:
        raise ValueError("agreement: head: give the layer that it is a head of.")
    layer = None if layer is None else layer % reading.layers
    head = None if head is None else head % reading.heads
    methods = METHODS if layer is None else {name: _of_layer(name, layer, head) for name in MAPS}
    by_method, left_out = {}, {}
    for name, method in methods.items():
        try:
            by_method[name] = reading.by_unit(method(reading, target)).cpu()
        except ValueError as error:
            left_out[name] = str(error)
    at = None if layer is None else [layer if head is None else (layer, head)]
    lost = -knockouts(reading, target, at=at, advance=advance).cpu()
    judged = _judged(reading, target) & lost.isfinite()
    return Agreement(reading, target, layer, head, lost, by_method, judged, left_out)


def _judged(reading: Reading, target: Target) -> Bool[Tensor, "units"]:
    """The words, without those that the target reads, unless it reads all."""
    words = torch.tensor([not unit.special for unit in reading.units])
    read = reading.by_unit(gradients(reading, target).rows).cpu() > 0
    return words if bool(read[words].all()) else words & ~read


def _of_layer(name: str, layer: int, head: int | None) -> Method:
    """What each token gives in a layer under a map, or in one head of it."""
    kind = MAPS[name]

    def method(reading: Reading, target: Target) -> Tensor:
        if head is not None and not kind.by_head:
            raise ValueError(f"{name}: they are of all heads together.")
        if name == "logits":
            by_head = _logits_of(reading, target, layer)
        elif kind.needs_target:
            by_head = map_of(reading, name, layer, target).received()
        else:
            matrix = map_of(reading, name, layer)
            by_head = matrix.T @ gradients(reading, target).rows.to(matrix.dtype)
        if not kind.by_head:
            return by_head
        return by_head[head] if head is not None else by_head.sum(0) if kind.signed else by_head.mean(0)

    return method


def _rolled_out(of: Literal["weights", "norms"]) -> Method:
    def method(reading: Reading, target: Target) -> Tensor:
        rows = gradients(reading, target).rows.nonzero()[:, 0].tolist()
        return rollout(reading, tokens=rows, of=of).tokens

    return method


def _gradient(reading: Reading, target: Target) -> Tensor:
    return relevance(reading, target).tokens - gradients(reading, target).rows


def _logits(reading: Reading, target: Target) -> Tensor:
    return torch.stack([_logits_of(reading, target, layer).sum(0) for layer in reading.attention_layers]).sum(0)


def _logits_of(reading: Reading, target: Target, layer: int) -> Float[Tensor, "H N"]:
    """What each token adds to the logit, at the token that predicts it."""
    if target.predicted is None:
        raise ValueError(f"logits: they explain a next token, and not {target.name}.")
    return logits(reading, target, layer)[:, target.predicted.position]


METHODS: dict[str, Method] = {
    "weights, rollout": _rolled_out("weights"),
    "norms, rollout": _rolled_out("norms"),
    "gradient": _gradient,
    "logits": _logits,
}


def rank_correlation(x: Float[Tensor, "n"], y: Float[Tensor, "n"]) -> float:
    """Spearman's rank correlation of two lists; equal numbers share the mean of their ranks. NaN where one is constant.

    >>> round(rank_correlation(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0, 1000.0, 100.0])), 6)
    0.5
    """
    ranks = torch.stack([_ranks(x), _ranks(y)])
    ranks = ranks - ranks.mean(1, keepdim=True)
    sizes = ranks.norm(dim=1).prod()
    return float((ranks[0] @ ranks[1]) / sizes) if len(x) > 2 and sizes > 0 else float("nan")


def _ranks(x: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    ordered = x.double().contiguous().sort().values
    below, up_to = (torch.searchsorted(ordered, x.double().contiguous(), right=right) for right in (False, True))
    return (below + up_to - 1).double() / 2


def _number(value: float) -> float | None:
    """None for NaN, which JSON does not have."""
    return None if value != value else value
