"""Learning which heads matter, from what happens to replies when passages are hidden.

For each of a number of made-up documents (`examples.py`) the model is asked, and the log-probability of its reply is
computed with each passage hidden, and with random halves of them. Over all these rows r, of documents d,

    min_θ≥0  Σ_r ((y_r − ȳ_d) − Σ_n θ_n (x_rn − x̄_dn))² / s_d²  +  λ ‖θ‖²

y is the log-probability; x are the masses that the reply gave by every head to the passages that are left and, last,
what these added to its logits; s_d is the spread of y in its document. It is a regression on knockouts, in which every
document counts about alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch

from regard.answers.direct import direct_logits
from regard.answers.examples import Example, examples
from regard.answers.heads import HeadWeights, stored_at
from regard.answers.hiding import log_probabilities
from regard.answers.mass import masses
from regard.answers.passages import passages
from regard.answers.prompt import asked_of, prompt_of

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from regard.lens import Lens

DOCUMENTS = 60
RANDOM = 24  # choices of passages to hide, besides each one alone
PENALTY = 30.0
NOTHING = 0.5  # nats: a passage whose knockout is less does nothing for the reply


def learn(
    lens: Lens,
    documents: int = DOCUMENTS,
    *,
    seed: int = 0,
    save: bool = True,
    advance: Callable[[int], object] = lambda documents: None,
) -> HeadWeights:
    """Learn which heads of a model matter; `ask` uses them from then on.

    Cost: for each document, a reply of at most 32 tokens, and about 34 forward passes over some 150 tokens.

    Args:
        lens: of a language model with a chat template.
        documents: how many; a few dozen suffice.
        seed: of the documents and of what is hidden in them.
        save: keep the weights in the user's cache, under the model's name and fingerprint.
        advance: called with the number of documents that are done, each time.

    Raises ValueError for fewer than two documents, a model that cannot be asked, or one that never replies.

    >>> import regard
    >>> from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    >>> from regard.models import embedded_folder
    >>> from regard import answers
    >>> tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
    >>> config = LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4)
    >>> tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    >>> lens = regard.Lens((LlamaForCausalLM(config), tokenizer))           # a decoder that nobody has trained
    >>> answers.learn(lens, documents=2, save=False).weights.shape
    torch.Size([2, 4])
    """
    if documents < 2:
        raise ValueError(f"learn: documents: expected two or more. Got {documents}.")
    chance = torch.Generator().manual_seed(seed)
    observed = []
    for example in examples(documents, seed):
        if (seen := _observed(lens, example, chance)) is not None:
            observed.append(seen)
        advance(1)
    if not observed:
        raise ValueError(f"learn: {lens.name} replied to none of {documents} questions.")
    learned = fitted(lens.name, observed)
    if save:
        path = stored_at(lens)
        path.parent.mkdir(parents=True, exist_ok=True)
        learned.save(path)
    return learned


class Observed(NamedTuple):
    """What was seen of a reply.

    Attributes:
        mass: that each head gave to each passage.
        logits: what each passage added to the logits of its tokens; 0 where that is not known.
        hidden: choices of passages: none, each alone, then random ones.
        total: log p of the reply when these are hidden.
    """

    mass: Float[Tensor, "layers heads passages"]
    logits: Float[Tensor, "passages"]
    hidden: Bool[Tensor, "rows passages"]
    total: Float[Tensor, "rows"]


def fitted(model: str, observed: Sequence[Observed]) -> HeadWeights:
    """The weights of heads that predict best what was seen, and the noise of their predictions.

    The floor is what 19 of 20 predictions do not reach, of passages that do nothing.
    """
    rows, changes = [], []
    for mass, logits, hidden, total in observed:
        numbers = torch.cat([mass.flatten(0, 1), logits[None]]).double()
        x, y = (~hidden).double() @ numbers.T, total.double()
        spread = y.std() + 0.5  # nats; without them, a reply on which nothing depends would count most
        rows.append((x - x.mean(0)) / spread)
        changes.append((y - y.mean()) / spread)
    *weights, logit = nonnegative_ridge(torch.cat(rows), torch.cat(changes), PENALTY).tolist()
    shape = observed[0].mass.shape[:2]
    learned = HeadWeights(model, torch.tensor(weights).reshape(shape), logit, documents=len(observed))
    idle = []
    for mass, logits, _, total in observed:
        knockouts = total[0] - total[1 : mass.shape[-1] + 1]
        idle.append(learned.predicted(mass, logits)[knockouts < NOTHING])
    noise = torch.cat(idle)
    return replace(learned, floor=max(0.0, float(noise.quantile(0.95)) if len(noise) else 0.0))


def _observed(lens: Lens, example: Example, chance: torch.Generator) -> Observed | None:
    """What happens to the reply to an example when passages are hidden; None where there is no reply."""
    divided = passages(example.text)
    prompt = prompt_of(lens, example.question, divided)
    generation = lens.chat(prompt.messages, max_tokens=32)
    reading = generation.finish()
    if not generation.tokens:
        return None
    asked, size = asked_of(reading, prompt), len(divided)
    chosen = torch.rand(RANDOM, size, generator=chance) < 0.5
    hidden = torch.cat([torch.zeros(1, size, dtype=torch.bool), torch.eye(size, dtype=torch.bool), chosen])
    total = log_probabilities(lens, asked, hidden).double().sum(1)
    try:
        logits = direct_logits(reading, asked).sum(0)
    except ValueError:
        logits = torch.zeros(size)
    return Observed(masses(reading, asked).of_passages.sum(2), logits, hidden, total)


def nonnegative_ridge(
    x: Float[Tensor, "rows n"], y: Float[Tensor, "rows"], penalty: float, sweeps: int = 500
) -> Float[Tensor, "n"]:
    """argmin_θ≥0 ‖y − xθ‖² + penalty ‖θ‖², one coordinate after the other: convex, so that they arrive at it.

    >>> nonnegative_ridge(torch.eye(3), torch.tensor([1.0, -2.0, 4.0]), 1.0)
    tensor([0.5000, 0.0000, 2.0000])
    """
    gram = x.T @ x + penalty * torch.eye(x.shape[1], dtype=x.dtype)
    towards, weights = x.T @ y, x.new_zeros(x.shape[1])
    for _ in range(sweeps):
        before = weights.clone()
        for n in range(len(weights)):
            weights[n] = (weights[n] + (towards[n] - gram[n] @ weights) / gram[n, n]).clamp(min=0)
        if (weights - before).abs().max() <= 1e-9 * weights.max():
            break
    return weights
