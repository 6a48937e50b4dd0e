"""The benchmark, saved: numbers as JSON, or a picture."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path

from regard.bench import picture
from regard.bench.attention import Report
from regard.bench.grid import Row
from regard.files import write


def check(path: Path, rows: Sequence[Row]) -> None:
    """Before anything is measured: raises ValueError, ImportError or OSError where it could not be saved afterwards."""
    if path.suffix.lower() not in (".png", ".svg", ".json"):
        raise ValueError(f"Expected a file that ends in .png, .svg or .json. Got {str(path)!r}.")
    if path.suffix.lower() != ".json":
        picture.check(rows)
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


def save(report: Report, path: Path) -> None:
    """Written beside and renamed."""
    if path.suffix.lower() == ".json":
        content = json.dumps(report.to_dict(), indent=1, ensure_ascii=False).encode()
    else:
        content = picture.drawn(report, path.suffix.lower()[1:])
    write(path, lambda file: file.write(content))
