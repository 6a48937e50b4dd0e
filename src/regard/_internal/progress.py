"""Bars that show how far long work has come: on stderr, where that is a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from regard._internal.plurals import counted


@contextmanager
def counting(what: str) -> Iterator[Callable[[int], object]]:
    """A bar on stderr, where that is a terminal: gives the function that moves it on."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = SpinnerColumn(), TextColumn("{task.completed:,.0f} " + what), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done: progress.advance(task, done)


@contextmanager
def training(steps: int) -> Iterator[Callable[[Any], object]]:
    """A bar on stderr, where that is a terminal, with the loss, tokens a second and the time left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console, start = Console(stderr=True), time.perf_counter()
    about = TextColumn(
        "loss {task.fields[loss]:.2f}, held out {task.fields[found]:.1%}, {task.fields[speed]:,.0f} tokens/s"
    )
    columns = MofNCompleteColumn(), BarColumn(), about, TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=steps, loss=0.0, found=0.0, speed=0.0)

        def show(progress: Any) -> None:
            speed = progress.tokens / (time.perf_counter() - start)
            bar.update(task, completed=progress.step, loss=progress.loss, found=progress.accuracy, speed=speed)

        yield show


@contextmanager
def embedding() -> Iterator[Callable[[int, int, float | None], object]]:
    """A bar on stderr, where that is a terminal, with texts and tokens a second, and the time left."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console, pace = Console(stderr=True), Pace()
    columns = BarColumn(), TextColumn("{task.fields[about]}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None, about="opening the model")

        def show(texts: int, tokens: int, share: float | None) -> None:
            about = pace.told(texts, tokens, share, time.perf_counter())
            bar.update(task, total=None if share is None else 1, completed=share or 0, about=about)

        yield show


class Pace:
    """Texts and tokens so far, their rates and the time left, in a line. What an earlier run did is not counted.

    >>> pace = Pace()
    >>> pace.told(0, 0, 0.5, now=10)                   # half was there
    '0 texts'
    >>> pace.told(100, 2000, 0.6, now=20)
    '100 texts, 10/s, 200 tokens/s, 0:00:40 left'
    """

    def __init__(self) -> None:
        self.texts = self.tokens = 0
        self.start: float | None = None
        self.first = 0.0  # the share that was there then

    def told(self, texts: int, tokens: int, share: float | None, now: float) -> str:
        """The line, after so many texts and tokens more; share: of all that is to be read, if that is known."""
        if self.start is None or (not texts and not self.texts):
            self.start, self.first = now, share or 0.0
        self.texts += texts
        self.tokens += tokens
        seconds = now - self.start
        said = counted(self.texts, "text")
        if seconds > 0:
            said += f", {self.texts / seconds:,.0f}/s, {self.tokens / seconds:,.0f} tokens/s"
        if seconds > 1 and share is not None and share > self.first:
            left = round(seconds * (1 - share) / (share - self.first))
            said += f", {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
        return said
