"""The losses as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regard._internal import plotting
from regard._internal.plotting import INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from regard.train.run import History


def picture(history: History) -> Figure:
    """Training and held-out loss by step, and held-out accuracy: the share of tokens predicted correctly."""
    figure = plotting.new_figure(9, 3.6)
    left, right = figure.subplots(1, 2)
    plotting.style_axes(left, "Loss (nats per token)")
    plotting.style_axes(right, "Held-out accuracy")
    smooth, mean = [], history.losses[0]
    for loss in history.losses:
        mean += 0.05 * (loss - mean)
        smooth.append(mean)
    steps = [step for step, _, _ in history.held_out]
    left.plot(range(1, len(smooth) + 1), smooth, color="#21918c", linewidth=1.2, label="training")
    left.plot(steps, [loss for _, loss, _ in history.held_out], "o-", color="#440154", markersize=4, label="held out")
    right.plot(steps, [accuracy for _, _, accuracy in history.held_out], "o-", color="#440154", markersize=4)
    right.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    right.set_ylim(bottom=0)
    left.legend(frameon=False, fontsize=9, labelcolor=INK)
    for axes in (left, right):
        axes.set_xlabel("step", fontsize=9, color=INK)
    return figure
