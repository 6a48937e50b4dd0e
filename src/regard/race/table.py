"""The race in the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from regard._internal.measure import machine_line
from regard.race.report import Report
from regard.race.tasks import TASKS
from regard.race.training import NAMES


def table(report: Report) -> RenderableType:
    """The machine, time against length, accuracy, and what follows from it."""
    parts: list[RenderableType] = [Text(f"{machine_line(report.machine)}.")]
    if report.times.step:
        parts += [Text(), _times(report)]
    if report.learned:
        parts += [Text(), _accuracy(report)]
    return Group(*parts, Text(), *(Text(line) for line in report.conclusion()))


def _times(report: Report) -> Table:
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    columns = ("length", *(f"step, {name}" for name in NAMES), "ratio", *(f"token, {name}" for name in NAMES), "ratio")
    for name in columns:
        drawn.add_column(name, justify="right")
    for length, step in report.times.step.items():
        token = report.times.token.get(length)
        cells = [f"{length:,}", *(_milliseconds(step[name]) for name in NAMES)]
        cells.append(f"{report.times.ratio(report.times.step, length):.2f}")
        if token:
            cells += [_milliseconds(token[name]) for name in NAMES]
            cells.append(f"{report.times.ratio(report.times.token, length):.2f}")
        drawn.add_row(*cells)
    return drawn


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:,.0f} ms" if seconds >= 0.1 else f"{seconds * 1e3:.2f} ms"


def _accuracy(report: Report) -> Table:
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("task", "", "parameters", "training", "exact", "at the longest", "writes"):
        drawn.add_column(name, justify="left" if name in ("task", "", "writes") else "right")
    for name, each in report.learned.items():
        for who, learned in each.items():
            longest = max(learned.by_length)
            first = who == next(iter(each))
            between = " " if name == "numbers" else ""
            drawn.add_row(
                f"{name}: {''.join(TASKS[name].example)}" if first else "",
                NAMES[who],
                f"{learned.parameters:,}",
                f"{learned.seconds:.0f} s",
                f"{learned.accuracy:.1%}",
                f"{learned.by_length[longest][0]:.1%} ({longest})",
                between.join(learned.written),
            )
    return drawn
