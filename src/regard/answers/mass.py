"""How much attention the sentences of a reply gave to each passage, by every head."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from regard.answers.prompt import Asked

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from regard.lens import Reading


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

    Cost: a pass over each layer's weights, streamed (`Weights.grouped`); no N × N matrix is made.
    """
    writers, sentences, passages = asked.writers, len(asked.spans), asked.passage_count
    tokens = torch.bincount(writers[writers >= 0], minlength=sentences)
    keys = asked.passages.clone()
    keys[0] = passages
    heads = max(reading.heads_of(layer) for layer in reading.attention_layers)
    result = torch.zeros(reading.layers, heads, sentences, passages + 1)
    for layer in reading.attention_layers:
        weights = reading.attention[layer].weights
        mean = weights.grouped(queries=writers.to(weights.device), keys=keys.to(weights.device)).cpu()
        result[layer, : len(mean), : mean.shape[1]] = mean.float()
    result *= tokens[:, None]
    return Masses(result[..., :passages], result[..., passages], tokens.float())
