"""What commands print: results on stdout, warnings and errors in one line each on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import RenderableType


def print_rich(render: Callable[[int], RenderableType]) -> None:
    """Print what `render` makes for the width of the terminal; for a file or a pipe, which have none, 120 columns."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 120
    console.print(render(console.width))


def print_json(value: object) -> None:
    """Print a value as JSON in one line, escaped to ASCII unless stdout is UTF-8."""
    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    print(json.dumps(value, ensure_ascii=ascii_only))


def warn(message: str | None) -> None:
    """Print a message as a line of stderr; None prints nothing."""
    if message:
        from regard.lens.words import printable

        print(f"regard: {printable(message)}", file=sys.stderr)


class FirstWarnings:
    """Prints the first warnings and counts all of them."""

    SHOWN = 20

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, message: str) -> None:
        self.count += 1
        if self.count <= self.SHOWN:
            warn(message)


def check_figures(paths: Sequence[Path] | None) -> None:
    """Raise ValueError, ImportError or OSError if a figure cannot be saved to one of the paths: call it first."""
    from regard._internal import plotting

    for path in paths or ():
        plotting.check_path(path)


def save_figures(paths: Sequence[Path] | None, numbers: Callable[[], object], draw: Callable[[], Figure]) -> None:
    """Save the numbers of a report as .json, its figure as .png or .svg."""
    from regard._internal import plotting

    for path in paths or ():
        plotting.save(path, numbers, draw)


def save_numbers(paths: Sequence[Path] | None, numbers: Callable[[], object]) -> None:
    """Save the numbers of a report of which there is no figure, as .json."""

    def no_figure() -> Figure:
        raise ValueError("There is no picture of this: save it as .json.")

    save_figures(paths, numbers, no_figure)
