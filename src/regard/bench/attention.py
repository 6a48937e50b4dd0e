"""The benchmark of attention: regard and its peers in turn, on the grid, against what the machine can do."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

import regard
from regard import backends
from regard._internal.measure import interleaved, machine
from regard.backends import cpu
from regard.bench import memory
from regard.bench.ceilings import Ceilings, ceilings
from regard.bench.grid import BESIDE_PEERS, Row, grid
from regard.bench.peers import PEERS, Call, Problem, Refused, ours
from regard.mask import Mask
from regard.scores import Scores

# The error, as a share of the numbers' size, up to which two results are the same: loose, for a mask that is wrong, or
# a scale, is off by much more.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2}


@dataclass
class Result:
    """What was measured of a row: seconds of "regard" and of whatever it is compared with, and who did not take part.

    For a row of `LOOKING` regard is compared with itself: the same forward pass without, or one thread.
    """

    row: Row
    backend: str
    seconds: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    bytes: int | None = None  # of memory

    def ratio(self, name: str) -> float:
        """How many times as long as regard it takes."""
        return self.seconds[name] / self.seconds["regard"]

    def speed(self, name: str = "regard") -> float:
        """Floating-point operations, or bytes, a second."""
        work = self.row.flops if self.row.bound == "flops" else self.row.bytes
        return work / self.seconds[name]

    def share(self, ceilings: Ceilings, name: str = "regard") -> float:
        """Of the ceiling."""
        ceiling = ceilings.flops[self.row.type] if self.row.bound == "flops" else ceilings.bytes
        return self.speed(name) / ceiling


@dataclass
class Report:
    """All that was measured: complete, or as far as it went."""

    ceilings: Ceilings
    planned: int
    rounds: int
    machine: dict[str, Any] = field(default_factory=machine)
    results: list[Result] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether it went to the end."""
        return len(self.results) == self.planned

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "machine": self.machine | _versions(),
            "rounds": self.rounds,
            "ceilings": self.ceilings._asdict(),
            "complete": self.complete,
            "rows": [self._row(result) for result in self.results],
            "means": {name: ratios for name, section in sections(self.results).items() if (ratios := means(section))},
        }

    def _row(self, result: Result) -> dict[str, Any]:
        row = result.row
        sizes = ("batch", "heads", "groups", "queries", "keys", "dim", "causal", "window", "lengths")
        found: dict[str, Any] = {"name": row.name, "kind": row.kind, "type": row.type}
        found |= {name: getattr(row, name) for name in sizes}
        found |= {"backend": result.backend, "seconds": result.seconds, "refused": result.refused}
        found["ratio"] = {name: result.ratio(name) for name in result.seconds if name != "regard"}
        if row.kind in BESIDE_PEERS:
            found |= {"flops": row.flops, "bytes": row.bytes, "bound": row.bound}
            found["share"] = {name: result.share(self.ceilings, name) for name in result.seconds}
        if result.bytes is not None:
            found["memory"] = result.bytes
        return found


def choose(quick: bool = False, only: str | None = None) -> list[Row]:
    """The rows of the grid, at a quarter of their length where it is to be quick, or those whose name has a text in it.

    Raises ValueError where none has.
    """
    rows = grid(4 if quick else 1)
    chosen = [row for row in rows if only is None or only.casefold() in row.name.casefold()]
    if not chosen:
        raise ValueError(f"No row has {only!r} in its name; one is {rows[0].name!r}, another {rows[-1].name!r}.")
    return chosen


def names_of_peers(names: Sequence[str] | None = None) -> list[str]:
    """Of all peers, or of some, checked. Raises ValueError for one that is not known."""
    for name in names or ():
        if name not in PEERS:
            raise ValueError(f"peers: expected some of {', '.join(PEERS)}. Got {name!r}.")
    return list(PEERS if names is None else names)


