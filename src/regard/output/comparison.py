"""A word in several texts as a picture: its cosines layer by layer, and those after the last layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from regard._internal import plotting
from regard._internal.plotting import INK
from regard.lens.words import printable
from regard.output.image import families, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from regard.lens.compare import Comparison

COLOURS = ("#440154", "#e08214", "#21918c")  # within A, within B, across: told apart without red and green
NUMBERED = 16  # texts up to which each cell carries its cosine
LABEL_WIDTH = 48  # columns of a text beside the picture


def picture(comparison: Comparison) -> Figure:
    """At the left the cosines by layer, at the right those of all pairs of texts after the last layer.

    The texts of the matrix are in the order of the two clusters, A and B.

    Raises ImportError, with what to install, where matplotlib is missing.
    """
    count = len(comparison.words)
    side = min(8.0, max(1.2, 0.34 * count))
    figure = plotting.new_figure(7.6 + side, max(3.0, side + 1.3), dpi=110)
    name = shortened(f"“{comparison.word}” in {count} texts, by {comparison.readings[0].model}", 90)
    figure.suptitle(name, fontsize=11, parse_math=False, fontfamily=families(name))
    lines, matrix = figure.subplots(1, 2, width_ratios=[3.4, side])
    _draw_layers(lines, comparison)
    _draw_pairs(matrix, comparison)
    return figure


def _draw_layers(axes: Axes, comparison: Comparison) -> None:
    plotting.style_axes(axes, "The mean cosine, layer by layer")
    first, second = comparison.clusters
    of_a, of_b, across = comparison.cluster_similarity()
    curves = {"within A": of_a, "within B": of_b, "A and B": across}
    if not second:  # the same vectors in all texts
        curves = {"all": comparison.similarity.mean((1, 2))}
    elif len(first) == len(second) == 1:
        curves = {"": across}
    for (name, cosines), colour in zip(curves.items(), COLOURS, strict=False):
        if not cosines.isnan().any():
            axes.plot(range(len(cosines)), cosines.tolist(), "o-", label=name, color=colour, markersize=4)
    places = range(0, len(across), max(1, len(across) // 8))
    axes.set_xticks(places, ["before" if n == 0 else str(n - 1) for n in places])
    axes.set_xlabel("after layer", fontsize=9, color=INK)
    axes.set_ylim(top=1.03)
    if len(axes.lines) > 1:
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)


def _draw_pairs(axes: Axes, comparison: Comparison) -> None:
    plotting.style_axes(axes, "After the last layer")
    axes.grid(visible=False)
    first, second = comparison.clusters
    order = [*first, *second]
    cosines = comparison.similarity[-1][order][:, order]
    axes.imshow(cosines.numpy(), cmap="viridis", vmin=min(0.0, float(cosines.min())), vmax=1, interpolation="nearest")
    names = []
    for place in order:
        of_text = printable(" ".join(comparison.readings[place].text.split()))
        names.append(f"{'A' if place in first else 'B'}{place + 1}  {shortened(of_text, LABEL_WIDTH)}")
    text: dict[str, Any] = {"fontsize": 8, "color": INK, "parse_math": False, "fontfamily": families("".join(names))}
    axes.yaxis.tick_right()
    axes.set_yticks(range(len(order)), names, **text)
    axes.set_xticks(range(len(order)), [name.partition(" ")[0] for name in names], **text)
    if len(order) <= NUMBERED:
        for i, row in enumerate(cosines.tolist()):
            for j, cosine in enumerate(row):
                colour = "white" if cosine < 0.5 else "black"
                axes.text(j, i, f"{cosine:.2f}".replace("-", "−"), ha="center", va="center", fontsize=7, color=colour)
