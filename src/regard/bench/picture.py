"""The benchmark as a picture: the share of the peak by N, a line per peer, a panel per dtype and mask."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from regard._internal import plotting
from regard._internal.plotting import INK
from regard._internal.plurals import counted
from regard.bench.attention import Report, Result
from regard.bench.grid import Row
from regard.bench.peers import PEERS
from regard.bench.roofline import LinearRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMES = {"regard": "regard"} | {name: shown for name, (shown, _) in PEERS.items()}
_COLOURS = dict(zip(_NAMES, ("#440154", "#21918c", "#e08214", "#5ec962", "#3b528b", "#a6a6a6"), strict=True))


def check(rows: Iterable[Row | LinearRow]) -> None:
    """Raise ValueError if the picture would show none of the rows."""
    if not any(_is_shown(row) for row in rows):
        raise ValueError("There is no picture of these rows: it shows those of 'attention' with D 64.")


def _is_shown(row: Row | LinearRow) -> bool:
    return isinstance(row, Row) and row.kind == "attention" and row.dim == 64


def picture(report: Report) -> Figure:
    """The rows of D 64 that were measured: a row of panels without a mask, and one with a causal mask."""
    check(result.row for result in report.results)
    results = [result for result in report.results if _is_shown(result.row)]
    types = list(dict.fromkeys(result.row.type for result in results))
    masks = sorted({result.row.causal for result in results})
    figure = plotting.new_figure(1.2 + 3.4 * len(types), 1.5 + 2.7 * len(masks))
    grid = figure.subplots(len(masks), len(types), squeeze=False, sharex=True, sharey=True)
    for line, causal in zip(grid, masks, strict=True):
        for axes, name in zip(line, types, strict=True):
            in_panel = [result for result in results if (result.row.type, result.row.causal) == (name, causal)]
            _panel(axes, report, in_panel)
            axes.set_title(name + (", causal" if causal else ""), fontsize=10, color=INK)
        line[0].set_ylabel("% of peak", fontsize=9, color=INK)
    # A peer may use instructions that the kernel's peak does not know. All panels share the limit.
    shares = [result.share(report.peaks, name) for result in results for name in result.seconds if name in _NAMES]
    grid[0][0].set_ylim(0, max(1, *shares))
    for axes in grid[-1]:
        axes.set_xlabel("N", fontsize=9, color=INK)
    figure.suptitle("Attention: % of the machine's peak", fontsize=12, color=INK)
    peaks = ", ".join(f"{speed / 1e9:.0f} GFLOP/s in {name}" for name, speed in report.peaks.flops.items())
    machine = f"{report.machine['processor']}, {counted(report.machine['threads'], 'thread')}; peaks: {peaks}"
    figure.supxlabel(machine, fontsize=8, color=INK, parse_math=False)
    lines = {line.get_label(): line for axes in grid.flat for line in axes.get_lines()}
    shown = [name for name in _NAMES.values() if name in lines]
    figure.legend(
        [lines[name] for name in shown],
        shown,
        loc="outside right upper",
        frameon=False,
        fontsize=9,
        labelcolor=INK,
    )
    return figure


def _panel(axes: Axes, report: Report, results: list[Result]) -> None:
    plotting.style_axes(axes)
    results = sorted(results, key=lambda result: result.row.size)
    for name, shown in reversed(_NAMES.items()):  # regard on top
        points = [(r.row.size, r.share(report.peaks, name)) for r in results if name in r.seconds]
        style: dict[str, Any] = {"color": _COLOURS[name], "linewidth": 1.3, "markersize": 3.5}
        if name == "regard":
            style |= {"linewidth": 2.4, "markersize": 5}
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", label=shown, clip_on=False, **style)
    axes.set_xscale("log", base=2)
    sizes = sorted({result.row.size for result in results})
    axes.set_xticks(sizes, [_short(size) for size in sizes], fontsize=8, color=INK)
    ticks = [0, 0.25, 0.5, 0.75, 1]
    axes.set_yticks(ticks, [f"{tick:.0%}" for tick in ticks], fontsize=8, color=INK)
    axes.minorticks_off()


def _short(size: int) -> str:
    return f"{size // 1024}k" if size % 1024 == 0 else str(size)
