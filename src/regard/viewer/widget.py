"""The viewer in a notebook: an anywidget, for Jupyter, JupyterLab, VS Code, Colab and marimo.

The page sends the same requests as over HTTP, through the channel of the widget, as {id, request}; api.py answers them.
`Reading.view` makes the widget, by lens/display.py; nothing else imports this file.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

try:
    import anywidget
    import traitlets
except ImportError as error:
    raise ImportError(f"The notebook viewer is not installed ({error}): pip install 'regard[notebook]'.") from None

from regard.lens.display import still, unit_index
from regard.lens.reading import Reading
from regard.lens.units import Word
from regard.output.maps import ShownMap
from regard.viewer.api import ViewerAPI
from regard.viewer.bundle import asset
from regard.viewer.payload import shown_first
from regard.viewer.protocol.encode import encode
from regard.viewer.protocol.errors import RequestError


class Viewer(anywidget.AnyWidget):
    """The viewer of a reading, in a notebook; `Reading.view` makes it.

    A notebook shows it as two outputs: a picture, for notebooks that are opened or exported without a kernel, and the
    widget, which hides the picture once Python answers.

    Args:
        reading: what is shown.
        word, nth: the word that is selected first, as in `Reading.word`.
        layer, head: what is shown first; negative numbers count from the end.
        map: the map that is shown first, one of `regard.attribution.MAPS`.
        attention: of an encoder-decoder with a target, which one is shown first: "encoder", "decoder" or "cross", the
            default. Word, layer and head are its own.

    Raises:
        IndexError: there is no such layer or head.
        LookupError: there is no such word.
        ValueError: there is no such map, or it has no heads to choose from.
    """

    _esm = asset("widget.js")
    markup = traitlets.Unicode(asset("viewer.html")).tag(sync=True)
    look = traitlets.Unicode(asset("viewer.css")).tag(sync=True)
    options = traitlets.Dict().tag(sync=True)
    picture = traitlets.Unicode().tag(sync=True)  # the end of the picture's base64, by which the page finds it

    def __init__(
        self,
        reading: Reading,
        *,
        word: Word | str | int | None = None,
        nth: int | None = None,
        layer: int | None = None,
        head: int | None = None,
        map: str = "weights",
        attention: str | None = None,
    ) -> None:
        whole, reading = reading, reading.attended(attention) if attention else shown_first(reading)
        ShownMap(reading, map).heads(layer, head)
        lens = whole.lens
        self._reading, self._selected = reading, (layer, head, map)
        self._api = ViewerAPI({} if lens is None else {lens.name: lambda: lens}, opening=whole)
        opening = {
            "word": unit_index(reading, word, nth),
            "layer": None if layer is None else layer % reading.layers,
            "head": None if head is None else head % reading.heads,
            "heads": None if head is None else [head % reading.heads],
            "attention": reading.part or None,
            "map": map,
            "view": "map" if layer is not None and head is not None and word is None else "sentence",
        }
        super().__init__(options={"reads": lens is not None, "opening": opening})
        self.on_msg(self._on_message)

    def _on_message(self, _: Any, message: dict[str, Any], buffers: Any) -> None:
        """Answers a request of the page: {id} with the encoded reply, or {id} with an ErrorReply in it."""
        number = message.get("id")
        try:
            self.send({"id": number}, buffers=[encode(self._api.handle(message.get("request")))])
        except RequestError as error:
            self.send({"id": number, "error": str(error), "status": error.status, "code": error.code})
        except Exception as error:
            self.send({"id": number, "error": f"Internal error in Python: {error}", "status": 500})
            raise

    def _ipython_display_(self) -> None:
        import IPython.display

        display: Callable[..., None] = IPython.display.display
        data, metadata = self._picture_bundle()
        if data:
            self.picture = data["image/png"][-PICTURE_END:]
            display(data | {"text/plain": repr(self._reading)}, metadata=metadata, raw=True)
        data, metadata = self._widget_bundle()
        display(data, metadata=metadata, raw=True)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The widget and the picture in one bundle, of which a notebook shows what it can."""
        data, metadata = self._widget_bundle(**kwargs)
        picture, alt = self._picture_bundle()
        return {**data, **picture}, {**metadata, **alt}

    def _widget_bundle(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (dict(bundle or {}), {})
        return {**data, "text/plain": repr(self._reading)}, metadata

    def _picture_bundle(self) -> tuple[dict[str, str], dict[str, Any]]:
        """A picture of the selected head, or of all heads of a layer, with its metadata; empty without matplotlib."""
        picture = still(self._reading, *self._selected)
        if picture is None:
            return {}, {}
        content, metadata = picture
        return {"image/png": base64.b64encode(content).decode()}, {"image/png": metadata}


PICTURE_END = 200  # characters of base64: what all PNGs end with is shorter
