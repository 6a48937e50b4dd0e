"""Maps of a reading as they are shown: between words, with the scale of their numbers and their unit in words.

The terminal, pictures and JSON ask a `ShownMap` for what they show, whichever map of `regard.attribution.MAPS` it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from regard import attribution

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from regard.attribution import Target
    from regard.lens.reading import Reading
    from regard.lens.walk import Walk
    from regard.weights import Map


class Scale(NamedTuple):
    """From numbers to colours: by the square root of their share of the largest, so that small ones can be seen.

    Attributes:
        largest: the largest magnitude.
        signed: whether there are negative numbers: colours then diverge around 0.
    """

    largest: float
    signed: bool = False

    @classmethod
    def of(cls, numbers: Tensor) -> Scale:
        """The scale of these numbers; NaN is left out."""
        known = numbers[numbers.isfinite()]
        if not len(known):
            return cls(1.0)
        return cls(float(known.abs().max()) or 1.0, bool((known < 0).any()))

    def place(self, numbers: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Where numbers lie on the scale, from −1, or 0, to 1."""
        share = (numbers.double() / self.largest).clamp(-1, 1)
        return share.sign() * share.abs().sqrt()


def attention_name(reading: Reading) -> str:
    """Which attention of an encoder-decoder a reading shows, in words; "" for all other models."""
    return {"encoder": "encoder", "decoder": "decoder", "cross": "cross-attention", "": ""}[reading.part]


class ShownMap:
    """A map of `attribution.MAPS` of every layer of a reading, between words; each layer's is made once.

    Its rows are the words of the reading, its columns those of `reading.columns`: in self-attention the same.

    Raises ValueError, with the names of the known ones, for an unknown map.
    """

    def __init__(self, reading: Reading, name: str = "weights", target: Target | None = None) -> None:
        if name not in attribution.MAPS:
            raise ValueError(f"There is no map {name!r}. The maps: {', '.join(attribution.MAPS)}.")
        self.reading, self.name = reading, name
        self.kind = attribution.MAPS[name]
        if target is not None and not self.kind.needs_target:
            raise ValueError(f"The map {name!r} explains no target: leave it out.")
        self.target = attribution.default_target(reading) if target is None and self.kind.needs_target else target
        self._layers: dict[int, Map] = {}

    def to_dict(self) -> dict[str, Any]:
        """Which map it is, for JSON."""
        target = None if self.target is None else self.target.name
        return {"map": self.name, "unit": self.unit, "target": target}

    @property
    def unit(self) -> str:
        """The unit of the numbers, in words."""
        return self.kind.unit or self.name

    @property
    def meaning(self) -> str:
        """What the numbers are, in words."""
        if self.is_weights:
            where = "a word looks" if self.reading.source is None else "a word of the target looks in the source"
            return f"each row is where {where}"
        target = "" if self.target is None else f", for {self.target.name}"
        return f"each cell is {self.kind.meaning}{target}"

    @property
    def is_weights(self) -> bool:
        """Whether these are the weights themselves, which have a scale of their own: 0 to 1."""
        return self.name == "weights"

    def tokens(self, layer: int) -> Map:
        """The map of a layer between tokens, (H,N,N), or (N,N) of all heads together."""
        if layer not in self._layers:
            self._layers[layer] = attribution.map_of(self.reading, self.name, layer, self.target)
        return self._layers[layer]

    def layers(self, layer: int | None) -> list[int]:
        """The layer, or all that have attention."""
        return self.reading.attention_layers if layer is None else [layer % self.reading.layers]

    def heads(self, layer: int | None, head: int | None) -> list[int | None]:
        """The head, or all; [None] for a map over all heads together.

        Raises IndexError for a layer or head that does not exist, ValueError for a head of a map that has none.
        """
        self.reading.check(layer, head)
        if not self.kind.by_head:
            if head is not None:
                raise ValueError(f"The map {self.name!r} has no heads to choose from: it is of all heads together.")
            return [None]
        return list(range(self.reading.heads)) if head is None else [head % self.reading.heads]

    @property
    def shape(self) -> tuple[int, int]:
        """How many words attend, and how many are attended to."""
        return len(self.reading.units), len(self.reading.columns.units)

    def words(self, layer: int, first: tuple[int, int] | None = None) -> Float[Tensor, "h rows columns"]:
        """The map between words, or between the first of them: summed over keys, averaged over queries; by head."""
        groups = [reading.unit_of_token for reading in (self.reading, self.reading.columns)]
        if first is not None:
            groups = [torch.where(units < count, units, -1) for units, count in zip(groups, first, strict=True)]
        cells: Tensor = self.tokens(layer).grouped(queries=groups[0], keys=groups[1]).cpu()
        return cells if self.kind.by_head else cells[None]

    def pooled(self, layer: int, rows: int, columns: int) -> Float[Tensor, "h rows columns"]:
        """The number of largest magnitude in each of rows × columns cells of the map between tokens; by head."""
        tokens = self.tokens(layer)
        cells = tokens.pool(rows, columns, "max")
        if self.kind.signed:
            negated = tokens.times(key=torch.full((tokens.shape[-1], 1), -1.0, device=tokens.device))
            opposite = negated.pool(rows, columns, "max")
            cells = torch.where(opposite > cells, -opposite, cells)
        return (cells if self.kind.by_head else cells[None]).cpu()

    def total(self, cells: Float[Tensor, "n ..."]) -> Float[Tensor, "..."]:
        """Heads or layers as one: the sum of numbers that add up, as they may cancel; the mean of others."""
        return cells.sum(0) if self.kind.signed else cells.mean(0)


class Taken(NamedTuple):
    """What a word took home from each unit of the text in one layer under a map, beside the weights.

    Attributes:
        shown: the map.
        head: the head; None for a map over all heads together, whose weights are then their mean.
        weights, values: (units,).
    """

    shown: ShownMap
    head: int | None
    weights: Float[Tensor, "units"]
    values: Float[Tensor, "units"]

    def to_dict(self) -> dict[str, Any]:
        """As plain lists for JSON, one number a unit."""
        return {
            **self.shown.to_dict(),
            "head": self.head,
            "units": [unit.text for unit in self.shown.reading.columns.units],
            "weights": self.weights.tolist(),
            "values": self.values.tolist(),
        }


def taken(walk: Walk, shown: ShownMap) -> Taken:
    """The row of a word in a map of the layer and head of its walk: the mean over the word's tokens."""
    tokens, rows = shown.tokens(walk.layer), list(walk.word.tokens)
    weights = walk.word.attends_to(walk.layer)
    if not shown.kind.by_head:
        return Taken(shown, None, weights.mean(0).cpu(), walk.reading.columns.by_unit(tokens[rows].mean(0)).cpu())
    values = walk.reading.columns.by_unit(tokens[walk.head, rows].mean(0))
    return Taken(shown, walk.head, weights[walk.head].cpu(), values.cpu())
