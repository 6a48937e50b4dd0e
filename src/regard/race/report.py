"""The race: run, put into numbers, and concluded from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from regard._internal.measure import machine
from regard._internal.plurals import counted
from regard.race import timing, training
from regard.race.tasks import TASKS
from regard.race.timing import LENGTHS, Times, overtakes
from regard.race.training import NAMES, Learned

SOLVED = 0.99


@dataclass
class Report:
    """What was measured: complete, or as far as it went."""

    steps: dict[str, int]  # by task
    seed: int
    lengths: Sequence[int]
    machine: dict[str, Any] = field(default_factory=machine)
    learned: dict[str, dict[str, Learned]] = field(default_factory=dict)  # by task, by architecture
    times: Times = field(default_factory=Times)

    @property
    def complete(self) -> bool:
        """Whether it went to the end."""
        whole = all(len(self.learned.get(name, {})) == len(NAMES) for name in self.steps)
        return whole and len(self.times.token) == len(self.lengths)

    def conclusion(self) -> list[str]:
        """What follows from the numbers, a sentence a finding."""
        return [*self._of_speed(), *self._of_tasks()]

    def _of_speed(self) -> list[str]:
        found = []
        for what, times in (("A training step", self.times.step), ("A decoded token", self.times.token)):
            if not times:
                continue
            long = max(times)
            short = 128 if 128 in times and long > 128 else min(times)  # below that, it is overhead that counts
            growth = {name: times[long][name] / times[short][name] for name in NAMES}
            found.append(
                f"{what} at length {long:,} takes {growth['recurrent']:.1f} × as long as at {short} with recurrent "
                f"attention, {growth['transformer']:.1f} × with the Transformer."
            )
            ratios = [_faster(self.times.ratio(times, n)) + f" at {n:,}" for n in (min(times), 512, long) if n in times]
            found.append(f"The faster one there: {'; '.join(dict.fromkeys(ratios))}.")
            crossings = [f"from length {length:.0f} on {NAMES[who]}" for length, who in overtakes(times)]
            found.append(f"It changes: {', '.join(crossings)}." if crossings else "That does not change in between.")
        return found

    def _of_tasks(self) -> list[str]:
        found = []
        for name, each in self.learned.items():
            if len(each) < len(NAMES):
                continue
            shares = ", ".join(f"{NAMES[who]} {each[who].accuracy:.1%} in {each[who].seconds:.0f} s" for who in NAMES)
            solved = [NAMES[who] for who in NAMES if each[who].accuracy >= SOLVED]
            who = {0: "neither solves it", 1: f"only {''.join(solved)} solves it", 2: "both solve it"}[len(solved)]
            found.append(f"{name.capitalize()}, after {counted(self.steps[name], 'step')}: {shares}: {who}.")
        return found

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "machine": self.machine,
            "steps": self.steps,
            "seed": self.seed,
            "complete": self.complete,
            "tasks": {
                name: {
                    who: {
                        "parameters": learned.parameters,
                        "seconds": learned.seconds,
                        "accuracy": learned.accuracy,
                        "by_length": {n: share for n, (share, _) in learned.by_length.items()},
                        "losses": learned.losses,
                        "example": "".join(TASKS[name].example),
                        "written": learned.written,
                        "alignment": learned.alignment.tolist(),
                    }
                    for who, learned in each.items()
                }
                for name, each in self.learned.items()
            },
            "seconds_per_step": self.times.step,
            "seconds_per_token": self.times.token,
            "overtakes": {"step": overtakes(self.times.step), "token": overtakes(self.times.token)},
            "conclusion": self.conclusion(),
        }


def _faster(ratio: float) -> str:
    who = "the Transformer" if ratio > 1 else "recurrent attention"
    return f"{who}, {max(ratio, 1 / ratio):.1f} ×"


def race(
    steps: dict[str, int],
    *,
    lengths: Sequence[int] = LENGTHS,
    rounds: int = 3,
    dim: int = 128,
    batch: int = 32,
    rate: float = 1e-3,
    held_out: int = 1000,
    seed: int = 0,
    advance: Callable[[int], object] = lambda done: None,
) -> Report:
    """Speed first, then task by task, each with its steps; Ctrl-C ends it early. `advance` is told of each step."""
    report = Report(steps, seed, lengths)
    with suppress(KeyboardInterrupt):
        models = {name: training.make(name, TASKS["dates"].vocabulary, dim, seed=seed) for name in NAMES}
        timing.measure(models, TASKS["dates"].vocabulary, lengths, rounds, advance, report.times)
        for name, count in steps.items():
            task = TASKS[name]
            for who in NAMES:
                model = training.make(who, task.vocabulary, dim, seed=seed)
                learned = training.teach(model, task, count, batch, rate, seed, advance)
                training.examine(model, task, learned, held_out, seed)
                report.learned.setdefault(name, {})[who] = learned
    return report
