"""The atlas of a model's heads, as its page carries it: heat maps, the heads with the largest scores, proofs."""

from __future__ import annotations

from typing import TypedDict


class AtlasScore(TypedDict):
    """A score of heads: what it says, and what its numbers can be."""

    phrase: str  # what a head with a high score does
    text: str  # the kind of text that it is measured on: "text", "repeated" or "needle"
    least: float | None  # the smallest number that there can be; null where there is no bound
    most: float | None
    unit: str
    found_from: float | None  # from where on a head counts as one that does it; null for a score that only describes
    paper: str


class AtlasWord(TypedDict):
    """A word of the example that a head attends to."""

    unit: int | None  # its place in the example; null where the page holds the words alone
    word: str
    weight: float


class AtlasRow(TypedDict):
    """A word of the example that shows what a head does, and those that it attends to most."""

    unit: int | None
    word: str
    attended: list[AtlasWord]


class AtlasHead(TypedDict):
    """One of the heads with the largest scores or, in a difference, the largest changes."""

    layer: int
    head: int
    value: float
    row: AtlasRow | None  # null without an example


class AtlasEffect(TypedDict):
    """What switching heads off does to the loss."""

    ablation: str  # "zero", "mean" or "edges"
    where: str  # "matters" or "elsewhere"
    change: float | None  # null where it is not a number
    random: list[float | None]  # the same for as many random heads of the same layers


class AtlasProof(TypedDict):
    """What happened when the heads of a score were switched off together."""

    score: str
    part: str
    heads: list[list[int]]  # layer and head
    loss: str
    matters: str  # what was read where the pattern matters
    elsewhere: str
    before: list[float | None]  # the loss of the model as it is: where the pattern matters, and elsewhere
    effects: list[AtlasEffect]
    verdict: str
    sentence: str  # what was found, in words
    note: str


class AtlasOfHeads(TypedDict):
    """What every head of a model does, or what has changed between two models."""

    model: str
    against: str | None  # of a difference, the model that it is compared to
    note: str
    tokens: dict[str, int]  # how many were read, by the kind of text
    seed: int
    scores: dict[str, AtlasScore]  # in the order in which they are shown
    parts: dict[str, dict[str, list[list[float | None]]]]  # by part and score: layers of heads; null: not measured
    base: dict[str, dict[str, list[list[float | None]]]] | None  # of a difference, the scores of `against`
    top: dict[str, dict[str, list[AtlasHead]]]  # by part and score
    proofs: list[AtlasProof]
