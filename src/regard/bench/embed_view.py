"""The benchmark of embeddings, in the terminal and as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from regard._internal import plotting
from regard._internal.measure import machine_line
from regard._internal.plotting import INK
from regard._internal.plurals import counted
from regard._internal.tables import new_table
from regard.bench.embed import Report
from regard.bench.embedders import EMBEDDERS
from regard.bench.table import ratio_cell

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = {"float32": "#440154", "bfloat16": "#21918c", "int8": "#e08214"}


def table(report: Report) -> RenderableType:
    """The machine, the texts, and a row per embedder."""
    ours = [name for name in report.results if name.startswith("regard")]
    ratios = ["× regard" if name == "regard" else f"× {EMBEDDERS[name].dtype}" for name in ours]
    table = new_table("", "tokens/s", "% of peak", *ratios, "short", "first", "memory", "cosine", "mean")
    table.columns[0].no_wrap = True
    for name, result in report.results.items():
        label, dtype, _ = EMBEDDERS[name]
        cells = (Text("", "dim") if name == base else ratio_cell(report.ratio(name, base)) for base in ours)
        table.add_row(
            Text(f"{label} {dtype}", "bold" if name in ours else ""),
            f"{report.speed(name):,.0f}",
            "–" if (share := report.share(name)) is None else f"{share:.0%}",
            *cells,
            "" if result.short is None else f"{1e3 * result.short:.1f} ms",
            "" if result.first is None else f"{result.first:.1f} s",
            "" if result.bytes is None else f"{result.bytes / 1e6:,.0f} MB",
            f"{result.cosine:.5f}",
            f"{result.mean_cosine:.5f}",
        )
    reasons = [
        Text(f"Not measured: {' '.join(EMBEDDERS[name][:2])}: {why}.", "dim")
        for name, why in report.unavailable.items()
    ]
    return Group(Text(_heading(report)), Text(), table, *([Text()] if reasons else []), *reasons)


def _heading(report: Report) -> str:
    peaks = report.peaks
    speeds = ", ".join(f"{speed / 1e9:.0f} GFLOP/s in {name}" for name, speed in peaks.flops.items())
    return (
        f"{machine_line(report.machine)}.\n"
        f"Peaks: {speeds} (measured by {peaks.source}).\n"
        f"{counted(report.texts, 'text')}, {counted(report.tokens, 'token')}, "
        f"{report.flops / report.tokens / 1e6:.1f} MFLOP per token. "
        f"Medians of {counted(report.rounds, 'round')}, interleaved.\n"
        f"All with {counted(report.machine['threads'], 'thread')}, peers sorted by length. "
        "× regard, × bfloat16, × int8: the time divided by that of regard. short: for one short text, warm. first: "
        "from the start of a process to its first vector. memory: peak of that process. cosine, mean: the lowest and "
        "the mean, to regard float32; of that to st."
    )


def picture(report: Report) -> Figure:
    """Tokens per second, a bar per embedder."""
    names = sorted(report.results, key=report.speed)
    figure = plotting.new_figure(8, 1.4 + 0.42 * len(names))
    axes = figure.subplots()
    plotting.style_axes(axes)
    axes.grid(False)
    for row, name in enumerate(names):
        dtype = EMBEDDERS[name].dtype
        ours = name.startswith("regard")
        axes.barh(row, report.speed(name), color=_COLOURS[dtype], alpha=1 if ours else 0.45, height=0.66)
        label = f"  {report.speed(name):,.0f}"
        axes.text(report.speed(name), row, label, va="center", fontsize=9, color=INK, weight="bold" if ours else None)
    labels = [" ".join(EMBEDDERS[name][:2]) for name in names]
    axes.set_yticks(range(len(names)), labels, fontsize=9, color=INK)
    for label_text, name in zip(axes.get_yticklabels(), names, strict=True):
        label_text.set_fontweight("bold" if name.startswith("regard") else "normal")
    axes.set_xticks([])
    axes.set_xlim(0, 1.12 * max(map(report.speed, names)))
    axes.set_title("Tokens per second, from texts to sentence vectors", fontsize=12, color=INK, loc="left")
    threads, texts = counted(report.machine["threads"], "thread"), counted(report.texts, "text")
    caption = f"{report.machine['processor']}, {threads}; {texts} of mixed length"
    figure.supxlabel(caption, fontsize=8, color=INK, parse_math=False)
    return figure
