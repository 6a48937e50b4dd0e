"""The race as a picture: time by length, accuracy by length, and alignments side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from regard._internal import plotting
from regard._internal.plotting import INK
from regard._internal.plurals import counted
from regard.race.report import Report
from regard.race.tasks import TASKS
from regard.race.training import NAMES, TrainingResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {"recurrent": "#e08214", "transformer": "#440154"}
_MIN_EXAMPLES = 5  # the accuracy on fewer says nothing


def picture(report: Report) -> Figure:
    """What was measured so far. Raises ImportError if matplotlib is missing."""
    tasks = [name for name, results in report.results.items() if len(results) == len(NAMES)]
    figure = plotting.new_figure(11, 3.6 + 3.9 * len(tasks), dpi=130)
    rows = figure.subfigures(1 + len(tasks), 1, height_ratios=[1] + [1.1] * len(tasks), squeeze=False)[:, 0]
    left, right = rows[0].subplots(1, 2)
    _times(left, report.times.step, 1e3, "Training step on 2,048 tokens (ms)")
    _times(right, report.times.token, 1e3, "Decoded token (ms)")
    left.legend(frameon=False, fontsize=9, labelcolor=INK)
    for row, name in zip(rows[1:], tasks, strict=True):
        panels = row.subplots(1, 3, width_ratios=[1, 1, 1])
        _accuracy(
            panels[0],
            report.results[name],
            f"{name.capitalize()}, {counted(report.steps[name], 'step')}: accuracy by length",
        )
        for axes, kind in zip(panels[1:], NAMES, strict=True):
            _alignment(axes, report.results[name][kind], TASKS[name].example, NAMES[kind])
    machine = f"{report.machine['processor']}, {counted(report.machine['threads'], 'thread')}"
    figure.suptitle("Recurrent attention against self-attention", fontsize=13, color=INK)
    figure.supxlabel(machine, fontsize=8, color=INK, parse_math=False)
    return figure


def _times(axes: Axes, times: dict[int, dict[str, float]], unit: float, title: str) -> None:
    from matplotlib.ticker import LogLocator

    plotting.style_axes(axes, title)
    for name, shown in NAMES.items():
        if times:
            axes.plot(
                list(times),
                [seconds[name] * unit for seconds in times.values()],
                "o-",
                label=shown,
                color=_COLOURS[name],
            )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(list(times), [f"{length:,}" for length in times])
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.3g}" if value < 1000 else f"{value:,.0f}")
    axes.minorticks_off()
    axes.set_xlabel("length", fontsize=9, color=INK)


def _accuracy(axes: Axes, results: dict[str, TrainingResult], title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    plotting.style_axes(axes, title)
    for name in NAMES:
        points = {length: share for length, (share, count) in results[name].by_length.items() if count >= _MIN_EXAMPLES}
        style: dict[str, Any] = {"markersize": 3.5, "clip_on": False, "color": _COLOURS[name]}
        axes.plot(list(points), list(points.values()), "o-", **style)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(0, 1.02)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])


def _alignment(axes: Axes, result: TrainingResult, source: list[str], name: str) -> None:
    plotting.style_axes(axes, name)
    axes.grid(visible=False)
    axes.imshow(result.alignment.sqrt().numpy(), cmap="viridis", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    text: dict[str, Any] = {"fontsize": 7, "color": INK, "parse_math": False}
    axes.set_xticks(range(len(source)), source, va="baseline", **text)
    axes.tick_params(axis="x", pad=9)
    axes.set_yticks(range(len(result.alignment)), [*result.written, "end"][: len(result.alignment)], **text)
    axes.set_xlabel("attends to", fontsize=8, color=INK)
    axes.set_ylabel("writes", fontsize=8, color=INK)
