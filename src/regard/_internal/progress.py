"""Progress bars for long work: on stderr, where that is a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from regard._internal.plurals import counted


@contextmanager
def counter(label: str) -> Iterator[Callable[[int], object]]:
    """A count with a label and the time so far. Yields the function that advances it."""
    with _bar(SpinnerColumn(), TextColumn("{task.completed:,.0f} " + label), TimeElapsedColumn()) as bar:
        task = bar.add_task(label, total=None)
        yield lambda steps: bar.advance(task, steps)


@contextmanager
def working(label: str) -> Iterator[None]:
    """A label and the time so far, while something works that does not say how far it is."""
    with _bar(SpinnerColumn(), TextColumn(label), TimeElapsedColumn()) as bar:
        bar.add_task(label, total=None)
        yield


@contextmanager
def reading() -> Iterator[Callable[[float], object]]:
    """The share of a text that is read. Yields the function that sets it; the bar is gone when it reaches 1."""
    with _bar(TextColumn("reading"), BarColumn(), TimeElapsedColumn()) as bar:
        task = bar.add_task("", total=1.0)

        def show(share: float) -> None:
            bar.update(task, completed=share)
            if share >= 1:
                bar.stop()

        yield show


@contextmanager
def shares() -> Iterator[Callable[[str, float], object]]:
    """The shares that are done of several stages, a bar for each stage from its first step on.

    Yields the function that sets one, with the name of the stage.
    """
    with _bar(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn()) as bar:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, share: float) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=1.0)
            bar.update(tasks[stage], completed=share)

        yield show


@contextmanager
def stages() -> Iterator[Callable[[str, int], object]]:
    """Counts of several kinds, a line for each kind from its first step on.

    Yields the function that advances one, with what is counted, such as "tokens", and how many more there are.
    """
    with _bar(SpinnerColumn(), TextColumn("{task.completed:,.0f} {task.description}"), TimeElapsedColumn()) as bar:
        tasks: dict[str, TaskID] = {}

        def advance(kind: str, steps: int) -> None:
            if kind not in tasks:
                tasks[kind] = bar.add_task(kind, total=None)
            bar.advance(tasks[kind], steps)

        yield advance


@contextmanager
def training(steps: int) -> Iterator[Callable[[int, float, float, int], object]]:
    """The steps of a training run, with loss, held-out accuracy, tokens per second and the time left.

    Yields the function to call after each step with its number, its loss, the last accuracy, and the tokens that this
    process has trained on.
    """
    start = time.perf_counter()
    figures = "loss {task.fields[loss]:.2f}, held out {task.fields[accuracy]:.1%}, {task.fields[speed]:,.0f} tokens/s"
    with _bar(MofNCompleteColumn(), BarColumn(), TextColumn(figures), TimeRemainingColumn()) as bar:
        task = bar.add_task("", total=steps, loss=0.0, accuracy=0.0, speed=0.0)

        def show(step: int, loss: float, accuracy: float, tokens: int) -> None:
            speed = tokens / (time.perf_counter() - start)
            bar.update(task, completed=step, loss=loss, accuracy=accuracy, speed=speed)

        yield show


@contextmanager
def embedding() -> Iterator[Callable[[int, int, float | None], object]]:
    """The texts of a corpus as they are embedded, with texts and tokens per second and the time left."""
    throughput = Throughput()
    with _bar(BarColumn(), TextColumn("{task.fields[status]}"), TimeElapsedColumn()) as bar:
        task = bar.add_task("", total=None, status="opening the model")

        def show(texts: int, tokens: int, share: float | None) -> None:
            status = throughput.add(texts, tokens, share, time.perf_counter())
            bar.update(task, total=None if share is None else 1, completed=share or 0, status=status)

        yield show


def _bar(*columns: ProgressColumn) -> Progress:
    console = Console(file=sys.stderr)  # this stream, also while another takes its place
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


class Throughput:
    """Texts and tokens so far, their rates and the time left, in one line. Work of an earlier run does not count.

    >>> throughput = Throughput()
    >>> throughput.add(0, 0, 0.5, now=10)                   # an earlier run did one half
    '0 texts'
    >>> throughput.add(100, 2000, 0.6, now=20)
    '100 texts, 10/s, 200 tokens/s, 0:00:40 left'
    """

    def __init__(self) -> None:
        self.texts = self.tokens = 0
        self.start: float | None = None
        self.share_at_start = 0.0

    def add(self, texts: int, tokens: int, share: float | None, now: float) -> str:
        """Count more texts and tokens and return the line; share: of all files, where that is known."""
        if self.start is None or (not texts and not self.texts):
            self.start, self.share_at_start = now, share or 0.0
        self.texts += texts
        self.tokens += tokens
        seconds = now - self.start
        line = counted(self.texts, "text")
        if seconds > 0:
            line += f", {self.texts / seconds:,.0f}/s, {self.tokens / seconds:,.0f} tokens/s"
        if seconds > 1 and share is not None and share > self.share_at_start:
            left = round(seconds * (1 - share) / (share - self.share_at_start))
            line += f", {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
        return line
