"""Learning which heads matter, from what happens to replies when passages are hidden.

For each of a number of made-up documents (`examples.py`) the model is asked, and the log-probability of its reply is
computed with each passage hidden, and with random halves of them. Over all these rows r, of documents d,

    min_θ≥0  Σ_r ((y_r − ȳ_d) − Σ_lh θ_lh (x_rlh − x̄_dlh))² / s_d²  +  λ ‖θ‖²

y is the log-probability, x_lh the mass that the reply gave by a head to the passages that are left, s_d the spread of y
in its document: a regression on knockouts, in which every document counts about alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from regard.answers.examples import Example, examples
from regard.answers.heads import HeadWeights, stored_at
from regard.answers.hiding import log_probabilities
from regard.answers.mass import masses
from regard.answers.passages import passages
from regard.answers.prompt import asked_of, prompt_of

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from regard.lens import Lens

DOCUMENTS = 60
RANDOM = 12  # choices of passages to hide, besides each one alone
PENALTY = 10.0


def learn(
    lens: Lens,
    documents: int = DOCUMENTS,
    *,
    seed: int = 0,
    save: bool = True,
    advance: Callable[[int], object] = lambda documents: None,
) -> HeadWeights:
    """Learn which heads of a model matter; `ask` uses them from then on.

    Cost: for each document, a reply of at most 32 tokens, and about 22 forward passes over some 150 tokens.

    Args:
        lens: of a language model with a chat template.
        documents: how many; a few dozen suffice.
        seed: of the documents and of what is hidden in them.
        save: keep the weights in the user's cache, under the model's name and fingerprint.
        advance: called with the number of documents that are done, each time.

    Raises ValueError for fewer than two documents, a model that cannot be asked, or one that never replies.
    """
    if documents < 2:
        raise ValueError(f"learn: documents: expected two or more. Got {documents}.")
    chance = torch.Generator().manual_seed(seed)
    rows, changes, shape = [], [], None
    for example in examples(documents, seed):
        if (observed := _observed(lens, example, chance)) is not None:
            mass, kept, total = observed
            shape = mass.shape[:2]
            x, y = kept.double() @ mass.flatten(0, 1).double().T, total.double()
            spread = y.std() + 0.5  # nats; without them, a reply on which nothing depends would count most
            rows.append((x - x.mean(0)) / spread)
            changes.append((y - y.mean()) / spread)
        advance(1)
    if shape is None:
        raise ValueError(f"learn: {lens.name} replied to none of {documents} questions.")
    weights = nonnegative_ridge(torch.cat(rows), torch.cat(changes), PENALTY).reshape(shape)
    learned = HeadWeights(lens.name, weights.float(), documents=len(rows))
    if save:
        path = stored_at(lens)
        path.parent.mkdir(parents=True, exist_ok=True)
        learned.save(path)
    return learned


def _observed(lens: Lens, example: Example, chance: torch.Generator) -> tuple[Tensor, Tensor, Tensor] | None:
    """The masses (layers,heads,passages) of a reply, choices of passages, and log p under each; None without one."""
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
    return masses(reading, asked).of_passages.sum(2), ~hidden, total


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
