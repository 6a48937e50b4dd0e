"""What a head carries: the weight that it gives to a token, times the length of what that token's value adds.

A weight says where a head looks. Where it looks for want of anything better, at a sink, the values are short, and next
to nothing is carried. Kobayashi et al. 2020, https://arxiv.org/abs/2004.10102.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from regard.lens.patterns import NAMED, POSITIONS, shares

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from regard.lens.reading import Reading, Word
    from regard.models.inside import Inside


def lengths(reading: Reading, layer: int) -> Float[Tensor, "H N"]:
    """How long what each token's value adds to the residual is, by head: ‖v_j W_O‖, or ‖v_j‖ where W_O is not known."""
    attention = reading.attention[layer]
    inside = _inside(reading, layer)
    if inside is None:
        values = attention.value.float()
        return values.norm(dim=-1).repeat_interleave(reading.heads_of(layer) // len(values), 0)
    return inside.carried(attention.value, reading.heads_of(layer))


def projected(reading: Reading, layer: int) -> bool:
    """Whether the lengths are those of v W_O, and not of v alone."""
    inside = _inside(reading, layer)
    return inside is not None and inside.projects


def _inside(reading: Reading, layer: int) -> Inside | None:
    return None if reading.lens is None else reading.lens.model.inside[layer]


def elsewhere(reading: Reading, word: Word) -> Bool[Tensor, "N"]:
    """The tokens of other words. The first of a causal model is none: it is where heads rest that look for nothing.

    Only the word that comes next has no other to look at, and for that one it counts.
    """
    own = set(word.tokens)
    others = torch.tensor([not token.special and n not in own for n, token in enumerate(reading.tokens)])
    if reading.causal and others[1 : max(own)].any():
        others[0] = False
    return others


def head_with_most_content(reading: Reading, word: Word, layer: int | None, head: int | None) -> tuple[int, int]:
    """The layer and head in which most is carried to a word from other words.

    As a share of the vector that leaves the layer: |x| grows from layer to layer, and of a model that norms before the
    attention it grows most in the first, tenfold, so that what enters there is no measure. Heads that give half of
    their weight or more to one place, whatever stands there, are taken only where there are no others.
    """
    reading.check(layer, head)
    layers = reading.attention_layers if layer is None else [layer % reading.layers]
    others, rows = elsewhere(reading, word), list(word.tokens)
    carried = []
    for n in layers:
        weights = reading.attention[n].weights[:, rows].float().mean(1).cpu()  # (H,N)
        into = (weights * lengths(reading, n).cpu())[:, others].sum(1)  # (H,)
        carried.append(into / reading.hidden[n + 1, rows].float().norm(dim=-1).mean().clamp(min=1e-12).cpu())
    chosen = None if head is None else head % reading.heads
    order = sorted(
        ((float(share), n, h) for n, by_head in zip(layers, carried, strict=True) for h, share in enumerate(by_head)
         if chosen in (None, h)),
        key=lambda entry: -entry[0],
    )  # fmt: skip
    for share, n, h in order:
        if share > 0 and not _positional(reading, n, h):
            return n, h
    return order[0][1:]


def _positional(reading: Reading, layer: int, head: int) -> bool:
    """Whether the head of so many tokens gives half of their weight to one place: the one before, the first …"""
    of_text = sum(not token.special for token in reading.tokens)
    return of_text > 2 and bool((shares(reading, layer, head)[: len(POSITIONS)] >= NAMED).any())
