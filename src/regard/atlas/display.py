"""An atlas, or a difference of two, as a file, and in a notebook: the only file here that imports output and viewer."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard._internal import plotting
from regard._internal.files import atomic_write
from regard.atlas import store
from regard.atlas.atlas import Atlas
from regard.atlas.frames import require_pyarrow
from regard.lens.display import as_html, as_png

if TYPE_CHECKING:
    from regard.atlas.tables import HeadTables
    from regard.lens.display import Picture

SUFFIXES = ".html", ".png", ".svg", ".json", ".parquet"


def check_suffix(path: str | Path) -> str:
    """The suffix of a file to save an atlas in. Raises ValueError for an unknown one."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        known = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        raise ValueError(f"Expected a file that ends in {known}. Got {str(path)!r}.")
    return suffix


def check_paths(paths: Sequence[Path]) -> None:
    """Raise ValueError, ImportError or OSError where an atlas could not be saved to one of these files.

    To be called before the work begins.
    """
    for path in paths:
        suffix = check_suffix(path)
        if suffix == ".parquet":
            require_pyarrow()
        if suffix in (".png", ".svg"):
            plotting.new_figure(1, 1)
        if not path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


def save(tables: HeadTables, path: str | Path) -> None:
    """Save an atlas, or a difference of two, as `HeadTables.save`."""
    content = _content(tables, check_suffix(path))
    atomic_write(path, lambda file: file.write(content))


def _content(tables: Any, suffix: str) -> bytes:
    if suffix == ".json":
        return json.dumps(tables.to_dict(), ensure_ascii=False).encode()
    if suffix == ".parquet":
        return store.to_parquet(tables, tables if isinstance(tables, Atlas) else None)
    if suffix == ".html":
        from regard.viewer.bundle import render_atlas_page

        return render_atlas_page(tables).encode()
    from regard.output.atlas import picture

    return plotting.to_bytes(picture(tables), suffix[1:])


def still(tables: Any) -> Picture | None:
    """The picture that a notebook holds; None where nothing draws, because matplotlib is not installed."""
    from regard.output.atlas import picture

    return as_png(lambda: picture(tables), f"Scores of the heads of {tables.model}, a map of layers and heads for each")


def listed(tables: Any) -> str:
    """What the terminal prints, in HTML."""
    from regard.output.atlas import table

    return as_html(lambda width: table(tables, width))
