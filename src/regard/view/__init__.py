"""Readings, shown: in the terminal, as a picture, as a page."""

from __future__ import annotations

import json
from math import isnan
from pathlib import Path
from typing import Literal

from regard.files import write
from regard.lens.reading import Reading, Word

MOST_NUMBERS = 4_000_000  # in a .json: some 80 MB


def save(
    reading: Reading,
    path: str | Path,
    *,
    word: Word | str | int | None = None,
    nth: int | None = None,
    layer: int | None = None,
    head: int | None = None,
    view: Literal["sentence", "heads", "map", "walk"] | None = None,
) -> None:
    """Save a reading as a picture (.png, .svg), one self-contained page (.html) or numbers (.json).

    `layer` and `head` choose what a picture shows (without both: all of them) and, with `word` and `nth` as in
    `Reading.word`, what a page opens with; `view` is the view it opens in. The file is written beside and renamed:
    where that fails, with OSError, the old one is still there.
    """
    reading.check(layer, head)
    index = chosen(reading, word, nth)
    suffix = check_suffix(path)
    if suffix == ".html":
        from regard.view.html import page

        content = page(reading, word=index, layer=layer, head=head, view=view).encode()
    elif suffix == ".json":
        content = json.dumps(numbers(reading, layer, head), ensure_ascii=False).encode()
    else:
        from regard.view.image import drawn

        content = drawn(reading, suffix[1:], layer=layer, head=head)
    write(path, lambda file: file.write(content))


def chosen(reading: Reading, word: Word | str | int | None, nth: int | None = None) -> int | None:
    """The place in `reading.units` of a word, which may be named by its text or number; None for none.

    Raises LookupError as `Reading.word`, ValueError for a word of another reading.
    """
    if word is None:
        return None
    if not isinstance(word, Word):
        return reading.word(word, nth).index
    if word._reading.hidden is not reading.hidden:
        raise ValueError(f"{word.text!r} is a word of another reading.")
    return word.index


def check_suffix(path: str | Path) -> str:
    """What kind of file a reading is to be saved as. Raises ValueError for one that is not known."""
    suffix = Path(path).suffix.lower()
    if suffix not in (".html", ".png", ".svg", ".json"):
        raise ValueError(f"Expected a file that ends in .html, .png, .svg or .json. Got {str(path)!r}.")
    return suffix


def numbers(reading: Reading, layer: int | None = None, head: int | None = None) -> dict:
    """A reading as plain lists: the weight that unit i gives to unit j is `attention[l][h][i][j]`.

    l and h are places in `layers` and `heads`: those asked for, or all. Raises ValueError for a reading so long that
    the numbers would be of no use as text.
    """
    reading.check(layer, head)
    units = reading.units
    layers = reading.attention_layers if layer is None else [layer % reading.layers]
    heads = list(range(reading.heads)) if head is None else [head % reading.heads]
    count = len(layers) * len(heads) * len(units) ** 2
    if count > MOST_NUMBERS:
        raise ValueError(
            f"{count:,} weights are too many for JSON (at most {MOST_NUMBERS:,}): choose a layer and a head, save a "
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
