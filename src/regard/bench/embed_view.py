"""The benchmark of embeddings, in the terminal and as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from regard._internal import plotting
from regard._internal.measure import machine_line
from regard._internal.plotting import INK
from regard._internal.plurals import counted
from regard.bench.embed import Report
from regard.bench.embedders import EMBEDDERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = {"float32": "#440154", "bfloat16": "#21918c"}


def table(report: Report) -> RenderableType:
    """The machine, the texts, and a line each."""
    ceilings = report.ceilings
    speeds = ", ".join(f"{speed / 1e9:.0f} GF/s in {name}" for name, speed in ceilings.flops.items())
    head = (
        f"{machine_line(report.machine)}.\n"
        f"At most {speeds} (by {ceilings.source}).\n"
        f"{counted(report.texts, 'text')}, {counted(report.tokens, 'token')}, "
        f"{report.flops / report.tokens / 1e6:.1f} MFLOP a token. "
        f"Medians of {report.rounds}, in turn.\n"
        "ceiling: the share of it; × regard, × bfloat16: regard is so many times as fast; short: one short text, warm; "
        "first: from the start of a process to a vector; memory: of a process, at most; cosine: the least, to st's."
    )
    types = [name for name in ("regard", "regard-bf16") if name in report.results]
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    drawn.add_column("", no_wrap=True)
    times = ["× regard" if name == "regard" else "× bfloat16" for name in types]
    for name in ("tokens/s", "ceiling", *times, "short", "first", "memory", "cosine"):
        drawn.add_column(name, justify="right", no_wrap=True)
    for name, result in report.results.items():
        shown, dtype, _ = EMBEDDERS[name]
        ratios = (Text("", "dim") if name == ours else _times(report.ratio(name, ours)) for ours in types)
        drawn.add_row(
            Text(f"{shown} {dtype}", "bold" if name in types else ""),
            f"{report.speed(name):,.0f}",
            f"{report.share(name):.0%}",
            *ratios,
            "" if result.short is None else f"{1e3 * result.short:.1f} ms",
            "" if result.first is None else f"{result.first:.1f} s",
            "" if result.bytes is None else f"{result.bytes / 1e6:,.0f} MB",
            f"{result.cosine:.7f}",
        )
    reasons = [Text(f"Without {EMBEDDERS[name][0]}: {why}.", "dim") for name, why in report.refused.items()]
    return Group(Text(head), Text(), drawn, *([Text()] if reasons else []), *reasons)


def _times(ratio: float) -> Text:
    return Text(f"{ratio:.2f}", "" if ratio >= 1 else "yellow")


def picture(report: Report) -> Figure:
    """A bar each: tokens a second."""
    names = sorted(report.results, key=report.speed)
    figure = plotting.new_figure(8, 1.4 + 0.42 * len(names))
    axes = figure.subplots()
    plotting.style_axes(axes)
    axes.grid(False)
    for row, name in enumerate(names):
        dtype = EMBEDDERS[name][1]
        ours = name.startswith("regard")
        axes.barh(row, report.speed(name), color=_COLOURS[dtype], alpha=1 if ours else 0.45, height=0.66)
        label = f"  {report.speed(name):,.0f}"
        axes.text(report.speed(name), row, label, va="center", fontsize=9, color=INK, weight="bold" if ours else None)
    labels = [" ".join(EMBEDDERS[name][:2]) for name in names]
    axes.set_yticks(range(len(names)), labels, fontsize=9, color=INK)
    for written, name in zip(axes.get_yticklabels(), names, strict=True):
        written.set_fontweight("bold" if name.startswith("regard") else "normal")
    axes.set_xticks([])
    axes.set_xlim(0, 1.12 * max(map(report.speed, names)))
    axes.set_title("Tokens a second, from texts to sentence vectors", fontsize=12, color=INK, loc="left")
    threads, texts = counted(report.machine["threads"], "thread"), counted(report.texts, "text")
    about = f"{report.machine['processor']}, {threads}; {texts} of mixed length"
    figure.supxlabel(about, fontsize=8, color=INK, parse_math=False)
    return figure
