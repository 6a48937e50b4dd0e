"""The C library's heap, of which this process asks one thing."""

from __future__ import annotations

import ctypes
from contextlib import suppress


def give_back() -> None:
    """What was freed goes back to the system: glibc keeps the holes between the tensors that stay."""
    with suppress(AttributeError, OSError, TypeError):  # other C libraries have no such function, and no such need
        ctypes.CDLL(None).malloc_trim(0)
