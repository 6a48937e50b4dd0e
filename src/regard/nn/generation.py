"""Training a sequence-to-sequence model, and generating with it: loss, learning rate, greedy and beam search."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from regard._internal.deprecated import renamed_arguments, renamed_names
from regard.nn.recurrent import RecurrentTranslator
from regard.nn.shapes import Ids, Lengths, Logits, Source
from regard.nn.transformer import Transformer

Model = Transformer | RecurrentTranslator


def smoothed_loss(logits: Logits, target: Ids, smoothing: float = 0.1) -> Tensor:
    """−Σ_v q_v log p_v with q = 1 − smoothing for the target token and smoothing / V for each; skips targets of −100.

    Label smoothing: Szegedy et al. 2016, https://arxiv.org/abs/1512.00567, section 7.

    >>> import torch, regard.nn
    >>> logits, target = torch.zeros(1, 3, 11), torch.tensor([[3, 1, -100]])
    >>> bool(torch.isclose(regard.nn.smoothed_loss(logits, target), torch.tensor(11.0).log()))
    True
    """
    return nn.functional.cross_entropy(logits.flatten(0, -2), target.flatten(), label_smoothing=smoothing)


@renamed_arguments(steps="warmup_steps")
def noam_schedule(step: int, dim: int, warmup_steps: int = 4000) -> float:
    """The learning rate at a step, counting from 1: dim^−½ · min(step^−½, step · warmup_steps^−1½).

    Vaswani et al. 2017, equation 3.

    >>> f"{noam_schedule(4000, 512):.1e}"
    '7.0e-04'
    """
    rate: float = dim**-0.5 * min(step**-0.5, step * warmup_steps**-1.5)
    return rate


__getattr__ = renamed_names(__name__, warm_up="noam_schedule")


@renamed_arguments(first="bos_id", last="eos_id", most="max_new_tokens")
@torch.no_grad()
def greedy(
    model: Model, source: Source, lengths: Lengths = None, *, bos_id: int, eos_id: int, max_new_tokens: int
) -> Ids:
    """Generate after `bos_id`, taking the likeliest token at every step.

    Args:
        model: the model to generate with.
        source: (B,M), what it reads.
        lengths: (B,), how many tokens of each source are no padding.
        bos_id: the token that begins every target.
        eos_id: the token that ends a target; whatever follows it is `eos_id` too.
        max_new_tokens: the most tokens to generate.

    Returns:
        (B,N), the generated tokens without `bos_id`.

    >>> import torch, regard.nn
    >>> model = regard.nn.Transformer(vocab_size=11, layers=2, dim=8, heads=2, d_ff=32).eval()
    >>> source = torch.tensor([[3, 1, 4, 1, 5]])
    >>> regard.nn.greedy(model, source, bos_id=0, eos_id=10, max_new_tokens=4).shape[0]
    1
    """
    state, tokens = model.begin(source, lengths), source.new_full((len(source), 1), bos_id)
    for _ in range(max_new_tokens):
        logits, state = model.step(tokens[:, -1], state)
        ended = (tokens[:, -1] == eos_id) & (tokens.shape[1] > 1)
        tokens = torch.cat((tokens, logits.argmax(-1).masked_fill(ended, eos_id)[:, None]), 1)
        if (tokens[:, -1] == eos_id).all():
            break
    return tokens[:, 1:]


@renamed_arguments(first="bos_id", last="eos_id", most="max_new_tokens", penalty="length_penalty")
@torch.no_grad()
def beam(
    model: Model, source: Source, lengths: Lengths = None,
    *, bos_id: int, eos_id: int, max_new_tokens: int, width: int = 4, length_penalty: float = 0.6,
) -> Ids:  # fmt: skip
    """As `greedy`, but keeps `width` hypotheses and returns the best by log p / ((5 + n) / 6)^length_penalty.

    n is the number of tokens. Wu et al. 2016, https://arxiv.org/abs/1609.08144, section 7.

    >>> import torch, regard.nn
    >>> model = regard.nn.Transformer(vocab_size=11, layers=2, dim=8, heads=2, d_ff=32).eval()
    >>> source = torch.tensor([[3, 1, 4, 1, 5]])
    >>> regard.nn.beam(model, source, bos_id=0, eos_id=10, max_new_tokens=4, width=2).shape[0]
    1
    """
    batch = len(source)
    state = [tensor.repeat_interleave(width, 0) for tensor in model.begin(source, lengths)]
    tokens = source.new_full((batch * width, 1), bos_id)
    likelihood = torch.full((batch, width), -torch.inf, device=source.device)
    likelihood[:, 0] = 0  # the hypotheses are still the same: only one of them counts
    ended, count = torch.zeros(batch * width, dtype=torch.bool), torch.zeros(batch * width, 1)
    for _ in range(max_new_tokens):
        logits, state = model.step(tokens[:, -1], state)
        log_probabilities = logits.log_softmax(-1)
        log_probabilities[ended] = -torch.inf
        log_probabilities[ended, eos_id] = 0  # a hypothesis that has ended stays as it is
        total, longer = likelihood.view(-1, 1) + log_probabilities, count + (~ended)[:, None]
        chosen = (total / ((5 + longer) / 6) ** length_penalty).view(batch, -1).topk(width).indices
        row = (chosen // logits.shape[1] + width * torch.arange(batch)[:, None]).flatten()
        token = (chosen % logits.shape[1]).flatten()
        likelihood, count = total.view(batch, -1).gather(1, chosen), longer[row]
        tokens, state = torch.cat((tokens[row], token[:, None]), 1), [tensor[row] for tensor in state]
        ended = ended[row] | (token == eos_id)
        if ended.all():
            break
    return tokens[::width, 1:]  # the first hypothesis of each source is the best
