"""Readings, shown: in the terminal, as a picture, as a page."""

from __future__ import annotations

import json
from pathlib import Path

from regard.files import write
from regard.lens.reading import Reading, Word

MOST_NUMBERS = 4_000_000  # in a .json: some 80 MB


def save(
    reading: Reading,
    path: str | Path,
    *,
    word: Word | None = None,
    layer: int | None = None,
    head: int | None = None,
) -> None:
    """Save a reading as a picture (.png, .svg), one self-contained page (.html) or numbers (.json).

    `layer` and `head` choose what a picture shows (without both: all of them) and, with `word`, what a page opens
    with. The file is written beside and renamed: where that fails, with OSError, the old one is still there.
    """
    reading.check(layer, head)
    suffix = Path(path).suffix.lower()
    if suffix == ".html":
        from regard.view.html import page

        content = page(reading, word=None if word is None else word.index, layer=layer, head=head).encode()
        write(path, lambda file: file.write(content))
    elif suffix in (".png", ".svg"):
        from regard.view.image import picture

        figure = picture(reading, layer=layer, head=head)
        write(path, lambda file: figure.savefig(file, format=suffix[1:]))
    elif suffix == ".json":
        content = json.dumps(numbers(reading), ensure_ascii=False).encode()
        write(path, lambda file: file.write(content))
    else:
        raise ValueError(f"Expected a file that ends in .html, .png, .svg or .json. Got {str(path)!r}.")


def numbers(reading: Reading) -> dict:
    """A reading as plain lists: `attention[layer][head][i][j]` is the weight that unit i gives to unit j.

    Raises ValueError for one so long that the numbers would be of no use as text.
    """
    units = reading.units
    count = reading.layers * reading.heads * len(units) ** 2
    if count > MOST_NUMBERS:
        raise ValueError(
            f"{count:,} weights are too many for JSON (at most {MOST_NUMBERS:,}): save a .html, or take "
            "reading.attention[layer].weights in Python."
        )
    return {
        "text": reading.text,
        "model": reading.model,
        "truncated": reading.truncated,
        "units": [{"text": u.text, "start": u.start, "end": u.end, "special": u.special} for u in units],
        "attention": [
            [[[round(w, 7) for w in row] for row in head] for head in reading.weights(layer).tolist()]
            for layer in range(reading.layers)
        ],
    }
