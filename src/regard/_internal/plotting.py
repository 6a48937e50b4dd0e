"""What all figures share, and how they are saved. matplotlib is imported when one is drawn."""

from __future__ import annotations

import errno
import io
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from regard._internal.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, PALE = "#333333", "#dddddd"


def new_figure(width: float, height: float, dpi: int = 160) -> Figure:
    """An empty figure, sizes in inches. Raises ImportError, with what to install, if matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("Pictures need matplotlib: pip install 'regard[plot]'.") from None
    return Figure(figsize=(width, height), layout="constrained", dpi=dpi)


def to_bytes(figure: Figure, file_format: str, dpi: float | Literal["figure"] = "figure") -> bytes:
    """The content of the file. Text in an SVG stays text: it can be searched, and uses the fonts of a page."""
    from matplotlib import rc_context

    file = io.BytesIO()
    metadata = {"Date": None} if file_format == "svg" else None  # the same picture is the same file
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "regard"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # matplotlib draws a box
        figure.savefig(file, format=file_format, metadata=metadata, dpi=dpi, bbox_inches="tight", pad_inches=0.12)
    return file.getvalue()


def style_axes(axes: Axes, title: str = "", **text_properties: Any) -> None:
    """No frame, no ticks, and a pale grid to read values by."""
    axes.set_title(title, fontsize=10, color=INK, pad=8, **text_properties)
    axes.tick_params(length=0, labelsize=8, labelcolor=INK)
    axes.grid(axis="y", color=PALE, linewidth=0.7)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def check_path(path: Path) -> None:
    """Raise ValueError, ImportError or OSError if `save` could not write this file: call it before measuring."""
    if path.suffix.lower() not in (".png", ".svg", ".json"):
        raise ValueError(f"Expected a file that ends in .png, .svg or .json. Got {str(path)!r}.")
    if path.suffix.lower() != ".json":
        new_figure(1, 1)
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


def save(path: Path, numbers: Callable[[], object], picture: Callable[[], Figure]) -> None:
    """Save what was measured: the numbers as JSON, or the picture; written atomically."""
    if path.suffix.lower() == ".json":
        content = json.dumps(numbers(), indent=1, ensure_ascii=False).encode()
    else:
        content = to_bytes(picture(), path.suffix.lower()[1:])
    atomic_write(path, lambda file: file.write(content))
