"""Two architectures of equal size: trained on a task, and evaluated."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from regard.nn import RecurrentTranslator, Transformer, greedy
from regard.race.tasks import BOS, EOS, Task, batch, draw

Model = Transformer | RecurrentTranslator
NAMES = {"recurrent": "recurrent attention", "transformer": "Transformer"}


@dataclass
class TrainingResult:
    """What an architecture has learned of a task.

    losses: By step. seconds: Of training. by_length: For each length of a held-out source, the share of examples that
    are right to the last token, and their number. written: The tokens that the model writes for the task's example.
    alignment: (N,M), how much each token that it writes, and EOS, attends to each token of the example.
    """

    parameters: int
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    by_length: dict[int, tuple[float, int]] = field(default_factory=dict)
    written: list[str] = field(default_factory=list)
    alignment: Tensor = field(default_factory=lambda: torch.empty(0, 0))

    @property
    def accuracy(self) -> float:
        """The accuracy over all lengths."""
        total = sum(count for _, count in self.by_length.values())
        return sum(share * count for share, count in self.by_length.values()) / total


def make(name: str, vocab_size: int, dim: int = 128, layers: int = 2, seed: int = 0) -> Model:
    """A Transformer with vectors of this size, or a recurrent model with as many parameters, within 5 %."""
    torch.manual_seed(seed)
    transformer = Transformer(vocab_size, layers, dim=dim, heads=max(1, dim // 32), dropout=0.0, pre_norm=True)
    if name == "transformer":
        return transformer
    target = parameter_count(transformer)
    with torch.device("meta"):
        counts = {
            even: parameter_count(RecurrentTranslator(vocab_size, dim=even)) for even in range(dim // 2 * 2, 4 * dim, 2)
        }
    return RecurrentTranslator(vocab_size, dim=min(counts, key=lambda dim: abs(counts[dim] - target)), dropout=0.0)


def parameter_count(model: nn.Module) -> int:
    """The number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def loss_of(model: Model, source: Tensor, lengths: Tensor | None, target: Tensor, label: Tensor) -> Tensor:
    """The cross-entropy of the right answers, per token."""
    return nn.functional.cross_entropy(model(source, target, lengths)[0].flatten(0, 1), label.flatten())


def train(
    model: Model,
    task: Task,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    advance: Callable[[int], object],
) -> TrainingResult:
    """Train with AdamW on data that depend on the seed alone; the rate rises over 5 % of the steps, then falls to 0."""
    result = TrainingResult(parameter_count(model))
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=0.0)
    warmup = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, max(0.0, (steps - step) / (steps - warmup)))
    )
    model.train()
    start = time.perf_counter()
    for step in range(steps):
        examples = batch(task, draw(task, batch_size, f"{seed} {step}", held_out=False))
        loss = loss_of(model, examples.source, examples.lengths, examples.target, examples.label)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        result.losses.append(loss.item())
        advance(1)
    result.seconds = time.perf_counter() - start
    return result


@torch.no_grad()
def evaluate(model: Model, task: Task, result: TrainingResult, count: int, seed: int) -> None:
    """Add to a result the accuracy on held-out examples, and what the model writes for the task's example."""
    model.eval()
    sources = sorted(draw(task, count, f"{seed} held out", held_out=True), key=len)
    correct: dict[int, list[bool]] = {}
    for start in range(0, count, 200):
        examples = sources[start : start + 200]
        for source, answer in zip(examples, translate(model, task, examples), strict=True):
            correct.setdefault(len(source), []).append(answer == task.answer(source))
    result.by_length = {length: (sum(flags) / len(flags), len(flags)) for length, flags in sorted(correct.items())}
    (result.written,) = translate(model, task, [task.example])
    example = torch.tensor([[task.numbers[token] for token in task.example]])
    numbers = [task.numbers.get(token, EOS) for token in result.written]
    result.alignment = alignment(model, example, torch.tensor([[BOS, *numbers]]))


def translate(model: Model, task: Task, sources: list[list[str]]) -> list[list[str]]:
    """What the model writes for each source, by greedy decoding."""
    examples = batch(task, sources)
    longest = examples.label.shape[1] + 2
    numbers = greedy(model, examples.source, examples.lengths, bos_id=BOS, eos_id=EOS, max_new_tokens=longest)
    return [task.decode(row) for row in numbers.tolist()]


def alignment(model: Model, source: Tensor, target: Tensor) -> Tensor:
    """(N,M): how much each target token attends to each source token.

    Of a Transformer, the mean over the heads of the layer with the lowest entropy.
    """
    _, attended = model(source, target)
    if isinstance(attended, Tensor):
        return attended[0]
    layers: list[Tensor] = [attention.weights.dense()[0].mean(0) for attention in attended]
    return min(layers, key=lambda weights: float(torch.special.entr(weights).sum(-1).mean()))
