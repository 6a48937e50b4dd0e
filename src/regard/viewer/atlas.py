"""What the page of an atlas carries of it: its numbers, and of the heads with the largest ones where they look."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any

from regard.atlas.difference import Difference
from regard.atlas.example import row_of
from regard.attribution.heads.scores import SCORES
from regard.viewer.protocol.atlas import (
    AtlasEffect,
    AtlasHead,
    AtlasOfHeads,
    AtlasProof,
    AtlasRow,
    AtlasScore,
    AtlasWord,
)

if TYPE_CHECKING:
    from torch import Tensor

    from regard.atlas.atlas import Atlas
    from regard.atlas.proof import Effect, Proof
    from regard.lens.reading import Reading

TOP = 5  # heads of each pattern whose row of the example is shown
DIGITS = 6  # significant ones of a score
Table = list[list[float | None]]


def payload_of(atlas: Atlas | Difference) -> AtlasOfHeads:
    """An atlas, or a difference of two, as JSON has it: a number that is none becomes null.

    Of a difference, `parts` are the changes, and `base` what they are changes of; it has no proofs of its own.
    """
    measured = set(atlas.names)
    names = [name for name in SCORES if name in measured] + sorted(measured - set(SCORES))
    own, base = (atlas.atlas, atlas.base) if isinstance(atlas, Difference) else (atlas, None)
    return {
        "model": atlas.model,
        "against": None if base is None else base.model,
        "note": atlas.note,
        "tokens": dict(own.tokens),
        "seed": own.seed,
        "scores": {name: _score(name) for name in names},
        "parts": {part: _tables(atlas.scores[part], names) for part in atlas.parts},
        "base": None if base is None else {part: _tables(base.scores[part], names) for part in atlas.parts},
        "top": {
            part: {name: _top(atlas, own, name, part) for name in names if name in atlas.scores[part]}
            for part in atlas.parts
        },
        "proofs": [] if base else [_proof(proof) for proof in own.proofs],
    }


def example_of(atlas: Atlas | Difference) -> Reading | None:
    """The text in which the page shows what heads attend to."""
    return atlas.atlas.example if isinstance(atlas, Difference) else atlas.example


def largest_of(atlas: AtlasOfHeads) -> dict[str, Any]:
    """The head with the largest number of the first score that was measured: its attention, layer and head."""
    for name in atlas["scores"]:
        for part, heads in atlas["top"].items():
            if heads.get(name):
                return {"layer": heads[name][0]["layer"], "head": heads[name][0]["head"], "attention": part or None}
    return {"layer": None, "head": None}


def _score(name: str) -> AtlasScore:
    """What a score says; of one that this version does not know, nothing."""
    score = SCORES.get(name)
    if score is None:
        return AtlasScore(phrase="", text="text", least=None, most=None, unit="", found_from=None, paper="")
    least, most = score.range
    return AtlasScore(
        phrase=score.phrase,
        text=score.text,
        least=least,
        most=most,
        unit=score.unit,
        found_from=score.found_from,
        paper=score.paper,
    )


def _tables(scores: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Table]:
    """(layers,heads) of each score as lists."""
    return {name: [_numbers(row) for row in scores[name].tolist()] for name in names if name in scores}


def _numbers(values: Iterable[float]) -> list[float | None]:
    return [_number(value) for value in values]


def _number(value: float) -> float | None:
    """A number with as many digits as it is worth; None for nan and infinity, which JSON does not have."""
    return float(f"{value:.{DIGITS}g}") if isfinite(value) else None


def _top(atlas: Atlas | Difference, own: Atlas, name: str, part: str) -> list[AtlasHead]:
    """The heads with the largest numbers, each with what it does in the example."""
    return [
        AtlasHead(layer=layer, head=head, value=float(f"{value:.{DIGITS}g}"), row=_row(own, name, part, layer, head))
        for _, layer, head, value in atlas.top(name, TOP, part)
    ]


def _row(atlas: Atlas, name: str, part: str, layer: int, head: int) -> AtlasRow | None:
    """The row of the example that shows best what a head does; of an atlas without its text, the words it kept."""
    if atlas.example is None:
        kept = [
            example
            for example in atlas.examples
            if (example.part, example.score, example.layer, example.head) == (part, name, layer, head)
        ]
        return AtlasRow(unit=None, word=kept[0].word, attended=_words(kept[0].attends_to)) if kept else None
    reading = ({str(own): reading for own, reading in atlas.example.parts.items()} or {"": atlas.example}).get(part)
    if reading is None or layer not in reading.attention_layers or head >= reading.heads_of(layer):
        return None
    row = row_of(reading, name, layer, head)
    columns = reading.columns.units
    words = [AtlasWord(unit=unit, word=columns[unit].text, weight=round(weight, 4)) for unit, weight in row.words]
    return AtlasRow(unit=row.unit, word=reading.units[row.unit].text, attended=words)


def _words(attended: Iterable[tuple[str, float]]) -> list[AtlasWord]:
    return [AtlasWord(unit=None, word=word, weight=round(weight, 4)) for word, weight in attended]


def _proof(proof: Proof) -> AtlasProof:
    """A proof with its verdict."""
    return AtlasProof(
        score=proof.score,
        part=proof.part,
        heads=[list(head) for head in proof.heads],
        loss=proof.loss,
        matters=proof.matters,
        elsewhere=proof.elsewhere,
        before=_numbers(proof.before),
        effects=[_effect(effect) for effect in proof.effects],
        verdict=proof.verdict,
        sentence=proof.sentence if proof.effects else "",
        note=proof.note,
    )


def _effect(effect: Effect) -> AtlasEffect:
    return AtlasEffect(
        ablation=effect.ablation,
        where=effect.where,
        change=_number(effect.change),
        random=_numbers(effect.random),
    )
