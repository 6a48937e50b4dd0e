"""Reports that `--save report.json` wrote, read again. Any other file is refused, with the reason in one line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BASES = ("sdpa", "eager", "flex", "jax", "onnx", "forward", "one thread")  # what a row of attention is compared with
_LARGEST = 1 << 26  # bytes; a report has some thousand lines


@dataclass(frozen=True)
class SavedRow:
    """A row of a report.

    seconds: That regard, or the embedder, took. ratios: The time of others divided by that. share: Of the peak.
    """

    name: str
    seconds: float
    ratios: dict[str, float]
    share: float | None


@dataclass(frozen=True)
class Saved:
    """A report of `regard bench`: benchmark is "attention", "embed" or "machine"."""

    path: Path
    benchmark: str
    report: dict[str, Any]
    rows: dict[str, SavedRow]


def load(path: Path) -> Saved:
    """Read a report. Raises OSError where it cannot be read, ValueError where it is none; either says which file."""
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"bench compare: {path} is no report of regard bench: it is too large")
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        return _checked(path, report)
    except (ValueError, RecursionError) as error:  # also of JSON and of UTF-8
        reason = str(error).splitlines()[0] if not isinstance(error, RecursionError) else "it is nested too deeply"
        raise ValueError(f"bench compare: {path} is no report of regard bench: {reason}") from None


def _checked(path: Path, report: object) -> Saved:
    entries = _mapping(report, "it")
    _mapping(entries.get("machine"), "machine")  # its values are shown as they stand
    peaks = _mapping(entries.get("peaks"), "peaks")
    for name, speed in _mapping(peaks.get("flops"), "peaks: flops").items():
        _positive(speed, f"peaks: {name}")
    _positive(peaks.get("bytes"), "peaks: bytes")
    rows = entries.get("rows")
    # Reports of older versions do not say of what they are.
    guess = "attention" if isinstance(rows, list) else "embed" if isinstance(rows, dict) else "machine"
    benchmark = entries.get("benchmark", guess)
    if benchmark != guess:
        raise ValueError(f"benchmark: {benchmark!r} does not go with its rows")
    saved: dict[str, SavedRow] = {}
    for name, row in _rows_of(rows):
        if name in saved:
            raise ValueError(f"row {name!r} is there twice")
        if (read := _row(name, row)) is not None:
            saved[name] = read
    return Saved(path, str(benchmark), dict(entries), saved)


def _rows_of(rows: object) -> list[tuple[str, Mapping[str, Any]]]:
    if isinstance(rows, dict):
        return [(name, _mapping(row, f"row {name!r}")) for name, row in rows.items()]
    listed = [_mapping(row, "a row") for row in rows] if isinstance(rows, list) else []
    for row in listed:
        if not isinstance(row.get("name"), str):
            raise ValueError("a row has no name")
    return [(row["name"], row) for row in listed]


def _row(name: str, row: Mapping[str, Any]) -> SavedRow | None:
    """The row; None if nothing was measured."""
    seconds, ratios, share = row.get("seconds"), row.get("ratio"), row.get("share")
    what = f"row {name!r}"
    if isinstance(seconds, dict):  # of attention: by who took them
        if "regard" not in seconds:
            return None
        seconds, share = seconds["regard"], _mapping(share or {}, f"{what}: share").get("regard")
        ratios = _mapping(ratios or {}, f"{what}: ratio")
    else:  # of embeddings: the ratio is that to regard's own time
        ratios = {} if ratios is None else {"regard": 1 / _positive(ratios, f"{what}: ratio")}
    return SavedRow(
        name,
        _positive(seconds, f"{what}: seconds"),
        {str(base): _positive(ratio, f"{what}: ratio to {base}") for base, ratio in ratios.items()},
        None if share is None else _positive(share, f"{what}: share"),
    )


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} should be an object")
    return value


def _positive(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{what} should be a positive number")
    return float(value)
