"""How the viewer's page is put together: for the server, or as one HTML file that needs no network and no Python.

The parts are built from `frontend/` by esbuild (`npm run build`) into `dist/`, and are part of the wheel, so that users
need no Node. What a file carries in the place of a server is made by `payload`.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Callable
from functools import cache
from importlib import resources
from string import Template
from typing import TYPE_CHECKING, Any

from regard.viewer.atlas import example_of, largest_of, payload_of
from regard.viewer.payload import deflated, payload, shown_first
from regard.viewer.protocol import MAPS
from regard.viewer.protocol.limits import VIEWS

if TYPE_CHECKING:
    from regard.atlas.atlas import Atlas
    from regard.atlas.difference import Difference
    from regard.attribution import Target
    from regard.lens import Reading

Progress = Callable[[float], None]


def render_page(
    reading: Reading,
    *,
    word: int | None = None,
    layer: int | None = None,
    head: int | None = None,
    view: str | None = None,
    link: str | None = None,
    map: str = "weights",
    target: Target | None = None,
    attention: str | None = None,
    compared: dict[str, Any] | None = None,
    progress: Progress = lambda share: None,
) -> str:
    """The viewer for one reading, as the text of an HTML file that works offline and requests nothing.

    Short readings travel exactly, in float32. Longer ones are rounded to 14 bits, which moves a weight of a trained
    model by less than 0.001. The longest leave out everything but query and key, and their walk ends at the weights.
    Beyond some thousand tokens, most heads are represented by a picture, and the file stays below 10 MB.

    Args:
        reading: The text to show.
        word: Index in `reading.units` of the word that is selected when the page opens.
        layer: Layer that is shown first, counting from 0; negative numbers count from the end.
        head: Head that is shown first; negative numbers count from the end.
        view: The view that is shown first, one of `protocol.limits.VIEWS` but that of an atlas; by default "sentence".
        link: The fragment of a viewer's address, without its "#": the page opens with exactly this selection, and the
            other arguments apply only where it leaves something open.
        map: The map that is shown first, one of `protocol.MAPS`.
        target: What the maps that are about a target explain; by default `regard.attribution.default_target`.
        attention: Of an encoder-decoder with a target, the attention that is shown first; by default "cross". Word,
            layer and head are its own.
        compared: An answer of the API's `compare`, for the view that compares.
        progress: Called with the share of the work that is done, from 0 to 1.

    Returns:
        The HTML.

    Raises:
        IndexError: The reading has no such word, layer or head.
        ValueError: There is no such view or map.
        RuntimeError: The page has not been built.
    """
    whole, reading = reading, reading.attended(attention) if attention else shown_first(reading)
    opening = _opening(reading, word, layer, head, view, link, map)
    data = {"open": opening, **payload(reading, opening, compared, progress, target, whole), "atlas": None}
    return _page(data, shortened(whole.text, 80), shortened(whole.text, 300))


def render_atlas_page(atlas: Atlas | Difference, *, progress: Progress = lambda share: None) -> str:
    """The viewer for an atlas, as the text of an HTML file that works offline and requests nothing.

    It opens with the heat maps of the scores. Each head leads to its map of the atlas's example, which is carried as
    `render_page` says; without an example, the page has the atlas alone.

    Args:
        atlas: The atlas to show, or the difference of two.
        progress: Called with the share of the work that is done, from 0 to 1.

    Returns:
        The HTML.

    Raises:
        RuntimeError: The page has not been built.
    """
    carried = payload_of(atlas)
    opening: dict[str, Any] = {"word": None, **largest_of(carried), "heads": None, "view": "atlas"}
    data = {"open": opening, "metadata": None, "atlas": carried}
    if (example := example_of(atlas)) is not None:
        reading = shown_first(example)
        data |= payload(reading, opening, None, progress, None, example)
    title = f"The heads of {atlas.model}"
    return _page(data, shortened(title, 80), shortened(title, 300))


def _page(data: dict[str, Any], title: str, noscript: str) -> str:
    """The file that carries the data."""
    style, script, library = asset("viewer.css"), asset("viewer.js"), asset("openseadragon.js")
    policy = (
        f"default-src 'none'; style-src {hash_source(style)}; script-src {hash_source(script)} {hash_source(library)}; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    return Template(asset("page.html")).substitute(
        head=f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{style}</style>',
        title=html.escape(title),
        view=asset("viewer.html"),
        noscript=html.escape(noscript),
        foot=f"<!-- The map is moved by OpenSeadragon.\n\n{asset('openseadragon-license.txt')}-->\n"
        f'<script type="application/json" id="data">{script_json(data)}</script>\n'
        f'<script type="text/plain" id="library">{deflated(library.encode())}</script>\n'
        f'<script type="module">{script}</script>',
    )


def _opening(
    reading: Reading,
    word: int | None,
    layer: int | None,
    head: int | None,
    view: str | None,
    link: str | None,
    map: str,
) -> dict[str, Any]:
    """What a page selects when it opens, checked."""
    reading.check(layer, head)
    views = [name for name in VIEWS if name != "atlas"]
    if view is not None and view not in views:
        raise ValueError(f"page: expected a view of {', '.join(views)}. Got {view!r}.")
    if map not in MAPS:
        raise ValueError(f"page: map: expected one of {', '.join(MAPS)}. Got {map!r}.")
    if word is not None and not -len(reading.units) <= word < len(reading.units):
        raise IndexError(f"There is no word {word}: the text has units 0 to {len(reading.units) - 1}.")
    opening: dict[str, Any] = {
        "word": None if word is None else word % len(reading.units),
        "layer": None if layer is None else layer % reading.layers,
        "head": None if head is None else head % reading.heads,
        "heads": None if head is None else [head % reading.heads],
    }
    given = {"view": view, "link": link, "map": None if map == "weights" else map}
    return opening | {name: value for name, value in given.items() if value is not None}


def served_page() -> tuple[str, dict[str, tuple[bytes, str]]]:
    """The page of a server, and the files it loads, by name: (content, media type).

    Raises:
        RuntimeError: The page has not been built.
    """
    page = Template(asset("page.html")).substitute(
        head='<link rel="stylesheet" href="assets/viewer.css">',
        title="regard",
        view=asset("viewer.html"),
        noscript="",
        foot='<script type="module" src="assets/viewer.js"></script>',
    )
    script = f"{asset('viewer.js')}//# sourceMappingURL=viewer.js.map\n"
    return page, {
        "viewer.js": (script.encode(), "text/javascript; charset=utf-8"),
        "viewer.js.map": (asset("viewer.js.map").encode(), "application/json"),
        "viewer.css": (asset("viewer.css").encode(), "text/css; charset=utf-8"),
        "openseadragon.js": (asset("openseadragon.js").encode(), "text/javascript; charset=utf-8"),
        "openseadragon-license.txt": (asset("openseadragon-license.txt").encode(), "text/plain; charset=utf-8"),
    }


@cache
def asset(name: str) -> str:
    """A built file of the page, as text. Raises RuntimeError where the page has not been built."""
    try:
        return resources.files(__package__).joinpath("dist", name).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RuntimeError(
            f"The viewer's page is not built ({name} is missing): run make in the source tree, "
            "or npm ci and npm run build in its folder frontend."
        ) from None


def script_json(value: object) -> str:
    """JSON that may stand inside <script>: no character in it means anything to an HTML parser."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate({ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"})


def hash_source(text: str) -> str:
    """The source expression by which a Content-Security-Policy allows exactly this inline text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


def shortened(text: str, length: int) -> str:
    """The text on one line, and at most so long."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
