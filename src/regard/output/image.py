"""Readings as pictures, drawn by matplotlib: a map of one head as a heat map, or of all heads of all layers as a grid.

`Reading.save` and the notebook widget call `render`. May import the rooms below; matplotlib is imported when it draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from rich.cells import cell_len, chop_cells, set_cell_size

from regard._internal import plotting
from regard._internal.plotting import INK
from regard.lens.reading import Reading
from regard.lens.words import printable
from regard.output.maps import Scale, ShownMap, attention_name

if TYPE_CHECKING:
    from jaxtyping import Float
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    from regard.attribution import Target

LABEL_LIMIT = 64  # words that are named beside a picture
NUMBERED_UNITS = 16  # units up to which each cell carries its number
CELL_LIMITS = {"head": 512, "grid": 96}  # in a row; beyond, a cell shows the largest of the weights that it stands for
LABEL_WIDTH = 30  # columns of a word beside the picture; longer words are truncated
TITLE_LINES = 4  # lines of the text above the picture
PIXELS = 1024  # of a side, to which pictures of few cells are enlarged
GAP = 0.1  # between the squares of a grid, as a share of their side


def render(
    reading: Reading,
    file_format: str,
    *,
    layer: int | None = None,
    head: int | None = None,
    map: str = "weights",
    target: Target | None = None,
) -> bytes:
    """The `picture` as the bytes of a file: "png" or "svg"."""
    return plotting.to_bytes(picture(reading, layer=layer, head=head, map=map, target=target), file_format)


def picture(
    reading: Reading,
    *,
    layer: int | None = None,
    head: int | None = None,
    map: str = "weights",
    target: Target | None = None,
) -> Figure:
    """A map between words: of one head; of a layer's heads; of a head in all layers; or of all.

    Rows attend, columns are attended to; colour is the square root of the number, so that small ones can be seen. The
    scale goes from 0 to the largest number of the picture, that of weights to 1, and that of a map with negative
    numbers as far below 0. The picture names the text, the model, the map, layer and head, and has its scale.

    Raises ImportError, with what to install, where matplotlib is missing.
    """
    shown = ShownMap(reading, map, target)
    layers, heads = shown.layers(layer), shown.heads(layer, head)
    if len(layers) == len(heads) == 1:
        cells, *names = _cells(shown, layers[0], CELL_LIMITS["head"])
        tall, wide = (min(11.0, max(2.6, 0.34 * len(of_side))) for of_side in names)
        figure = plotting.new_figure(wide + 2.4, tall + 2.2)
        draw_title(figure, reading)
        of_head = ", all heads" if not shown.kind.by_head else f", head {heads[0]}"
        where = f"layer {layers[0]}{of_head}{_pooled(shown, CELL_LIMITS['head'])}"
        _draw_head(figure, shown, cells[heads[0] or 0], names[0], names[1], where)
    else:
        side = min(1.05, max(0.3, 18 / max(len(layers), len(heads))))  # inches
        figure = plotting.new_figure(max(6.0, 1.6 + side * len(heads)), 1.7 + side * len(layers))
        draw_title(figure, reading)
        _draw_grid(figure, shown, layers, heads, side)
    return figure


def _title(figure: Figure, shown: ShownMap, where: str) -> str:
    """The model, the map and where in the model it is; under it the target, of a map that is about one."""
    name = "" if shown.is_weights else f"{shown.name}, "
    attention = f"{attention_name(shown.reading)}, " if shown.reading.part else ""
    lines = [f"{shown.reading.model}, {attention}{name}{where}"]
    lines += [] if shown.target is None else [f"for {shown.target.name}"]
    return "\n".join(shortened(line, int(figure.get_figwidth() * 11)) for line in lines)


def _cells(shown: ShownMap, layer: int, limit: int) -> tuple[Float[Tensor, "H rows columns"], list[str], list[str]]:
    """The numbers between units, and the names of rows and columns; of a long text the largest of each cell."""
    sides = (shown.reading, shown.reading.columns)
    if max(shown.shape) <= limit:
        rows, columns = ([unit.text for unit in of.units] for of in sides)
        return shown.words(layer), rows, columns
    counts = [min(limit, len(of.tokens)) for of in sides]
    rows, columns = (
        [of.units[int(of.unit_of_token[n * len(of.tokens) // count])].text for n in range(count)]
        for of, count in zip(sides, counts, strict=True)
    )
    return shown.pooled(layer, *counts), rows, columns


def _pooled(shown: ShownMap, limit: int) -> str:
    """What a cell stands for in a text that has more words than cells."""
    numbers = "weights" if shown.is_weights else "numbers"
    return f"; a cell is the largest of its {numbers}" if max(shown.shape) > limit else ""


def _draw_head(
    figure: Figure, shown: ShownMap, cells: Float[Tensor, "r c"], rows: list[str], columns: list[str], where: str
) -> None:
    axes = figure.add_subplot(anchor="N")
    axes.set_title(_title(figure, shown, where), fontsize=9, color=INK, pad=8, parse_math=False)
    scale, longest = _scale(shown, cells), max(len(rows), len(columns))
    extent = (-0.5, len(columns) - 0.5, len(rows) - 0.5, -0.5)
    image = _draw_cells(axes, _enlarged(cells, max(1, PIXELS // longest)), scale, extent)
    axes.set_xticks(*_labels(columns), rotation=60, ha="right", rotation_mode="anchor", **_label_style(columns))
    axes.set_yticks(*_labels(rows), **_label_style(rows))
    across, down = ("… looks at this one", "This word …")
    if shown.reading.source is not None:
        across, down = "… looks at this one of the source", "This word of the target …"
    axes.set_xlabel(across, color=INK, fontsize=9)
    axes.set_ylabel(down, color=INK, fontsize=9)
    if longest <= NUMBERED_UNITS:
        _draw_numbers(axes, cells, scale)
    _draw_scale(figure, axes, image, shown, scale, 0.03)


def _labels(names: list[str]) -> tuple[range, list[str]]:
    """The places of the words that are named, and the words."""
    places = range(0, len(names), -(-len(names) // LABEL_LIMIT))
    return places, [shortened(names[n], LABEL_WIDTH) for n in places]


def _label_style(names: list[str]) -> dict[str, Any]:
    places, labels = _labels(names)
    size = 9 if len(places) <= 40 else 7.5
    return {"fontsize": size, "color": INK, "parse_math": False, "fontfamily": families("".join(labels))}


def _draw_numbers(axes: Axes, cells: Float[Tensor, "n n"], scale: Scale) -> None:
    """Numbers on their cells, in hundredths of the largest that the scale has."""
    for i, row in enumerate((cells / scale.largest).tolist()):
        for j, share in enumerate(row):
            if abs(share) >= 0.005:
                number = f"{100 * share:.0f}".replace("-", "−")
                axes.text(j, i, number, ha="center", va="center", fontsize=8, color=ink(share, scale))


def ink(share: float, scale: Scale) -> str:
    """The colour of a number on its cell, that can be read there."""
    dark = not -0.38 < share < 0.6 if scale.signed else share <= 0.35
    return "white" if dark else "black"


def _draw_grid(figure: Figure, shown: ShownMap, layers: list[int], heads: Sequence[int | None], inches: float) -> None:
    """Layers below one another, heads side by side, on one pair of axes: a hundred pairs take ten seconds to draw."""
    axes = figure.add_subplot(anchor="N")
    if not shown.kind.by_head:
        where = f"{len(layers)} layers"
    elif len(layers) == 1:
        where = f"layer {layers[0]}, {len(heads)} heads"
    elif len(heads) == 1:
        where = f"head {heads[0]} in {len(layers)} layers"
    else:
        where = f"{len(layers)} layers × {len(heads)} heads"
    axes.set_title(_title(figure, shown, where), fontsize=9, color=INK, pad=8, parse_math=False)
    rows = [h or 0 for h in heads]
    squares = torch.stack([_cells(shown, n, CELL_LIMITS["grid"])[0][rows] for n in layers])  # (layers, heads, n, n)
    scale = _scale(shown, squares)
    times = max(1, PIXELS // max(len(layers), len(heads)) // max(squares.shape[-2:]))
    squares = _enlarged(squares, times)
    tall, wide = squares.shape[-2:]
    gap = max(1, round(max(tall, wide) * GAP))
    spaced = torch.nn.functional.pad(squares, (0, gap, 0, gap), value=torch.nan)  # nan is left blank
    mosaic = spaced.permute(0, 2, 1, 3).reshape(len(layers) * (tall + gap), -1)[:-gap, :-gap]
    image = _draw_cells(axes, mosaic, scale)
    text: dict[str, Any] = {"fontsize": 8, "color": INK}
    step = max(1, len(heads) // 32)
    places = [wide / 2 - 0.5 + x * (wide + gap) for x in range(0, len(heads), step)]
    axes.set_xticks(places, ["all" if h is None else str(h) for h in heads[::step]], **text)
    centres = [tall / 2 - 0.5 + y * (tall + gap) for y in range(len(layers))]
    axes.set_yticks(centres, [str(n) for n in layers], **text)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("heads" if not shown.kind.by_head else "head", labelpad=4, **text)
    axes.set_ylabel("layer", labelpad=4, **text)
    _draw_scale(figure, axes, image, shown, scale, 0.15 / (inches * len(heads)), small=len(layers) == 1)
    caption = "In each square, a row shows where a word looks, in the order of the text"
    if not shown.is_weights:
        caption = shortened(f"Each cell: {shown.kind.meaning}", int(figure.get_figwidth() * 11))
    below: dict[str, Any] = {
        "xytext": (0, -8),
        "xycoords": "axes fraction",
        "textcoords": "offset points",
        "ha": "center",
        "va": "top",
    }
    axes.annotate(caption + _pooled(shown, CELL_LIMITS["grid"]), (0.5, 0), **below, **text)


def _scale(shown: ShownMap, numbers: Tensor) -> Scale:
    """The scale of the weights is the same in all pictures, so that they can be compared."""
    return Scale(1.0) if shown.is_weights else Scale.of(numbers)


def _draw_cells(
    axes: Axes, numbers: Float[Tensor, "r c"], scale: Scale, extent: tuple[float, float, float, float] | None = None
) -> Any:
    """Numbers as cells, at `extent` (left, right, bottom, top)."""
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    cells = scale.place(numbers).float().numpy()
    lowest, colours = (-1, "PuOr_r") if scale.signed else (0, "viridis")
    return axes.imshow(cells, cmap=colours, vmin=lowest, vmax=1, interpolation="nearest", extent=extent)


def _enlarged(cells: Float[Tensor, "... n n"], times: int) -> Float[Tensor, "... m m"]:
    """Each cell as a square of times × times, whose edges stay sharp in programs that smooth what they enlarge."""
    return cells.repeat_interleave(times, -1).repeat_interleave(times, -2)


def _draw_scale(
    figure: Figure, axes: Axes, image: Any, shown: ShownMap, scale: Scale, width: float, small: bool = False
) -> None:
    """The scale of the colours, at the right; `width` is a share of that of the axes."""
    bar = figure.colorbar(image, cax=axes.inset_axes((1 + width, 0, width, 1)))
    shares = [0, 0.05, 0.2, 0.5, 1] if small else [0, 0.01, 0.05, 0.2, 0.5, 1]
    if scale.signed:
        shares = [-1, -0.2, 0, 0.2, 1] if small else [-1, -0.5, -0.2, -0.05, 0, 0.05, 0.2, 0.5, 1]
    places = [math.copysign(abs(share) ** 0.5, share) for share in shares]
    labels = [f"{share:.0%}" if shown.is_weights else f"{share * scale.largest:.3g}" for share in shares]
    bar.set_ticks(places, labels=[label.replace("-", "−") for label in labels])
    bar.ax.tick_params(length=0, labelsize=8, labelcolor=INK)
    bar.set_label(shown.unit, fontsize=8, color=INK)
    bar.outline.set_visible(False)


def draw_title(figure: Figure, reading: Reading) -> None:
    """The text that was read, of cross-attention source and target, in at most TITLE_LINES lines."""
    width = int(figure.get_figwidth() * 10)  # characters of 11 points
    text = reading.text if reading.source is None else f"{reading.source.text} → {reading.text}"
    words = " ".join(printable(word) for word in text.split())
    lines = _wrapped(words, width)
    if len(lines) > TITLE_LINES:
        last = set_cell_size(lines[TITLE_LINES - 1], min(cell_len(lines[TITLE_LINES - 1]), width - 2)).rstrip() + " …"
        lines = [*lines[: TITLE_LINES - 1], last]
    figure.suptitle("\n".join(lines), fontsize=11, parse_math=False, fontfamily=families("".join(lines)))


def _wrapped(words: str, width: int) -> list[str]:
    lines = [""]
    for word in words.split(" "):
        if lines[-1] and cell_len(lines[-1]) + 1 + cell_len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return [piece for line in lines for piece in chop_cells(line, width)]


def shortened(text: str, limit: int) -> str:
    """Text for one line, cut to `limit` columns, without control characters."""
    text, longest = printable(text), 8 * limit  # characters; a letter may carry any number of marks without width
    if cell_len(text) <= limit and len(text) <= longest:
        return text
    return set_cell_size(text[:longest], max(1, limit - 1)).rstrip() + "…"


def families(text: str) -> list[str]:
    """Fonts that together have the characters of a text, as far as any installed font does; DejaVu Sans comes first."""
    return ["DejaVu Sans", *_fallbacks(frozenset(ord(character) for character in text if ord(character) > 0x7E))]


@lru_cache(256)
def _fallbacks(characters: frozenset[int]) -> list[str]:
    missing = characters - _characters().get("DejaVu Sans", frozenset()) if characters else characters
    names: list[str] = []
    while missing:
        name, covered = max(_characters().items(), key=lambda font: len(missing & font[1]))
        if not missing & covered:
            break
        names.append(name)
        missing -= covered
    return names


@lru_cache(1)
def _characters() -> dict[str, frozenset[int]]:
    """The characters of each installed font, except for fonts of coloured bitmaps, which matplotlib cannot draw."""
    from matplotlib.font_manager import fontManager
    from matplotlib.ft2font import FaceFlags, FT2Font

    fonts: dict[str, frozenset[int]] = {}
    upright = (font for font in fontManager.ttflist if font.style == "normal" and font.weight == 400)
    for entry in sorted(upright, key=lambda font: (not font.name.startswith("Noto Sans"), font.name)):
        try:
            font = FT2Font(entry.fname)
        except (OSError, RuntimeError):  # not a font that can be read
            continue
        if FaceFlags.SCALABLE in font.face_flags:
            fonts.setdefault(entry.name, frozenset(font.get_charmap()))
    return fonts
