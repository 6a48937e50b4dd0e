"""A reading as one HTML file: sentence, heads, map and walk, with nothing to fetch and nothing to install.

The weights are a function, not an array, in the page as well: it holds query and key, and computes in the browser any
row that it shows. The dense weights of 512 tokens in 6 × 12 heads are 75 MB; their queries and keys are 5.4 MB here.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import zlib
from importlib import resources
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from regard.attention import Attention
    from regard.lens import Reading

# One module, in this order; kept apart because each file tells one story.
SCRIPTS = ("weights.js", "paint.js", "sentence.js", "maps.js", "walk.js", "reading.js")

BITS = 14  # of a packed number
EXACT = 1_000_000  # characters: a reading that takes no more travels as float32, with the outputs to check against
WHOLE = 5_700_000  # one that takes no more packed travels with its values; beyond, what the weights need


def page(reading: Reading, *, word: int | None = None, layer: int | None = None, head: int | None = None) -> str:
    """The viewer for one reading, as the text of an HTML file that works offline and asks the network for nothing.

    `word` is the index in `reading.units` of the word chosen at opening, `layer` and `head` what is shown first. A
    layer counts from 0, a head too; negative numbers count from the end. Short readings travel exactly, in float32.
    Longer ones are rounded to 14 bits, which moves a weight of a trained model by less than 0.001; the longest leave
    out all but query and key, and their walk ends at the weights.

    Raises IndexError where the reading has no such word, layer or head.
    """
    reading.check(layer, head)
    if word is not None and not -len(reading.units) <= word < len(reading.units):
        raise IndexError(f"There is no word {word}: the text has units 0 to {len(reading.units) - 1}.")
    opening = {
        "word": None if word is None else word % len(reading.units),
        "layer": None if layer is None else layer % reading.layers,
        "head": None if head is None else head % reading.heads,
    }
    style, script = _asset("reading.css"), "\n".join(map(_asset, SCRIPTS))
    return Template(_asset("reading.html")).substitute(
        policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'",
        title=html.escape(_shortened(reading.text, 80)),
        text=html.escape(_shortened(reading.text, 300)),
        style=style,
        script=script,
        data=_json({"open": opening, **_carried(reading)}),
    )


def _carried(reading: Reading) -> dict[str, Any]:
    """What the page knows: tokens, units, and per layer the numbers that its weights are a function of."""
    tensors = [_tensors(reading, layer) for layer in range(reading.layers)]
    numbers = sum(tensor.numel() for layer in tensors for tensor in layer.values())
    exact = numbers * 32 / 6 <= EXACT  # a character of base64 carries six bits
    whole = numbers * BITS / 6 <= WHOLE
    carry = _exact if exact else _packed
    names = {"query", "key", "weights"} | ({"value", "hidden"} if whole else set()) | ({"output"} if exact else set())
    return {
        "model": reading.model,
        "truncated": reading.truncated,
        "bits": 32 if exact else BITS,
        "heads": reading.heads,
        "tokens": [{"text": token.text, "special": token.special} for token in reading.tokens],
        "units": [{"text": unit.text, "tokens": list(unit.tokens), "special": unit.special} for unit in reading.units],
        "layers": [
            _rule(attention) | {name: carry(tensor) for name, tensor in some.items() if name in names}
            for attention, some in zip(reading.attention, tensors, strict=True)
        ],
    }


def _tensors(reading: Reading, layer: int) -> dict[str, Tensor]:
    """The arrays of one layer, each with its vectors in the last dimension."""
    attention = reading.attention[layer]
    scores = attention.weights.scores
    hidden = {"hidden": reading.hidden[layer][None]}  # (1, N, dim)
    if scores.bias is not None or scores.mask.given is not None:
        # N × N numbers that no rule gives: the page gets what came of them, word by word.
        return {"weights": reading.weights(layer), **hidden}  # (H, U, U)
    return {
        "query": scores.query[0],  # (H, N, D)
        "key": scores.key[0],  # (G, N, D)
        "value": attention.value,  # (G, N, E)
        "output": attention.output,  # (H, N, E)
        **hidden,
    }


def _rule(attention: Attention) -> dict[str, Any]:
    """How the weights of a layer follow from its queries and keys."""
    scores, sinks = attention.weights.scores, attention.weights.sinks
    rule: dict[str, Any] = {
        "scale": float(scores.scale),
        "softcap": None if scores.softcap is None else float(scores.softcap),
        "sinks": None if sinks is None else sinks.double().tolist(),
        "spans": None,
    }
    if scores.mask.bounded:
        rule["spans"] = [bound[0].tolist() for bound in scores.mask.spans]
    return rule


def _exact(tensor: Tensor) -> dict[str, Any]:
    return {"shape": list(tensor.shape), "float32": _base64(_numpy(tensor).astype("<f4").tobytes())}


def _packed(tensor: Tensor) -> dict[str, Any]:
    """Whole numbers of 14 bits, with a step of its own for each channel, in two planes of bytes, deflated.

    Trained queries and keys have a few channels far larger than the rest; a step a channel leaves the small ones their
    precision, and makes the weights three times as exact as float16 does in the same space. The plane of high bytes
    has six bits a byte at most, so that no data can make the file larger than 14 bits a number.
    """
    array = _numpy(tensor)
    largest = 2 ** (BITS - 1) - 1
    step = np.abs(array).max(axis=-2, keepdims=True) / np.float32(largest)  # (…, 1, D)
    if not np.isfinite(step).all():
        return _exact(tensor)  # NaN and inf have no place on a grid, and must reach the reader
    codes = np.rint(array / np.where(step > 0, step, 1)).clip(-largest, largest).astype("<i2")
    planes = codes.reshape(-1, 1).view(np.uint8).T  # low bytes, then high bytes
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)  # raw: no header
    data = deflate.compress(step.astype("<f4").tobytes() + planes.tobytes()) + deflate.flush()
    return {"shape": list(tensor.shape), "packed": _base64(data)}


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float32).numpy()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _json(value: object) -> str:
    """JSON that may stand inside <script>: no character in it means anything to an HTML parser."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate({ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"})


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath("assets", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """The source expression by which a Content-Security-Policy allows exactly this inline text."""
    return f"'sha256-{_base64(hashlib.sha256(text.encode()).digest())}'"


def _shortened(text: str, length: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
