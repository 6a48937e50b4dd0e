"""Replies of the viewer as bytes, as they go over HTTP or the channel of a notebook."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping

import torch
from torch import Tensor

MEDIA_TYPE = "application/octet-stream"


def encode(reply: Mapping[str, object]) -> bytes:
    """A reply as bytes, all little-endian: the length of its JSON as uint32, the JSON, and its arrays as float32.

    The JSON has all that is not an array and, under "arrays", a list of [name, shape] in the order of the arrays.
    """
    arrays = {
        name: value.detach().to("cpu", torch.float32).contiguous().numpy()
        for name, value in reply.items()
        if isinstance(value, Tensor)
    }
    header = {name: value for name, value in reply.items() if name not in arrays}
    header["arrays"] = [[name, list(array.shape)] for name, array in arrays.items()]
    text = json.dumps(header, allow_nan=False).encode()
    text += b" " * (-len(text) % 4)  # so that the arrays are aligned as float32 must be
    return b"".join((struct.pack("<I", len(text)), text, *(array.astype("<f4").tobytes() for array in arrays.values())))
