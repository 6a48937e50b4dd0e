"""Teaching a model to write, and letting it write."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from regard.nn.recurrent import RecurrentTranslator
from regard.nn.shapes import Ids, Lengths, Logits, Source
from regard.nn.transformer import Transformer

Model = Transformer | RecurrentTranslator


def smoothed_loss(logits: Logits, target: Ids, smoothing: float = 0.1) -> Tensor:
    """−Σ_v q_v log p_v with q = 1 − smoothing for the right word and smoothing / V for each; targets of −100 left out.

    Label smoothing: Szegedy et al. 2016, https://arxiv.org/abs/1512.00567, section 7.
    """
    return nn.functional.cross_entropy(logits.flatten(0, -2), target.flatten(), label_smoothing=smoothing)


def warm_up(step: int, dim: int, steps: int = 4000) -> float:
    """The learning rate at a step, from 1: dim^−½ · min(step^−½, step · steps^−1½). Vaswani et al. 2017, equation 3.

    >>> f"{warm_up(4000, 512):.1e}"
    '7.0e-04'
    """
    return dim**-0.5 * min(step**-0.5, step * steps**-1.5)


@torch.no_grad()
def greedy(model: Model, source: Source, lengths: Lengths = None, *, first: int, last: int, most: int) -> Ids:
    """What the model writes after `first`, always the likeliest; at most so many, and after `last` only `last`."""
    state, tokens = model.begin(source, lengths), source.new_full((len(source), 1), first)
    for _ in range(most):
        logits, state = model.step(tokens[:, -1], state)
        ended = (tokens[:, -1] == last) & (tokens.shape[1] > 1)
        tokens = torch.cat((tokens, logits.argmax(-1).masked_fill(ended, last)[:, None]), 1)
        if (tokens[:, -1] == last).all():
            break
    return tokens[:, 1:]


@torch.no_grad()
def beam(
    model: Model, source: Source, lengths: Lengths = None,
    *, first: int, last: int, most: int, width: int = 4, penalty: float = 0.6,
) -> Ids:  # fmt: skip
    """As `greedy`, but `width` beginnings are gone on with, and the best is taken: log p / ((5 + n) / 6)^penalty.

    Wu et al. 2016, https://arxiv.org/abs/1609.08144, section 7, for n tokens.
    """
    batch = len(source)
    state = [tensor.repeat_interleave(width, 0) for tensor in model.begin(source, lengths)]
    tokens = source.new_full((batch * width, 1), first)
    likelihood = torch.full((batch, width), -torch.inf, device=source.device)
    likelihood[:, 0] = 0  # all beginnings are the same yet
    ended, count = torch.zeros(batch * width, dtype=torch.bool), torch.zeros(batch * width, 1)
    for _ in range(most):
        logits, state = model.step(tokens[:, -1], state)
        going_on = logits.log_softmax(-1)
        going_on[ended] = -torch.inf
        going_on[ended, last] = 0  # what has ended stays as it is
        total, longer = likelihood.view(-1, 1) + going_on, count + (~ended)[:, None]
        chosen = (total / ((5 + longer) / 6) ** penalty).view(batch, -1).topk(width).indices
        row = (chosen // logits.shape[1] + width * torch.arange(batch)[:, None]).flatten()
        token = (chosen % logits.shape[1]).flatten()
        likelihood, count = total.view(batch, -1).gather(1, chosen), longer[row]
        tokens, state = torch.cat((tokens[row], token[:, None]), 1), [tensor[row] for tensor in state]
        ended = ended[row] | (token == last)
        if ended.all():
            break
    return tokens[::width, 1:]  # the first of each is the best
