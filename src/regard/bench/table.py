"""The benchmark in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from regard._internal.measure import machine_line
from regard.bench.attention import Report, Result, means, sections
from regard.bench.grid import LOOKING
from regard.bench.peers import PEERS


def table(report: Report) -> RenderableType:
    """The machine, its ceilings, regard beside its peers, what looking costs, and who did not take part."""
    beside = sections(report.results)
    looking = [result for result in report.results if result.row.kind in LOOKING]
    parts: list[RenderableType] = [_machine(report)]
    if beside:
        parts += [Text(), _beside_peers(report, beside)]
    if looking:
        parts += [Text(), _looking(looking)]
    if refusals := _refusals(report.results):
        parts += [Text(), *refusals]
    return Group(*parts)


def _machine(report: Report) -> Text:
    ceilings = report.ceilings
    speeds = [f"{_giga(speed)} GF/s in {name}" for name, speed in ceilings.flops.items()]
    backends = " and ".join(dict.fromkeys(result.backend for result in report.results))
    return Text(
        f"{machine_line(report.machine)}.\n"
        f"At most {', '.join(speeds)}; {_giga(ceilings.bytes)} GB/s from memory (by {ceilings.source}).\n"
        f"regard's backend: {backends}. Medians of {report.rounds}, in turn. × SDPA: regard is so many times as fast."
    )


def _giga(speed: float) -> str:
    return f"{speed / 1e9:.0f}" if speed >= 1e10 else f"{speed / 1e9:.2g}"


def _beside_peers(report: Report, parts: dict[str, list[Result]]) -> Table:
    there = [name for name in PEERS if any(name in result.seconds for results in parts.values() for result in results)]
    drawn = _columns("", "regard", "of ceiling", *(f"× {PEERS[name][0]}" for name in there))
    for title, results in parts.items():
        drawn.add_row(Text(title, "bold cyan"))
        types = len({result.row.dtype for result in results}) > 1 or results[0].row.kind != "attention"
        for result in results:
            unit = "GF/s" if result.row.bound == "flops" else "GB/s"
            drawn.add_row(
                f"  {result.row.shape}" + (f" {result.row.type}" if types else ""),
                f"{_giga(result.speed())} {unit}",
                f"{result.share(report.ceilings):.0%}",
                *(_times(result.ratio(name)) if name in result.seconds else Text("–", "dim") for name in there),
            )
        if mean := means(results):
            cells = (Text(f"{mean[name]:.2f}", "bold") if name in mean else "" for name in there)
            drawn.add_row("  geometric mean", "", "", *cells)
    return drawn


def _times(ratio: float) -> Text:
    return Text(f"{ratio:.2f}", "" if ratio >= 1 else "yellow")


def _looking(results: Sequence[Result]) -> Table:
    drawn = _columns("What looking costs", "", "")
    drawn.columns[2].justify = "left"
    for result in results:
        row = result.row
        causal = " causal" if row.causal else ""
        name = f"  {LOOKING[row.kind]}: {row.shape}{causal} {row.type}"
        if result.bytes is not None:
            cells = f"{result.bytes / 1e6:.0f} MB", f"above the idle process, in {result.seconds['regard']:.1f} s"
        elif "forward" in result.seconds:
            cells = f"{1 / result.ratio('forward'):.2f} ×", "the time of the forward pass"
        elif "one thread" in result.seconds:
            cells = f"{result.ratio('one thread'):.2f} ×", "the time of all"
        else:
            cells = "–", ""
        drawn.add_row(name, *cells)
    return drawn


def _columns(first: str, *others: str) -> Table:
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    drawn.add_column(first)
    for name in others:
        drawn.add_column(name, justify="right", no_wrap=True)
    return drawn


def _refusals(results: Sequence[Result]) -> list[Text]:
    """Each peer's reasons for not taking part, and in how many rows."""
    rows: dict[tuple[str, str], int] = {}
    for result in results:
        for name, reason in result.refused.items():
            rows[name, reason] = rows.get((name, reason), 0) + 1
    lines = []
    for name in dict.fromkeys(name for name, _ in rows):
        reasons = [
            reason + ("" if count == len(results) else f" ({count} row{'s' * (count > 1)})")
            for (peer, reason), count in rows.items()
            if peer == name
        ]
        lines.append(Text(f"Without {PEERS[name][0] if name in PEERS else name}: {'; '.join(reasons)}.", "dim"))
    return lines
