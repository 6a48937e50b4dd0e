"""Heat maps layers × heads side by side, drawn by matplotlib: one for each score, each with a scale of its own."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from regard._internal import plotting
from regard._internal.plotting import INK
from regard.lens.words import printable
from regard.output.image import families, shortened
from regard.output.lines import ink_on

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure
    from torch import Tensor

# Sizes in inches.
WIDEST = 13.0  # of a row of panels
MARGIN = 0.42  # at the left, with the numbers of layers
BAR = 0.07  # the scale of a panel
BESIDE = 0.6  # from a panel to the next: its scale, with numbers
ABOVE, BELOW = 0.52, 0.26  # a panel's name and phrase; its numbers of heads
HEADING = 0.3  # the name of a part of the model


class Panel(NamedTuple):
    """A score of all heads, as it is drawn.

    Attributes:
        name: the name of the score.
        phrase: what a head with a high score does; "" of a score that is not known here.
        table: (layers,heads).
        scale: the ends of the colours, which diverge around 0 where the first is negative.
        found: (layer, head) of the heads that carry a dot.
        lost: (layer, head) of those that carry a ring.
        found_from: from which number on a head carries a dot; None where the scale has no such line.
    """

    name: str
    phrase: str
    table: Tensor
    scale: tuple[float, float]
    found: Sequence[tuple[int, int]] = ()
    lost: Sequence[tuple[int, int]] = ()
    found_from: float | None = None


def scale_of(table: Tensor, reaches: float = 0.0) -> tuple[float, float]:
    """From 0 to the largest number, or to `reaches`; where there are negative numbers, from as far below 0."""
    known = table[table.isfinite()]
    least, largest = float(known.min()), max(float(known.abs().max()), reaches) or 1.0
    return (-largest if least < 0 else 0.0), largest


class _Layout(NamedTuple):
    """Panels of one size in rows: width and height of one in inches, and how many stand in a row."""

    width: float
    height: float
    columns: int
    rows: int

    @classmethod
    def of(cls, group: Sequence[Panel]) -> _Layout:
        layers, heads = (max(sizes) for sizes in zip(*(panel.table.shape for panel in group), strict=True))
        width, height = min(3.5, max(1.45, 0.13 * heads)), min(4.0, max(0.42, 0.1 * layers))
        columns = max(1, min(len(group), int((WIDEST - MARGIN) / (width + BESIDE))))
        return cls(width, height, columns, -(-len(group) // columns))

    @property
    def total(self) -> tuple[float, float]:
        """Width and height of all panels."""
        return MARGIN + self.columns * (self.width + BESIDE), self.rows * (ABOVE + self.height + BELOW)

    def place(self, number: int) -> tuple[float, float]:
        """The left and the lower edge of a panel, from the left and the upper edge of the group."""
        row, column = divmod(number, self.columns)
        return MARGIN + column * (self.width + BESIDE), (row + 1) * (ABOVE + self.height) + row * BELOW


def draw(groups: Mapping[str, Sequence[Panel]], title: str, caption: str) -> Figure:
    """The panels of groups, each under its heading, where it has one, and all under a title and a caption.

    Their places are computed, so that all panels of a group have one size. Layer 0 is at the top.

    Raises ImportError, with what to install, where matplotlib is missing.
    """
    layouts = {heading: _Layout.of(group) for heading, group in groups.items() if group}
    width = max([6.0, *(layout.total[0] for layout in layouts.values())])
    lines = textwrap.wrap(printable(caption), int(width * 15))
    top = 0.42 + 0.16 * len(lines)
    height = top + sum(layout.total[1] + HEADING * bool(heading) for heading, layout in layouts.items()) + 0.1
    figure = plotting.new_figure(width, height)
    figure.set_layout_engine("none")
    style: dict[str, Any] = {"color": INK, "parse_math": False, "va": "top", "ha": "left", "x": 0.1 / width}
    name = shortened(title, int(width * 9))
    figure.suptitle(name, y=1 - 0.08 / height, fontsize=12, fontfamily=families(name), **style)
    figure.text(y=1 - 0.34 / height, s="\n".join(lines), fontsize=8, linespacing=1.4, **style)
    for heading, layout in layouts.items():
        if heading:
            figure.text(y=1 - (top + 0.12) / height, s=printable(heading), fontsize=10, weight="bold", **style)
            top += HEADING
        for number, panel in enumerate(groups[heading]):
            left, lower = layout.place(number)
            place = (left / width, 1 - (top + lower) / height, layout.width / width, layout.height / height)
            axes = figure.add_axes(place, label=panel.name)
            _draw_panel(axes, panel, layout, labelled=number % layout.columns == 0)
        top += layout.total[1]
    return figure


def _draw_panel(axes: Axes, panel: Panel, layout: _Layout, labelled: bool) -> None:
    """A score: its name, what it is, the heat map, dots and rings, and the scale."""
    (layers, heads), (least, largest) = panel.table.shape, panel.scale
    plotting.style_axes(axes)
    axes.grid(visible=False)
    axes.set_facecolor("#e4e4e4")  # where a head has no such score
    ramp = "PuOr_r" if least < 0 else "viridis"
    image = axes.imshow(
        panel.table.numpy(), cmap=ramp, vmin=least, vmax=largest, aspect="auto", interpolation="nearest"
    )
    above: dict[str, Any] = {"color": INK, "parse_math": False, "xycoords": "axes fraction", "va": "top"}
    above |= {"xy": (0, 1), "textcoords": "offset points"}
    name, phrase = shortened(panel.name, int(layout.width * 11)), printable(panel.phrase)
    axes.annotate(name, xytext=(0, 33), fontsize=9, weight="bold", fontfamily=families(name), **above)
    lines = textwrap.wrap(phrase, int(layout.width * 20), max_lines=2, placeholder="…")
    axes.annotate("\n".join(lines), xytext=(0, 20), fontsize=6.5, linespacing=1.15, **above)
    small: dict[str, Any] = {"fontsize": 6.5, "color": INK}
    axes.set_xticks(*_ticks(heads, layout.width / 0.2), **small)
    axes.set_yticks(*_ticks(layers, layout.height / 0.13) if labelled else ((), ()), **small)
    if labelled:
        axes.set_xlabel("head", labelpad=1, loc="left", **small)
        axes.set_ylabel("layer", labelpad=2, **small)
    size = min(3.2, 36 * min(layout.width / heads, layout.height / layers))
    for marked, ring in ((panel.found, False), (panel.lost, True)):
        if marked:
            y, x = zip(*marked, strict=True)
            colours = image.to_rgba(panel.table[list(y), list(x)].numpy())
            inks = [ink_on(red, green, blue) for red, green, blue, _ in colours.tolist()]
            axes.scatter(x, y, size**2, "none" if ring else inks, edgecolors=inks, linewidths=0.7 * ring)
    bar = axes.figure.colorbar(image, cax=axes.inset_axes((1 + 0.06 / layout.width, 0, BAR / layout.width, 1)))
    _label_scale(bar, panel, layout.height)


def _label_scale(bar: Colorbar, panel: Panel, inches: float) -> None:
    """Both ends of a scale in numbers, 0 between them, and a line where heads begin to count, with its number."""
    least, largest = panel.scale
    places = [least, largest, *([0.0] if least < 0 else [])]
    if panel.found_from is not None:
        bar.ax.axhline(panel.found_from, color=INK, linewidth=0.8)
        if min(abs(panel.found_from - place) for place in places) > 0.11 * (largest - least) / inches:
            places.append(panel.found_from)
    bar.set_ticks(places, labels=[_number(place) for place in places])
    bar.ax.tick_params(length=0, pad=2, labelsize=6.5, labelcolor=INK)
    bar.outline.set_visible(False)


def _number(value: float) -> str:
    """Two digits, or all of those before the point."""
    text = f"{value:,.0f}" if abs(value) >= 10 else f"{value:.2g}"
    return text.replace("-", "−")


def _ticks(count: int, fitting: float) -> tuple[range, list[str]]:
    """The places of numbers along a side, as many as fit, and the numbers."""
    steps = (step * 10**power for power in range(6) for step in (1, 2, 5))
    places = range(0, count, next(step for step in steps if count / step <= max(2, fitting)))
    return places, [str(place) for place in places]
