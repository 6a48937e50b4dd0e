"""The benchmark in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from regard._internal.measure import machine_line
from regard._internal.plurals import counted
from regard._internal.tables import new_table
from regard.bench.attention import Report, Result, means, sections
from regard.bench.grid import WEIGHTS_COST
from regard.bench.peers import PEERS


def table(report: Report) -> RenderableType:
    """The machine and its peaks, regard and its peers, the cost of the weights, and why peers were not measured."""
    beside = sections(report.results)
    costs = [result for result in report.results if result.row.kind in WEIGHTS_COST]
    lines: list[RenderableType] = [_machine(report)]
    if beside:
        lines += [Text(), _beside_peers(report, beside)]
    if costs:
        lines += [Text(), _weights_cost(costs)]
    if reasons := _unavailable(report.results):
        lines += [Text(), *reasons]
    return Group(*lines)


def _machine(report: Report) -> Text:
    peaks = report.peaks
    speeds = [f"{_giga(speed)} GFLOP/s in {name}" for name, speed in peaks.flops.items()]
    backends = " and ".join(dict.fromkeys(result.backend for result in report.results))
    return Text(
        f"{machine_line(report.machine)}.\n"
        f"Peaks: {', '.join(speeds)}; {_giga(peaks.bytes)} GB/s from memory (measured by {peaks.source}).\n"
        f"Backend of regard: {backends}. Medians of {counted(report.rounds, 'round')}, interleaved. "
        "× SDPA: the time of SDPA divided by that of regard."
    )


def _giga(speed: float) -> str:
    return f"{speed / 1e9:.0f}" if speed >= 1e10 else f"{speed / 1e9:.2g}"


def _beside_peers(report: Report, by_section: dict[str, list[Result]]) -> Table:
    measured = {name for results in by_section.values() for result in results for name in result.seconds}
    peers = [name for name in PEERS if name in measured]
    table = new_table("", "regard", "% of peak", *(f"× {PEERS[name][0]}" for name in peers))
    for title, results in by_section.items():
        table.add_row(Text(title, "bold cyan"))
        show_type = len({result.row.dtype for result in results}) > 1 or results[0].row.kind != "attention"
        for result in results:
            unit = "GFLOP/s" if result.row.bound == "flops" else "GB/s"
            table.add_row(
                f"  {result.row.shape}" + (f" {result.row.type}" if show_type else ""),
                f"{_giga(result.speed())} {unit}",
                f"{result.share(report.peaks):.0%}",
                *(ratio_cell(result.ratio(name)) if name in result.seconds else Text("–", "dim") for name in peers),
            )
        if mean := means(results):
            cells = (Text(f"{mean[name]:.2f}", "bold") if name in mean else "" for name in peers)
            table.add_row("  geometric mean", "", "", *cells)
    return table


def ratio_cell(ratio: float) -> Text:
    """A ratio to a peer, in another colour where regard is slower."""
    return Text(f"{ratio:.2f}", "" if ratio >= 1 else "yellow")


def _weights_cost(results: Sequence[Result]) -> Table:
    table = new_table("Cost of the weights", "", " ", left=(" ",))
    for result in results:
        row = result.row
        causal = " causal" if row.causal else ""
        name = f"  {WEIGHTS_COST[row.kind]}: {row.shape}{causal} {row.type}"
        if result.bytes is not None:
            cells = f"{result.bytes / 1e6:.0f} MB", f"above the idle process, in {result.seconds['regard']:.1f} s"
        elif "forward" in result.seconds:
            cells = f"{1 / result.ratio('forward'):.2f} ×", "the time of the forward pass"
        elif "one thread" in result.seconds:
            cells = f"{result.ratio('one thread'):.2f} ×", "the time with all threads"
        else:
            cells = "–", ""
        table.add_row(name, *cells)
    return table


def _unavailable(results: Sequence[Result]) -> list[Text]:
    """Why each peer was not measured, and in how many rows."""
    rows: dict[tuple[str, str], int] = {}
    for result in results:
        for name, reason in result.unavailable.items():
            rows[name, reason] = rows.get((name, reason), 0) + 1
    lines = []
    for name in dict.fromkeys(name for name, _ in rows):
        reasons = [
            reason + ("" if count == len(results) else f" ({counted(count, 'row')})")
            for (peer, reason), count in rows.items()
            if peer == name
        ]
        lines.append(Text(f"Not measured: {PEERS[name][0] if name in PEERS else name}: {'; '.join(reasons)}.", "dim"))
    return lines
