"""The proof that heads do what their score says: a loss with them switched off, beside that with random heads off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Ablation = Literal["zero", "mean", "edges"]
Where = Literal["matters", "elsewhere"]


@dataclass(frozen=True)
class Effect:
    """What an ablation does to a loss.

    Attributes:
        ablation: "zero": the heads give 0; "mean": the mean over the text of what they give; "edges": they may not
            attend where the pattern says, and are otherwise as they were.
        where: the text on which the loss was measured: where the pattern matters, or elsewhere.
        change: the loss with these heads off, less the loss of the model as it is.
        random: the same for as many random heads of the same layers, drawn several times.
    """

    ablation: Ablation
    where: Where
    change: float
    random: Sequence[float]


@dataclass(frozen=True)
class Proof:
    """What happened when the heads with a score were switched off together.

    Attributes:
        score: the name of the score.
        part: the part of the model, as in `Atlas.scores`.
        heads: (layer, head) of the heads, the largest score first.
        loss: what was measured, with its unit: "nats" a token, or "1 − cosine" where a model predicts nothing.
        matters, elsewhere: what was read, in words.
        before: the loss of the model as it is, where the pattern matters and elsewhere.
        effects: what each ablation did.
    """

    score: str
    part: str
    heads: Sequence[tuple[int, int]]
    loss: str
    matters: str
    elsewhere: str
    before: tuple[float, float]
    effects: Sequence[Effect]

    @property
    def verdict(self) -> Literal["confirmed", "not confirmed"]:
        """Whether the heads matter for the pattern: computed from the numbers alone."""
        raise NotImplementedError
