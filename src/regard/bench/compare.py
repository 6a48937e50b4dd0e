"""Two reports side by side: of two machines, or of two versions on one."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regard.bench import machines
from regard.bench.saved import BASES, Saved, SavedRow, load


@dataclass(frozen=True)
class Pair:
    """A row of both reports. base: With what regard is compared in both, of attention; "regard" of an embedder."""

    before: SavedRow
    after: SavedRow
    base: str | None

    @property
    def name(self) -> str:
        """The name of the row."""
        return self.before.name

    @property
    def faster(self) -> float:
        """The seconds of A divided by those of B."""
        return self.before.seconds / self.after.seconds

    @property
    def ratios(self) -> tuple[float, float] | None:
        """The ratios to the base, in A and in B."""
        return None if self.base is None else (self.before.ratios[self.base], self.after.ratios[self.base])

    @property
    def shares(self) -> tuple[float, float] | None:
        """The shares of the peak, in A and in B."""
        before, after = self.before.share, self.after.share
        return None if before is None or after is None else (before, after)


@dataclass(frozen=True)
class Means:
    """Geometric means over the rows with one base: of the ratios in A and in B, and of the speed of B beside A."""

    rows: int
    ratios: tuple[float, float]
    faster: float


@dataclass(frozen=True)
class Comparison:
    """Reports A and B, the rows of both, and the names of the rows of one alone."""

    a: Saved
    b: Saved
    pairs: list[Pair]
    only_a: list[str]
    only_b: list[str]

    @property
    def by_base(self) -> dict[str | None, list[Pair]]:
        """The pairs by what they are compared with, in the order of `BASES`."""
        bases = (*BASES, "regard", None)
        found = {base: [pair for pair in self.pairs if pair.base == base] for base in bases}
        return {base: pairs for base, pairs in found.items() if pairs}

    def to_dict(self) -> dict[str, Any]:
        """The comparison as JSON can hold it."""
        return {
            "benchmark": self.a.benchmark,
            "files": [str(self.a.path), str(self.b.path)],
            "machines": machines.rows((self.a.report, self.b.report)),
            "rows": [
                {"name": pair.name, "base": pair.base, "ratio": pair.ratios, "share": pair.shares}
                | {"seconds": [pair.before.seconds, pair.after.seconds], "faster": pair.faster}
                for pair in self.pairs
            ],
            "only": [self.only_a, self.only_b],
            "means": {base: vars(means(pairs)) for base, pairs in self.by_base.items() if base and len(pairs) > 1},
        }


def compare(a: Path, b: Path) -> Comparison:
    """Read two reports and lay their rows beside each other.

    Raises OSError or ValueError, with the file, for one that is no report; ValueError for reports of different kinds.
    """
    first, second = load(a), load(b)
    if first.benchmark != second.benchmark:
        raise ValueError(
            f"bench compare: {a} is a report of bench {first.benchmark}, {b} one of bench {second.benchmark}."
        )
    both = [name for name in first.rows if name in second.rows]
    return Comparison(
        first,
        second,
        [_pair(first.rows[name], second.rows[name]) for name in both],
        [name for name in first.rows if name not in second.rows],
        [name for name in second.rows if name not in first.rows],
    )


def _pair(before: SavedRow, after: SavedRow) -> Pair:
    bases = (base for base in (*BASES, "regard") if base in before.ratios and base in after.ratios)
    return Pair(before, after, next(bases, None))


def means(pairs: Sequence[Pair]) -> Means:
    """The geometric means of pairs that have one base."""

    def mean(number: Callable[[Pair], float]) -> float:
        return statistics.geometric_mean(map(number, pairs))

    ratios = mean(lambda pair: pair.ratios[0] if pair.ratios else 1), mean(lambda p: p.ratios[1] if p.ratios else 1)
    return Means(len(pairs), ratios, mean(lambda pair: pair.faster))
