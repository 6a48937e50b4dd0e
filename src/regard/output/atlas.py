"""An atlas of heads in the terminal and as a picture: the heads that do something, and heat maps layers × heads."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Group, RenderableType
from rich.text import Text

from regard._internal import plotting
from regard._internal.plotting import INK
from regard._internal.plurals import counted
from regard.atlas.example import row_of
from regard.attribution.heads.scores import SCORES
from regard.lens.words import printable
from regard.output.image import families, shortened
from regard.output.lines import Wrapped, aligned, ink_on, note, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure
    from torch import Tensor

    from regard.atlas.atlas import Atlas, Head
    from regard.atlas.proof import Effect, Proof

LISTED = 5  # heads that are listed of a score
NAMES, COUNTS = 13, 7  # columns of the terminal
PARTS = {"encoder": "Encoder", "decoder": "Decoder", "cross": "Cross-attention"}
TEXTS = {"text": "text", "repeated": "random tokens, repeated", "needle": "texts with a needle"}

# The picture, in inches.
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
        found: (layer, head) of the heads that count as doing it.
        found_from: from which number on a head counts; None where none does.
    """

    name: str
    phrase: str
    table: Tensor
    scale: tuple[float, float]
    found: Sequence[tuple[int, int]] = ()
    found_from: float | None = None


def panels(atlas: Atlas, part: str) -> list[Panel]:
    """What was measured of a part, score by score, without what is no number for any of its heads."""
    return [_panel(atlas, name, part) for name, table in atlas.scores[part].items() if table.isfinite().any()]


def _panel(atlas: Atlas, name: str, part: str) -> Panel:
    """A score with its own scale, which reaches the number from which on a head counts, so that noise stays dark."""
    table, score = atlas.of(name, part).double().cpu(), SCORES.get(name)
    if score is None:
        return Panel(name, "", table, _scale(table))
    found = [(head.layer, head.head) for head in atlas.found(name, part)]
    return Panel(name, score.phrase, table, _scale(table, score.found_from or 0.0), found, score.found_from)


def _scale(table: Tensor, reaches: float = 0.0) -> tuple[float, float]:
    """From 0 to the largest number, or to `reaches`; where there are negative numbers, from as far below 0."""
    known = table[table.isfinite()]
    least, largest = float(known.min()), max(float(known.abs().max()), reaches) or 1.0
    return (-largest if least < 0 else 0.0), largest


# The picture


def picture(atlas: Atlas) -> Figure:
    """Heat maps layers × heads, one for each score with a scale of its own; heads that count carry a dot.

    Layer 0 is at the top. The attentions of an encoder-decoder stand one under another.

    Raises ImportError, with what to install, where matplotlib is missing.
    """
    caption = f"{'; '.join(filter(None, [_sizes(atlas), _read(atlas)]))}."
    groups = {part: panels(atlas, part) for part in atlas.parts}
    if any(panel.found for group in groups.values() for panel in group):
        caption += " A dot marks a head that counts as one that does it: its score is beyond the line across the scale."
    return _draw(groups, atlas.model, caption)


def _sizes(atlas: Atlas) -> str:
    """The layers and heads of each part, in words."""
    sizes = []
    for part, tables in atlas.scores.items():
        layers, heads = next((table.shape for table in tables.values()), (0, 0))
        name = f"{PARTS.get(part, part).lower()} " if part else ""
        sizes.append(f"{name}{counted(layers, 'layer')} × {counted(heads, 'head')}")
    return ", ".join(sizes)


def _read(atlas: Atlas) -> str:
    """What was read, in words."""
    return ", ".join(
        f"{counted(count, 'token')} of {TEXTS.get(kind, printable(kind))}"
        for kind, count in atlas.tokens.items()
        if count
    )


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


def _draw(groups: Mapping[str, Sequence[Panel]], title: str, caption: str) -> Figure:
    """The panels of all groups under a title, at places that are computed, so that all of a group have one size."""
    layouts = {part: _Layout.of(group) for part, group in groups.items() if group}
    width = max([6.0, *(layout.total[0] for layout in layouts.values())])
    lines = textwrap.wrap(printable(caption), int(width * 15))
    top = 0.42 + 0.16 * len(lines)
    height = top + sum(layout.total[1] + HEADING * bool(part) for part, layout in layouts.items()) + 0.1
    figure = plotting.new_figure(width, height)
    figure.set_layout_engine("none")
    style: dict[str, Any] = {"color": INK, "parse_math": False, "va": "top", "ha": "left", "x": 0.1 / width}
    name = shortened(title, int(width * 9))
    figure.suptitle(name, y=1 - 0.08 / height, fontsize=12, fontfamily=families(name), **style)
    figure.text(y=1 - 0.34 / height, s="\n".join(lines), fontsize=8, linespacing=1.4, **style)
    for part, layout in layouts.items():
        if part:
            heading = PARTS.get(part, part)
            figure.text(y=1 - (top + 0.12) / height, s=heading, fontsize=10, weight="bold", **style)
            top += HEADING
        for number, panel in enumerate(groups[part]):
            left, lower = layout.place(number)
            place = (left / width, 1 - (top + lower) / height, layout.width / width, layout.height / height)
            axes = figure.add_axes(place, label=panel.name)
            _draw_panel(axes, panel, layout, labelled=number % layout.columns == 0)
        top += layout.total[1]
    return figure


