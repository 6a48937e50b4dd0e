"""The heap of the C library."""

from __future__ import annotations

import ctypes
from contextlib import suppress


def trim() -> None:
    """Return freed memory to the operating system: glibc keeps the holes between tensors that are still alive."""
    with suppress(AttributeError, OSError, TypeError):  # other C libraries have no such function, and no such need
        ctypes.CDLL(None).malloc_trim(0)
