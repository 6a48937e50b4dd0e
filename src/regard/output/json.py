"""A reading as plain lists of numbers, for JSON. `Reading.save` and the command line call `numbers`."""

from __future__ import annotations

from math import isnan
from typing import Any

from regard.lens.reading import Reading

WEIGHTS_LIMIT = 4_000_000  # weights in a JSON file: some 80 MB


def numbers(reading: Reading, layer: int | None = None, head: int | None = None) -> dict[str, Any]:
    """A reading as plain lists: the weight that unit i gives to unit j is `attention[l][h][i][j]`.

    l and h are indices into `layers` and `heads`: the layer and head that are asked for, or all of them. Raises
    ValueError where there are more than WEIGHTS_LIMIT weights.
    """
    reading.check(layer, head)
    units = reading.units
    layers = reading.attention_layers if layer is None else [layer % reading.layers]
    heads = list(range(reading.heads)) if head is None else [head % reading.heads]
    count = len(layers) * len(heads) * len(units) ** 2
    if count > WEIGHTS_LIMIT:
        raise ValueError(
            f"{count:,} weights are too many for JSON (at most {WEIGHTS_LIMIT:,}): choose a layer and a head, save a "
            ".html, or take reading.attention[layer].weights in Python."
        )
    return {
        "text": reading.text,
        "model": reading.model,
        "truncated": reading.truncated,
        "note": reading.note,
        "units": [{"text": u.text, "start": u.start, "end": u.end, "special": u.special} for u in units],
        "layers": layers,
        "heads": heads,
        "attention": [
            [[[_rounded(w) for w in row] for row in head] for head in reading.weights(n)[heads].tolist()]
            for n in layers
        ],
    }


def _rounded(weight: float) -> float | None:
    """To seven digits; None for NaN, which JSON does not have."""
    return None if isnan(weight) else round(weight, 7)
