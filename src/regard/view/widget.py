"""The viewer in a notebook, by anywidget: Jupyter, JupyterLab, VS Code, Colab, marimo."""

from __future__ import annotations

import base64
from typing import Any

try:
    import anywidget
    import traitlets
except ImportError as error:
    raise ImportError(f"The viewer for notebooks is not installed ({error}): pip install 'regard[notebook]'.") from None

from regard.lens.reading import Reading, Word
from regard.view.desk import Desk, Refusal, encode
from regard.view.html import asset, joined

_ENTRY = """
function render({ model, el: box }) {
  const shadow = box.attachShadow({ mode: "open" }); // style and ids of its own: there may be several
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(model.get("look"));
  shadow.adoptedStyleSheets = [sheet];
  const viewer = el("div", { id: "viewer", class: "viewer widget" });
  viewer.append(...new DOMParser().parseFromString(model.get("markup"), "text/html").body.childNodes);
  shadow.append(viewer);
  box.dataset.lmSuppressShortcuts = "true"; // what is typed here is no command to the notebook
  box.addEventListener("keydown", (event) => event.stopPropagation());
  const { reads, opening } = model.get("options");
  mount(shadow, widgetSource(model), { widget: true, reads, opening });
}

export default { render };
"""


class Viewer(anywidget.AnyWidget):
    """A reading, to be looked at in a notebook; `Reading.view` makes it."""

    _esm = joined(_ENTRY)
    markup = traitlets.Unicode(asset("viewer.html")).tag(sync=True)
    look = traitlets.Unicode(asset("viewer.css")).tag(sync=True)
    options = traitlets.Dict().tag(sync=True)

    def __init__(
        self, reading: Reading, *, word: Word | None = None, layer: int | None = None, head: int | None = None
    ) -> None:
        reading.check(layer, head)
        lens = reading._lens
        self._reading, self._shown = reading, (layer, head)
        self._desk = Desk({} if lens is None else {lens.name: lambda: lens}, first=reading)
        opening = {
            "word": None if word is None else word.index,
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

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The widget; and a picture, for where widgets are off, as on a page made of the notebook."""
        shown = super()._repr_mimebundle_(**kwargs)
        data, about = shown if isinstance(shown, tuple) else (dict(shown or {}), {})
        data["text/plain"] = repr(self._reading)
        picture = self._picture()
        if picture is not None:
            data["image/png"] = base64.b64encode(picture).decode()
        return data, about

    def _picture(self) -> bytes | None:
        """The head that was asked for, or all of a layer; None where matplotlib is missing."""
        from regard.view.image import drawn

        layer, head = self._shown
        try:
            return drawn(self._reading, "png", layer=0 if layer is None else layer, head=head)
        except ImportError:
            return None
