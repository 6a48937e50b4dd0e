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

from regard.lens.display import unit_index
from regard.lens.reading import Reading
from regard.lens.units import Word
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
        attention: of an encoder-decoder with a target, which one is shown first: "encoder", "decoder" or "cross", the
            default. Word, layer and head are its own.

    Raises:
        IndexError: there is no such layer or head.
        LookupError: there is no such word.
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
        attention: str | None = None,
    ) -> None:
        whole, reading = reading, reading.attended(attention) if attention else shown_first(reading)
        reading.check(layer, head)
        lens = whole.lens
        self._reading, self._selected = reading, (layer, head)
        self._api = ViewerAPI({} if lens is None else {lens.name: lambda: lens}, opening=whole)
        opening = {
            "word": unit_index(reading, word, nth),
            "layer": None if layer is None else layer % reading.layers,
            "head": None if head is None else head % reading.heads,
            "heads": None if head is None else [head % reading.heads],
            "attention": reading.part or None,
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
        picture = self._picture()
        if picture is not None:
            self.picture = picture[-PICTURE_END:]
            data = {"image/png": picture, "text/plain": repr(self._reading)}
            display(data, metadata=self._alternative_text(), raw=True)
        data, metadata = self._widget_bundle()
        display(data, metadata=metadata, raw=True)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The widget and the picture in one bundle, of which a notebook shows what it can."""
        data, metadata = self._widget_bundle(**kwargs)
        picture = self._picture()
        if picture is None:
            return data, metadata
        return {**data, "image/png": picture}, {**metadata, **self._alternative_text()}

    def _widget_bundle(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (dict(bundle or {}), {})
        return {**data, "text/plain": repr(self._reading)}, metadata

    def _alternative_text(self) -> dict[str, Any]:
        """The alternative text of the picture."""
        layer, head = self._selected
        which = "".join(f", {name} {n}" for name, n in (("layer", layer), ("head", head)) if n is not None)
        description = f"Attention weights of {self._reading.model}{which}, in {self._reading.text[:200]!r}"
        return {"image/png": {"alt": description}}

    def _picture(self) -> str | None:
        """A picture of the selected head, or of all heads of a layer, in base64; None without matplotlib."""
        from regard.output.image import render

        layer, head = self._selected
        layer = self._reading.attention_layers[0] if layer is None else layer
        try:
            content = render(self._reading, "png", layer=layer, head=head)
        except ImportError:
            return None
        return base64.b64encode(content).decode()


PICTURE_END = 200  # characters of base64: what all PNGs end with is shorter
