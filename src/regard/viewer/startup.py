"""What `regard serve` starts with: the models that visitors can choose from, and the text that is read first."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

from regard.lens import Lens
from regard.lens.encode import check_text
from regard.models import EMBEDDED


def lens_factories(models: Sequence[str | None], allow_pickle: bool = False) -> dict[str, Callable[[], Lens]]:
    """For each model, by the name that visitors see, a function that opens it once and then returns the same lens.

    A folder is shown by its own name, without its path; a number tells apart models of the same name. None is the
    embedded model.
    """
    factories: dict[str, Callable[[], Lens]] = {}
    for model in models:
        name = EMBEDDED if model is None else model
        if Path(name).expanduser().is_dir():
            name = Path(name).expanduser().resolve().name
        numbered = (f"{name} ({n})" for n in itertools.count(2))
        name = next(
            candidate for candidate in (name, *itertools.islice(numbered, len(models))) if candidate not in factories
        )
        factories[name] = functools.cache(functools.partial(Lens, model, allow_pickle=allow_pickle))
    return factories


def text_of(argument: str) -> str:
    """The text of a file, or the argument itself where there is no such file.

    Raises OSError for a file that cannot be read, ValueError where its content is not text.
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
        raise ValueError(f"{argument} is not text in UTF-8: invalid byte at {error.start}.") from None
    check_text(text, f"serve {argument}")
    return text
