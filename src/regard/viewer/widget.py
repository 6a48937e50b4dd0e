"""The viewer in a notebook, by anywidget: Jupyter, JupyterLab, VS Code, Colab, marimo."""

from __future__ import annotations

import base64
from typing import Any

try:
    import anywidget
    import traitlets
except ImportError as error:
    raise ImportError(f"The viewer for notebooks is not installed ({error}): pip install 'regard[notebook]'.") from None

from regard.lens.display import unit_index
from regard.lens.reading import Reading
from regard.lens.units import Word
from regard.viewer.api import Desk, Refusal, encode
from regard.viewer.bundle import asset


class Viewer(anywidget.AnyWidget):
    """A reading, to be looked at in a notebook; `Reading.view` makes it.

    A notebook shows it as two outputs: a picture, which stays where there is no kernel to answer, as in a notebook that
    was saved and opened again or made into a page; and the widget, which hides the picture once Python answers it.
    """

    _esm = asset("widget.js")
    markup = traitlets.Unicode(asset("viewer.html")).tag(sync=True)
    look = traitlets.Unicode(asset("viewer.css")).tag(sync=True)
    options = traitlets.Dict().tag(sync=True)
    picture = traitlets.Unicode().tag(sync=True)  # how the base64 of the picture ends, by which the page finds it

    def __init__(
        self,
        reading: Reading,
        *,
        word: Word | str | int | None = None,
        nth: int | None = None,
        layer: int | None = None,
        head: int | None = None,
    ) -> None:
        reading.check(layer, head)
        lens = reading.lens
        self._reading, self._shown = reading, (layer, head)
        self._desk = Desk({} if lens is None else {lens.name: lambda: lens}, first=reading)
        opening = {
            "word": unit_index(reading, word, nth),
            "layer": None if layer is None else layer % reading.layers,
            "head": None if head is None else head % reading.heads,
            "heads": None if head is None else [head % reading.heads],
            "view": "map" if layer is not None and head is not None and word is None else "sentence",
        }
        super().__init__(options={"reads": lens is not None, "opening": opening})
        self.on_msg(self._answer)

    def _answer(self, _: Any, message: dict[str, Any], buffers: Any) -> None:
        """A question of the page, answered over the widget's channel."""
        number = message.get("id")
        try:
            self.send({"id": number}, buffers=[encode(self._desk.ask(message.get("question")))])
        except Refusal as refusal:
            self.send({"id": number, "error": str(refusal), "status": refusal.status, "code": refusal.code})
        except Exception as error:
            self.send({"id": number, "error": f"Python met an error of its own: {error}", "status": 500})
            raise

    def _ipython_display_(self) -> None:
        from IPython.display import display

        picture = self._picture()
        if picture is not None:
            self.picture = picture[-ENDING:]
            shown = {"image/png": picture, "text/plain": repr(self._reading)}
            display(shown, metadata=self._described(), raw=True)
        data, metadata = self._bundle()
        display(data, metadata=metadata, raw=True)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The widget and the picture as one, of which a notebook shows what it can."""
        data, metadata = self._bundle(**kwargs)
        picture = self._picture()
        if picture is None:
            return data, metadata
        return {**data, "image/png": picture}, {**metadata, **self._described()}

    def _bundle(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        shown = super()._repr_mimebundle_(**kwargs)
        data, metadata = shown if isinstance(shown, tuple) else (dict(shown or {}), {})
        return {**data, "text/plain": repr(self._reading)}, metadata

    def _described(self) -> dict[str, Any]:
        """The text that stands for the picture where it cannot be seen."""
        layer, head = self._shown
        of = "".join(f", {name} {n}" for name, n in (("layer", layer), ("head", head)) if n is not None)
        return {
            "image/png": {"alt": f"Attention weights of {self._reading.model}{of}, in {self._reading.text[:200]!r}"}
        }

    def _picture(self) -> str | None:
        """The head that was asked for, or all of a layer, in base64; None where matplotlib is missing."""
        from regard.output.image import drawn

        layer, head = self._shown
        layer = self._reading.attention_layers[0] if layer is None else layer
        try:
            content = drawn(self._reading, "png", layer=layer, head=head)
        except ImportError:
            return None
        return base64.b64encode(content).decode()


ENDING = 200  # characters of base64: what all PNGs end with is shorter
