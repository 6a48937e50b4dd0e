"""`Atlas`: the scores of every head of a model, the proofs by ablation, and what can be asked of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard.atlas.tables import Example, Head, HeadTables
from regard.attribution.heads.scores import SCORES

if TYPE_CHECKING:
    from regard.atlas.proof import Proof
    from regard.atlas.tables import Tables
    from regard.lens.reading import Reading

__all__ = ["Atlas", "Example", "Head"]


@dataclass(frozen=True, eq=False)
class Atlas(HeadTables):
    """What every head of a model does; `Lens.atlas` makes it.

    Attributes:
        model: the name of the model.
        fingerprint: what identifies its weights, as `Lens.fingerprint`.
        scores: by part of the model ("" where there is but one attention; else "encoder", "decoder", "cross") and by
            name of the score, a number for each layer and head; nan where a layer has no such head or no such score.
        proofs: what happened when the heads that were found were switched off.
        tokens: how many tokens of text were read, by kind: "text", "repeated", "needle".
        seed: of the random tokens, and of the random heads of the proofs.
        note: what a reader should also know, or "".
        examples: of the heads with the largest scores, a word each of `example` and where they attend to from it.
        example: the text in which a page shows what heads attend to; None of an atlas that was loaded from numbers.

    >>> import torch
    >>> atlas = Atlas("a model", "", {"": {"previous": torch.tensor([[0.1, 0.9], [0.7, 0.2]])}})
    >>> atlas.found("previous")
    [Head(part='', layer=0, head=1, value=0.89...), Head(part='', layer=1, head=0, value=0.69...)]
    """

    model: str
    fingerprint: str
    scores: Tables = field(repr=False)
    proofs: Sequence[Proof] = field(default=(), repr=False)
    tokens: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
    note: str = ""
    examples: Sequence[Example] = field(default=(), repr=False)
    example: Reading | None = field(default=None, repr=False)

    def found(self, name: str, part: str | None = None) -> list[Head]:
        """The heads whose score is at least the one from which on a head counts (`Score.found_from`), largest first.

        None of a score that only describes. Raises LookupError where it was not measured.

        >>> import torch
        >>> atlas = Atlas("a model", "", {"": {"previous": torch.tensor([[0.25, 0.75]])}})
        >>> atlas.found("previous")
        [Head(part='', layer=0, head=1, value=0.75)]
        """
        least = SCORES[name].found_from if name in SCORES else None
        heads = self.top(name, self.of(name, part).numel(), part)
        return [] if least is None else [head for head in heads if head.value >= least]

    def to_dict(self) -> dict[str, Any]:
        """As plain lists and numbers for JSON; None for a score that a head does not have.

        >>> import torch
        >>> atlas = Atlas("a model", "", {"": {"previous": torch.tensor([[0.5, torch.nan]])}})
        >>> atlas.to_dict()["scores"]
        {'': {'previous': [[0.5, None]]}}
        """
        from regard.atlas.store import to_dict

        return to_dict(self)

    @classmethod
    def load(cls, path: str | Path) -> Atlas:
        """The atlas of a .json or .parquet file that `save` has written, without the reading of its example.

        Raises ValueError for a file that is no atlas or is damaged, and OSError where there is none.

        >>> import tempfile, torch
        >>> atlas = Atlas("a model", "", {"": {"previous": torch.tensor([[0.5, 0.25]])}})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     atlas.save(Path(folder, "atlas.json"))
        ...     Atlas.load(Path(folder, "atlas.json")).of("previous")
        tensor([[0.5000, 0.2500]])
        """
        from regard.atlas.store import read

        return cls(**read(Path(path)))
