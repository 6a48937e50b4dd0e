"""Time per training step and per decoded token, by length."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch

from regard._internal.measure import interleaved
from regard.nn import greedy
from regard.race.training import NAMES, Model, loss_of

LENGTHS = (32, 64, 128, 256, 512, 1024, 2048)
TOKENS = 2048  # in a training step, at every length


@dataclass
class Times:
    """Seconds by length and architecture: of a training step on 2,048 tokens, and of one decoded token."""

    step: dict[int, dict[str, float]] = field(default_factory=dict)
    token: dict[int, dict[str, float]] = field(default_factory=dict)

    def ratio(self, times: dict[int, dict[str, float]], length: int) -> float:
        """The time of the recurrent model divided by that of the Transformer."""
        return times[length]["recurrent"] / times[length]["transformer"]


def measure(
    models: dict[str, Model],
    vocab_size: int,
    lengths: Sequence[int] = LENGTHS,
    rounds: int = 3,
    advance: Callable[[int], object] = lambda done: None,
    times: Times | None = None,
) -> Times:
    """Medians of interleaved rounds, added to `times` length by length."""
    times = Times() if times is None else times
    for length in lengths:
        ids = torch.randint(
            3, vocab_size, (max(1, TOKENS // length), length), generator=torch.Generator().manual_seed(0)
        )
        steps = {name: _training_step(models[name].train(), ids) for name in NAMES}
        times.step[length] = interleaved(steps, rounds, at_least=0.05)
        decoding = {name: _decode(models[name].eval(), ids[:1]) for name in NAMES}
        seconds = interleaved(decoding, rounds)
        times.token[length] = {name: seconds[name] / length for name in NAMES}
        advance(1)
    return times


def _training_step(model: Model, ids: torch.Tensor) -> Callable[[], object]:
    optimizer = torch.optim.AdamW(model.parameters(), 1e-9)  # the work of a step, without changing the model

    def run() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(loss_of(model, ids, None, ids, ids))
        optimizer.step()

    return run


def _decode(model: Model, ids: torch.Tensor) -> Callable[[], object]:
    return lambda: greedy(model, ids, bos_id=1, eos_id=-1, max_new_tokens=ids.shape[1])  # no token is −1: it never ends


def crossovers(times: dict[int, dict[str, float]]) -> list[tuple[float, str]]:
    """(length, the faster architecture from there on), by straight lines between measurements, in logarithms."""
    crossings = []
    for shorter, longer in pairwise(sorted(times)):
        before, after = (math.log(times[n]["recurrent"] / times[n]["transformer"]) for n in (shorter, longer))
        if (before > 0) != (after > 0):
            share = before / (before - after)
            length = math.exp(math.log(shorter) + share * (math.log(longer) - math.log(shorter)))
            crossings.append((length, "transformer" if after > 0 else "recurrent"))
    return crossings
