"""The plan of a proof: which heads are switched off, beside which random heads, and what is read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from regard._internal.plurals import counted
from regard.attribution.heads.scores import SCORES

if TYPE_CHECKING:
    from regard.atlas.atlas import Atlas
    from regard.atlas.loss import Passage
    from regard.attribution.heads.sample import Text
    from regard.attribution.heads.scores import Score

Where = Literal["matters", "elsewhere"]
RESTING = frozenset(("first", "last", "separator", "sink"))  # heads that rest: without them, nothing should suffer
TOKENS = 1024  # of each kind of text that are read
_ELSEWHERE: dict[Text, Text] = {"text": "repeated", "repeated": "text", "needle": "text"}


class Plan(NamedTuple):
    """What is to be done for a proof.

    Attributes:
        part, score: what it is of.
        heads: the heads with the score.
        random: the random heads, as often as they are drawn.
        note: what is to be said of them.
        kinds: what is read where the pattern matters, and elsewhere if that is there.
        work: the tokens that are read.
    """

    part: str
    score: Score
    heads: list[tuple[int, int]]
    random: list[list[tuple[int, int]]]
    note: str
    kinds: dict[Where, Text]
    work: int


def plan_of(atlas: Atlas, part: str, name: str, passages: Sequence[Passage], heads: int, draws: int) -> Plan | None:
    """The plan of a score's proof; None where it predicts nothing, no head was found, or there is no text for it."""
    score = SCORES[name]
    found = [(layer, head) for _, layer, head, _ in atlas.found(name, part)]
    there = {passage.sample.text for passage in passages}
    matters: Text | None = "text" if name in RESTING else score.matters
    if not found or matters not in there:
        return None
    kinds: dict[Where, Text] = {"matters": matters}
    if _ELSEWHERE[matters] in there:
        kinds["elsewhere"] = _ELSEWHERE[matters]
    chosen, table = found[:heads], atlas.of(name, part)
    others = {
        layer: [head for head in range(table.shape[1]) if not table[layer, head].isnan() and (layer, head) not in found]
        for layer in range(len(table))
    }
    random, note = random_heads(chosen, others, draws, atlas.seed)
    tokens = sum(len(passage.ids) for kind in kinds.values() for passage in excerpts(passages, kind))
    ablations = 2 if score.edges is None else 3
    return Plan(part, score, chosen, random, note, kinds, tokens * ablations * (1 + len(random)))


def excerpts(passages: Sequence[Passage], kind: Text) -> list[Passage]:
    """What is read of passages: as many as have `TOKENS` together, at even distances, or the beginning of one."""
    chosen = [_beginning(passage) for passage in passages if passage.sample.text == kind]
    number = min(len(chosen), max(1, TOKENS // max((len(passage.ids) for passage in chosen), default=1)))
    return [chosen[n * len(chosen) // number] for n in range(number)]


def _beginning(passage: Passage) -> Passage:
    """Two periods of repeated tokens, so much of a text as is read at most, and the special tokens after it."""
    sample = passage.sample
    if sample.text == "needle" or not sample.same_text:
        return passage
    end = sample.first + 2 * sample.period if sample.period else TOKENS
    places = torch.arange(len(passage.ids))
    return passage.only((places < end) | sample.special)


def random_heads(
    heads: Sequence[tuple[int, int]], others: Mapping[int, Sequence[int]], draws: int, seed: int
) -> tuple[list[list[tuple[int, int]]], str]:
    """Random heads in the place of some, as many of each layer, and a sentence where that was not possible, or "".

    Where a layer has too few other heads, all are drawn from all layers. No draw is made twice: there are fewer where
    there are not so many.

    Args:
        heads: (layer, head) of the heads that they stand beside.
        others: by layer, the heads to draw from.
        draws: how many times.
        seed: of the draws.

    >>> random_heads([(0, 3), (1, 3)], {0: [0, 1, 2], 1: [0, 1]}, draws=2, seed=0)
    ([[(0, 0), (1, 1)], [(0, 2), (1, 1)]], '')
    """
    pools = [
        ([(layer, head) for head in own], sum(layer == chosen for chosen, _ in heads)) for layer, own in others.items()
    ]
    lacking = any(number > len(pool) for pool, number in pools)
    if lacking:
        everywhere = [head for pool, _ in pools for head in pool]
        pools = [(everywhere, min(len(heads), len(everywhere)))]
    size = sum(number for _, number in pools)
    times = min(draws, math.prod(math.comb(len(pool), number) for pool, number in pools)) if size else 0
    chance, drawn = torch.Generator().manual_seed(seed), set[tuple[tuple[int, int], ...]]()
    while len(drawn) < times:
        drawn.add(tuple(sorted(head for pool, number in pools for head in _draw(pool, number, chance))))
    notes = {
        "There are no other heads to compare with.": not size,
        "Their layers have too few other heads, and the random ones are of all layers.": size and lacking,
        f"No more than {counted(size, 'head')} could be drawn at a time.": 0 < size < len(heads),
        f"They could be drawn {counted(times, 'time')} only.": 0 < times < draws,
    }
    return [list(draw) for draw in sorted(drawn)], " ".join(note for note, said in notes.items() if said)


def _draw(pool: Sequence[tuple[int, int]], number: int, chance: torch.Generator) -> list[tuple[int, int]]:
    return [pool[n] for n in torch.randperm(len(pool), generator=chance)[:number].tolist()]
