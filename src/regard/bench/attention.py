"""The benchmark of attention: regard and its peers, interleaved, against the roofline peaks of the machine."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, NamedTuple

import torch
from torch import Tensor

import regard
from regard import backends
from regard._internal.measure import interleaved
from regard.backends import cpu
from regard.bench import memory
from regard.bench.grid import BESIDE_PEERS, Row, grid
from regard.bench.grid_wide import wide
from regard.bench.machines import forced, machine
from regard.bench.peaks import Peaks, measure_peaks
from regard.bench.peers import PEERS, Call, PeerUnavailableError, Problem, ours
from regard.bench.roofline import LinearRow, measure_linear, roofline
from regard.mask import Mask
from regard.scores import Scores

SECTIONS = BESIDE_PEERS | {"linear": "Linear layers"}
GRIDS: dict[str, Callable[[int], Sequence[Row | LinearRow]]] = {"default": grid, "wide": wide, "roofline": roofline}
# The largest relative error between two results that are the same: loose, since a wrong mask or scale is far off.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2}


@dataclass
class Result:
    """What was measured of a row: the seconds of "regard" and of what it is compared with.

    For a row of `WEIGHTS_COST` regard is compared with its own forward pass, or with one thread. unavailable: Why a
    peer was not measured. bytes: The memory that was used.
    """

    row: Row | LinearRow
    backend: str
    seconds: dict[str, float] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    bytes: int | None = None

    def ratio(self, name: str) -> float:
        """The time of a peer divided by that of regard."""
        return self.seconds[name] / self.seconds["regard"]

    def speed(self, name: str = "regard") -> float:
        """Floating-point operations or bytes per second."""
        work = self.row.flops if self.row.bound == "flops" else self.row.bytes
        return work / self.seconds[name]

    def share(self, peaks: Peaks, name: str = "regard") -> float:
        """The speed as a share of the peak."""
        peak = peaks.flops[self.row.type] if self.row.bound == "flops" else peaks.bytes
        return self.speed(name) / peak


@dataclass
class Report:
    """What was measured; `complete` unless it was stopped.

    peaks: Of the instruction set in use. peaks_by_isa: Of those that rows name.
    """

    peaks: Peaks
    planned: int
    rounds: int
    grid: str = "default"
    peaks_by_isa: dict[str, Peaks] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=machine)
    results: list[Result] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether all rows were measured."""
        return len(self.results) == self.planned

    def share(self, result: Result, name: str = "regard") -> float:
        """The speed of a result as a share of the peak of its instruction set."""
        return result.share(self.peaks_by_isa.get(result.row.isa, self.peaks), name)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON can hold it."""
        return {
            "benchmark": "attention",
            "grid": self.grid,
            "machine": self.machine | _versions(),
            "rounds": self.rounds,
            "peaks": self.peaks._asdict(),
            "peaks_by_isa": {isa: peaks._asdict() for isa, peaks in self.peaks_by_isa.items()},
            "complete": self.complete,
            "rows": [self._row(result) for result in self.results],
            "means": {name: ratios for name, section in sections(self.results).items() if (ratios := means(section))},
            "summary": {name: total._asdict() for name, total in summary(self.results).items()},
        }

    def _row(self, result: Result) -> dict[str, Any]:
        row = result.row
        entry: dict[str, Any] = {"name": row.name, "kind": row.kind, "type": row.type} | row.sizes
        entry |= {"backend": result.backend, "seconds": result.seconds, "unavailable": result.unavailable}
        entry["ratio"] = {name: result.ratio(name) for name in result.seconds if name != "regard"}
        if row.kind in SECTIONS:
            entry |= {"flops": row.flops, "bytes": row.bytes, "bound": row.bound}
            entry["share"] = {name: self.share(result, name) for name in result.seconds}
        if result.bytes is not None:
            entry["memory"] = result.bytes
        return entry


class Total(NamedTuple):
    """A peer beside regard over all rows: how many, in how many regard is slower, and its ratios."""

    rows: int
    slower: int
    lowest: float
    lowest_row: str
    median: float
    geometric_mean: float


def choose(quick: bool = False, only: str | None = None, name: str = "default") -> list[Row | LinearRow]:
    """The rows of a grid of `GRIDS`, at a quarter of their length if quick; `only` those whose name contains a text.

    Raises ValueError if there are none.
    """
    if name not in GRIDS:
        raise ValueError(f"grid: expected one of {', '.join(GRIDS)}. Got {name!r}.")
    rows = GRIDS[name](4 if quick else 1)
    if not rows:
        raise ValueError(f"grid: {name} needs regard's native kernel: {cpu.unavailable()}.")
    chosen = [row for row in rows if only is None or only.casefold() in row.name.casefold()]
    if not chosen:
        raise ValueError(
            f"There is no row with {only!r} in its name. The rows are {rows[0].name!r} to {rows[-1].name!r}."
        )
    return chosen


def peer_names(names: Sequence[str] | None = None) -> list[str]:
    """The names of peers, by default of all. Raises ValueError for an unknown name."""
    for name in names or ():
        if name not in PEERS:
            raise ValueError(f"peers: expected names among {', '.join(PEERS)}. Got {name!r}.")
    return list(PEERS if names is None else names)


def default_peers(name: str, quick: bool) -> list[str] | None:
    """The names of the peers of a grid where none are asked for; None for all."""
    return {"wide": ["sdpa"], "roofline": []}.get(name, ["sdpa"] if quick else None)


def measure(
    rows: Sequence[Row | LinearRow],
    peers: Sequence[str],
    rounds: int,
    at_least: float,
    advance: Callable[[int], object] = lambda rows: None,
    name: str = "default",
) -> Report:
    """Measure the peaks of the machine, then each row in a number of rounds, with samples of `at_least` some seconds.

    `name` is that of the grid. Ctrl-C ends it early, with a report that is not complete.
    """
    dtypes = dict.fromkeys(row.dtype for row in rows)
    report = Report(measure_peaks(dtypes), len(rows), rounds, name)
    with suppress(KeyboardInterrupt):
        for row in rows:
            with forced(row.isa), torch.inference_mode(not row.gradient):
                if row.isa and row.isa not in report.peaks_by_isa:
                    report.peaks_by_isa[row.isa] = measure_peaks(dtypes)
                report.results.append(_measured(row, peers, rounds, at_least))
            advance(1)
    return report


def _measured(row: Row | LinearRow, peers: Sequence[str], rounds: int, at_least: float) -> Result:
    if isinstance(row, LinearRow):
        return Result(row, f"cpu, {cpu.instruction_set()}", measure_linear(row, rounds, at_least))
    return _KINDS.get(row.kind, _beside_peers)(row, peers, rounds, at_least)


def sections(results: Iterable[Result]) -> dict[str, list[Result]]:
    """The results of the rows with peers, by the section of the table in which they are."""
    by_title: dict[str, list[Result]] = {}
    for result in results:
        row = result.row
        if row.kind == "attention":
            by_title.setdefault(f"{row.type}, causal" if row.causal else row.type, []).append(result)
        elif row.kind in SECTIONS:
            by_title.setdefault(SECTIONS[row.kind], []).append(result)
    return by_title


def means(results: Sequence[Result]) -> dict[str, float]:
    """The geometric mean of the ratios to each peer over the rows where it was measured; {} for rows of two dtypes."""
    if len(results) < 2 or len({result.row.dtype for result in results}) > 1:
        return {}
    return {name: total.geometric_mean for name, total in summary(results).items()}


def summary(results: Iterable[Result]) -> dict[str, Total]:
    """Each peer over all rows where it was measured."""
    by_peer: dict[str, Total] = {}
    results = list(results)
    for name in PEERS:
        ratios = {result.row.name: result.ratio(name) for result in results if name in result.seconds}
        if ratios:
            values, lowest = list(ratios.values()), min(ratios, key=ratios.__getitem__)
            slower = sum(ratio < 1 for ratio in values)
            middle, mean = statistics.median(values), statistics.geometric_mean(values)
            by_peer[name] = Total(len(values), slower, ratios[lowest], lowest, middle, mean)
    return by_peer


# The kinds of rows


def _beside_peers(row: Row, peers: Sequence[str], rounds: int, at_least: float) -> Result:
    problem = Problem(row)
    result = Result(row, _backend(row))
    runs = {"regard": ours(problem)}
    expected = runs["regard"]()
    for name in peers:
        try:
            call = PEERS[name][1](problem)
            _check(problem, call(), expected)
            runs[name] = call
        except PeerUnavailableError as reason:
            result.unavailable[name] = str(reason)
        except Exception as error:  # a peer that fails is not measured
            result.unavailable[name] = (str(error).strip() or type(error).__name__).splitlines()[0]
    del expected
    result.seconds = interleaved(runs, rounds, at_least)
    return result


def _check(problem: Problem, results: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Wrong answers are not timed: raises PeerUnavailableError."""
    for actual, right in zip(results, expected, strict=True):
        actual, right = problem.same_rows(actual), problem.same_rows(right)
        error = float((actual.double() - right.double()).norm() / right.double().norm())
        if not error <= TOLERANCE[problem.row.dtype]:
            raise PeerUnavailableError(f"its result differs from regard's by a relative error of {error:.1g}")


