"""`Atlas`: the scores of every head of a model, the proofs by ablation, and what can be asked of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch

from regard.attribution.heads.scores import SCORES

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from regard.atlas.proof import Proof
    from regard.lens.reading import Reading


class Head(NamedTuple):
    """A head, and its score."""

    part: str
    layer: int
    head: int
    value: float


@dataclass(frozen=True, eq=False)
class Atlas:
    """What every head of a model does.

    Attributes:
        model: the name of the model.
        fingerprint: what identifies its weights, as `Lens.fingerprint`.
        scores: by part of the model ("" where there is but one attention; else "encoder", "decoder", "cross") and by
            name of the score, a number for each layer and head; nan where a layer has no such head or no such score.
        proofs: what happened when the heads that were found were switched off.
        tokens: how many tokens of text were read, by kind: "text", "repeated", "needle".
        seed: of the random tokens, and of the random heads of the proofs.
        note: what a reader should also know, or "".
        example: the text in which a page shows what heads attend to; None of an atlas that was loaded from numbers.
    """

    model: str
    fingerprint: str
    scores: Mapping[str, Mapping[str, Float[Tensor, "layers heads"]]] = field(repr=False)
    proofs: Sequence[Proof] = field(default=(), repr=False)
    tokens: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
    note: str = ""
    example: Reading | None = field(default=None, repr=False)

    @property
    def parts(self) -> list[str]:
        """The attentions of the model: [""], or of an encoder-decoder "encoder", "decoder" and "cross"."""
        return list(self.scores)

    def of(self, name: str, part: str | None = None) -> Float[Tensor, "layers heads"]:
        """A score of all heads. Raises LookupError where it was not measured."""
        part = self._part(name, part)
        return self.scores[part][name]

    def top(self, name: str, k: int = 5, part: str | None = None) -> list[Head]:
        """The heads with the largest score, that one first."""
        part = self._part(name, part)
        table = self.scores[part][name]
        order = table.nan_to_num(nan=-torch.inf).flatten().argsort(descending=True, stable=True)[:k].tolist()
        heads = (divmod(place, table.shape[1]) for place in order)
        return [
            Head(part, layer, head, float(table[layer, head]))
            for layer, head in heads
            if not table[layer, head].isnan()
        ]

    def found(self, name: str, part: str | None = None) -> list[Head]:
        """The heads whose score is at least the one from which on a head counts (`Score.found_from`), largest first."""
        least = SCORES[name].found_from
        if least is None:
            return []
        return [head for head in self.top(name, self.of(name, part).numel(), part) if head.value >= least]

    def _part(self, name: str, part: str | None) -> str:
        for own in self.parts if part is None else [part]:
            if name in self.scores.get(own, {}):
                return own
        measured = sorted({score for table in self.scores.values() for score in table})
        raise LookupError(f"Atlas: {name!r} was not measured of {self.model}; it has {', '.join(measured)}.")
