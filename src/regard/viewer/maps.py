"""The maps of a reading as a page shows them: which there are, and their numbers between units.

`regard.attribution` makes them; tiles.py, replies.py and payload.py take their numbers from here, whichever map it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from regard import attribution
from regard.attribution import Target
from regard.lens.lens import Lens
from regard.lens.reading import Reading
from regard.lens.units import Word
from regard.viewer.protocol import MAPS, MapName, MapOffer, Side
from regard.weights.map import Map

if TYPE_CHECKING:
    from jaxtyping import Float

SAMPLE = "Time flies"  # what a model reads to show which maps it can serve: a long text would take long
REFUSALS = (ValueError, LookupError, TypeError, RuntimeError)


def map_of(reading: Reading, layer: int, name: MapName, target: Target | None = None) -> Map:
    """The map of a layer: of its heads (H,N,N), or of all of them together (N,N).

    Raises ValueError, with the reason, where the model cannot serve it.
    """
    if name == "weights":
        return reading.attention[layer].weights
    with torch.inference_mode(False):  # a gradient is taken of what the model computes
        return attribution.map_of(reading, name, layer, target)


def target_of(reading: Reading, text: str | None = None) -> Target:
    """What is explained by the maps that are about a target: as it is written on the command line, or the usual one.

    Raises ValueError or LookupError where there is no such target.
    """
    with torch.inference_mode(False):
        return attribution.default_target(reading) if text is None else attribution.parse_target(reading, text)


def offers(reading: Reading) -> list[MapOffer]:
    """All maps, in the order of MAPS; those that the model cannot serve with the reason."""
    # What serves one target serves another; the attentions of a decoder are of a reading of its own.
    alone = reading.lens is None or reading.part in ("decoder", "cross")
    source = reading if reading.lens is None or alone else reading.lens
    if source not in _missing:
        with torch.inference_mode(False):  # a gradient cannot be taken of what was read in it
            sample = reading if reading.lens is None or alone else reading.lens.read(SAMPLE)
            _missing[source] = {name: _refusal(sample, name) for name in MAPS}
    kinds, missing = attribution.MAPS, _missing[source]
    return [
        MapOffer(
            name=name,
            heads=kinds[name].by_head,
            target=needs_target(name),
            signed=kinds[name].signed,
            missing=missing[name],
        )
        for name in MAPS
    ]


_missing: WeakKeyDictionary[Reading | Lens, dict[MapName, str | None]] = WeakKeyDictionary()


def needs_target(name: MapName) -> bool:
    """Whether a map is about a target."""
    return attribution.MAPS[name].needs_target


def _refusal(reading: Reading, name: MapName) -> str | None:
    """Why a map is refused, in a sentence: the first of the error; None where it is served."""
    try:
        target = target_of(reading) if needs_target(name) else None
        if name == "logits" and target is not None and target.predicted is None:
            return f"{reading.model} predicts no next token."
        map_of(reading, reading.attention_layers[0], name, target)
    except REFUSALS as error:
        sentence = re.split(r"(?<=[.!?])\s", str(error) or type(error).__name__, maxsplit=1)[0]
        return sentence.removeprefix(f"{name}: ")
    return None


def between_units(reading: Reading, numbers: Map) -> Float[Tensor, "H U V"]:
    """Summed over a unit's keys, averaged over its queries; H is 1 for a map of all heads together."""
    return by_head(numbers.grouped(queries=reading.unit_of_token, keys=reading.columns.unit_of_token), 2)


def of_unit(numbers: Map, unit: Word, side: Side, others: Reading | None = None) -> Float[Tensor, "H U"]:
    """Those between a unit and all units: from it, or to it; of cross-attention, the units of the other text."""
    reading, own = others or unit.reading, slice(unit.tokens[0], unit.tokens[-1] + 1)
    if side == "from":
        return by_head(reading.by_unit(numbers[..., own, :].mean(-2)), 1)
    columns = numbers[..., own].sum(-1)
    return by_head(reading.by_unit(columns) / reading.sizes.to(columns.device), 1)


def first_share(reading: Reading) -> float | None:
    """The share of attention that the first unit of a causal reading gets: the mean over those after it, all heads and
    layers. None where words see those after them too, or there are fewer than two of them.
    """
    if not reading.causal or len(reading.units) < 3:
        return None
    if reading not in _first_shares:
        weights = [reading.attention[layer].weights for layer in reading.attention_layers]
        columns = [of_unit(of_layer, reading.units[0], "to")[:, 1:] for of_layer in weights]
        _first_shares[reading] = float(torch.stack([column.double().mean() for column in columns]).mean())
    return _first_shares[reading]


_first_shares: WeakKeyDictionary[Reading, float] = WeakKeyDictionary()


def by_head(numbers: Tensor, dims: int) -> Float[Tensor, "H ..."]:
    """With a dimension of heads, of size 1 where all heads are taken together; `dims` are those besides."""
    return numbers if numbers.ndim > dims else numbers[None]


def tensors_of(result: object) -> list[Tensor | None]:
    """The tensors in a reply or a list; or of a map, query and key too, which it keeps where its reading is evicted."""
    if isinstance(result, Map):
        factors = (tensor for factor in result.factors for tensor in (factor.query, factor.key))
        return [result.scores.query, result.scores.key, result.gram, *factors]
    values = result.values() if isinstance(result, Mapping) else result if isinstance(result, list) else ()
    return [value for value in values if isinstance(value, Tensor)]