def _collected(row: Row, peers: Sequence[str], rounds: int, at_least: float) -> Result:
    problem = Problem(row)
    runs = {"regard": ours(problem, collect=("entropy", "max", "topk:8")), "forward": ours(problem)}
    _check(problem, runs["regard"](), runs["forward"]())
    return Result(row, _backend(row), interleaved(runs, rounds, at_least))


def _second_pass(row: Row, peers: Sequence[str], rounds: int, at_least: float) -> Result:
    problem = Problem(row)
    forward = ours(problem)
    weights = regard.attention(problem.query, problem.key, problem.value, causal=row.causal).weights
    cells, groups = min(256, row.keys), torch.arange(row.keys) // 20
    passes: dict[str, Callable[[], Tensor]] = {
        "received": weights.received,
        "pooled": lambda: weights.pool(cells, cells, "sum"),
        "grouped": lambda: weights.grouped(queries=groups, keys=groups),
    }
    run = passes[row.kind]
    expected = int(groups.max()) + 1 if row.kind == "grouped" else row.queries  # the sum of rows, or of their means
    total = run().double().sum((-2, -1)[row.kind == "received" :])
    if not torch.allclose(total, torch.full_like(total, expected), rtol=1e-3):
        raise RuntimeError(f"{row.name}: the weights of a head sum to {total.flatten()[0]:.6g} instead of {expected}.")
    return Result(row, _backend(row), interleaved({"regard": run, "forward": forward}, rounds, at_least))


