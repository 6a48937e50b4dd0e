"""Numbers of every head, by part of the model and score: what an atlas and a difference of two share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

if TYPE_CHECKING:
    import pandas
    import pyarrow
    from jaxtyping import Float
    from torch import Tensor

    from regard.lens.display import Picture

    Tables = Mapping[str, Mapping[str, Float[Tensor, "layers heads"]]]


class Head(NamedTuple):
    """A head, and its score.

    >>> Head("", layer=5, head=1, value=0.75)
    Head(part='', layer=5, head=1, value=0.75)
    """

    part: str
    layer: int
    head: int
    value: float


class Example(NamedTuple):
    """Where a head with a high score attends to, in a text.

    Attributes:
        part, score, layer, head: which head, and of which score.
        word: a word of the text.
        attends_to: the words that the head gives the largest weights there, and these weights.

    >>> import regard
    >>> atlas = regard.Lens().atlas(["Time flies like an arrow, and fruit flies like a banana."], proof=False)
    >>> example = next(example for example in atlas.examples if example.score == "previous")
    >>> example.layer, example.head, example.word, example.attends_to[0][0]
    (0, 2, 'flies', 'fruit')
    """

    part: str
    score: str
    layer: int
    head: int
    word: str
    attends_to: Sequence[tuple[str, float]]


class HeadTables(ABC):
    """What an atlas and a difference of two share: a number for each head, by part of the model and score."""

    model: str
    scores: Tables

    @property
    def parts(self) -> list[str]:
        """The attentions of the model: [""], or of an encoder-decoder "encoder", "decoder" and "cross"."""
        return list(self.scores)

    @property
    def names(self) -> list[str]:
        """The scores that were measured, of any part."""
        return list(dict.fromkeys(name for tables in self.scores.values() for name in tables))

    def of(self, name: str, part: str | None = None) -> Float[Tensor, "layers heads"]:
        """A score of all heads. Raises LookupError where it was not measured."""
        part = self._part(name, part)
        return self.scores[part][name]

    def top(self, name: str, k: int = 5, part: str | None = None) -> list[Head]:
        """The heads with the largest score, that one first. Raises LookupError where it was not measured."""
        part = self._part(name, part)
        return largest(self.scores[part][name], self.scores[part][name], k, part)

    def to_arrow(self) -> pyarrow.Table:
        """As a table of Arrow, a row for each head and score: part, layer, head, score and value.

        A head without a score, as in a layer with fewer heads, has no row.

        Raises ImportError, with what to install, where pyarrow is missing.
        """
        from regard.atlas.frames import to_arrow

        return to_arrow(self.columns())

    def to_pandas(self) -> pandas.DataFrame:
        """The same as a table of pandas. Raises ImportError, with what to install, where pandas is missing."""
        from regard.atlas.frames import to_pandas

        return to_pandas(self.columns())

    def columns(self) -> dict[str, list[Any]]:
        """The columns of that table as lists."""
        columns: dict[str, list[Any]] = {name: [] for name in ("part", "layer", "head", "score", "value")}
        for part, tables in self.scores.items():
            for name, table in tables.items():
                for layer, head in (~table.isnan()).nonzero().tolist():
                    row = (part, layer, head, name, float(table[layer, head]))
                    for column, value in zip(columns.values(), row, strict=True):
                        column.append(value)
        return columns

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """As plain lists and numbers for JSON."""

    def save(self, path: str | Path) -> None:
        """Save as numbers (.json, .parquet), a picture of heat maps (.png, .svg) or a page (.html).

        The file is written atomically: where that fails, with OSError, an existing file is unchanged.

        Raises ValueError for another suffix, and ImportError, with what to install, where a package is missing.
        """
        from regard.atlas.display import save

        save(self, path)

    def _repr_png_(self) -> Picture | None:
        """Heat maps layers × heads, in a notebook; None where nothing draws."""
        from regard.atlas.display import still

        return still(self)

    def _repr_html_(self) -> str:
        """The heads with the largest scores as the terminal lists them, in a notebook."""
        from regard.atlas.display import listed

        return listed(self)

    def _part(self, name: str, part: str | None) -> str:
        for own in self.parts if part is None else [part]:
            if name in self.scores.get(own, {}):
                return own
        where = f" of its {part}" if part else ""
        known = ", ".join(self.names if part is None else self.scores.get(part, {})) or "nothing"
        if part is not None and part not in self.scores:
            raise LookupError(f"There is no part {part!r} of {self.model}: it has {', '.join(map(repr, self.parts))}.")
        raise LookupError(f"{name!r} was not measured{where} of {self.model}: there are {known}.")


def largest(
    table: Float[Tensor, "layers heads"], by: Float[Tensor, "layers heads"], k: int, part: str = ""
) -> list[Head]:
    """The k heads of a table for which another number is largest; heads without a number are left out."""
    order = by.nan_to_num(nan=-torch.inf).flatten().argsort(descending=True, stable=True).tolist()
    places = (divmod(place, table.shape[1]) for place in order)
    known = [(layer, head) for layer, head in places if not table[layer, head].isnan()]
    return [Head(part, layer, head, float(table[layer, head])) for layer, head in known[:k]]
