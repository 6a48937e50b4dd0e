"""The roofline as a picture: the share of its peak that each instruction set reaches, a row of panels for each type."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from regard._internal import plotting
from regard._internal.plotting import INK
from regard.bench import machines
from regard.bench.attention import Report, Result
from regard.bench.grid import Row
from regard.bench.machines import giga
from regard.bench.roofline import LinearRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Told apart by shape and by lightness too, for a print without colours and for eyes that see few.
_STYLES = (("#440154", "o"), ("#d1495b", "s"), ("#21918c", "^"), ("#e0a030", "D"), ("#7a7a7a", "v"), ("#3b528b", "P"))

_SEEN: Literal["-"] = "-"
_CAUSAL: Literal["--"] = "--"


def check(rows: Iterable[Row | LinearRow]) -> None:
    """Raise ValueError if the picture would show none of the rows."""
    if not any(row.kind in ("attention", "ragged", "linear") for row in rows):
        raise ValueError("There is no picture of these rows.")


def picture(report: Report) -> Figure:
    """A row of panels for each type: attention over N, short segments, linear layers."""
    check(result.row for result in report.results)
    types = list(dict.fromkeys(result.row.type for result in report.results))
    isas = list(dict.fromkeys(result.row.isa for result in report.results))
    figure = plotting.new_figure(11.5, 1.6 + 2.9 * len(types))
    grid = figure.subplots(len(types), 3, squeeze=False, sharey=True, width_ratios=(2.1, 1.2, 1.3))
    highest = max(1.0, *(report.share(result) for result in report.results))
    for line, name in zip(grid, types, strict=True):
        of_type = [result for result in report.results if result.row.type == name]
        for axes, draw in zip(line, (_attention, _segments, _layers), strict=True):
            plotting.style_axes(axes)
            draw(axes, report, of_type, isas)
            axes.axhline(1, color=INK, linewidth=0.8)
        line[0].set_ylabel(f"{name}: % of peak", fontsize=9, color=INK)
        line[0].set_ylim(0, 1.04 * highest)
        line[0].set_yticks((ticks := (0, 0.2, 0.4, 0.6, 0.8, 1)), [f"{tick:.0%}" for tick in ticks], color=INK)
    for axes, title in zip(grid[0], ("Attention, D 64", "Short segments, D 32, H 12", "Linear layers"), strict=True):
        axes.set_title(title, fontsize=10, color=INK, loc="left")
    for axes, label in zip(grid[-1], ("N, tokens", "N of each segment", "2,048 rows"), strict=True):
        axes.set_xlabel(label, fontsize=9, color=INK)
    figure.suptitle("Roofline: % of the measured peak of each instruction set", fontsize=12, color=INK)
    figure.supxlabel(machines.line(report.machine), fontsize=8, color=INK, parse_math=False)
    _legend(figure, report, types, isas)
    return figure


def _legend(figure: Figure, report: Report, types: Sequence[str], isas: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    handles, labels = [], []
    for isa in isas:
        peaks = report.peaks_by_isa.get(isa, report.peaks).flops
        colour, marker = _STYLES[isas.index(isa) % len(_STYLES)]
        handles.append(Line2D([], [], color=colour, marker=marker, markersize=5))
        labels.append("\n".join([isa, *(f"  {name}: {giga(peaks.get(name), 'FLOP/s')}" for name in types)]))
    handles += [Line2D([], [], color=INK), Line2D([], [], color=INK, linestyle=_CAUSAL)]
    labels += ["every key seen", "causal"]
    figure.legend(
        handles,
        labels,
        loc="outside right upper",
        frameon=False,
        fontsize=8,
        labelcolor=INK,
        title="Peaks",
        title_fontsize=9,
    )


def _over_n(axes: Axes, report: Report, results: Sequence[Result], isas: Sequence[str]) -> None:
    """A line for each instruction set and mask, by the number of keys."""
    for style, isa in enumerate(isas):
        colour, marker = _STYLES[style % len(_STYLES)]
        for causal in (False, True):
            shown = [result for result in results if (result.row.isa, result.row.causal) == (isa, causal)]
            at = [result.row.size for result in shown]
            (line,) = axes.plot(at, [report.share(result) for result in shown], marker, linewidth=1.3, markersize=4.5)
            line.set_color(colour)
            line.set_linestyle(_CAUSAL if causal else _SEEN)
            line.set_markerfacecolor("white" if causal else colour)
    if sizes := sorted({result.row.size for result in results}):
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes], color=INK)
        axes.minorticks_off()


def _attention(axes: Axes, report: Report, results: Sequence[Result], isas: Sequence[str]) -> None:
    _over_n(axes, report, [result for result in results if result.row.kind == "attention"], isas)


def _segments(axes: Axes, report: Report, results: Sequence[Result], isas: Sequence[str]) -> None:
    _over_n(axes, report, [result for result in results if result.row.kind == "ragged"], isas)


def _layers(axes: Axes, report: Report, results: Sequence[Result], isas: Sequence[str]) -> None:
    layers = [result for result in results if isinstance(result.row, LinearRow)]
    names = list(dict.fromkeys(_layer(result) for result in layers))
    for style, isa in enumerate(isas):
        shown = [result for result in layers if result.row.isa == isa]
        colour, marker = _STYLES[style % len(_STYLES)]
        aside = 0.12 * (style - (len(isas) - 1) / 2)
        at = [names.index(_layer(result)) + aside for result in shown]
        axes.plot(at, [report.share(result) for result in shown], marker, color=colour, markersize=5.5)
    axes.set_xticks(range(len(names)), names, color=INK)
    axes.set_xlim(-0.6, max(1, len(names)) - 0.4)


def _layer(result: Result) -> str:
    return result.row.shape.partition("rows ")[2].replace(" → ", "\n→ ")
