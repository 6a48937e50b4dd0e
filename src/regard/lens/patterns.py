"""Habits: the places and kinds of token to which a head gives its weight, whatever the text means."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from regard.lens.reading import Reading

HABITS = {
    "previous": "the previous token",
    "next": "the next token",
    "itself": "the token itself",
    "first": "the first token",
    "last": "the last token",
    "same": "the same token elsewhere",
    "punctuation": "punctuation",
}
NAMED = 0.5  # of the weight: from here on a head is called by its habit
ROWS, WEIGHTS = 256, 1 << 22  # of a head that are looked at, at most: tokens, and weights


POSITIONS = tuple(HABITS)[:5]  # places, whatever stands there


def habits(reading: Reading, layer: int) -> Float[Tensor, "H habits"]:
    """The share of its weight that each head of a layer gives to each of `HABITS`: the mean over tokens of the text.

    Of a long text, the mean over tokens evenly spaced; 0 for a text of special tokens alone. What Clark et al. 2019
    (https://arxiv.org/abs/1906.04341) saw in BERT: heads for the previous token, for the next, for [SEP], for
    punctuation.
    """
    return torch.stack([shares(reading, layer, head) for head in range(reading.heads_of(layer))])


def shares(reading: Reading, layer: int, head: int) -> Float[Tensor, "habits"]:
    """The same for one head."""
    rows, places, same, marks = _kinds(reading)
    result = torch.zeros(len(HABITS))
    if not len(rows):
        return result
    weights = reading.attention[layer].weights[head, rows].float().cpu()  # (rows, N)
    for n, place in enumerate(places):
        there = (place >= 0) & (place < weights.shape[1])
        result[n] = weights.gather(1, place.clamp(0, weights.shape[1] - 1)[:, None])[there].sum()
    result[5], result[6] = (weights * same).sum(), (weights * marks).sum()
    return result / len(rows)


def _kinds(reading: Reading) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
    """The tokens that are looked at (rows,), the places, and which keys are the same token or punctuation (rows,N)."""
    tokens, count = reading.tokens, len(reading.tokens)
    of_text = torch.tensor([n for n, token in enumerate(tokens) if not token.special], dtype=torch.long)
    most = max(16, min(ROWS, WEIGHTS // count))
    rows = of_text[torch.linspace(0, len(of_text) - 1, min(most, len(of_text))).long()]
    number: dict[str, int] = {}
    kind = torch.tensor([number.setdefault(token.text.casefold(), len(number)) for token in tokens])
    marks = torch.tensor([not token.special and not any(map(str.isalnum, token.text)) for token in tokens])
    elsewhere = torch.arange(count) != rows[:, None]
    places = [rows - 1, rows + 1, rows, torch.zeros_like(rows), torch.full_like(rows, count - 1)]
    return rows, places, (kind == kind[rows][:, None]) & elsewhere, marks & elsewhere
