"""Readings as pictures, by matplotlib: one head as a heat map, or all heads of all layers as a grid."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, chop_cells, set_cell_size

from regard import figures
from regard.figures import INK
from regard.lens.reading import Reading
from regard.lens.words import printable

if TYPE_CHECKING:
    from jaxtyping import Float
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

MOST_LABELS = 64
MOST_NUMBERED = 16  # units up to which each cell carries its number
MOST_CELLS = {"one": 512, "grid": 96}  # in a row; beyond, a cell is the largest of the weights that it stands for


def drawn(reading: Reading, file_format: str, *, layer: int | None = None, head: int | None = None) -> bytes:
    """The `picture` as the bytes of a file."""
    return figures.content(picture(reading, layer=layer, head=head), file_format)


def picture(reading: Reading, *, layer: int | None = None, head: int | None = None) -> Figure:
    """The weights between words: of one head; of a layer's heads; of a head in all layers; or of all.

    Rows look, columns are looked at; colour is the square root of the weight, so that small ones can be seen.

    Raises ImportError, with what to install, where matplotlib is missing.
    """
    reading.check(layer, head)
    layers = list(range(reading.layers)) if layer is None else [layer % reading.layers]
    heads = list(range(reading.heads)) if head is None else [head % reading.heads]
    if len(layers) == len(heads) == 1:
        weights, names = _cells(reading, layers[0], MOST_CELLS["one"])
        square = min(11.0, max(2.6, 0.34 * len(names)))
        figure = figures.figure(square + 2.4, square + 2.2)
        _title(figure, reading)
        _one(figure, weights[heads[0]], names, f"{reading.model}, layer {layers[0]}, head {heads[0]}")
    else:
        size = max(5.2, 0.6 + 1.05 * len(heads)), 1.2 + 1.05 * len(layers)
        figure = figures.figure(*size)
        _title(figure, reading)
        _grid(figure, reading, layers, heads)
    return figure


def _cells(reading: Reading, layer: int, most: int) -> tuple[Float[Tensor, "H n n"], list[str]]:
    """The weights between units, and their names; of a long text the largest in each of most × most cells."""
    if len(reading.units) <= most:
        return reading.weights(layer).cpu(), [unit.text for unit in reading.units]
    count = len(reading.tokens)
    first = [reading.units[int(reading.unit_of_token[n * count // most])].text for n in range(most)]
    return reading.attention[layer].weights.pool(most, most, "max").cpu(), first


def _one(figure: Figure, weights: Float[Tensor, "n n"], names: list[str], about: str) -> None:
    axes = figure.add_subplot(anchor="N")
    axes.set_title(_short(about, int(figure.get_figwidth() * 11)), fontsize=9, color=INK, pad=8, parse_math=False)
    image = _map(axes, weights)
    places = range(0, len(names), -(-len(names) // MOST_LABELS))
    labels = [_short(names[n], 18) for n in places]
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
    if len(names) <= MOST_NUMBERED:
        for i, row in enumerate(weights.tolist()):
            for j, weight in enumerate(row):
                if weight >= 0.005:
                    ink = "black" if weight > 0.35 else "white"
                    axes.text(j, i, f"{100 * weight:.0f}", ha="center", va="center", fontsize=8, color=ink)
    bar = figure.colorbar(image, cax=axes.inset_axes((1.03, 0, 0.03, 1)))
    ticks = [0, 0.01, 0.05, 0.2, 0.5, 1]
    bar.set_ticks([tick**0.5 for tick in ticks], labels=[f"{tick:.0%}" for tick in ticks])
    bar.ax.tick_params(length=0, labelsize=8, labelcolor=INK)
    bar.outline.set_visible(False)


def _grid(figure: Figure, reading: Reading, layers: list[int], heads: list[int]) -> None:
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    grid = figure.subplots(len(layers), len(heads), squeeze=False)
    for row, n in zip(grid, layers, strict=True):
        weights, _ = _cells(reading, n, MOST_CELLS["grid"])
        for axes, h in zip(row, heads, strict=True):
            _map(axes, weights[h])
            axes.set(xticks=[], yticks=[])
            if n == layers[0]:
                axes.set_title(f"head {h}" if h == heads[0] else f"{h}", fontsize=8, color=INK, pad=3)
            if h == heads[0]:
                axes.set_ylabel(f"layer {n}" if n == layers[0] else f"{n}", fontsize=8, color=INK, labelpad=3)
    about = f"{reading.model}: each row of a square is where a word looks"
    figure.supxlabel(_short(about, int(figure.get_figwidth() * 13)), fontsize=8, color=INK, parse_math=False)


def _map(axes: Axes, weights: Float[Tensor, "n n"]) -> Any:
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes.imshow(weights.sqrt().float().numpy(), cmap="viridis", vmin=0, vmax=1, interpolation="nearest")


def _title(figure: Figure, reading: Reading) -> None:
    """The text, in two lines at most."""
    width = int(figure.get_figwidth() * 10)  # characters of 11 points
    words = " ".join(printable(word) for word in reading.text.split())
    lines = _wrapped(words, width)
    if len(lines) > 2:
        lines = [lines[0], set_cell_size(lines[1], min(cell_len(lines[1]), width - 2)).rstrip() + " …"]
    figure.suptitle("\n".join(lines), fontsize=11, parse_math=False, fontfamily=_families("".join(lines)))


def _wrapped(words: str, width: int) -> list[str]:
    lines = [""]
    for word in words.split(" "):
        if lines[-1] and cell_len(lines[-1]) + 1 + cell_len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return [piece for line in lines for piece in chop_cells(line, width)]


def _short(text: str, most: int) -> str:
    text = printable(text)
    return text if cell_len(text) <= most else set_cell_size(text, max(1, most - 1)).rstrip() + "…"


def _families(text: str) -> list[str]:
    """Fonts that together have the characters of a text, as far as any font here has them; DejaVu Sans is the first."""
    return ["DejaVu Sans", *_fallbacks(frozenset(ord(one) for one in text if ord(one) > 0x7E))]


@lru_cache(256)
def _fallbacks(characters: frozenset[int]) -> list[str]:
    missing = characters - _characters().get("DejaVu Sans", frozenset()) if characters else characters
    found: list[str] = []
    while missing:
        name, covered = max(_characters().items(), key=lambda font: len(missing & font[1]))
        if not missing & covered:
            break
        found.append(name)
        missing -= covered
    return found


@lru_cache(1)
def _characters() -> dict[str, frozenset[int]]:
    """The characters that each font has, but for fonts of coloured bitmaps, which matplotlib cannot draw."""
    from matplotlib.font_manager import fontManager
    from matplotlib.ft2font import FaceFlags, FT2Font

    found: dict[str, frozenset[int]] = {}
    upright = (font for font in fontManager.ttflist if font.style == "normal" and font.weight == 400)
    for entry in sorted(upright, key=lambda font: (not font.name.startswith("Noto Sans"), font.name)):
        try:
            font = FT2Font(entry.fname)
        except (OSError, RuntimeError):  # not a font that can be read
            continue
        if FaceFlags.SCALABLE in font.face_flags:
            found.setdefault(entry.name, frozenset(font.get_charmap()))
    return found
