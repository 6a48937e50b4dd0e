"""The benchmark as a picture: the share of the ceiling over N, a line for each peer, a panel for each type."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from regard.bench.attention import Report, Result
from regard.bench.grid import Row
from regard.bench.peers import PEERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK = "#333333"
_PALE = "#dddddd"
_NAMES = {"regard": "regard"} | {name: shown for name, (shown, _) in PEERS.items()}
_COLOURS = dict(zip(_NAMES, ("#440154", "#21918c", "#e08214", "#5ec962", "#3b528b", "#a6a6a6"), strict=True))


def drawn(report: Report, file_format: str) -> bytes:
    """The `picture` as the bytes of a file."""
    figure = picture(report)
    from matplotlib import rc_context

    content = io.BytesIO()
    metadata = {"Date": None} if file_format == "svg" else None
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "regard"}):
        figure.savefig(content, format=file_format, metadata=metadata, bbox_inches="tight", pad_inches=0.12)
    return content.getvalue()


def check(rows: Iterable[Row]) -> None:
    """Raises ValueError where none of the rows is shown, and ImportError where matplotlib is missing."""
    if not any(_is_shown(row) for row in rows):
        raise ValueError("There is no picture of these rows: it shows those of 'attention' with D 64.")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ImportError("Pictures need matplotlib: pip install 'regard[plot]'.") from None


def _is_shown(row: Row) -> bool:
    return row.kind == "attention" and row.dim == 64


def picture(report: Report) -> Figure:
    """Rows of one dim over their N, a line of panels for all keys and one for causal, as far as they were measured."""
    check(result.row for result in report.results)
    from matplotlib.figure import Figure

    results = [result for result in report.results if _is_shown(result.row)]
    types = list(dict.fromkeys(result.row.type for result in results))
    masks = sorted({result.row.causal for result in results})
    figure = Figure(figsize=(1.2 + 3.4 * len(types), 1.5 + 2.7 * len(masks)), layout="constrained", dpi=160)
    grid = figure.subplots(len(masks), len(types), squeeze=False, sharex=True, sharey=True)
    for line, causal in zip(grid, masks, strict=True):
        for axes, name in zip(line, types, strict=True):
            some = [result for result in results if (result.row.type, result.row.causal) == (name, causal)]
            _panel(axes, report, some)
            axes.set_title(name + (", causal" if causal else ""), fontsize=10, color=_INK)
        line[0].set_ylabel("of the ceiling", fontsize=9, color=_INK)
    for axes in grid[-1]:
        axes.set_xlabel("N", fontsize=9, color=_INK)
    figure.suptitle("Attention: the share of what the machine can do", fontsize=12, color=_INK)
    ceilings = ", ".join(f"{speed / 1e9:.0f} GF/s in {name}" for name, speed in report.ceilings.flops.items())
    about = f"{report.machine['processor']}, {report.machine['threads']} threads; ceilings: {ceilings}"
    figure.supxlabel(about, fontsize=8, color=_INK, parse_math=False)
    lines = {line.get_label(): line for axes in grid.flat for line in axes.get_lines()}
    shown = [name for name in _NAMES.values() if name in lines]
    figure.legend(
        [lines[name] for name in shown],
        shown,
        loc="outside right upper",
        frameon=False,
        fontsize=9,
        labelcolor=_INK,
    )
    return figure


def _panel(axes: Axes, report: Report, results: list[Result]) -> None:
    results = sorted(results, key=lambda result: result.row.keys)
    for name, shown in reversed(_NAMES.items()):  # regard on top
        points = [(r.row.keys, r.share(report.ceilings, name)) for r in results if name in r.seconds]
        style: dict[str, Any] = {"color": _COLOURS[name], "linewidth": 1.3, "markersize": 3.5}
        if name == "regard":
            style |= {"linewidth": 2.4, "markersize": 5}
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", label=shown, clip_on=False, **style)
    axes.set_xscale("log", base=2)
    sizes = sorted({result.row.keys for result in results})
    axes.set_xticks(sizes, [_short(size) for size in sizes], fontsize=8, color=_INK)
    axes.set_ylim(0, max(1, *axes.get_ylim()))
    ticks = [0, 0.25, 0.5, 0.75, 1]
    axes.set_yticks(ticks, [f"{tick:.0%}" for tick in ticks], fontsize=8, color=_INK)
    axes.minorticks_off()
    axes.tick_params(length=0)
    axes.grid(axis="y", color=_PALE, linewidth=0.7)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _short(size: int) -> str:
    return f"{size // 1024}k" if size % 1024 == 0 else str(size)
