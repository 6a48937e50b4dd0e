"""What a head contributes to a word: the weight of a token times the length of what its value adds, w_ij ‖v_j W_O‖.

A weight alone says where a head attends. A head that looks for nothing attends to a sink, whose value is short, so that
next to nothing is contributed. Kobayashi et al. 2020, https://arxiv.org/abs/2004.10102.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from regard.models.projections import Surroundings
from regard.models.residual import by_query_head, norms_after, output_by_head

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from regard.lens.reading import Reading
    from regard.lens.units import Word


def value_norms(reading: Reading, layer: int) -> Float[Tensor, "H N"]:
    """‖v_j W_O‖, the length of what each token's value adds to the residual stream, by head; ‖v_j‖ without W_O."""
    values, heads = reading.attention[layer].value, reading.heads_of(layer)
    by_head = output_by_head(surroundings_of(reading, layer).output, heads)
    return by_query_head(values, heads).float().norm(dim=-1) if by_head is None else norms_after(values, by_head)


def knows_output_weight(reading: Reading, layer: int) -> bool:
    """Whether `value_norms` are those of v W_O, and not of v alone."""
    return output_by_head(surroundings_of(reading, layer).output, reading.heads_of(layer)) is not None


def surroundings_of(reading: Reading, layer: int) -> Surroundings:
    """The modules around the attention of a layer, as far as they, and the model, are known."""
    return Surroundings() if reading.opened is None else reading.opened.surroundings[layer]


def content_tokens(reading: Reading, word: Word) -> Bool[Tensor, "N"]:
    """Which of the tokens that it may attend to have content for a word: those of other words, or all of a source.

    Not special tokens and punctuation, on which heads rest that look for nothing, nor the first token of a causal
    model. Where there is no other, the first token counts; where there is no word at all, punctuation.
    """
    own = set(word.tokens) if reading.source is None else set()
    columns = reading.columns
    others = torch.tensor([not token.special and n not in own for n, token in enumerate(columns.tokens)])
    if reading.causal:
        others[max(own) :] = False
    has_letters = torch.tensor([any(map(str.isalnum, unit.text)) for unit in columns.units])
    in_words = others & has_letters[columns.unit_of_token]
    content = in_words if in_words.any() else others
    if reading.causal and content[1:].any():
        content[0] = False
    return content
