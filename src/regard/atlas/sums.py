"""`Sums`: scores of heads over several texts, each counted by its rows, so that the mean is that over all rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from regard.attribution.heads.scores import SCORES

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

PARTS = "", "encoder", "decoder", "cross"


class _Sum(NamedTuple):
    total: Float[Tensor, "layers heads"]
    rows: Float[Tensor, "layers heads"]


class Sums:
    """Σ rows · score and Σ rows, for each part, score, layer and head, in float64.

    >>> sums = Sums()
    >>> sums.add("", layers=1, heads=2, layer=0, rows=30, scores={"previous": torch.tensor([0.5, 1.0])})
    >>> sums.add("", layers=1, heads=2, layer=0, rows=10, scores={"previous": torch.tensor([0.1, 1.0])})
    >>> sums.means()
    {'': {'previous': tensor([[0.4000, 1.0000]])}}
    """

    def __init__(self) -> None:
        self._sums: dict[str, dict[str, _Sum]] = {}

    def add(
        self, part: str, layers: int, heads: int, layer: int, rows: int, scores: Mapping[str, Float[Tensor, "H"]]
    ) -> None:
        """The scores of a layer's heads on one text; a score that is nan does not count.

        Args:
            part: of the model.
            layers, heads: how many layers that part has, and the most heads of one.
            layer: which one this is.
            rows: how many rows the scores are means of.
            scores: by their names.
        """
        for name, values in scores.items():
            named = self._sums.setdefault(part, {})
            if name not in named:
                named[name] = _Sum(*torch.zeros(2, layers, heads, dtype=torch.float64))
            sums = named[name]
            values = values.double().cpu()
            known = values.isfinite()
            sums.total[layer, : len(values)] += values.where(known, 0.0) * rows
            sums.rows[layer, : len(values)] += known * rows

    def means(self) -> dict[str, dict[str, Float[Tensor, "layers heads"]]]:
        """By part and score, in the order of `SCORES`: the mean over all rows, in float32; nan where there are none.

        A score that no head has is left out.
        """
        return {
            part: {
                name: (self._sums[part][name].total / self._sums[part][name].rows).float()
                for name in SCORES
                if name in self._sums[part] and self._sums[part][name].rows.any()
            }
            for part in PARTS
            if part in self._sums
        }

    def to_dict(self) -> dict[str, Any]:
        """As plain lists for JSON."""
        return {
            part: {name: [sums.total.tolist(), sums.rows.tolist()] for name, sums in named.items()}
            for part, named in self._sums.items()
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Sums:
        """The same again, to the last bit."""
        sums = cls()
        sums._sums = {
            part: {
                name: _Sum(*(torch.tensor(numbers, dtype=torch.float64) for numbers in (total, rows)))
                for name, (total, rows) in named.items()
            }
            for part, named in content.items()
        }
        return sums
