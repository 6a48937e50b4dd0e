"""An answer from documents as one HTML file: the reply beside its sources, and the proof of each.

The page is built from `frontend/src/entry/answer.js`; it needs no network and no Python, and shows what
`Answer.to_dict()` has.
"""

from __future__ import annotations

import html
from pathlib import Path
from string import Template
from typing import Any, Protocol

from regard._internal.files import atomic_write
from regard.viewer.bundle import asset, hash_source, script_json, shortened


class Answer(Protocol):
    """What has the question, the reply and its sources as a dictionary."""

    def to_dict(self) -> dict[str, Any]:
        """model, question, reply, note, passages and sentences, as JSON has them."""


def save(answer: Answer, path: str | Path) -> None:
    """Save an answer as a page that shows the reply on the left and its sources on the right.

    Args:
        answer: What was asked, written and found.
        path: The HTML file. It is written completely or not at all.

    Raises:
        OSError: The file cannot be written.
        RuntimeError: The page has not been built.
    """
    page = render(answer).encode()
    atomic_write(path, lambda file: file.write(page))


def render(answer: Answer) -> str:
    """The text of the HTML file that `save` writes."""
    content = answer.to_dict()
    style, script = asset("viewer.css"), asset("answer.js")
    policy = (
        f"default-src 'none'; style-src {hash_source(style)}; script-src {hash_source(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    return Template(asset("answer.html")).substitute(
        head=f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{style}</style>',
        title=html.escape(shortened(content["question"], 80)),
        question=html.escape(shortened(content["question"], 300)),
        reply=html.escape(content["reply"]),
        foot=f'<script type="application/json" id="data">{script_json(content)}</script>\n'
        f'<script type="module">{script}</script>',
    )
