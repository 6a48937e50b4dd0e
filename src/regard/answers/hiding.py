"""How likely a reply is when passages are hidden: the knockouts by which every other number here is judged.

A hidden passage is left out of the prompt, with the blank line after it, and the model runs again on the tokens that
remain. That is the same as forbidding every other token to look at it (s_ij = −inf, `attribution.knockout`), but that
what follows moves up: what nobody looks at changes nothing. So a hidden token costs nothing, every model can do it
that can read a text, and the number says what a user would see without the passage. ContextCite (Cohen-Wang et al.
2024, https://arxiv.org/abs/2409.00729) hides in the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from regard.answers.prompt import Asked

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from regard.lens import Lens


def log_probabilities(
    lens: Lens,
    asked: Asked,
    hidden: Bool[Tensor, "A passages"],
    advance: Callable[[int], object] = lambda prompts: None,
) -> Float[Tensor, "A reply"]:
    """log p of each token of the reply, in nats, where these passages are hidden: a row for each choice of them.

    Cost: a forward pass over the remaining tokens for each row; rows of the same length are read together. The
    unembedding is applied to the tokens of the reply alone.

    Args:
        lens: of a causal language model.
        asked: the prompt and its reply.
        hidden: which passages are hidden, by row.
        advance: called with the number of rows that are done, each time.
    """
    model, head = lens.model, lens.model.head
    assert head is not None
    reply = asked.ids[asked.reply :]
    texts = [asked.ids[asked.kept(row)].tolist() for row in hidden]
    result = torch.empty(len(texts), len(reply))
    with torch.inference_mode():
        for number, states in model.states(texts, [model.layers], torch.float32):
            ids = torch.tensor(texts[number])
            rows = slice(-len(reply) - 1, -1)  # a token is predicted at the one before it
            logits = head(states[model.layers][rows], ids[rows])
            result[number] = _chosen(logits, reply)
            advance(1)
    return result


def _chosen(logits: Float[Tensor, "n vocabulary"], ids: Tensor) -> Float[Tensor, "n"]:
    """log softmax(logits) at one token a row."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits.gather(1, ids.to(logits.device)[:, None])[:, 0] - logits.logsumexp(-1)


def by_sentence(numbers: Float[Tensor, "... reply"], asked: Asked) -> Float[Tensor, "... sentences"]:
    """Numbers for the tokens of a reply, summed over each of its sentences."""
    total = numbers.new_zeros(*numbers.shape[:-1], len(asked.spans))
    return total.index_add_(-1, asked.sentences[asked.reply :].to(numbers.device), numbers)
