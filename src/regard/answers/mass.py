"""How much attention the sentences of a reply gave to each passage, by every head."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch

from regard.answers.prompt import Asked

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from regard.lens import Reading

ROWS = 64  # of the weights that are held at once


class Masses(NamedTuple):
    """Σ_i Σ_j w_ij over the tokens i that wrote a sentence and some tokens j, for every layer and head.

    Attributes:
        of_passages: (layers,heads,sentences,passages), j the tokens of a passage.
        of_first: (layers,heads,sentences), j the first token of the text, where attention rests that looks for nothing.
        tokens: (sentences,), how many tokens i there are: the mass of all j together, where a layer has attention.
    """

    of_passages: Float[Tensor, "layers heads sentences passages"]
    of_first: Float[Tensor, "layers heads sentences"]
    tokens: Float[Tensor, "sentences"]


def masses(reading: Reading, asked: Asked) -> Masses:
    """The attention that the sentences of a reply gave to passages and to the first token.

    The token that wrote a token is the one before it, at which it was predicted. A layer without attention, or without
    as many heads as others have, gets zeros there.

    Cost: the rows of the weights that belong to the reply, a few at a time; no N × N matrix is made.
    """
    count = asked.passage_count
    keys = asked.passages.clone()
    keys[0] = count
    heads = max(reading.heads_of(layer) for layer in reading.attention_layers)
    result = torch.zeros(reading.layers, heads, len(asked.spans), count + 1)
    for layer in reading.attention_layers:
        weights = reading.attention[layer].weights
        for rows in rows_of_reply(asked):
            tile = weights[:, rows].float()
            result[layer, : len(tile)] += summed(tile, asked.writers[rows], keys, len(asked.spans), count + 1).cpu()
    tokens = torch.bincount(asked.writers[asked.writers >= 0], minlength=len(asked.spans))
    return Masses(result[..., :count], result[..., count], tokens.float())


def rows_of_reply(asked: Asked) -> Iterator[slice]:
    """The tokens that wrote the reply, a few at a time."""
    last = len(asked.ids) - 1
    for start in range(asked.reply - 1, last, ROWS):
        yield slice(start, min(start + ROWS, last))


def summed(
    tile: Float[Tensor, "H rows N"], sentences: Tensor, passages: Tensor, sentence_count: int, passage_count: int
) -> Float[Tensor, "H S P"]:
    """A part of a map, summed over the rows of each sentence and the columns of each passage; −1 is in none."""
    by_passage = tile.new_zeros(*tile.shape[:-1], passage_count + 1)
    by_passage.index_add_(-1, (passages % (passage_count + 1)).to(tile.device), tile)
    total = tile.new_zeros(len(tile), sentence_count + 1, passage_count)
    return total.index_add_(1, (sentences % (sentence_count + 1)).to(tile.device), by_passage[..., :-1])[:, :-1]