def measure(
    rows: Sequence[Row],
    peers: Sequence[str],
    rounds: int,
    at_least: float,
    advance: Callable[[int], object] = lambda rows: None,
) -> Report:
    """The ceilings first, then row by row, a sample of `at_least` so many seconds; Ctrl-C ends it before its time."""
    report = Report(ceilings(row.dtype for row in rows), len(rows), rounds)
    with suppress(KeyboardInterrupt):
        for row in rows:
            with torch.inference_mode(not row.gradient):
                report.results.append(_KINDS.get(row.kind, _beside_peers)(row, peers, rounds, at_least))
            advance(1)
    return report


def sections(results: Iterable[Result]) -> dict[str, list[Result]]:
    """The rows beside peers, by the part of the table that they stand in."""
    found: dict[str, list[Result]] = {}
    for result in results:
        row = result.row
        if row.kind == "attention":
            found.setdefault(f"{row.type}, causal" if row.causal else row.type, []).append(result)
        elif row.kind in BESIDE_PEERS:
            found.setdefault(BESIDE_PEERS[row.kind], []).append(result)
    return found


def means(results: Sequence[Result]) -> dict[str, float]:
    """The geometric mean of the ratios to each peer, over the rows where it took part; none for rows of two types."""
    found: dict[str, float] = {}
    if len(results) < 2 or len({result.row.dtype for result in results}) > 1:
        return found
    for name in PEERS:
        logs = [math.log(result.ratio(name)) for result in results if name in result.seconds]
        if logs:
            found[name] = math.exp(sum(logs) / len(logs))
    return found


# What is measured of each kind of row


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
        except Refused as reason:
            result.refused[name] = str(reason)
        except Exception as error:  # a peer that fails is one that does not take part
            result.refused[name] = (str(error).strip() or type(error).__name__).splitlines()[0]
    del expected
    result.seconds = interleaved(runs, rounds, at_least)
    return result


def _check(problem: Problem, found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Nobody times a wrong answer."""
    for one, other in zip(found, expected, strict=True):
        one = problem.packed(one) if problem.lengths is not None else one
        error = float((one.double() - other.double()).norm() / other.double().norm())
        if not error <= TOLERANCE[problem.row.dtype]:
            raise Refused(f"its result differs from regard's by {error:.1g} of its size")


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
    mass = len(groups.unique()) if row.kind == "grouped" else row.queries  # that of all rows, or of their means
    found = run().double().sum((-2, -1)[row.kind == "received" :])
    if not torch.allclose(found, torch.full_like(found, mass), rtol=1e-3):
        raise RuntimeError(f"{row.name}: the weights of a head sum to {found.flatten()[0]:.6g} instead of {mass}.")
    return Result(row, _backend(row), interleaved({"regard": run, "forward": forward}, rounds, at_least))


def _threads(row: Row, peers: Sequence[str], rounds: int, at_least: float) -> Result:
    problem, threads = Problem(row), torch.get_num_threads()
    result = Result(row, _backend(row))
    if threads == 1:
        result.refused["one thread"] = "there is no more than one"
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
        found = memory.used(row.keys, row.dim)
    except subprocess.CalledProcessError as error:
        result.refused["memory"] = (error.stderr.strip().splitlines() or [str(error)])[-1]
        return result
    result.seconds, result.bytes = {"regard": found.seconds}, found.bytes
    return result


_KINDS: dict[str, Callable[[Row, Sequence[str], int, float], Result]] = {
    "collected": _collected,
    "received": _second_pass,
    "pooled": _second_pass,
    "grouped": _second_pass,
    "threads": _threads,
    "memory": _memory,
}


# Who serves


def _backend(row: Row) -> str:
    """The backend that regard chooses, with the instruction set where it is the kernel."""
    one = torch.empty(1, 1, 1, row.dim, dtype=row.dtype)
    name = backends.choose(None, Scores(one, one, Mask(queries=1, keys=1), scale=1.0), one)
    return f"{name}, {cpu.instruction_set()}" if name == "cpu" else name


def _versions() -> dict[str, str]:
    """Of the peers that took part, beside torch."""
    return {name: version(name) for name in ("jax", "onnxruntime") if name in sys.modules}
