"""The methods of attribution side by side, in the terminal and as a picture: words × methods, each column by itself."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Group, RenderableType
from rich.text import Text

from regard._internal import plotting
from regard._internal.plotting import INK
from regard._internal.plurals import counted
from regard.attribution.agreement import Agreement
from regard.lens.words import printable
from regard.output.image import draw_title, families, ink, shortened
from regard.output.lines import Wrapped, colour, note, short
from regard.output.maps import Scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    from regard.lens.reading import Reading

LISTED = 24  # units of a longer text that are shown: those that matter most
KNOCKOUT = "knockout"


class Column(NamedTuple):
    """A method: its numbers for the units that are shown, their scale, and its rank correlation with the knockout."""

    name: str
    numbers: Tensor
    scale: Scale
    correlation: float


def columns(agreement: Agreement, shown: list[int]) -> list[Column]:
    """The knockout, then each method, scaled by all units and not only by those that are shown."""
    methods: Mapping[str, Tensor] = {KNOCKOUT: agreement.knockout, **agreement.relevance}
    correlation = {KNOCKOUT: math.nan, **agreement.correlation}
    return [Column(name, numbers[shown], Scale.of(numbers), correlation[name]) for name, numbers in methods.items()]


def largest(agreement: Agreement, limit: int = LISTED) -> list[int]:
    """The units of the largest knockouts, in the order of the text."""
    sizes = agreement.knockout.abs().nan_to_num(-1)
    return sorted(sizes.argsort(descending=True, stable=True)[:limit].tolist())


def labels(reading: Reading, shown: list[int], cut: Callable[[str, int], str], limit: int) -> list[str]:
    """The units, those that occur more than once with the number of their occurrence, as --nth counts.

    cut: cuts a text to the columns that remain of `limit`.
    """
    texts = [unit.text for unit in reading.units]
    times, seen, names = Counter(texts), Counter[str](), []
    for text in texts:
        seen[text] += 1
        of = f" ({seen[text]})" if times[text] > 1 else ""
        names.append((cut(text, limit - len(of)).strip() or "␣") + of)
    return [names[n] for n in shown]


def table(agreement: Agreement, width: int) -> RenderableType:
    """Words × methods: each column in hundredths of its largest number, on colours, readable without them."""
    reading, shown = agreement.reading, largest(agreement)
    judged = agreement.judged[shown].tolist()
    names = [Text(name, "" if n else "dim") for name, n in zip(labels(reading, shown, short, 16), judged, strict=True)]
    margin = max(len("rank correlation" if width >= 60 else "correlation"), *(name.cell_len for name in names)) + 1
    room = max(1, (width - margin) // 11)
    every = columns(agreement, shown)
    lines: list[RenderableType] = [
        Wrapped(f"“{short(' '.join(reading.text.split()), 400)}”", "bold"),
        Wrapped(printable(_title(agreement)), "dim"),
    ]
    for first in range(0, len(every), room):
        lines += [Text(), *_block(names, every[first : first + room], margin)]
        if rest := len(reading.units) - len(shown):
            lines.append(Text(f"… and {rest:,} more", "dim"))
        lines += _below(every[first : first + room], margin)
    return Group(*lines, Text(), *_explanation(agreement))


def _title(agreement: Agreement) -> str:
    """The model, where in it, and what is explained."""
    where = "" if agreement.layer is None else f", layer {agreement.layer}"
    where += "" if agreement.head is None else f", head {agreement.head}"
    return f"{agreement.reading.model}{where}: what each word does for {agreement.target.name}"


def _block(names: list[Text], block: list[Column], margin: int) -> list[RenderableType]:
    """The names of columns and the rows under them."""
    heads = [textwrap.wrap(column.name, 10) for column in block]
    height = max(map(len, heads))
    lines: list[RenderableType] = []
    for row in range(height):
        padded = [([""] * (height - len(head)) + head)[row] for head in heads]
        lines.append(Text((" " * margin + "".join(map("{:>11}".format, padded))).rstrip(), style="bold"))
    for row, name in enumerate(names):
        line = Text().append_text(name).append(" " * (margin - name.cell_len))
        for column in block:
            share, place = column.numbers[row] / column.scale.largest, column.scale.place(column.numbers[row])
            cell = "–" if share.isnan() else "·" if abs(share) < 0.005 else f"{100 * share:.0f}".replace("-", "−")
            style = "" if share.isnan() else colour(float(place), column.scale.signed)
            line.append(" " * 5).append(f"{cell:>6}", style)
        lines.append(line)
    return lines


def _below(block: list[Column], margin: int) -> list[RenderableType]:
    """What 100 stands for in each column, and how well its order agrees with that of the knockout."""
    scales = "".join(f"{column.scale.largest:>11.3g}" for column in block)
    correlations = "".join(f"{_correlation(column):>11}" for column in block)
    title = "rank correlation" if margin > 16 else "correlation"
    return [
        Text(f"{'100 is':<{margin}}" + scales, "dim"),
        Text(f"{title:<{margin}}" + correlations, "bold"),
    ]


def _correlation(column: Column) -> str:
    """The rank correlation of a column, as it is written under it."""
    if column.name == KNOCKOUT:
        return "the judge"
    return "unknown" if math.isnan(column.correlation) else f"{column.correlation:.2f}".replace("-", "−")


def _explanation(agreement: Agreement) -> list[RenderableType]:
    judged = counted(int(agreement.judged.sum()), "word")
    lines: list[RenderableType] = [
        Wrapped(
            "The knockout is what really changes when nobody may look at the word. The rank correlation, over "
            f"{judged}, says how well a method puts words in that order: 1 is the same order, 0 none.",
            "dim",
        )
    ]
    lines += [Wrapped(f"Left out: {printable(why)}", "yellow") for why in agreement.left_out.values()]
    return lines + ([note(agreement.reading.note)] if agreement.reading.note else [])


def picture(agreement: Agreement) -> Figure:
    """Words × methods as a heat map, each column scaled by itself, with its rank correlation under it.

    Raises ImportError, with what to install, where matplotlib is missing.
    """
    shown = largest(agreement, 2 * LISTED)
    every = columns(agreement, shown)
    units = agreement.reading.units
    figure = plotting.new_figure(2.2 + 1.15 * len(every), 1.9 + 0.27 * len(shown))
    draw_title(figure, agreement.reading)
    axes = figure.add_subplot(anchor="N")
    axes.set_title(
        shortened(_title(agreement), int(figure.get_figwidth() * 11)), fontsize=9, color=INK, pad=8, parse_math=False
    )
    _draw(axes, every, len(shown))
    names = labels(agreement.reading, shown, shortened, 24)
    text: dict[str, Any] = {"fontsize": 9, "color": INK, "parse_math": False, "fontfamily": families("".join(names))}
    axes.set_yticks(range(len(shown)), names, **text)
    heads = ["\n".join(textwrap.wrap(column.name, 12)) for column in every]
    axes.set_xticks(range(len(every)), heads, fontsize=9, color=INK)
    axes.xaxis.tick_top()
    rest = len(units) - len(shown)
    axes.set_xlabel(_caption(agreement, rest), fontsize=8, color=INK, labelpad=22)
    return figure


def _draw(axes: Axes, every: list[Column], rows: int) -> None:
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for x, column in enumerate(every):
        places = column.scale.place(column.numbers)
        lowest, colours = (-1, "PuOr_r") if column.scale.signed else (0, "viridis")
        extent = (x - 0.46, x + 0.46, rows - 0.5, -0.5)
        axes.imshow(places[:, None].float().numpy(), cmap=colours, vmin=lowest, vmax=1, extent=extent, aspect="auto")
        for y, share in enumerate((column.numbers / column.scale.largest).tolist()):
            if abs(share) >= 0.005:
                text = f"{100 * share:.0f}".replace("-", "−")
                axes.text(x, y, text, ha="center", va="center", fontsize=8, color=ink(share, column.scale))
        below = _correlation(column) if column.name == KNOCKOUT else f"ρ = {_correlation(column)}"
        axes.annotate(
            below, (x, rows - 0.5), (0, -6), textcoords="offset points", ha="center", va="top",
            fontsize=9, color=INK, weight="bold", annotation_clip=False,
        )  # fmt: skip
    axes.set_xlim(-0.5, len(every) - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)


def _caption(agreement: Agreement, rest: int) -> str:
    more = f"The {LISTED * 2} words of the largest knockouts; {rest:,} more are left out. " if rest else ""
    judged = counted(int(agreement.judged.sum()), "word")
    text = f"{more}Each column in hundredths of its largest. ρ: rank correlation with the knockout, over {judged}."
    return "\n".join(textwrap.wrap(text, 72))
