"""What a planted head's weights are by the equations of `planted`, and the β with which its score is its strength."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from support.planted import (
    CERTAIN,
    FREQUENCIES,
    PERIOD,
    PUSH,
    SHORT_PERIOD,
    SIZES,
    THETA,
    TRACE_OWN,
    Planted,
    Scheme,
    answer,
    code,
    slopes,
)
from support.planted_texts import random_tokens, repeated_tokens


class Stream(NamedTuple):
    """What layer 1 finds: r (N,axes), without the own part of a trace, and σ (N,)."""

    before: Tensor
    sigma: Tensor


def kernel(scheme: Scheme, distance: Tensor) -> Tensor:
    """K(δ)."""
    return torch.cos(distance[..., None] * FREQUENCIES[scheme].double()).mean(-1)


def ideal_scores(head: Planted, scheme: Scheme, tokens: Tensor, stream: Stream | None) -> tuple[Tensor, Tensor]:
    """(N,N) twice: what β multiplies, and what is added to it. In layer 0 there is no stream to be read."""
    codes, place = code(tokens).double(), torch.arange(len(tokens))
    distance = (place[:, None] - place).double()
    before = codes if stream is None else stream.before
    push = torch.zeros_like(distance)
    match head.pattern:
        case "previous" if scheme != "alibi":
            times = kernel(scheme, distance - 1)
        case "previous":
            times = before @ codes.mT
        case "sink":
            times = _product(codes[:1].expand_as(codes), codes, scheme)
        case "duplicate":
            times = _product(codes, codes, scheme)
            push = push if scheme == "alibi" else -PUSH * kernel(scheme, distance)
        case "induction":
            times = _product(codes, before, scheme)
        case "retrieval":
            times = _product(code(answer(tokens)).double(), codes, scheme)
        case _:
            times = torch.zeros_like(distance)
    if stream is not None:
        norms = stream.sigma[:, None] * stream.sigma
        times, push = times / norms, push / norms
    slope = slopes(SIZES[scheme][1])[head.head].double() if scheme == "alibi" else 0.0
    return times, (push - slope * distance).masked_fill(distance < 0, -torch.inf)


def _product(queries: Tensor, keys: Tensor, scheme: Scheme) -> Tensor:
    """(N,N), the products of codes (N,axes); rotary planes have turned them by where they are."""
    if scheme != "rotary":
        return queries @ keys.mT
    frequencies = THETA ** (-torch.arange(16, 32).double() / 32)
    angles = torch.arange(len(queries))[:, None] * frequencies
    turn = torch.polar(torch.ones_like(angles), angles)
    query, key = (torch.complex(*pad(codes, (0, 1)).chunk(2, -1)) * turn for codes in (queries, keys))
    return (query @ key.mH).real


class Calibration:
    """Finds the β of heads, layer by layer while a model is made: σ is that of the stream after the layers so far."""

    def __init__(self, model: Any, scheme: Scheme, heads: Sequence[Planted]) -> None:
        self.model, self.scheme = model, scheme
        self.feeder = next((head for head in heads if head.layer == 0 and head.pattern in ("previous", "trace")), None)

    def beta(self, head: Planted) -> float:
        """The β with which the mean weight on the edges is the strength, by bisection: the mean grows with β."""
        if head.pattern in ("copying", "trace"):
            return 0.0
        if head.pattern == "retrieval":
            return CERTAIN
        tokens, edges, rows = example(head, self.scheme)
        times, added = ideal_scores(head, self.scheme, tokens, self.stream(tokens) if head.layer else None)
        low, high = 0.0, 400.0
        for _ in range(30):
            middle = (low + high) / 2
            share = ((middle * times + added).softmax(-1) * edges).sum(-1)[rows].mean()
            low, high = (middle, high) if share < head.strength else (low, middle)
        return high

    def weights(self, head: Planted, tokens: Tensor) -> Tensor:
        """(N,N), what the weights of a head should be."""
        times, added = ideal_scores(head, self.scheme, tokens, self.stream(tokens) if head.layer else None)
        return (self.beta(head) * times + added).softmax(-1)

    def stream(self, tokens: Tensor) -> Stream:
        """What is in the stream after layer 0: r by the feeder's equation, and the norm of what the model has there."""
        codes = code(tokens).double()
        states = self.model(tokens[None], output_hidden_states=True).hidden_states[1][0].double()
        sigma = states.square().mean(-1).sqrt()
        if self.feeder is None:
            return Stream(torch.zeros_like(codes), sigma)
        own = TRACE_OWN * codes if self.feeder.pattern == "trace" else 0.0
        return Stream(self.weights(self.feeder, tokens) @ codes - own, sigma)


def example(head: Planted, scheme: Scheme) -> tuple[Tensor, Tensor, Tensor]:
    """A text on which a strength is defined, the edges (N,N) of the pattern, and the rows that count."""
    generator = torch.Generator().manual_seed(1)
    if head.pattern in ("previous", "sink"):
        tokens, repeats_from = random_tokens(generator), 1
    else:
        period = SHORT_PERIOD if head.pattern == "duplicate" and scheme == "alibi" else PERIOD
        tokens, repeats_from = repeated_tokens(period, generator), 1 + period
    place = torch.arange(len(tokens))
    distance = place[:, None] - place
    edges = {
        "previous": distance == 1,
        "sink": (place == 0).expand_as(distance),
        "duplicate": (tokens[:, None] == tokens) & (distance > 0),
        "induction": distance == PERIOD - 1,
    }[head.pattern]
    return tokens, edges, place >= repeats_from
