"""Two reports side by side, in the terminal and as a picture; the ratios of one report as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from regard._internal import plotting
from regard._internal.plotting import INK
from regard._internal.plurals import counted
from regard._internal.tables import new_table
from regard.bench import machines
from regard.bench.attention import Report
from regard.bench.compare import Comparison, Pair, means
from regard.bench.embedders import EMBEDDERS
from regard.bench.peers import PEERS
from regard.bench.table import ratio_cell

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMES = {name: shown for name, (shown, _) in PEERS.items()}
_NAMES |= {"forward": "forward", "one thread": "one thread", "regard": "regard float32"}
A, B = "#7a7a7a", "#440154"  # of the two reports


def table(comparison: Comparison) -> RenderableType:
    """The machines, each row in both reports, and what only one of them has."""
    reports = comparison.a.report, comparison.b.report
    lines: list[RenderableType] = [Text(f"A: {comparison.a.path}\nB: {comparison.b.path}"), Text()]
    lines.append(machines.table(reports, ("A", "B")))
    for base, pairs in comparison.by_base.items():
        lines += [Text(), _rows(base, pairs)]
    if comparison.pairs:
        lines += [Text(), Text(_legend(comparison))]
    for letter, names in (("A", comparison.only_a), ("B", comparison.only_b)):
        if names:
            lines += [Text(), Text(f"Only in {letter}, {counted(len(names), 'row')}: {', '.join(names)}.", "dim")]
    if not comparison.pairs and comparison.a.benchmark != "machine":
        lines += [Text(), Text("No row is in both.", "dim")]
    return Group(*lines)


def _legend(comparison: Comparison) -> str:
    who = "the row" if comparison.a.benchmark == "embed" else "regard"
    return f"faster: the time of {who} in A divided by that in B. % of peak: of the machine on which it was measured."


def _rows(base: str | None, pairs: Sequence[Pair]) -> Table:
    name = _NAMES.get(base, base) if base else ""
    shown = new_table("", f"× {name} A" if base else "", "B", "change", "% of peak A", "B", "faster")
    for pair in pairs:
        ratios: tuple[Text | str, ...] = "–", "–", "–"
        if pair.ratios:
            before, after = pair.ratios
            ratios = ratio_cell(before), ratio_cell(after), f"{after / before - 1:+.0%}"
        shares = [f"{share:.0%}" for share in pair.shares] if pair.shares else ["–", "–"]
        shown.add_row(_label(pair.name), *ratios, *shares, f"{pair.faster:.2f} ×")
    if base and len(pairs) > 1:
        mean = means(pairs)
        change = f"{mean.ratios[1] / mean.ratios[0] - 1:+.0%}"
        numbers = (*(f"{ratio:.2f}" for ratio in mean.ratios), change, "", "", f"{mean.faster:.2f} ×")
        shown.add_row("geometric mean", *(Text(number, "bold") for number in numbers))
    return shown


def _label(name: str) -> str:
    """The name of a row, or of an embedder, as other tables show it."""
    return " ".join(EMBEDDERS[name][:2]) if name in EMBEDDERS else name


def picture(comparison: Comparison) -> Figure:
    """Each row's ratio, in A and in B, joined by a line. Raises ValueError if no row has one."""
    rows = [(_label(pair.name), pair.ratios) for pair in comparison.pairs if pair.ratios]
    bases = [base for base in comparison.by_base if base]
    if not rows:
        raise ValueError("There is no picture of these reports: no row with a ratio is in both.")
    label = f"× {', '.join(_NAMES.get(base, base) for base in bases)}"
    reports = ("A", comparison.a.report), ("B", comparison.b.report)
    names = [f"{letter}: {machines.line(report['machine'])}" for letter, report in reports]
    return _dots([(name, tuple(ratios)) for name, ratios in rows], label, names)


def ratios(report: Report) -> Figure:
    """The ratio to SDPA of each row of a report, sorted. Raises ValueError if none was measured beside SDPA."""
    rows = [(r.row.name, (r.ratio("sdpa"),)) for r in report.results if "sdpa" in r.seconds]
    if not rows:
        raise ValueError("There is no picture of these rows: none was measured beside SDPA.")
    return _dots(sorted(rows, key=lambda row: -row[1][0]), "× SDPA", [machines.line(report.machine)])


def _dots(rows: Sequence[tuple[str, tuple[float, ...]]], label: str, names: Sequence[str]) -> Figure:
    """A line of dots for each row, on a logarithmic scale; the first report's open, the last one's filled."""
    figure = plotting.new_figure(8.5, 1.5 + 0.19 * len(rows))
    axes = figure.subplots()
    plotting.style_axes(axes)
    axes.grid(False)
    axes.grid(axis="x", color=plotting.PALE, linewidth=0.7)
    at = range(len(rows))
    if len(names) == 2:
        for n, (_, values) in enumerate(rows):
            axes.plot(values, (n, n), color=plotting.PALE, linewidth=1.5, zorder=1)
        before = [values[0] for _, values in rows]
        axes.scatter(before, at, 22, facecolors="white", edgecolors=A, label=names[0], zorder=2)
    axes.scatter([values[-1] for _, values in rows], at, 22, color=B, label=names[-1], zorder=3)
    axes.set_yticks(at, [name for name, _ in rows], fontsize=7, color=INK)
    axes.invert_yaxis()
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xscale("log")
    every = [value for _, values in rows for value in values]
    ticks = [
        tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200) if min(every) / 2 <= tick <= max(every) * 2
    ]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=8, color=INK)
    axes.minorticks_off()
    axes.axvline(1, color=INK, linewidth=0.9)
    axes.set_xlabel(label, fontsize=9, color=INK)
    figure.legend(loc="outside upper left", frameon=False, fontsize=8, labelcolor=INK)
    return figure
