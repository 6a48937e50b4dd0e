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


def habits(reading: Reading, layer: int) -> Float[Tensor, "H habits"]:
    """The share of its weight that each head of a layer gives to each of `HABITS`: the mean over tokens of the text.

    Of a long text, the mean over tokens evenly spaced. What Clark et al. 2019 (https://arxiv.org/abs/1906.04341) saw
    in BERT: heads for the previous token, for the next, for [SEP], for punctuation.
    """
    tokens, weights = reading.tokens, reading.attention[layer].weights
    count = len(tokens)
    of_text = torch.tensor([n for n, token in enumerate(tokens) if not token.special])
    most = max(16, min(ROWS, WEIGHTS // count))
    rows = of_text[torch.linspace(0, len(of_text) - 1, min(most, len(of_text))).long()]
    number: dict[str, int] = {}
    kind = torch.tensor([number.setdefault(token.text.casefold(), len(number)) for token in tokens])
    marks = torch.tensor([not token.special and not any(map(str.isalnum, token.text)) for token in tokens])
    here = torch.arange(count)
    elsewhere = here != rows[:, None]
    places = (rows - 1, rows + 1, rows, torch.zeros_like(rows), torch.full_like(rows, count - 1))
    found = torch.zeros(reading.heads, len(HABITS))
    for head in range(reading.heads):
        some = weights[head, rows].float().cpu()  # (rows, N)
        for n, place in enumerate(places):
            there = (place >= 0) & (place < count)
            found[head, n] = some.gather(1, place.clamp(0, count - 1)[:, None])[there].sum() / len(rows)
        found[head, 5] = (some * ((kind == kind[rows][:, None]) & elsewhere)).sum() / len(rows)
        found[head, 6] = (some * (marks & elsewhere)).sum() / len(rows)
    return found
