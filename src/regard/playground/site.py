"""The playground as static files, which any web server shows, and which open from a folder as well.

index.html is the viewer, whose requests are answered by a model that runs in the page; lesson.html is the lesson, whose
exercises are about the usual models, and which a site with others does not have. A manifest in both says which models
there are: models/NAME.js holds one, fetched when a text is first read with it.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from string import Template
from typing import Any

from regard.playground.models import SiteModel
from regard.viewer.bundle import asset, script_json

_MARK = '<script type="application/json" id="models">'  # by which the page of a playground is known
_ASSETS = ("viewer.css", "playground.css", "playground.js", "openseadragon.js", "openseadragon-license.txt")
_LESSON = ("lesson.css", "lesson.js", "plain.html", "plain_decoder.html", "lesson.html")


def write(
    out: Path, models: Sequence[SiteModel], progress: Callable[[str], object] = lambda name: None
) -> dict[str, int]:
    """Write a site to a folder, which is new, empty, or holds a playground, and return the size of each file in bytes.

    A new folder appears when all of it is written. In one that holds a playground, each file is replaced as a whole,
    the page last; models and a lesson that the new page does not have are removed, and all other files left alone.

    Args:
        out: The folder.
        models: The models of the page; it begins with the first.
        progress: Called with the name of each model before its file is written.

    Raises:
        ValueError: Something else stands there, or a model's weights are not finite.
        OSError: The folder cannot be written to.
        RuntimeError: The page has not been built.
    """
    check(out)
    with _beside(out) as made:
        sizes = _fill(made, models, progress)
        if not _is_playground(out):
            os.replace(made, out)  # which is missing or empty
            return sizes
        (out / "models").mkdir(exist_ok=True)
        for name in sizes:
            os.replace(made / name, out / name)
        for old in [*(out / "models").glob("*.js"), *(out / name for name in _LESSON)]:
            if str(old.relative_to(out)) not in sizes:
                old.unlink(missing_ok=True)
    return sizes


def check(out: Path) -> None:
    """Raise ValueError for a path at which something else than a playground stands, which is never overwritten."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: name a folder to write the playground to.")
    if out.is_dir() and any(out.iterdir()) and not _is_playground(out):
        raise ValueError(f"{out} holds something else than a playground: name another folder, or remove it first.")


def _fill(folder: Path, models: Sequence[SiteModel], progress: Callable[[str], object]) -> dict[str, int]:
    """Write all files of a site, index.html last; return the size of each by its path in the folder."""
    sizes: dict[str, int] = {}

    def add(name: str, content: bytes) -> None:
        (folder / name).write_bytes(content)
        sizes[name] = len(content)

    texts = {name: asset(name) for name in (*_ASSETS, "playground.html", "viewer.html")}
    (folder / "models").mkdir()
    manifest: dict[str, dict[str, Any]] = {}
    for model in models:
        progress(model.name)
        file = f"models/{model.name}.js"
        manifest[model.name] = {"file": file, **model.write(folder / file)}
        sizes[file] = manifest[model.name]["bytes"]
    listed = script_json(manifest)
    for name in _ASSETS:
        add(name, texts[name].encode())
    lesson = _lesson(listed) if all(model.usual for model in models) else {}
    for name, text in lesson.items():
        add(name, text.encode())
    link = '<a href="lesson.html">Lesson</a>' if lesson else ""
    page = Template(texts["playground.html"]).substitute(models=listed, lesson=link, view=texts["viewer.html"])
    add("index.html", page.encode())
    return sizes


def _lesson(manifest: str) -> dict[str, str]:
    """The files of the lesson, with the manifest in its page; none where it has not been built."""
    try:
        built = {name: asset(name) for name in _LESSON}
    except RuntimeError:
        return {}
    return built | {"lesson.html": built["lesson.html"].replace("<script ", f"{_MARK}{manifest}</script>\n<script ", 1)}


def _is_playground(folder: Path) -> bool:
    try:
        return _MARK in (folder / "index.html").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """A temporary folder beside another, so that it can take its place; the folders above are made."""
    parent = Path(os.path.abspath(out)).parent
    parent.mkdir(parents=True, exist_ok=True)
    made = parent / f".regard-{secrets.token_hex(8)}"
    made.mkdir()
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
