"""The scores of planted models, and what they should be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import regard.hf
from regard.attribution.heads import SCORES, Sample, measure
from regard.attribution.layers import layer_of
from support.planted import LAYERS, PERIOD, SHORT_PERIOD, Planted, Scheme, truth
from support.planted_texts import (
    needle_sample,
    needle_tokens,
    random_tokens,
    repeated_sample,
    repeated_tokens,
    text_sample,
)

NEEDLES = 8  # texts of 30 questions


@torch.no_grad()
def scores_of(model: Any, *samples: Sample) -> list[dict[str, Tensor]]:
    """(layers,heads), every score that each text has; all of one length."""
    with regard.hf.record() as recorded:
        model(torch.stack([sample.ids for sample in samples]))
    layers = [layer_of(recorded, number) for number in range(LAYERS)]
    tables = []
    for n, sample in enumerate(samples):
        measured = [measure(replace(layer, attention=layer.attention.of_sequence(n)), sample) for layer in layers]
        tables.append({name: torch.stack([scores[name] for scores in measured]) for name in measured[0]})
    return tables


def all_scores(model: Any, scheme: Scheme, seed: int) -> dict[str, Tensor]:
    """(layers,heads) by name, on texts of our own: the mean over those of the needles."""
    generator, directions = torch.Generator().manual_seed(seed), model.lm_head.weight.detach()
    text = text_sample(random_tokens(generator))
    periods = [PERIOD, SHORT_PERIOD] if scheme == "alibi" else [PERIOD]
    repeated = [repeated_sample(repeated_tokens(period, generator), period, directions) for period in periods]
    on_text, on_repeated, *on_often = scores_of(model, text, *repeated)
    on_needles = scores_of(model, *(needle_sample(*needle_tokens(generator)) for _ in range(NEEDLES)))
    retrieval = torch.stack([table["retrieval"] for table in on_needles]).mean(0)
    duplicate = (on_often or [on_repeated])[0]["duplicate"]
    return on_text | on_repeated | {"duplicate": duplicate, "retrieval": retrieval}


def wrong(scores: dict[str, Tensor], heads: Sequence[Planted]) -> list[str]:
    """What was not found although it was planted, and what was found although it was not, a line each."""
    lines = []
    for name, planted in truth(heads).items():
        least, table = SCORES[name].found_from, scores[name]
        assert least is not None
        found = {(layer, head) for layer, head in (table >= least).nonzero().tolist()}
        for place in sorted(found ^ planted):
            what = "not found" if place in planted else "invented"
            lines.append(f"{name} at {place}: {what}, {float(table[place]):.3f}")
    return lines
