"""The race in the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from regard._internal.measure import machine_line
from regard._internal.tables import new_table
from regard.race.report import Report
from regard.race.tasks import TASKS
from regard.race.training import NAMES


def table(report: Report) -> RenderableType:
    """The machine, time by length, accuracy, and the conclusion."""
    lines: list[RenderableType] = [Text(f"{machine_line(report.machine)}.")]
    if report.times.step:
        lines += [Text(), _times(report)]
    if report.results:
        lines += [Text(), _accuracy(report)]
    return Group(*lines, Text(), *(Text(line) for line in report.conclusion()))


def _times(report: Report) -> Table:
    steps, tokens = ([f"{unit}, {name}" for name in NAMES.values()] for unit in ("step", "token"))
    table = new_table("length", *steps, "ratio", *tokens, "ratio", no_wrap=False)
    table.columns[0].justify = "right"
    for length, step in report.times.step.items():
        cells = [f"{length:,}", *(_milliseconds(step[name]) for name in NAMES)]
        cells.append(f"{report.times.ratio(report.times.step, length):.2f}")
        if token := report.times.token.get(length):
            cells += [_milliseconds(token[name]) for name in NAMES]
            cells.append(f"{report.times.ratio(report.times.token, length):.2f}")
        table.add_row(*cells)
    return table


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:,.0f} ms" if seconds >= 0.1 else f"{seconds * 1e3:.2f} ms"


def _accuracy(report: Report) -> Table:
    table = new_table(
        "task",
        "model",
        "parameters",
        "training",
        "exact",
        "at the longest",
        "writes",
        left=("model", "writes"),
        no_wrap=False,
    )
    for task, results in report.results.items():
        separator = " " if task == "numbers" else ""
        for kind, result in results.items():
            longest = max(result.by_length)
            is_first = kind == next(iter(results))
            table.add_row(
                f"{task}: {''.join(TASKS[task].example)}" if is_first else "",
                NAMES[kind],
                f"{result.parameters:,}",
                f"{result.seconds:.0f} s",
                f"{result.accuracy:.1%}",
                f"{result.by_length[longest][0]:.1%} ({longest})",
                separator.join(result.written),
            )
    return table
