"""Time per training step and per decoded token, against length."""

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
    """Seconds by length and architecture, of a training step on 2,048 tokens and of one decoded token."""

    step: dict[int, dict[str, float]] = field(default_factory=dict)
    token: dict[int, dict[str, float]] = field(default_factory=dict)

    def ratio(self, times: dict[int, dict[str, float]], length: int) -> float:
        """How many times as long as the Transformer the recurrent model takes."""
        return times[length]["recurrent"] / times[length]["transformer"]


def measure(
    models: dict[str, Model],
    vocabulary: int,
    lengths: Sequence[int] = LENGTHS,
    rounds: int = 3,
    advance: Callable[[int], object] = lambda done: None,
    times: Times | None = None,
) -> Times:
    """In turn, medians; into `times` as it goes along."""
    times = Times() if times is None else times
    for length in lengths:
        ids = torch.randint(
            3, vocabulary, (max(1, TOKENS // length), length), generator=torch.Generator().manual_seed(0)
        )
        steps = {name: _step(models[name].train(), ids) for name in NAMES}
        times.step[length] = interleaved(steps, rounds, at_least=0.05)
        tokens = {name: _write(models[name].eval(), ids[:1]) for name in NAMES}
        times.token[length] = {name: taken / length for name, taken in interleaved(tokens, rounds).items()}
        advance(1)
    return times


def _step(model: Model, ids: torch.Tensor) -> Callable[[], object]:
    optimizer = torch.optim.AdamW(model.parameters(), 1e-9)  # as much work as any, and the model stays what it is

    def run() -> None:
        optimizer.zero_grad()
        loss_of(model, ids, None, ids, ids).backward()
        optimizer.step()

    return run


def _write(model: Model, ids: torch.Tensor) -> Callable[[], object]:
    return lambda: greedy(model, ids, bos_id=1, eos_id=-1, max_new_tokens=ids.shape[1])  # −1: it never ends


def overtakes(times: dict[int, dict[str, float]]) -> list[tuple[float, str]]:
    """(length, who is the faster from there on), by straight lines between what was measured, in logarithms."""
    found = []
    for one, other in pairwise(sorted(times)):
        before, after = (math.log(times[n]["recurrent"] / times[n]["transformer"]) for n in (one, other))
        if (before > 0) != (after > 0):
            share = before / (before - after)
            length = math.exp(math.log(one) + share * (math.log(other) - math.log(one)))
            found.append((length, "transformer" if after > 0 else "recurrent"))
    return found
