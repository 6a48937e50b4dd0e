"""Readings of random numbers, with every kind of mask: what a page, a picture or a map is made of."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

import regard
from regard.lens.reading import Reading, Token


def made(words="a bb ccc dd e", *, layers=2, heads=6, groups=3, dim=5, hidden=7, draw=torch.randn, **options):
    """A reading of random numbers: [S], then the words, every second of two tokens. `options` go to attention()."""
    torch.manual_seed(0)
    tokens, spans, start = [Token("[S]", 0, 0, True)], [(None, [0])], 0
    for n, word in enumerate(words.split(" ")):
        span = (start, start + len(word))
        cuts = [span[0], span[0] + len(word) // 2, span[1]] if n % 2 and len(word) > 1 else list(span)
        spans.append((span, list(range(len(tokens), len(tokens) + len(cuts) - 1))))
        tokens += [Token(words[a:b], a, b, False) for a, b in pairwise(cuts)]
        start = span[1] + 1
    attention = []
    for _ in range(layers):
        q, k, v = (draw(1, n, len(tokens), dim) for n in (heads, groups, groups))
        whole = regard.attention(q, k, v, **options)
        weights = regard.Weights(whole.weights.scores, whole.lse, whole.weights.sinks, leading=(heads,))
        attention.append(regard.Attention(whole.output[0], whole.lse[0], weights, v[0]))
    states = torch.randn(layers + 1, len(tokens), hidden)
    return Reading(words, "made up", tokens, states, attention, None, spans)


RULES = {
    "plain": {},
    "causal": {"causal": True},
    "window": {"window": (2, 1)},
    "softcap, scale and sinks": {"softcap": 1.5, "scale": 0.7, "sinks": torch.linspace(-1, 2, 6)},
    "causal window with sinks": {"causal": True, "window": (1, 0), "sinks": torch.linspace(0, 1, 6)},
    "lengths": {"lengths": torch.tensor([4])},
    "segments": {"segments": torch.tensor([0, 3, 8])},
    "bias": {"bias": torch.linspace(-2, 2, 64).view(8, 8)},
    "a mask of one's own": {"mask": (torch.arange(64).view(8, 8) % 3 > 0)},
}
rules = pytest.mark.parametrize("options", RULES.values(), ids=RULES.keys())
