"""The benchmark in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from regard._internal.measure import machine_line
from regard._internal.plurals import counted
from regard._internal.tables import new_table
from regard.bench.attention import SECTIONS, Report, Result, means, sections, summary
from regard.bench.grid import WEIGHTS_COST
from regard.bench.machines import giga
from regard.bench.peaks import Peaks
from regard.bench.peers import PEERS

_FROM_CACHES = "Where GB/s are above 100 % of the peak, the keys and values lie in a cache."


def table(report: Report) -> RenderableType:
    """The machine and its peaks, regard and its peers, the cost of the weights, and why peers were not measured."""
    beside = sections(report.results)
    costs = [result for result in report.results if result.row.kind in WEIGHTS_COST]
    lines: list[RenderableType] = [_machine(report)]
    if beside:
        lines += [Text(), _beside_peers(report, beside)]
    if report.grid == "wide":
        lines += [Text(), *_totals(report)]
    if costs:
        lines += [Text(), _weights_cost(costs)]
    if reasons := _unavailable(report.results):
        lines += [Text(), *reasons]
    return Group(*lines)


def _machine(report: Report) -> Text:
    peaks = report.peaks
    backends = " and ".join(dict.fromkeys(result.backend for result in report.results))
    of_memory = [result for result in report.results if result.row.kind in SECTIONS and result.row.bound == "bytes"]
    others = "".join(f"Peaks of {isa}: {_speeds(by_isa)}.\n" for isa, by_isa in report.peaks_by_isa.items())
    return Text(
        f"{machine_line(report.machine)}.\n"
        f"Peaks: {_speeds(peaks)}; {giga(peaks.bytes, 'B/s')} from memory (measured by {peaks.source}).\n{others}"
        f"Backend of regard: {backends}. Medians of {counted(report.rounds, 'round')}, interleaved. "
        "× SDPA: the time of SDPA divided by that of regard."
        + (f"\n{_FROM_CACHES}" if any(report.share(r) > 1 for r in of_memory) else "")
    )


def _speeds(peaks: Peaks) -> str:
    return ", ".join(f"{giga(speed, 'FLOP/s')} in {name}" for name, speed in peaks.flops.items())


def _totals(report: Report) -> list[Text]:
    """How regard fares against each peer over all rows."""
    return [
        Text(
            f"Beside {PEERS[name][0]}, {counted(total.rows, 'row')}: {total.slower} below 1.00 ×; the lowest "
            f"{total.lowest:.2f} × ({total.lowest_row}); median {total.median:.2f} ×; geometric mean "
            f"{total.geometric_mean:.2f} ×.",
            "bold",
        )
        for name, total in summary(report.results).items()
    ]


def _beside_peers(report: Report, by_section: dict[str, list[Result]]) -> Table:
    measured = {name for results in by_section.values() for result in results for name in result.seconds}
    peers = [name for name in PEERS if name in measured]
    table = new_table("", "regard", "% of peak", *(f"× {PEERS[name][0]}" for name in peers))
    for title, results in by_section.items():
        table.add_row(Text(title, "bold cyan"))
        show_type = len({result.row.dtype for result in results}) > 1 or results[0].row.kind != "attention"
        for result in results:
            row = result.row
            words = row.shape, "causal" if show_type and row.causal else "", row.type if show_type else "", row.isa
            table.add_row(
                f"  {' '.join(filter(None, words))}",
                giga(result.speed(), "FLOP/s" if row.bound == "flops" else "B/s"),
                f"{report.share(result):.0%}",
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
