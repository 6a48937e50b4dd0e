"""The plan of a proof: which heads are switched off, beside which random heads, and what is read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch

from regard._internal.plurals import counted
from regard.attribution.heads.scores import SCORES

if TYPE_CHECKING:
    from regard.atlas.atlas import Atlas
    from regard.atlas.loss import Passage
    from regard.attribution.heads.sample import Text
    from regard.attribution.heads.scores import Score

Where = Literal["matters", "elsewhere"]
RESTING = frozenset(("sink", "separator"))  # scores of heads that rest: switched off, nothing should suffer
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

    Where a layer has too few other heads, the rest is drawn from the other layers. No draw is made twice: there are
    fewer where there are not so many.

    Args:
        heads: (layer, head) of the heads that they stand beside.
        others: by layer, the heads to draw from.
        draws: how many times.
        seed: of the draws.

    >>> random_heads([(0, 3), (1, 3)], {0: [0, 1, 2], 1: [0, 1]}, draws=2, seed=0)
    ([[(0, 0), (1, 1)], [(0, 2), (1, 1)]], '')
    """
    wanted = {layer: sum(layer == own for own, _ in heads) for layer in others}
    lacking = [layer for layer, number in wanted.items() if number > len(others[layer])]
    own = {layer: min(number, len(others[layer])) for layer, number in wanted.items()}
    rest = [(layer, head) for layer in others if not wanted[layer] for head in others[layer]]
    missing = min(len(heads) - sum(own.values()), len(rest))
    ways = math.comb(len(rest), missing) * math.prod(math.comb(len(others[layer]), n) for layer, n in own.items())
    chance, drawn = torch.Generator().manual_seed(seed), set[tuple[tuple[int, int], ...]]()
    number = min(draws, ways) if missing or any(own.values()) else 0
    while len(drawn) < number:
        heads_drawn = [(layer, head) for layer, n in own.items() for head in _draw(others[layer], n, chance)]
        drawn.add(tuple(sorted(heads_drawn + _draw(rest, missing, chance))))
    return [list(draw) for draw in sorted(drawn)], _note(
        lacking, len(heads), missing + sum(own.values()), number, draws
    )


def _draw(pool: Sequence[Any], number: int, chance: torch.Generator) -> list[Any]:
    return [pool[n] for n in torch.randperm(len(pool), generator=chance)[:number].tolist()]


def _note(lacking: Sequence[int], heads: int, random: int, number: int, draws: int) -> str:
    """What is to be said of random heads: of which layers there are too few, and whether there are enough at all."""
    if not random:
        return "There are no other heads to compare with."
    notes = []
    if lacking:
        layers = f"Layer {lacking[0]} has" if len(lacking) == 1 else f"Layers {_listed(lacking)} have"
        notes.append(f"{layers} too few other heads, and random ones of other layers take their place.")
    if random < heads:
        notes.append(f"No more than {counted(random, 'head')} could be drawn at a time.")
    if number < draws:
        notes.append(f"They can be drawn in {counted(number, 'way')} only.")
    return " ".join(notes)


def _listed(numbers: Sequence[int]) -> str:
    return f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"
