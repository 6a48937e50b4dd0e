"""The scores of heads: one list of what is measured, and how it is measured of a layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from regard.attribution.heads.edges import Edges

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from regard.attribution.heads.sample import Sample, Text
    from regard.attribution.layers import Layer

NAMED_FROM = 0.5  # of what a pattern's score can be: from here on a head is named after the pattern


@dataclass(frozen=True)
class Score:
    """A score of heads: a number for each head of a layer.

    Attributes:
        name: its name in `SCORES`.
        phrase: what a head with a high score does: "attends to the previous token".
        text: the kind of text that it is measured on.
        of: the attention that has it: "self", "cross", or "both".
        range: the least and the largest number that it can be; None where there is no bound.
        unit: what the number is: "share", "nats", "tokens", "correlation".
        found_from: from which number on a head counts as one that does it; None for a score that only describes.
        matters: the kind of text whose loss should suffer where such heads are switched off; None where none should.
        paper: where it comes from.
        compute: (layer, sample) → (H,), the mean over the sample's rows.
        edges: of a sample, the edges whose weight it is, and which its proof cuts; None for a score of another kind.
    """

    name: str
    phrase: str
    text: Text
    of: Literal["self", "cross", "both"]
    range: tuple[float | None, float | None]
    unit: str
    found_from: float | None
    matters: Text | None
    paper: str
    compute: Callable[[Layer, Sample], Float[Tensor, "H"]] = field(repr=False)
    edges: Callable[[Sample], Edges] | None = field(default=None, repr=False)


SCORES: dict[str, Score] = {}
