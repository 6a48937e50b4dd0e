"""Reading text and JSON, and writing atomically: a temporary file, then a rename. No file is ever half written."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


def read_text(path: str | Path) -> str:
    """The text of a file, or of stdin for "-", without a byte order mark. Raises ValueError if it is not UTF-8."""
    content = sys.stdin.buffer.read() if str(path) == "-" else Path(path).read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 at byte {error.start:,}.") from None


def read_json(path: Path, kind: type = dict) -> Any:
    """The content of a JSON file. Raises ValueError if the file is damaged, or holds a value of another type."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}.") from None
    if not isinstance(content, kind):
        expected = "an object" if kind is dict else "a list"
        raise ValueError(f"{path} is damaged: expected {expected}. Got {type(content).__name__}.")
    return content


def atomic_write(path: str | Path, fill: Callable[[IO[bytes]], object]) -> None:
    """Let `fill` write a temporary file in the same folder, then rename it to `path`.

    Raises OSError, and leaves the old file untouched, if the folder is missing, cannot be written to or is full.
    """
    target = Path(os.path.realpath(path))
    replaced = not target.exists() or target.is_file()  # a device or a pipe is written to, never replaced
    temporary = target.with_name(f".regard-{secrets.token_hex(8)}") if replaced else target
    with _errors_named_after(path, temporary):
        try:
            with open(temporary, "xb" if replaced else "wb") as file:
                fill(file)
                if replaced:
                    file.flush()
                    os.fsync(file.fileno())
            if replaced:
                if target.exists():
                    shutil.copymode(target, temporary)
                os.replace(temporary, target)
        except BaseException:
            if replaced:
                temporary.unlink(missing_ok=True)
            raise


@contextmanager
def _errors_named_after(path: str | Path, temporary: Path) -> Iterator[None]:
    """Errors of the system name the file that was asked for, not the temporary one; errors of other files stay."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(temporary)):
            raise type(error)(error.errno, error.strerror, str(path)) from None
        raise
