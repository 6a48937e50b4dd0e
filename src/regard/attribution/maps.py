"""The maps of a layer by name: what the commands and the viewer offer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from regard.attribution.gradient import gradient
from regard.attribution.logits import logits
from regard.attribution.norms import norms
from regard.attribution.value_weighted import value_weighted

if TYPE_CHECKING:
    from regard.attribution.target import Target
    from regard.lens.reading import Reading
    from regard.weights import Map


class MapKind(NamedTuple):
    """A map that a layer of a reading has.

    Attributes:
        make: (reading, layer, target) → the map.
        by_head: whether it is (H,N,N), and not (N,N) over all heads.
        needs_target: whether it explains a target, and not the layer alone.
        signed: whether its numbers may be negative.
        meaning: what a number of it is, in a few words.
        unit: the unit of its numbers, in words; where there is none, the map's name stands for it.

    >>> from regard.attribution import MAPS
    >>> MAPS["value-weighted"].meaning, MAPS["gradient"].needs_target
    ('how much a head takes from there', True)
    """

    make: Callable[[Reading, int, Target | None], Map]
    by_head: bool
    needs_target: bool
    signed: bool
    meaning: str
    unit: str = ""


def _weights(reading: Reading, layer: int, _: Target | None) -> Map:
    reading.check(layer)
    return reading.attention[layer].weights


def _gradient(reading: Reading, layer: int, target: Target | None) -> Map:
    assert target is not None  # map_of has checked it
    return gradient(reading, target, layer)


def _logits(reading: Reading, layer: int, target: Target | None) -> Map:
    assert target is not None  # map_of has checked it
    return logits(reading, target, layer)


_ADDED = "length of what is added"
MAPS = {
    "weights": MapKind(_weights, True, False, False, "where a token looks", "weight"),
    "value-weighted": MapKind(
        lambda reading, layer, _: value_weighted(reading, layer),
        True,
        False,
        False,
        "how much a head takes from there",
        _ADDED,
    ),
    "norms": MapKind(
        lambda reading, layer, _: norms(reading, layer),
        False,
        False,
        False,
        "how much all heads take from there",
        _ADDED,
    ),
    "gradient": MapKind(_gradient, True, True, False, "how much the target gains by the weight", "weight × gradient"),
    "logits": MapKind(_logits, True, True, True, "what is added to the target's logit", "logits"),
}


def map_of(reading: Reading, name: str, layer: int, target: Target | None = None) -> Map:
    """The map of a layer by its name in `MAPS`.

    Raises: ValueError for a name that is not there, for a map that needs a target and has none, and where the model
    cannot serve it; IndexError for a layer that does not exist.

    >>> import regard
    >>> map_of(regard.Lens().read("Time flies"), "norms", layer=5).shape
    torch.Size([4, 4])
    """
    kind = MAPS.get(name)
    if kind is None:
        raise ValueError(f"map_of: name: expected one of {', '.join(MAPS)}. Got {name!r}.")
    if kind.needs_target and target is None:
        raise ValueError(f"map_of: target: {name!r} explains a target; give one, such as a word or a next token.")
    return kind.make(reading, layer, target)
