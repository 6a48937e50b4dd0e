"""What a benchmark says of its machine: the processor, its instruction sets, its peaks; and the table by machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.console import RenderableType
from rich.text import Text

from regard._internal import measure
from regard._internal.plurals import counted
from regard._internal.tables import new_table
from regard.backends import cpu
from regard.bench.peaks import Peaks, measure_peaks


def machine() -> dict[str, Any]:
    """`regard._internal.measure.machine`, with the kernel's instruction sets, the best first, and the one in use."""
    sets = cpu.instruction_sets() if cpu.available() else []
    return measure.machine() | {
        "instruction_sets": sets,
        "instruction_set": cpu.instruction_set() if sets else "none: there is no kernel",
    }


@contextmanager
def forced(isa: str) -> Iterator[None]:
    """Within this context the kernel uses an instruction set, as REGARD_ISA says; "" changes nothing."""
    before = os.environ.get("REGARD_ISA")
    if isa:
        os.environ["REGARD_ISA"] = isa
    try:
        yield
    finally:
        if isa and before is None:
            del os.environ["REGARD_ISA"]
        elif isa and before is not None:
            os.environ["REGARD_ISA"] = before


@dataclass
class Machine:
    """The report of `regard bench machine`."""

    peaks: Peaks = field(default_factory=lambda: measure_peaks((torch.float32,)))
    machine: dict[str, Any] = field(default_factory=machine)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON can hold it."""
        return {"benchmark": "machine", "machine": self.machine, "peaks": self.peaks._asdict()}


def rows(reports: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """What is known of the machines of some reports, as `to_dict` gives them: a row of texts by what it says."""
    facts = [report["machine"] for report in reports]
    peaks = [report["peaks"] for report in reports]
    types = dict.fromkeys(name for peak in peaks for name in peak["flops"])
    shown: dict[str, list[str]] = {
        "processor": [str(fact.get("processor", "–")) for fact in facts],
        "cores, threads used": [_threads(fact) for fact in facts],
        "instruction sets": [", ".join(map(str, fact.get("instruction_sets", ()))) or "–" for fact in facts],
        "in use": [str(fact.get("instruction_set") or _in_use(peak)) for fact, peak in zip(facts, peaks, strict=True)],
    }
    for name in types:
        shown[f"peak, {name}"] = [giga(peak["flops"].get(name), "FLOP/s") for peak in peaks]
    shown["from memory"] = [giga(peak["bytes"], "B/s") for peak in peaks]
    for name in ("torch", "regard", "python"):
        shown[name] = [str(fact.get(name, "–")) for fact in facts]
    return shown


def _threads(fact: Mapping[str, Any]) -> str:
    return f"{fact.get('cores', '?')}, {fact.get('threads', '?')}"


def _in_use(peak: Mapping[str, Any]) -> str:
    """The instruction set of a report that does not name it: that which measured the peaks."""
    return str(peak.get("source", "–")).removeprefix("regard's kernel, ")


def giga(speed: float | None, unit: str) -> str:
    """A speed in billions; "–" for none.

    >>> giga(2.5e11, "FLOP/s"), giga(3.4e9, "B/s"), giga(None, "B/s")
    ('250 GFLOP/s', '3.4 GB/s', '–')
    """
    if speed is None:
        return "–"
    return f"{speed / 1e9:.0f} G{unit}" if speed >= 1e10 else f"{speed / 1e9:.2g} G{unit}"


def table(reports: Sequence[Mapping[str, Any]], names: Sequence[str]) -> RenderableType:
    """The machines of some reports, a column each."""
    shown = new_table("Machine", *names, left=tuple(names), no_wrap=False)
    for label, values in rows(reports).items():
        shown.add_row(label, *(Text(value) for value in values))
    return shown


def line(facts: Mapping[str, Any]) -> str:
    """A machine for the caption of a picture."""
    return f"{facts.get('processor', 'unknown processor')}, {counted(int(facts.get('threads', 1)), 'thread')}"