def _draw_panel(axes: Axes, panel: Panel, layout: _Layout, labelled: bool) -> None:
    """A score: its name, what it is, the heat map, a dot on each head that counts, and the scale."""
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
    if panel.found:
        y, x = zip(*panel.found, strict=True)
        colours = image.to_rgba(panel.table[list(y), list(x)].numpy())
        inks = [ink_on(red, green, blue) for red, green, blue, _ in colours.tolist()]
        axes.scatter(x, y, size**2, inks, linewidths=0)
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


# The terminal


def table(atlas: Atlas, width: int = 80) -> RenderableType:
    """The heads with the largest score, score by score, and what happened when they were switched off.

    Under each score stands what it is and, where the atlas has an example, the words at which its first head does it.
    """
    lines: list[RenderableType] = [
        Wrapped(printable(atlas.model), "bold"),
        Wrapped("; ".join(filter(None, [_sizes(atlas), _read(atlas)])), "dim"),
    ]
    for part in atlas.parts:
        lines += [Text(), _header(PARTS.get(part, printable(part)), width)]
        for name in atlas.scores[part]:
            lines += _score(atlas, name, part, width)
    if atlas.proofs:
        lines += [Text(), Text("Proof: heads switched off together", "bold cyan")]
        lines += [line for proof in atlas.proofs for line in _proof(proof)]
    return Group(*lines, *([Text(), note(atlas.note)] if atlas.note else []))


def _header(part: str, width: int) -> Text:
    """The names of the columns, after that of the part."""
    heads = "heads: layer.head and score" if width >= NAMES + COUNTS + 32 else "heads"
    return Text(f"{short(part, NAMES - 1):<{NAMES}}", "bold cyan").append(f"{'count':>{COUNTS - 2}}  {heads}", "dim")


def _score(atlas: Atlas, name: str, part: str, width: int) -> list[RenderableType]:
    """A line with the heads of the largest score, as many as fit, and a line with what they do."""
    score, top = SCORES.get(name), atlas.top(name, LISTED, part)
    line = Text(f"{short(name, NAMES - 1):<{NAMES}}", "bold")
    if not top:
        return [line.append("not measured", "dim")]
    counts = score is not None and score.found_from is not None
    found = len(atlas.found(name, part)) if counts else 0
    line.append(f"{found if counts else '–':>{COUNTS - 2}}  ")
    top = [head for head in top if head.value]
    for number, (head, value) in enumerate(zip(top, aligned([head.value for head in top], 3), strict=True)):
        cell = f"{head.layer}.{head.head}".rjust(5) + f" {value}  "
        if line.cell_len + len(cell.rstrip()) > width:
            break
        line.append(cell, "green" if number < found else "dim")
    line.rstrip()
    pair = _example(atlas, name, top[0]) if top else ""
    says = [printable(score.phrase) if score else "", f"{top[0].layer}.{top[0].head}: {pair}" if pair else ""]
    return [line, *([Wrapped("; ".join(filter(None, says)), "dim", 3)] if any(says) else [])]


def _example(atlas: Atlas, name: str, head: Head) -> str:
    """In which word of the example a head shows the score best, and at which word it looks there."""
    if atlas.example is None:
        return ""
    reading = atlas.example.attended(head.part or None)
    row = row_of(reading, name, head.layer, head.head)
    units = reading.units[row.unit], reading.columns.units[row.words[0][0]]
    names = [short(unit.text, 16).strip() or "␣" for unit in units]
    return f"“{names[0]}” to “{names[1]}”, {row.words[0][1]:.0%}"


def _proof(proof: Proof) -> list[RenderableType]:
    """The verdict and its sentence, and for each ablation what it did to the loss, and what random heads did."""
    part = f"{PARTS.get(proof.part, proof.part).lower()}, " if proof.part else ""
    style = "bold green" if proof.verdict == "confirmed" else "bold yellow"
    title = Text(short(f"{part}{proof.score}", 40), "bold").append(f": {proof.verdict}", style)
    heads = " ".join(f"{layer}.{head}" for layer, head in proof.heads)
    lines: list[RenderableType] = [Wrapped(title), Wrapped(proof.sentence, indent=3)]
    lines += [Wrapped(printable(f"Heads {heads}; the loss in {proof.loss}. {proof.note}".strip()), "dim", 3)]
    for where, read, before in (
        ("matters", proof.matters, proof.before[0]),
        ("elsewhere", proof.elsewhere, proof.before[1]),
    ):
        effects = [effect for effect in proof.effects if effect.where == where]
        if effects:
            lines += [Wrapped(f"on {printable(read)}, {before:.3f} as it is", "dim", 3), *_effects(effects)]
    return lines


def _effects(effects: Sequence[Effect]) -> list[RenderableType]:
    """A line for each ablation: the change by these heads, and the largest by random ones."""
    pairs = [(effect.change, max(effect.random, default=math.nan)) for effect in effects]
    changes = aligned([number for pair in pairs for number in pair], 3)
    changes = ["–" if change == "nan" else change if change.startswith("−") else f"+{change}" for change in changes]
    size = max(map(len, changes))
    return [
        Text(f"   {effect.ablation:<6}{ours:>{size}}", "bold").append(f"   random heads {random:>{size}}", "dim")
        for effect, ours, random in zip(effects, changes[::2], changes[1::2], strict=True)
    ]
