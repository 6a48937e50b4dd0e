"""A reading as plain lists of numbers, for JSON. `Reading.save` and the command line call `numbers`."""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING, Any

from regard.lens.reading import Reading
from regard.output.maps import ShownMap

if TYPE_CHECKING:
    from regard.attribution import Target

NUMBERS_LIMIT = 4_000_000  # numbers in a JSON file: some 80 MB


def numbers(
    reading: Reading,
    layer: int | None = None,
    head: int | None = None,
    map: str = "weights",
    target: Target | None = None,
) -> dict[str, Any]:
    """A reading as plain lists: the number of a map between unit i and unit j is `attention[l][h][i][j]`.

    Of cross-attention, j counts `source.units`.
    l and h are indices into `layers` and `heads`: the layer and head that are asked for, or all of them. A map of all
    heads together has one entry in `heads`, None. Raises ValueError where there are more than NUMBERS_LIMIT numbers.
    """
    shown = ShownMap(reading, map, target)
    layers, heads = shown.layers(layer), shown.heads(layer, head)
    rows = [h or 0 for h in heads]
    count = len(layers) * len(heads) * shown.shape[0] * shown.shape[1]
    if count > NUMBERS_LIMIT:
        raise ValueError(
            f"{count:,} numbers are too many for JSON (at most {NUMBERS_LIMIT:,}): choose a layer and a head, save a "
            ".html, or take regard.attribution.map_of(reading, map, layer) in Python."
        )
    return {
        "text": reading.text,
        "model": reading.model,
        "truncated": reading.truncated,
        "note": reading.note,
        "units": _units(reading),
        **({"part": reading.part} if reading.part else {}),
        **({"source": {"text": source.text, "units": _units(source)}} if (source := reading.source) else {}),
        "layers": layers,
        "heads": heads,
        **shown.to_dict(),
        "attention": [
            [[[_rounded(w) for w in row] for row in head] for head in shown.words(n)[rows].tolist()] for n in layers
        ],
    }


def _units(reading: Reading) -> list[dict[str, Any]]:
    return [{"text": u.text, "start": u.start, "end": u.end, "special": u.special} for u in reading.units]


def _rounded(number: float) -> float | None:
    """To seven digits; None for NaN, which JSON does not have."""
    return None if isnan(number) else float(f"{number:.7g}")
