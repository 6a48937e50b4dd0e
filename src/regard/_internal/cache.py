"""Where regard keeps what it has made once and need not make again: a folder of the user's."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder(*names: str) -> Path:
    """A folder below regard's in the user's cache, which may not exist yet.

    $XDG_CACHE_HOME/regard, or else ~/.cache/regard; ~/Library/Caches on macOS and %LOCALAPPDATA% on Windows.
    """
    if chosen := os.environ.get("XDG_CACHE_HOME"):
        root = Path(chosen)
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        root = Path.home() / ".cache"
    return root.joinpath("regard", *names)
