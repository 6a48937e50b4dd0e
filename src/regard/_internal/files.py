"""Files are written beside and renamed: whatever happens, the old one or the new one is there, whole."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


def read_json(path: Path, kind: type = dict) -> Any:
    """What a file of JSON holds. Raises ValueError where it is damaged, or holds another kind of thing."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}.") from None
    if not isinstance(content, kind):
        expected = "an object" if kind is dict else "a list"
        raise ValueError(f"{path} is damaged: expected {expected}. Got {type(content).__name__}.")
    return content


def write(path: str | Path, fill: Callable[[IO[bytes]], object]) -> None:
    """Let `fill` write a new file, then put it in the place of the old one.

    Raises OSError, the old file untouched, where the folder is missing, cannot be written to or is full.
    """
    target = Path(os.path.realpath(path))
    replaced = not target.exists() or target.is_file()  # a device or a pipe is written to, never replaced
    beside = target.with_name(f".regard-{secrets.token_hex(8)}") if replaced else target
    with _blaming(path, beside):
        try:
            with open(beside, "xb" if replaced else "wb") as file:
                fill(file)
                if replaced:
                    file.flush()
                    os.fsync(file.fileno())
            if replaced:
                if target.exists():
                    shutil.copymode(target, beside)
                os.replace(beside, target)
        except BaseException:
            if replaced:
                beside.unlink(missing_ok=True)
            raise


@contextmanager
def _blaming(path: str | Path, beside: Path) -> Iterator[None]:
    """Errors of the system name the file that was asked for, not the one beside it; those of other files stay."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(beside)):
            raise type(error)(error.errno, error.strerror, str(path)) from None
        raise
