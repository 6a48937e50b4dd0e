"""Notebooks as pages: their text, their code and the outputs that are saved in them; nothing is executed."""

from __future__ import annotations

import html
import json

from myst_parser.parsers.sphinx_ import MystParser
from sphinx.application import Sphinx


class NotebookParser(MystParser):
    """Reads a notebook as the Markdown that it says the same as."""

    supported = ("ipynb",)

    def parse(self, inputstring: str, document) -> None:
        """Called by Sphinx with the text of a file."""
        super().parse(as_markdown(json.loads(inputstring)), document)


def as_markdown(notebook: dict) -> str:
    """The cells, one after the other."""
    return "\n\n".join(part for cell in notebook["cells"] for part in _cell(cell) if part.strip()) + "\n"


def _cell(cell: dict):
    source = _text(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
    elif cell["cell_type"] == "code":
        yield _fenced("text" if source.lstrip().startswith(("%", "!")) else "python", source)
        for output in cell["outputs"]:
            yield _output(output)


def _output(output: dict) -> str:
    """A picture if there is one, else HTML without a script, else text; a widget is nothing without its kernel."""
    data = {kind: _text(value) for kind, value in output.get("data", {}).items() if isinstance(value, (str, list))}
    words = _text(output.get("text", data.get("text/plain", "")))
    for kind in ("image/png", "image/jpeg"):
        if kind in data:
            picture = data[kind].replace("\n", "")
            return _raw(f'<img src="data:{kind};base64,{picture}" alt="{html.escape(words, quote=True)}">')
    for kind in ("image/svg+xml", "text/html"):
        if kind in data and "<script" not in data[kind]:
            return _raw(data[kind])
    return _fenced("text", words) if words.strip() else ""


def _raw(content: str) -> str:
    return _fenced("{raw} html", f'<div class="notebook-output">{content}</div>')


def _fenced(language: str, text: str) -> str:
    return f"````{language}\n{text.rstrip()}\n````"


def _text(lines: str | list[str]) -> str:
    return lines if isinstance(lines, str) else "".join(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_source_suffix(".ipynb", "ipynb")
    app.add_source_parser(NotebookParser)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
