"""Both architectures, of equal size; taught one task; and how well they have learned it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from regard.nn import RecurrentTranslator, Transformer, greedy
from regard.race.tasks import FIRST, LAST, Task, batch, draw

Model = Transformer | RecurrentTranslator
NAMES = {"recurrent": "recurrent attention", "transformer": "Transformer"}


@dataclass
class Learned:
    """What one architecture made of a task: loss by step, seconds of training, accuracy on held-out examples.

    by_length: of the source, the share of examples that were right to the last token, and how many there were.
    written: what it makes of the task's example, and alignment (N,M), whom each token it writes was made of.
    """

    parameters: int
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    by_length: dict[int, tuple[float, int]] = field(default_factory=dict)
    written: list[str] = field(default_factory=list)
    alignment: Tensor = field(default_factory=lambda: torch.empty(0, 0))

    @property
    def accuracy(self) -> float:
        """Over all lengths."""
        total = sum(count for _, count in self.by_length.values())
        return sum(share * count for share, count in self.by_length.values()) / total


def make(name: str, vocabulary: int, dim: int = 128, layers: int = 2, seed: int = 0) -> Model:
    """A Transformer of this dim, or a recurrent model of as many parameters, within 5 %."""
    torch.manual_seed(seed)
    transformer = Transformer(vocabulary, layers, dim=dim, heads=max(1, dim // 32), dropout=0.0, pre_norm=True)
    if name == "transformer":
        return transformer
    wanted = size(transformer)
    with torch.device("meta"):
        sizes = {even: size(RecurrentTranslator(vocabulary, dim=even)) for even in range(dim // 2 * 2, 4 * dim, 2)}
    return RecurrentTranslator(vocabulary, dim=min(sizes, key=lambda dim: abs(sizes[dim] - wanted)), dropout=0.0)


def size(model: nn.Module) -> int:
    """How many numbers it learns."""
    return sum(parameter.numel() for parameter in model.parameters())


def loss_of(model: Model, source: Tensor, lengths: Tensor | None, target: Tensor, label: Tensor) -> Tensor:
    """Of what it should have written, token by token."""
    return nn.functional.cross_entropy(model(source, target, lengths)[0].flatten(0, 1), label.flatten())


def teach(
    model: Model, task: Task, steps: int, size_of_batch: int, rate: float, seed: int, advance: Callable[[int], object]
) -> Learned:
    """Adam with a rate that rises over a twentieth of the steps and then falls to nothing; the same data for all."""
    learned = Learned(size(model))
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.0)
    first = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / first, max(0.0, (steps - step) / (steps - first)))
    )
    model.train()
    start = time.perf_counter()
    for step in range(steps):
        some = batch(task, draw(task, size_of_batch, f"{seed} {step}", held_out=False))
        loss = loss_of(model, some.source, some.lengths, some.target, some.label)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        learned.losses.append(loss.item())
        advance(1)
    learned.seconds = time.perf_counter() - start
    return learned


@torch.no_grad()
def examine(model: Model, task: Task, learned: Learned, count: int, seed: int) -> None:
    """On examples that it has not seen; and the task's own example, with whom it looked at."""
    model.eval()
    sources = sorted(draw(task, count, f"{seed} held out", held_out=True), key=len)
    right: dict[int, list[bool]] = {}
    for first in range(0, count, 200):
        some = sources[first : first + 200]
        for source, answer in zip(some, write(model, task, some), strict=True):
            right.setdefault(len(source), []).append(answer == task.answer(source))
    learned.by_length = {length: (sum(each) / len(each), len(each)) for length, each in sorted(right.items())}
    (learned.written,) = write(model, task, [task.example])
    example = torch.tensor([[task.numbers[token] for token in task.example]])
    known = [task.numbers.get(token, LAST) for token in learned.written]
    learned.alignment = alignment(model, example, torch.tensor([[FIRST, *known]]))


def write(model: Model, task: Task, sources: list[list[str]]) -> list[list[str]]:
    """What the model makes of some sources."""
    some = batch(task, sources)
    tokens = greedy(model, some.source, some.lengths, bos_id=FIRST, eos_id=LAST, max_new_tokens=some.label.shape[1] + 2)
    return [task.written(row) for row in tokens.tolist()]


def alignment(model: Model, source: Tensor, target: Tensor) -> Tensor:
    """(N,M): whom each token that is written was made of; of a Transformer its heads' mean, in the sharpest layer."""
    _, found = model(source, target)
    if isinstance(found, Tensor):
        return found[0]
    layers = [attended.weights.dense()[0].mean(0) for attended in found]
    return min(layers, key=lambda weights: float(torch.special.entr(weights).sum(-1).mean()))
