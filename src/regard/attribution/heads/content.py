"""The head that contributes most content to a word, for a reader who names none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from regard.attribution.heads.named import are_positional
from regard.lens.contributions import content_tokens, value_norms

if TYPE_CHECKING:
    from regard.lens.reading import Reading
    from regard.lens.units import Word


def head_with_most_content(reading: Reading, word: Word, layer: int | None, head: int | None) -> tuple[int, int]:
    """The layer and head that contribute most content to a word; of a given layer or head if they are given.

    What a head contributes is the sum over `content_tokens` of w_ij ‖v_j W_O‖, the mean over the tokens of the word.

    Contributions are taken as a share of ‖x‖ after the layer. ‖x‖ before it would favour the first layers: the residual
    stream grows from layer to layer and, in models that normalise before the attention, tenfold in the first. Heads
    that are named after a position are chosen only where there are no others.
    """
    reading.check(layer, head)
    layers = reading.attention_layers if layer is None else [layer % reading.layers]
    content, rows = content_tokens(reading, word), list(word.tokens)
    contributions: list[tuple[float, int, int]] = []
    for number in layers:
        weights = reading.attention[number].weights[:, rows].float().mean(1).cpu()  # (H,N)
        contributed = (weights * value_norms(reading, number).cpu())[:, content].sum(1)  # (H,)
        after = reading.hidden[number + 1, rows].float().norm(dim=-1).mean().clamp(min=1e-12).cpu()
        contributions += [(share, number, h) for h, share in enumerate((contributed / after).tolist())]
    if head is not None:
        contributions = [entry for entry in contributions if entry[2] == head % reading.heads]
    contributions.sort(key=lambda entry: -entry[0])
    positional = dict[int, Tensor]()  # by layer, looked at where one of its heads is the next to be chosen
    for share, number, h in contributions:
        if number not in positional:
            positional[number] = are_positional(reading, number)
        if share > 0 and not positional[number][h]:
            return number, h
    return contributions[0][1:]