def _threads(row: Row, peers: Sequence[str], rounds: int, at_least: float) -> Result:
    problem, threads = Problem(row), torch.get_num_threads()
    result = Result(row, _backend(row))
    if threads == 1:
        result.unavailable["one thread"] = "there is no more than one"
        return result
    call = ours(problem)

    def on(count: int) -> Call:
        def run() -> tuple[Tensor, ...]:
            torch.set_num_threads(count)
            return call()

        return run

    try:
        result.seconds = interleaved({"regard": on(threads), "one thread": on(1)}, rounds, at_least)
    finally:
        torch.set_num_threads(threads)
    return result


def _memory(row: Row, peers: Sequence[str], rounds: int, at_least: float) -> Result:
    result = Result(row, _backend(row))
    try:
        used = memory.measure(row.keys, row.dim)
    except subprocess.CalledProcessError as error:
        result.unavailable["memory"] = (error.stderr.strip().splitlines() or [str(error)])[-1]
        return result
    result.seconds, result.bytes = {"regard": used.seconds}, used.bytes
    return result


_KINDS: dict[str, Callable[[Row, Sequence[str], int, float], Result]] = {
    "collected": _collected,
    "received": _second_pass,
    "pooled": _second_pass,
    "grouped": _second_pass,
    "threads": _threads,
    "memory": _memory,
}


def _backend(row: Row) -> str:
    """The backend that regard chooses, with the instruction set if it is the native kernel."""
    tensor = torch.empty(1, 1, 1, row.dim, dtype=row.dtype)
    name = backends.choose(None, Scores(tensor, tensor, Mask(queries=1, keys=1), scale=1.0), tensor)
    return f"{name}, {cpu.instruction_set()}" if name == "cpu" else name


def _versions() -> dict[str, str]:
    """The versions of the peers that were imported, besides torch."""
    return {name: version(name) for name in ("jax", "onnxruntime") if name in sys.modules}
