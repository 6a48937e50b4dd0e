"""Which picture a report of attention has: each grid has its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from regard.bench import compare_view, roofline_picture
from regard.bench import picture as by_length
from regard.bench.attention import Report
from regard.bench.grid import Row
from regard.bench.roofline import LinearRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check(grid: str, rows: Sequence[Row | LinearRow], peers: Sequence[str]) -> None:
    """Raise ValueError if the picture would show none of the rows: call it before measuring."""
    if grid == "roofline":
        roofline_picture.check(rows)
    elif grid == "wide" and "sdpa" not in peers:
        raise ValueError("There is no picture of these rows: it shows those beside sdpa.")
    elif grid == "default":
        by_length.check(rows)


def picture(report: Report) -> Figure:
    """The picture of a report."""
    draw = {"wide": compare_view.ratios, "roofline": roofline_picture.picture}.get(report.grid, by_length.picture)
    return draw(report)
