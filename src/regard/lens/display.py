"""Saving a reading as a picture, a page or numbers: the one file of this room that calls upwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from regard._internal.files import atomic_write
from regard.lens.reading import Reading, Word

if TYPE_CHECKING:
    from regard.viewer.widget import Viewer


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
        from regard.viewer.bundle import render_page

        content = render_page(reading, word=index, layer=layer, head=head, view=view).encode()
    elif suffix == ".json":
        from regard.output.json import numbers

        content = json.dumps(numbers(reading, layer, head), ensure_ascii=False).encode()
    else:
        from regard.output.image import render

        content = render(reading, suffix[1:], layer=layer, head=head)
    atomic_write(path, lambda file: file.write(content))


def widget(reading: Reading, **opening: Any) -> Viewer:
    """The viewer in a notebook, with the arguments of `Reading.view`."""
    from regard.viewer.widget import Viewer

    return Viewer(reading, **opening)


def chosen(reading: Reading, word: Word | str | int | None, nth: int | None = None) -> int | None:
    """The place in `reading.units` of a word, which may be named by its text or number; None for none.

    Raises LookupError as `Reading.word`, ValueError for a word of another reading.
    """
    if word is None:
        return None
    if not isinstance(word, Word):
        return reading.word(word, nth).index
    if word.reading.hidden is not reading.hidden:
        raise ValueError(f"{word.text!r} is a word of another reading.")
    return word.index


def check_suffix(path: str | Path) -> str:
    """What kind of file a reading is to be saved as. Raises ValueError for one that is not known."""
    suffix = Path(path).suffix.lower()
    if suffix not in (".html", ".png", ".svg", ".json"):
        raise ValueError(f"Expected a file that ends in .html, .png, .svg or .json. Got {str(path)!r}.")
    return suffix
