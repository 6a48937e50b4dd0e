"""A reading as a picture, a page or a widget: the one file here that imports attribution, atlas, output and viewer.

What a notebook shows of a reading, a comparison, a walk or an agreement is here, too. A saved notebook, and one that is
opened without a kernel, has only what its outputs hold: so each of them holds a picture or a table as HTML.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from regard._internal.files import atomic_write
from regard.lens.reading import Reading
from regard.lens.units import Word

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import RenderableType

    from regard.atlas.atlas import Atlas
    from regard.atlas.make import Texts
    from regard.attribution import Agreement, Target
    from regard.lens.compare import Comparison
    from regard.lens.lens import Lens
    from regard.lens.walk import Walk
    from regard.viewer.widget import Viewer

    Picture = tuple[bytes, dict[str, str]]  # a PNG, and its alternative text as {"alt": text}

DPI = 100  # of a picture in a notebook, where a dot of it is one of the screen
COLUMNS = 100  # of what a terminal would show, in a notebook


def save(
    reading: Reading,
    path: str | Path,
    *,
    word: Word | str | int | None = None,
    nth: int | None = None,
    layer: int | None = None,
    head: int | None = None,
    view: Literal["sentence", "heads", "map", "walk"] | None = None,
    map: str = "weights",
    target: Target | None = None,
    attention: str | None = None,
) -> None:
    """Save a reading as a picture (.png, .svg), one self-contained page (.html) or numbers (.json).

    The file is written atomically: where that fails, with OSError, an existing file is unchanged.

    Args:
        reading: what is saved.
        path: the file; its suffix decides the format.
        word, nth: the word that a page opens with, as in `Reading.word`.
        layer, head: what a picture shows, all of them without both; what a page opens with.
        view: the view that a page opens in.
        map: the map that is shown, or that a page opens with: one of `regard.attribution.MAPS`.
        target: what it is for, where it is a map for a target; not given, `regard.attribution.default_target`.
        attention: of an encoder-decoder with a target, "encoder", "decoder" or "cross": what is shown, or what a page
            opens with; the word is one of its rows.

    Raises:
        ValueError: the suffix or the map is unknown, or the map has no heads.
        IndexError, LookupError: there is no such layer, head or word.
    """
    whole, reading = reading, reading.attended(attention)
    suffix = check_suffix(path)
    if suffix == ".html" and attention is None and whole.cross is not None:
        reading = whole.cross  # what its page shows first
    reading.check(layer, head)
    index = unit_index(reading, word, nth)
    if suffix == ".html":
        from regard.viewer.bundle import render_page

        part = reading.part or None
        page = render_page(whole, word=index, layer=layer, head=head, view=view, map=map, target=target, attention=part)
        content = page.encode()
    elif suffix == ".json":
        from regard.output.json import numbers

        content = json.dumps(numbers(reading, layer, head, map, target), ensure_ascii=False).encode()
    else:
        from regard.output.image import render

        content = render(reading, suffix[1:], layer=layer, head=head, map=map, target=target)
    atomic_write(path, lambda file: file.write(content))


def widget(reading: Reading, **opening: Any) -> Viewer:
    """The viewer for a notebook; the arguments are those of `Reading.view`."""
    from regard.viewer.widget import Viewer

    return Viewer(reading, **opening)


def still(reading: Reading, layer: int | None = None, head: int | None = None, map: str = "weights") -> Picture | None:
    """The picture that a notebook holds of a reading: of a head, or of all heads of a layer, by default of the first.

    None where nothing draws, because matplotlib is not installed.
    """
    from regard.output.image import picture

    which = "".join(f", {name} {n}" for name, n in (("layer", layer), ("head", head)) if n is not None)
    what = "Attention weights" if map == "weights" else f"The map “{map}”"
    shown = reading.attention_layers[0] if layer is None else layer
    alt = f"{what} of {reading.model}{which}, in {reading.text[:200]!r}"
    return as_png(lambda: picture(reading, layer=shown, head=head, map=map), alt)


def still_of_comparison(comparison: Comparison) -> Picture | None:
    """The picture that a notebook holds of a comparison; None where nothing draws."""
    from regard.output.comparison import picture

    name = f"The cosines of “{comparison.word}” in {len(comparison.words)} texts, layer by layer"
    return as_png(lambda: picture(comparison), name)


def still_of_agreement(agreement: Agreement) -> Picture | None:
    """The picture that a notebook holds of an agreement; None where nothing draws."""
    from regard.output.agreement import picture

    name = f"What each word does for {agreement.target.name}, by each method, beside its knockout"
    return as_png(lambda: picture(agreement), name)


def as_png(draw: Callable[[], Figure], alt: str) -> Picture | None:
    """What `draw` draws, as the picture that a notebook holds; None where matplotlib is not installed."""
    from regard._internal import plotting

    try:
        return plotting.to_bytes(draw(), "png", DPI), {"alt": alt}
    except ImportError:
        return None


def atlas(lens: Lens, texts: Texts | None, **options: Any) -> Atlas:
    """What every head of a model does; the options are those of `Lens.atlas`."""
    from regard.atlas.make import atlas

    return atlas(lens, texts, **options)


def lesson(walk: Walk) -> str:
    """A walk as the lesson that the terminal prints, in HTML."""
    from regard.output.terminal import explain

    return as_html(lambda width: explain(walk, width))


def as_html(render: Callable[[int], RenderableType]) -> str:
    """What `render` makes for a terminal so wide, in HTML."""
    from rich.console import Console

    to_record: dict[str, Any] = {"record": True, "file": io.StringIO(), "color_system": "truecolor"}
    console = Console(width=COLUMNS, force_terminal=True, force_jupyter=False, legacy_windows=False, **to_record)
    console.print(render(COLUMNS))
    style = "white-space: pre; overflow-x: auto; line-height: 1.3; font-family: monospace"
    return console.export_html(inline_styles=True, code_format=f'<pre style="{style}">{{code}}</pre>')


def head_with_most_content(reading: Reading, word: Word, layer: int | None, head: int | None) -> tuple[int, int]:
    """The layer and head that contribute most content to a word: `Reading.head_with_most_content`."""
    from regard.attribution.heads.content import head_with_most_content

    return head_with_most_content(reading, word, layer, head)


def strict_pattern(reading: Reading, layer: int, head: int) -> str | None:
    """The position that all tokens attend to in a head: `Walk.pattern`."""
    from regard.attribution.heads.named import strict_pattern

    return strict_pattern(reading, layer, head)


def unit_index(reading: Reading, word: Word | str | int | None, nth: int | None = None) -> int | None:
    """The place in `reading.units` of a word, given by itself, its text or its number; None for None.

    Raises LookupError as `Reading.word`, ValueError for a word of another reading.
    """
    if word is None:
        return None
    if not isinstance(word, Word):
        return reading.word(word, nth).index
    if word.reading.attention is not reading.attention:
        raise ValueError(f"{word.text!r} is a word of another reading.")
    return word.index


def check_suffix(path: str | Path) -> str:
    """The suffix of a file to save a reading in. Raises ValueError for an unknown one."""
    suffix = Path(path).suffix.lower()
    if suffix not in (".html", ".png", ".svg", ".json"):
        raise ValueError(f"Expected a file that ends in .html, .png, .svg or .json. Got {str(path)!r}.")
    return suffix
