"""`difference`: how two models of the same shape differ, head by head, as a fine-tuned one and its base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from regard.atlas.atlas import Atlas
from regard.atlas.tables import Head, HeadTables, largest

if TYPE_CHECKING:
    from regard.atlas.tables import Tables


@dataclass(frozen=True, eq=False)
class Difference(HeadTables):
    """How the scores of a model's heads differ from those of another model of the same shape.

    Attributes:
        base: the atlas of the one that it is compared with.
        atlas: its own.
        scores: by part and score, the change from `base` to `atlas` for each layer and head.
        note: what a reader should also know, or "".

    >>> import torch
    >>> base = Atlas("base", "", {"": {"previous": torch.tensor([[0.1, 0.75]])}})
    >>> difference(base, Atlas("tuned", "", {"": {"previous": torch.tensor([[0.6, 0.5]])}}))
    Difference(base → tuned)
    """

    base: Atlas = field(repr=False)
    atlas: Atlas = field(repr=False)
    scores: Tables = field(repr=False)
    note: str = ""

    @property
    def model(self) -> str:  # type: ignore[override]
        """The name of the model."""
        return self.atlas.model

    @property
    def against(self) -> str:
        """The name of the model that it is compared with."""
        return self.base.model

    @property
    def tokens(self) -> Mapping[str, int]:
        """How many tokens of text were read, by kind."""
        return self.atlas.tokens

    def __repr__(self) -> str:
        return f"Difference({self.against} → {self.model})"

    def top(self, name: str, k: int = 5, part: str | None = None) -> list[Head]:
        """The heads whose score changed most, up or down; `value` is the change.

        Raises LookupError where it was not measured.

        >>> import torch
        >>> base = Atlas("base", "", {"": {"previous": torch.tensor([[0.1, 0.75]])}})
        >>> difference(base, Atlas("tuned", "", {"": {"previous": torch.tensor([[0.2, 0.5]])}})).top("previous", k=1)
        [Head(part='', layer=0, head=1, value=-0.25)]
        """
        part = self._part(name, part)
        table = self.scores[part][name]
        return largest(table, table.abs(), k, part)

    def columns(self) -> dict[str, list[Any]]:
        """The columns of `to_arrow` as lists: part, layer, head, score, base, value and change.

        >>> import torch
        >>> base = Atlas("base", "", {"": {"previous": torch.tensor([[0.5]])}})
        >>> columns = difference(base, Atlas("tuned", "", {"": {"previous": torch.tensor([[0.75]])}})).columns()
        >>> columns["base"], columns["value"], columns["change"]
        ([0.5], [0.75], [0.25])
        """
        columns = super().columns()
        change = columns.pop("value")
        keys = list(zip(columns["part"], columns["score"], columns["layer"], columns["head"], strict=True))
        for column, atlas in (("base", self.base), ("value", self.atlas)):
            columns[column] = [float(atlas.scores[part][name][layer, head]) for part, name, layer, head in keys]
        return columns | {"change": change}

    def to_dict(self) -> dict[str, Any]:
        """As plain lists and numbers for JSON: the changes, and both atlases.

        >>> import torch
        >>> base = Atlas("base", "", {"": {"previous": torch.tensor([[0.5]])}})
        >>> difference(base, Atlas("tuned", "", {"": {"previous": torch.tensor([[0.75]])}})).to_dict()["change"]
        {'': {'previous': [[0.25]]}}
        """
        from regard.atlas.store import tables_to_lists

        return {
            "against": self.against,
            "model": self.model,
            "note": self.note,
            "change": tables_to_lists(self.scores),
            "base": self.base.to_dict(),
            "atlas": self.atlas.to_dict(),
        }


def difference(base: Atlas, atlas: Atlas) -> Difference:
    """How the heads of a model differ from those of another: score − score of the base, head by head.

    Raises:
        TypeError: one of them is no `Atlas`.
        ValueError: the models have other parts, layers or heads, or no score was measured of both.

    >>> import torch
    >>> base = Atlas("base", "", {"": {"previous": torch.tensor([[0.1, 0.75]])}})
    >>> tuned = Atlas("tuned", "", {"": {"previous": torch.tensor([[0.6, 0.5]])}})
    >>> change = difference(base, tuned)
    >>> change.of("previous"), change.top("previous", k=1)[0].head
    (tensor([[ 0.5000, -0.2500]]), 0)
    """
    for name, given in (("base", base), ("atlas", atlas)):
        if not isinstance(given, Atlas):
            raise TypeError(f"difference: {name}: expected an Atlas. Got a {type(given).__name__}.")
    check_shapes(base.model, shape_of(base), atlas.model, shape_of(atlas))
    scores = {
        part: {name: atlas.scores[part][name] - table for name, table in tables.items() if name in atlas.scores[part]}
        for part, tables in base.scores.items()
    }
    if not any(scores.values()):
        raise ValueError(f"difference: no score was measured both of {base.model} and of {atlas.model}.")
    return Difference(base, atlas, scores, _note(base, atlas))


Shape = Mapping[str, tuple[int, int]]


def shape_of(atlas: Atlas) -> Shape:
    """By part of the model, its layers and the heads of one."""
    tables = {part: next(iter(tables.values()), None) for part, tables in atlas.scores.items()}
    return {part: (table.shape[0], table.shape[1]) for part, table in tables.items() if table is not None}


def check_shapes(base: str, of_base: Shape, model: str, of_model: Shape) -> None:
    """Raise ValueError, with both shapes, unless two models have the same parts, layers and heads."""
    if dict(of_base) != dict(of_model):
        raise ValueError(
            f"difference: {base} has {_words(of_base)}, and {model} {_words(of_model)}: only models of the same shape "
            "can be compared head by head."
        )


def _words(shape: Shape) -> str:
    return (
        ", ".join(f"{part} {layers} × {heads}".strip() for part, (layers, heads) in shape.items()) + " layers × heads"
    )


def _note(base: Atlas, atlas: Atlas) -> str:
    """A sentence where the two were measured on other texts, or are the same model."""
    notes = []
    if base.seed != atlas.seed or dict(base.tokens) != dict(atlas.tokens):
        notes.append("The two were measured on other texts, so that small changes mean nothing.")
    if base.fingerprint and base.fingerprint == atlas.fingerprint:
        notes.append("Both have the same weights.")
    return " ".join(notes)
