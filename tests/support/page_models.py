"""The models of the page, asked without a browser: one process of node for all requests of a test."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

SCRIPT = Path(__file__).with_name("page_model.mjs")


def page_replies(file: Path, requests: Sequence[dict[str, Any]]) -> list[Any]:
    """The replies of the model in a file; arrays as numpy's.

    A request is {"read": [text, {"pair": …, "changes": …}]}, {"predict": [[text], layer, first, count, k]} or
    {"write": [text, count]}. A reply to a text that is refused is {"error": …}.
    """
    request = json.dumps({"file": str(file), "requests": list(requests)})
    done = subprocess.run(["node", str(SCRIPT)], input=request, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    replies: list[Any] = json.loads(done.stdout, object_hook=_array)
    return replies


def _array(value: dict[str, Any]) -> Any:
    if value.keys() == {"shape", "data"}:
        return np.frombuffer(base64.b64decode(value["data"]), "<f4").reshape(value["shape"])
    return value


def python_places(text: str) -> dict[int, int]:
    """The characters of a text by their places in JavaScript, which counts those beyond U+FFFF twice."""
    places, place = {}, 0
    for n, character in enumerate(text):
        places[place] = n
        place += 1 + (character > "\uffff")
    return places | {place: len(text)}
