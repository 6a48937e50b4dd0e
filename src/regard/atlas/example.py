"""The text in which an atlas shows what heads attend to, and the row of it in which a head shows its pattern best."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch

from regard.attribution.heads.sample import Sample, sample_of
from regard.attribution.heads.scores import SCORES

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from regard.lens.reading import Reading

BEGINNING = "The old clock in the hall had stopped at ten past four, and nobody in the house could say when."
MIDDLE = 'Anna wound it, listened, and shook her head: "It wants a new spring, and a patient hand."'
EXAMPLE = f"{BEGINNING} {MIDDLE} {BEGINNING}"
"""A text that is read twice from its beginning: induction heads, duplicates, sinks and punctuation all show in it."""

WORDS = 3  # of a row, those with the largest weights
SHOWN_AS = {"sink": "first"}  # a score without edges: as the one whose edges it is about
SHORTEST = 3  # tokens that must come again for a text to count as one that is repeated


class Row(NamedTuple):
    """A word of a text and those that a head attends to from it.

    Attributes:
        unit: the place in `reading.units` of the word that attends.
        words: the places in `reading.columns.units` of the words with the largest weights, and these weights.
    """

    unit: int
    words: list[tuple[int, float]]


def row_of(reading: Reading, name: str, layer: int, head: int) -> Row:
    """The row of a text in which a head gives most of its weight to what its score is about.

    Where a score is not about edges, or the text does not have them, it is the row with the largest weight on a word
    other than the first and the row's own.

    Args:
        reading: The text; of an encoder-decoder, one of its `parts`.
        name: A name of `SCORES`; any other is that of a score without edges.
        layer, head: The head.
    """
    name = SHOWN_AS.get(name, name)
    sample = _sample(reading, name)
    share = None
    if sample is not None and (edges := SCORES[name].edges) is not None:
        share = edges(sample).share(reading.attention[layer].weights)[head].cpu()  # (Q,)
    rows = _later(torch.tensor([not token.special for token in reading.tokens])) if sample is None else sample.rows
    if share is None or not bool((share[rows] > 0).any()):
        share = _elsewhere(reading, layer, head)
    token = int(share.cpu().double().nan_to_num(nan=0.0).masked_fill(~rows.cpu(), -1).argmax())
    unit = int(reading.unit_of_token[token])
    own = reading.attention[layer].weights[head, list(reading.units[unit].tokens)].mean(0).cpu()  # (K,)
    keys = reading.columns.unit_of_token
    weights = own.new_zeros(len(reading.columns.units)).index_add(0, keys.cpu(), own)
    largest = weights.topk(min(WORDS, len(weights)))
    return Row(unit, list(zip(largest.indices.tolist(), largest.values.tolist(), strict=True)))


def repeats(reading: Reading) -> int:
    """After how many tokens a text begins anew, and then goes on as before to its end; 0 where it does not.

    The first token need not be the same: many tokenizers write it differently within a text.

    >>> import regard
    >>> repeats(regard.Lens().read("Time flies. Here, an arrow. Time flies."))
    8
    >>> repeats(regard.Lens().read("Time flies like an arrow"))
    0
    """
    numbers = sample_of(reading)
    ids = numbers.ids[numbers.rows].tolist()
    periods = range(1, len(ids) - SHORTEST + 1)
    return next((period for period in periods if ids[period + 1 :] == ids[1 : len(ids) - period]), 0)


def _sample(reading: Reading, name: str) -> Sample | None:
    """The text as the kind of sample that a score is measured on; None where it is not of that kind."""
    if name not in SCORES or SCORES[name].edges is None:
        return None
    sample = sample_of(reading)
    if SCORES[name].text == "text":
        return replace(sample, rows=_later(sample.rows))
    if SCORES[name].text == "needle" or not (period := repeats(reading)):
        return None
    first = int(sample.rows.nonzero()[0])
    again = sample.rows & (torch.arange(len(sample.rows)) >= first + period)
    return replace(sample, text="repeated", rows=again, period=period, first=first)


def _elsewhere(reading: Reading, layer: int, head: int) -> Float[Tensor, "Q"]:
    """For each token, its largest weight on a token other than the first and, in self-attention, itself."""
    weights = reading.attention[layer].weights
    largest = weights.topk(min(3, weights.shape[-1]))
    values, keys = largest.values[head], largest.indices[head]  # (Q,3)
    own = torch.arange(len(keys), device=keys.device)[:, None] if reading.source is None else -1
    return values.masked_fill((keys == 0) | (keys == own), 0).amax(-1)


def _later(rows: Bool[Tensor, "Q"]) -> Bool[Tensor, "Q"]:
    """The second half of these rows: the first see too little."""
    return rows & (rows.cumsum(0) > rows.sum() // 2)
