"""The race: both models on speed and on tasks, and the conclusion that follows from the numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from regard._internal.measure import machine
from regard._internal.plurals import counted
from regard.race import timing, training
from regard.race.tasks import TASKS
from regard.race.timing import Times, crossovers
from regard.race.training import NAMES, Model, TrainingResult

SOLVED = 0.99


@dataclass
class Report:
    """What was measured; `complete` unless the race was stopped."""

    steps: dict[str, int]  # by task
    seed: int
    lengths: Sequence[int]
    machine: dict[str, Any] = field(default_factory=machine)
    results: dict[str, dict[str, TrainingResult]] = field(default_factory=dict)  # by task, by architecture
    times: Times = field(default_factory=Times)

    @property
    def complete(self) -> bool:
        """Whether everything was measured."""
        all_tasks = all(len(self.results.get(name, {})) == len(NAMES) for name in self.steps)
        return all_tasks and len(self.times.token) == len(self.lengths)

    def conclusion(self) -> list[str]:
        """What follows from the numbers, in sentences."""
        return [*self._speed(), *self._tasks()]

    def _speed(self) -> list[str]:
        sentences = []
        for name, times in (("A training step", self.times.step), ("A decoded token", self.times.token)):
            if not times:
                continue
            long = max(times)
            short = 128 if 128 in times and long > 128 else min(times)  # at shorter lengths overhead dominates
            growth = {name: times[long][name] / times[short][name] for name in NAMES}
            sentences.append(
                f"{name} at length {long:,} takes {growth['recurrent']:.1f} × as long as at {short} with recurrent "
                f"attention, {growth['transformer']:.1f} × with the Transformer."
            )
            lengths = [n for n in (min(times), 512, long) if n in times]
            faster = dict.fromkeys(f"{_faster(self.times.ratio(times, n))} at {n:,}" for n in lengths)
            sentences.append(f"Faster: {'; '.join(faster)}.")
            crossings = [f"from length {length:.0f} on, {NAMES[kind]}" for length, kind in crossovers(times)]
            sentences.append(
                f"Crossover: {'; '.join(crossings)}." if crossings else "There is no crossover in between."
            )
        return sentences

    def _tasks(self) -> list[str]:
        sentences = []
        for task, results in self.results.items():
            if len(results) < len(NAMES):
                continue
            shares = ", ".join(
                f"{NAMES[kind]} {results[kind].accuracy:.1%} in {results[kind].seconds:.0f} s" for kind in NAMES
            )
            solved = [NAMES[kind] for kind in NAMES if results[kind].accuracy >= SOLVED]
            verdict = {0: "neither solves it", 1: f"only {''.join(solved)} solves it", 2: "both solve it"}[len(solved)]
            sentences.append(f"{task.capitalize()}, after {counted(self.steps[task], 'step')}: {shares}: {verdict}.")
        return sentences

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON can hold it."""
        return {
            "machine": self.machine,
            "steps": self.steps,
            "seed": self.seed,
            "complete": self.complete,
            "tasks": {
                task: {kind: _result_to_dict(task, result) for kind, result in results.items()}
                for task, results in self.results.items()
            },
            "seconds_per_step": self.times.step,
            "seconds_per_token": self.times.token,
            "overtakes": {"step": crossovers(self.times.step), "token": crossovers(self.times.token)},
            "conclusion": self.conclusion(),
        }


def _result_to_dict(task: str, result: TrainingResult) -> dict[str, Any]:
    return {
        "parameters": result.parameters,
        "seconds": result.seconds,
        "accuracy": result.accuracy,
        "by_length": {length: share for length, (share, _) in result.by_length.items()},
        "losses": result.losses,
        "example": "".join(TASKS[task].example),
        "written": result.written,
        "alignment": result.alignment.tolist(),
    }


def _faster(ratio: float) -> str:
    kind = "the Transformer" if ratio > 1 else "recurrent attention"
    return f"{kind}, {max(ratio, 1 / ratio):.1f} ×"


def race(
    steps: dict[str, int],
    *,
    lengths: Sequence[int] | None = None,
    rounds: int = 3,
    dim: int = 128,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    held_out: int = 1000,
    seed: int = 0,
    advance: Callable[[int], object] = lambda steps: None,
    trained: Callable[[str, Model], object] = lambda task, model: None,
) -> Report:
    """Measure speed by length, then train and evaluate both models on each task.

    Args:
        steps: Training steps by task.
        held_out: The number of held-out examples.
        advance: Called with the number of steps just done.
        trained: Called with the name of a task and each model that was trained on it.

    Returns: The report. Ctrl-C ends the race early, and the report is then as complete as the race.
    """
    report = Report(steps, seed, timing.LENGTHS if lengths is None else lengths)
    with suppress(KeyboardInterrupt):
        vocab_size = TASKS["dates"].vocab_size
        models = {name: training.make(name, vocab_size, dim, seed=seed) for name in NAMES}
        timing.measure(models, vocab_size, report.lengths, rounds, advance, report.times)
        for name, count in steps.items():
            task = TASKS[name]
            for kind in NAMES:
                model = training.make(kind, task.vocab_size, dim, seed=seed)
                result = training.train(model, task, count, batch_size, learning_rate, seed, advance)
                training.evaluate(model, task, result, held_out, seed)
                report.results.setdefault(name, {})[kind] = result
                trained(name, model)
    return report
