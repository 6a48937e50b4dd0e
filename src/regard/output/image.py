"""Readings as pictures, drawn by matplotlib: one head as a heat map, or all heads of all layers as a grid.

`Reading.save` and the notebook widget call `render`. May import the rooms below; matplotlib is imported when it draws.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from rich.cells import cell_len, chop_cells, set_cell_size

from regard._internal import plotting
from regard._internal.plotting import INK
from regard.lens.reading import Reading
from regard.lens.words import printable

if TYPE_CHECKING:
    from jaxtyping import Float
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

LABEL_LIMIT = 64  # words that are named beside a picture
NUMBERED_UNITS = 16  # units up to which each cell carries its number
CELL_LIMITS = {"head": 512, "grid": 96}  # in a row; beyond, a cell shows the largest of the weights that it stands for
LABEL_WIDTH = 30  # columns of a word beside the picture; longer words are truncated
TITLE_LINES = 4  # lines of the text above the picture
PIXELS = 1024  # of a side, to which pictures of few cells are enlarged
GAP = 0.1  # between the squares of a grid, as a share of their side


def render(reading: Reading, file_format: str, *, layer: int | None = None, head: int | None = None) -> bytes:
    """The `picture` as the bytes of a file: "png" or "svg"."""
    return plotting.to_bytes(picture(reading, layer=layer, head=head), file_format)


def picture(reading: Reading, *, layer: int | None = None, head: int | None = None) -> Figure:
    """The weights between words: of one head; of a layer's heads; of a head in all layers; or of all.

    Rows attend, columns are attended to; colour is the square root of the weight, so that small ones can be seen. The
    picture names the text, the model, layer and head, and has the scale of its colours.

    Raises ImportError, with what to install, where matplotlib is missing.
    """
    reading.check(layer, head)
    layers = reading.attention_layers if layer is None else [layer % reading.layers]
    heads = list(range(reading.heads)) if head is None else [head % reading.heads]
    if len(layers) == len(heads) == 1:
        weights, names = _cells(reading, layers[0], CELL_LIMITS["head"])
        square = min(11.0, max(2.6, 0.34 * len(names)))
        figure = plotting.new_figure(square + 2.4, square + 2.2)
        _draw_title(figure, reading)
        title = f"{reading.model}, layer {layers[0]}, head {heads[0]}"
        _draw_head(figure, weights[heads[0]], names, title + _pooled(reading, CELL_LIMITS["head"]))
    else:
        side = min(1.05, max(0.3, 18 / max(len(layers), len(heads))))  # inches
        figure = plotting.new_figure(max(6.0, 1.6 + side * len(heads)), 1.7 + side * len(layers))
        _draw_title(figure, reading)
        _draw_grid(figure, reading, layers, heads, side)
    return figure


def _cells(reading: Reading, layer: int, limit: int) -> tuple[Float[Tensor, "H n n"], list[str]]:
    """The weights between units, and their names; of a long text the largest in each of limit × limit cells."""
    if len(reading.units) <= limit:
        return reading.weights(layer).cpu(), [unit.text for unit in reading.units]
    count = len(reading.tokens)
    first = [reading.units[int(reading.unit_of_token[n * count // limit])].text for n in range(limit)]
    return reading.attention[layer].weights.pool(limit, limit, "max").cpu(), first


def _pooled(reading: Reading, limit: int) -> str:
    """What a cell stands for in a text that has more words than cells."""
    return "; a cell is the largest of its weights" if len(reading.units) > limit else ""


def _draw_head(figure: Figure, weights: Float[Tensor, "n n"], names: list[str], title: str) -> None:
    axes = figure.add_subplot(anchor="N")
    axes.set_title(_short(title, int(figure.get_figwidth() * 11)), fontsize=9, color=INK, pad=8, parse_math=False)
    edge = len(names) - 0.5
    image = _draw_cells(axes, _enlarged(weights, max(1, PIXELS // len(names))), (-0.5, edge, edge, -0.5))
    places = range(0, len(names), -(-len(names) // LABEL_LIMIT))
    labels = [_short(names[n], LABEL_WIDTH) for n in places]
    size = 9 if len(places) <= 40 else 7.5
    text: dict[str, Any] = {
        "fontsize": size,
        "color": INK,
        "parse_math": False,
        "fontfamily": _families("".join(labels)),
    }
    axes.set_xticks(places, labels, rotation=60, ha="right", rotation_mode="anchor", **text)
    axes.set_yticks(places, labels, **text)
    axes.set_xlabel("… looks at this one", color=INK, fontsize=9)
    axes.set_ylabel("This word …", color=INK, fontsize=9)
    if len(names) <= NUMBERED_UNITS:
        for i, row in enumerate(weights.tolist()):
            for j, weight in enumerate(row):
                if weight >= 0.005:
                    ink = "black" if weight > 0.35 else "white"
                    axes.text(j, i, f"{100 * weight:.0f}", ha="center", va="center", fontsize=8, color=ink)
    _draw_scale(figure, axes, image, 0.03)


def _draw_grid(figure: Figure, reading: Reading, layers: list[int], heads: list[int], inches: float) -> None:
    """Layers below one another, heads side by side, on one pair of axes: a hundred pairs take ten seconds to draw."""
    axes = figure.add_subplot(anchor="N")
    if len(layers) == 1:
        title = f"{reading.model}, layer {layers[0]}, {len(heads)} heads"
    elif len(heads) == 1:
        title = f"{reading.model}, head {heads[0]} in {len(layers)} layers"
    else:
        title = f"{reading.model}, {len(layers)} layers × {len(heads)} heads"
    room = int(figure.get_figwidth() * 11)
    axes.set_title(_short(title, room), fontsize=9, color=INK, pad=8, parse_math=False)
    squares = torch.stack([_cells(reading, n, CELL_LIMITS["grid"])[0][heads] for n in layers])  # (layers, heads, n, n)
    times = max(1, PIXELS // max(len(layers), len(heads)) // squares.shape[-1])
    squares = _enlarged(squares, times)
    side = squares.shape[-1]
    gap = max(1, round(side * GAP))
    spaced = torch.nn.functional.pad(squares, (0, gap, 0, gap), value=torch.nan)  # nan is left blank
    mosaic = spaced.permute(0, 2, 1, 3).reshape(len(layers) * (side + gap), -1)[:-gap, :-gap]
    image = _draw_cells(axes, mosaic)
    text: dict[str, Any] = {"fontsize": 8, "color": INK}
    step = max(1, len(heads) // 32)
    middle = side / 2 - 0.5
    axes.set_xticks(
        [middle + x * (side + gap) for x in range(0, len(heads), step)], [str(h) for h in heads[::step]], **text
    )
    axes.set_yticks([middle + y * (side + gap) for y in range(len(layers))], [str(n) for n in layers], **text)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("head", labelpad=4, **text)
    axes.set_ylabel("layer", labelpad=4, **text)
    _draw_scale(figure, axes, image, 0.15 / (inches * len(heads)), small=len(layers) == 1)
    caption = "In each square, a row shows where a word looks, in the order of the text"
    below: dict[str, Any] = {
        "xytext": (0, -8),
        "xycoords": "axes fraction",
        "textcoords": "offset points",
        "ha": "center",
        "va": "top",
    }
    axes.annotate(caption + _pooled(reading, CELL_LIMITS["grid"]), (0.5, 0), **below, **text)


def _draw_cells(
    axes: Axes, weights: Float[Tensor, "r c"], extent: tuple[float, float, float, float] | None = None
) -> Any:
    """Weights as cells, at `extent` (left, right, bottom, top)."""
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    cells = weights.sqrt().float().numpy()
    return axes.imshow(cells, cmap="viridis", vmin=0, vmax=1, interpolation="nearest", extent=extent)


def _enlarged(weights: Float[Tensor, "... n n"], times: int) -> Float[Tensor, "... m m"]:
    """Each cell as a square of times × times, whose edges stay sharp in programs that smooth what they enlarge."""
    return weights.repeat_interleave(times, -1).repeat_interleave(times, -2)


def _draw_scale(figure: Figure, axes: Axes, image: Any, width: float, small: bool = False) -> None:
    """The scale of the colours, at the right; `width` is a share of that of the axes."""
    bar = figure.colorbar(image, cax=axes.inset_axes((1 + width, 0, width, 1)))
    ticks = [0, 0.05, 0.2, 0.5, 1] if small else [0, 0.01, 0.05, 0.2, 0.5, 1]
    bar.set_ticks([tick**0.5 for tick in ticks], labels=[f"{tick:.0%}" for tick in ticks])
    bar.ax.tick_params(length=0, labelsize=8, labelcolor=INK)
    bar.set_label("weight", fontsize=8, color=INK)
    bar.outline.set_visible(False)


def _draw_title(figure: Figure, reading: Reading) -> None:
    """The text that was read, in at most TITLE_LINES lines."""
    width = int(figure.get_figwidth() * 10)  # characters of 11 points
    words = " ".join(printable(word) for word in reading.text.split())
    lines = _wrapped(words, width)
    if len(lines) > TITLE_LINES:
        last = set_cell_size(lines[TITLE_LINES - 1], min(cell_len(lines[TITLE_LINES - 1]), width - 2)).rstrip() + " …"
        lines = [*lines[: TITLE_LINES - 1], last]
    figure.suptitle("\n".join(lines), fontsize=11, parse_math=False, fontfamily=_families("".join(lines)))


def _wrapped(words: str, width: int) -> list[str]:
    lines = [""]
    for word in words.split(" "):
        if lines[-1] and cell_len(lines[-1]) + 1 + cell_len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return [piece for line in lines for piece in chop_cells(line, width)]


def _short(text: str, limit: int) -> str:
    text, longest = printable(text), 8 * limit  # characters; a letter may carry any number of marks without width
    if cell_len(text) <= limit and len(text) <= longest:
        return text
    return set_cell_size(text[:longest], max(1, limit - 1)).rstrip() + "…"


def _families(text: str) -> list[str]:
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
