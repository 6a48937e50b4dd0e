"""What a server is started with: the models that it offers, and a text."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from regard.lens import Lens
from regard.lens.encode import check_text
from regard.models import EMBEDDED


def lenses(models: Sequence[str | None], allow_pickle: bool = False) -> dict[str, Callable[[], Lens]]:
    """By the name that visitors see, how each model is opened, once; a folder goes by its last part alone."""
    found: dict[str, Callable[[], Lens]] = {}
    for model in models:
        name = EMBEDDED if model is None else model
        if Path(name).expanduser().is_dir():
            name = Path(name).expanduser().resolve().name
        name = next(one for one in (name, *(f"{name} ({n})" for n in range(2, 1000))) if one not in found)
        found[name] = functools.cache(functools.partial(Lens, model, allow_pickle=allow_pickle))
    return found


def text_of(argument: str) -> str:
    """The text that a file holds, or the argument itself where there is no such file.

    Raises OSError for a file that cannot be read, ValueError for one that is no text.
    """
    try:
        is_file = len(argument) < 4096 and Path(argument).is_file()
    except (OSError, ValueError):  # too long for a name, or with a NUL in it
        is_file = False
    if not is_file:
        check_text(argument, "serve")
        return argument
    try:
        text = Path(argument).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{argument} is not a text in UTF-8: byte {error.start}.") from None
    check_text(text, f"serve {argument}")
    return text
