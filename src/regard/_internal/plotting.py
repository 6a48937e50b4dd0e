"""What all figures have in common: matplotlib where it is installed, the colour of their text, how they are saved."""

from __future__ import annotations

import errno
import io
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard._internal.files import write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, PALE = "#333333", "#dddddd"


def figure(width: float, height: float, dpi: int = 160) -> Figure:
    """An empty one, in inches. Raises ImportError, with what to install, where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("Pictures need matplotlib: pip install 'regard[plot]'.") from None
    return Figure(figsize=(width, height), layout="constrained", dpi=dpi)


def content(drawn: Figure, file_format: str) -> bytes:
    """As the bytes of a file. The text of an SVG is text: it can be searched, and uses a page's fonts."""
    from matplotlib import rc_context

    file = io.BytesIO()
    metadata = {"Date": None} if file_format == "svg" else None  # the same picture is the same file
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "regard"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # no font here has it: a box is drawn
        drawn.savefig(file, format=file_format, metadata=metadata, bbox_inches="tight", pad_inches=0.12)
    return file.getvalue()


def plain(axes: Axes, title: str = "", **more: Any) -> None:
    """No frame, no ticks, and pale lines to read values by."""
    axes.set_title(title, fontsize=10, color=INK, pad=8, **more)
    axes.tick_params(length=0, labelsize=8, labelcolor=INK)
    axes.grid(axis="y", color=PALE, linewidth=0.7)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def check(path: Path) -> None:
    """Before anything is measured: raises ValueError, ImportError or OSError where `save` could not save to it."""
    if path.suffix.lower() not in (".png", ".svg", ".json"):
        raise ValueError(f"Expected a file that ends in .png, .svg or .json. Got {str(path)!r}.")
    if path.suffix.lower() != ".json":
        figure(1, 1)
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


def save(path: Path, numbers: Callable[[], object], picture: Callable[[], Figure]) -> None:
    """What was measured, as JSON or as a picture; written beside and renamed."""
    if path.suffix.lower() == ".json":
        made = json.dumps(numbers(), indent=1, ensure_ascii=False).encode()
    else:
        made = content(picture(), path.suffix.lower()[1:])
    write(path, lambda file: file.write(made))
