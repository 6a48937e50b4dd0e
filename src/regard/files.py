"""Files are written beside and renamed: whatever happens, the old one or the new one is there, whole."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO


def write(path: str | Path, fill: Callable[[IO[bytes]], object]) -> None:
    """Let `fill` write a new file, then put it in the place of the old one.

    Raises OSError, the old file untouched, where the folder is missing, cannot be written to or is full.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():  # a device or a pipe is written to, never replaced
        with open(target, "wb") as file:
            fill(file)
        return
    beside = None
    try:
        descriptor, beside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with open(descriptor, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(beside, 0o666 & ~umask)  # mkstemp's files are for the owner alone
        os.replace(beside, target)
    except BaseException as error:
        if beside is not None:
            Path(beside).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise type(error)(error.errno, error.strerror, str(path)) from None  # not the name of the one beside
        raise
