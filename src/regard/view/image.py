"""Readings as pictures, by matplotlib: one head as a heat map, or all heads of all layers as a grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from regard.lens.reading import Reading

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LABELS = 60
MOST_NUMBERED = 16  # units up to which each cell carries its number


def picture(reading: Reading, *, layer: int | None = None, head: int | None = None) -> Figure:
    """The weights between words: of one head; of a layer's heads; of a head in all layers; or of all.

    Rows look, columns are looked at; colour is the square root of the weight, so that small ones can be seen.

    Raises ImportError, with what to install, where matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("Pictures need matplotlib: pip install 'regard[plot]'.") from None
    layers = list(range(reading.layers)) if layer is None else [layer % reading.layers]
    heads = list(range(reading.heads)) if head is None else [head % reading.heads]
    title = _title(reading.text)
    if len(layers) == len(heads) == 1:
        size = min(14.0, max(4.2, 1.6 + 0.42 * len(reading.units)))
        figure = Figure(figsize=(size + 0.9, size), layout="constrained", dpi=160)
        _one(figure, reading, layers[0], heads[0])
        figure.suptitle(f"{title}\n{reading.model}, layer {layers[0]}, head {heads[0]}", **_fonts(11))
        return figure
    figure = Figure(figsize=(max(4.0, 1.0 + 1.05 * len(heads)), 1.0 + 1.1 * len(layers)), layout="constrained", dpi=160)
    grid = figure.subplots(len(layers), len(heads), squeeze=False)
    for row, n in zip(grid, layers, strict=True):
        weights = reading.weights(n)
        for axes, h in zip(row, heads, strict=True):
            _map(axes, weights[h])
            axes.set(xticks=[], yticks=[])
            if n == layers[0]:
                axes.set_title(f"head {h}" if h == heads[0] else f"{h}", fontsize=8)
            if h == heads[0]:
                axes.set_ylabel(f"layer {n}" if n == layers[0] else f"{n}", fontsize=8)
    figure.suptitle(f"{title}\n{reading.model}: each row of a square is where a word looks", **_fonts(10))
    return figure


def _one(figure: Figure, reading: Reading, layer: int, head: int) -> None:
    axes = figure.add_subplot()
    weights = reading.weights(layer, head)
    drawn = _map(axes, weights)
    names = [unit.text.replace("$", r"\$") for unit in reading.units]  # a dollar would begin a formula
    step = -(-len(names) // MOST_LABELS)
    places = list(range(0, len(names), step))
    axes.set_xticks(places, [names[n] for n in places], rotation=60, ha="right", rotation_mode="anchor", **_fonts(9))
    axes.set_yticks(places, [names[n] for n in places], **_fonts(9))
    axes.set(xlabel="is looked at", ylabel="looks")
    if len(names) <= MOST_NUMBERED:
        for i, row in enumerate(weights.tolist()):
            for j, weight in enumerate(row):
                if weight >= 0.005:
                    ink = "black" if weight > 0.35 else "white"
                    axes.text(j, i, f"{100 * weight:.0f}", ha="center", va="center", fontsize=8, color=ink)
    bar = figure.colorbar(drawn, ax=axes, shrink=0.8, aspect=30)
    ticks = [0, 0.01, 0.05, 0.2, 0.5, 1]
    bar.set_ticks([t**0.5 for t in ticks], labels=[f"{t:.0%}" for t in ticks])
    bar.set_label("weight")


def _map(axes: Axes, weights: torch.Tensor):
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes.imshow(weights.sqrt().float().numpy(), cmap="viridis", vmin=0, vmax=1, interpolation="nearest")


def _title(text: str) -> str:
    text = " ".join(text.split())
    return (text if len(text) <= 70 else text[:69] + "…").replace("$", r"\$")


def _fonts(size: float) -> dict:
    # Matplotlib falls through the list glyph by glyph; fonts that a machine lacks are passed over.
    from matplotlib import font_manager

    wanted = ["DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans Arabic", "Noto Sans Hebrew",
              "Noto Sans Devanagari", "Noto Sans Thai", "Noto Emoji"]  # fmt: skip
    known = {font.name for font in font_manager.fontManager.ttflist}
    return {"fontsize": size, "fontfamily": [name for name in wanted if name in known] or ["sans-serif"]}
