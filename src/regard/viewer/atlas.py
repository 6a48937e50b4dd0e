"""What the page of an atlas carries of it: its numbers, and of the heads with the largest ones where they look."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from typing import TYPE_CHECKING

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

    from regard.atlas.atlas import Atlas, Head
    from regard.atlas.proof import Effect, Proof
    from regard.lens.reading import Reading

TOP = 5  # heads of each pattern whose row of the example is shown
DIGITS = 6  # significant ones of a score
Table = list[list[float | None]]


def payload_of(atlas: Atlas) -> AtlasOfHeads:
    """The atlas as JSON has it: a number that is none becomes null."""
    measured = {name for scores in atlas.scores.values() for name in scores}
    names = [name for name in SCORES if name in measured] + sorted(measured - set(SCORES))
    readings = _readings(atlas.example)
    return {
        "model": atlas.model,
        "against": None,
        "note": atlas.note,
        "tokens": dict(atlas.tokens),
        "seed": atlas.seed,
        "scores": {name: _score(name) for name in names},
        "parts": {
            part: {name: _table(scores[name]) for name in names if name in scores}
            for part, scores in atlas.scores.items()
        },
        "base": None,
        "top": {
            part: {
                name: [_head(head, name, readings.get(part)) for head in atlas.top(name, TOP, part)]
                for name in names
                if name in scores
            }
            for part, scores in atlas.scores.items()
        },
        "proofs": [_proof(proof) for proof in atlas.proofs],
    }


def largest_of(atlas: AtlasOfHeads) -> dict[str, int | None]:
    """Layer and head with the largest number of the score that is shown first; None where nothing was measured."""
    heads = [
        head for name in list(atlas["scores"])[:1] for tables in atlas["top"].values() for head in tables.get(name, [])
    ]
    return {"layer": heads[0]["layer"], "head": heads[0]["head"]} if heads else {"layer": None, "head": None}


def _readings(example: Reading | None) -> dict[str, Reading]:
    """By part of the model, its reading of the example."""
    if example is None:
        return {}
    return {str(part): reading for part, reading in example.parts.items()} if example.part else {"": example}


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


def _table(scores: Tensor) -> Table:
    """(layers,heads) as lists."""
    return [[_number(value) for value in row] for row in scores.tolist()]


def _numbers(values: Iterable[float]) -> list[float | None]:
    return [_number(value) for value in values]


def _number(value: float) -> float | None:
    """A number with as many digits as it is worth; None for nan and infinity, which JSON does not have."""
    return float(f"{value:.{DIGITS}g}") if isfinite(value) else None


def _head(head: Head, name: str, reading: Reading | None) -> AtlasHead:
    """A head with its score and, where the example has it, what it does there."""
    has_it = reading is not None and head.layer in reading.attention_layers and head.head < reading.heads_of(head.layer)
    row = _row(reading, name, head.layer, head.head) if reading is not None and has_it else None
    return AtlasHead(layer=head.layer, head=head.head, value=float(f"{head.value:.{DIGITS}g}"), row=row)


def _row(reading: Reading, name: str, layer: int, head: int) -> AtlasRow:
    """The row of the example that shows best what a head does."""
    row = row_of(reading, name, layer, head)
    columns = reading.columns.units
    attended = [AtlasWord(unit=unit, word=columns[unit].text, weight=round(weight, 4)) for unit, weight in row.words]
    return AtlasRow(unit=row.unit, word=reading.units[row.unit].text, attended=attended)


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
