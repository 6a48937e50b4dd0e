"""The viewer's page: served, in a notebook, or as one HTML file with nothing to fetch and nothing to install.

One script and one style serve all three: the modules of assets/, joined. The file carries what the answers of
view/desk.py follow from, and answers them in the browser (assets/frozen.js). The weights are a function, not an array,
there as well: it holds query and key, and computes any row that it shows. The dense weights of 512 tokens in 6 × 12
heads are 75 MB; their queries and keys are 5 MB here. A text so long that these too are many gets pictures of all
heads, and query and key of as many heads as there is room for.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import zlib
from collections.abc import Callable
from functools import cache
from importlib import resources
from itertools import product
from math import isnan
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from regard.lens.carried import lengths, projected
from regard.lens.patterns import HABITS, NAMED, habits
from regard.viewer.protocol import Metadata, Projections
from regard.viewer.tiles import Matrix

if TYPE_CHECKING:
    from regard.lens import Reading
    from regard.lens.walk import Made

# In this order: a module uses those before it when it is read, and any of them when it runs.
MODULES = (
    *(
        "protocol.js",
        "dom.js",
        "words.js",
        "colour.js",
        "address.js",
        "weights.js",
        "source.js",
        "frozen.js",
        "openseadragon.js",
    ),
    *("figure.js", "sentence-picture.js", "map-picture.js", "walk-picture.js", "compare-picture.js"),
    *("sentence.js", "heads.js", "map.js", "walk.js", "compare.js", "export.js", "viewer.js"),
)
VIEWS = ("sentence", "heads", "map", "walk", "compare")
LIBRARY = "openseadragon/openseadragon.min.js"

BITS = 14  # of a packed number
EXACT = 1_000_000  # characters: a reading that takes no more travels as float32, with the outputs to check against
WHOLE = 5_300_000  # one that takes no more packed travels with its values; beyond, what the weights need
MOST = 9_000_000  # one whose queries and keys take more gets pictures, and of these as many heads as fit
PICTURES = 3_000_000  # characters that the pictures may take
FINE = 4096  # units of the longest text whose weights the page maps one by one

Progress = Callable[[float], None]


def page(
    reading: Reading,
    *,
    word: int | None = None,
    layer: int | None = None,
    head: int | None = None,
    view: str | None = None,
    link: str | None = None,
    compared: dict[str, Any] | None = None,
    progress: Progress = lambda share: None,
) -> str:
    """The viewer for one reading, as the text of an HTML file that works offline and asks the network for nothing.

    `word` is the index in `reading.units` of the word chosen at opening, `layer` and `head` what is shown first. A
    layer counts from 0, a head too; negative numbers count from the end. `view` is one of `VIEWS`, the first if none is
    given. `link` is the address of what a viewer shows, without its "#": the page opens with exactly that, and `word`,
    `layer`, `head` and `view` count only where it says nothing. `compared` is an answer of the desk, for the view that
    compares. Short readings travel exactly, in float32. Longer ones are rounded to 14 bits, which moves a
    weight of a trained model by less than 0.001; the longest leave out all but query and key, and their walk ends at
    the weights; beyond some thousand tokens, a picture of each head stands for most of them, and the file stays below
    10 MB.

    Raises IndexError where the reading has no such word, layer or head, ValueError for a view that is not there.
    """
    reading.check(layer, head)
    if view is not None and view not in VIEWS:
        raise ValueError(f"page: expected a view of {', '.join(VIEWS)}. Got {view!r}.")
    if word is not None and not -len(reading.units) <= word < len(reading.units):
        raise IndexError(f"There is no word {word}: the text has units 0 to {len(reading.units) - 1}.")
    opening: dict[str, Any] = {
        "word": None if word is None else word % len(reading.units),
        "layer": None if layer is None else layer % reading.layers,
        "head": None if head is None else head % reading.heads,
        "heads": None if head is None else [head % reading.heads],
    }
    opening |= {name: value for name, value in (("view", view), ("link", link)) if value is not None}
    style, script, library = asset("viewer.css"), joined(_FILE, carried=True), _library()
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)} {_hash(library)}; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    data = _json({"open": opening, **_carried(reading, opening, compared, progress)})
    return Template(asset("page.html")).substitute(
        head=f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{style}</style>',
        title=html.escape(_shortened(reading.text, 80)),
        view=asset("viewer.html"),
        noscript=html.escape(_shortened(reading.text, 300)),
        foot=f'<script type="application/json" id="data">{data}</script>\n'
        f'<script type="text/plain" id="library">{_deflated(library.encode())}</script>\n'
        f'<script type="module">{script}</script>',
    )


def served() -> tuple[str, dict[str, tuple[bytes, str]]]:
    """The page of a server, and its files by name: (content, media type)."""
    page = Template(asset("page.html")).substitute(
        head='<link rel="stylesheet" href="assets/viewer.css">',
        title="regard",
        view=asset("viewer.html"),
        noscript="",
        foot='<script type="module" src="assets/viewer.js"></script>',
    )
    script = joined("mount(document, httpSource(), { address: true, reads: true });")
    return page, {
        "viewer.js": (script.encode(), "text/javascript; charset=utf-8"),
        "viewer.css": (asset("viewer.css").encode(), "text/css; charset=utf-8"),
        "openseadragon-license.txt": (asset("openseadragon/LICENSE.txt").encode(), "text/plain; charset=utf-8"),
    }


_FILE = """
const held = document.getElementById("data");
const file = `<!doctype html>\\n${document.documentElement.outerHTML}`; // as it came, to be saved again
const data = JSON.parse(held.textContent);
const frozen = (link) => reopening(file, data.open, link);
mount(document, frozenSource(data), { address: true, reads: false, frozen, opening: data.open });
"""


@cache
def joined(entry: str, carried: bool = False) -> str:
    """The modules as one, and at the end the statements that begin it.

    Each keeps a scope of its own; what it exports is known to all. The library is in it, or `carried` beside it.
    """
    parts = []
    for name in MODULES:
        text = _COMMENTS.sub("", asset(name))
        if name == "openseadragon.js" and not carried:
            text = _INSIDE.replace("$library", _library())
        text = re.sub(r'^import \{[^}]*\} from "\./[\w.-]+";\n', "", text, flags=re.MULTILINE)
        exported = re.findall(r"^export (?:async )?(?:function|const) (\w+)", text, re.MULTILINE)
        text = re.sub(r"^export (?=async |function |const )", "", text, flags=re.MULTILINE)
        names = ", ".join(exported)
        parts.append(f"const {{ {names} }} = (() => {{\n{text}\nreturn {{ {names} }};\n}})();\n")
    return "\n".join((*parts, entry))


# Comments that have lines of their own: without them, the page is smaller by a twentieth.
_COMMENTS = re.compile(r"^ *(?://.*|/\*\*(?:[^*]|\*(?!/))*\*/)\n", re.MULTILINE)

_INSIDE = """
let made = null;
export const openSeadragon = () => made;
export async function loadSeadragon() {
made ??= (function (define, module, exports) {
$library
return OpenSeadragon;
}).call({});
}
"""


@cache
def _library() -> str:
    """OpenSeadragon, without the style sheet that it would put into the page: our policy forbids that."""
    text = asset(LIBRARY).replace("//# sourceMappingURL=openseadragon.min.js.map", "")
    return text.replace("""!document.querySelector("style[data-openseadragon-mobile-css]")""", "false")


def asset(name: str) -> str:
    """A file of the viewer, as text."""
    return resources.files(__package__).joinpath("assets", *name.split("/")).read_text(encoding="utf-8")


def card(reading: Reading) -> Metadata:
    """What a viewer must know of a reading before it asks for numbers."""
    units = reading.units
    words = [unit.index for unit in units if not unit.special]
    unknown = [n for n, token in enumerate(reading.tokens) if token.unknown]
    second = None if reading.second is None else next((n for n in words if units[n].start >= reading.second), None)
    return {
        "model": reading.model,
        "text": reading.text[:2000],
        "truncated": reading.truncated,
        "layers": reading.layers,
        "heads": reading.heads,
        "units": [unit.text for unit in units],
        "special": [unit.index for unit in units if unit.special],
        "first_tokens": [unit.tokens[0] for unit in units],
        "tokens": [token.text for token in reading.tokens],
        "second": second,
        "causal": reading.causal,
        "sinks": any(attended.weights.sinks is not None for attended in reading.attention),
        "unknown": [unit.index for unit in units if unit.unknown],
        "unknown_tokens": unknown,
        "note": reading.note,
        "attention_layers": reading.attention_layers,
    }


def origin(made: Made | None) -> Projections | None:
    """How a layer makes query, key and value of x, without the numbers; None where it is not known."""
    if made is None:
        return None
    return Projections(norm=made.norm, head_norm=made.head_norm, rotated=made.rotated, factor=made.factor)


# What the file carries


def _carried(
    reading: Reading, opening: dict[str, Any], compared: dict[str, Any] | None, progress: Progress
) -> dict[str, Any]:
    """The card, and per layer the numbers that its weights are a function of."""
    attended = reading.attention_layers
    tensors = [_tensors(reading, layer) if layer in attended else {} for layer in range(reading.layers)]
    numbers = [{name: tensor.numel() for name, tensor in layer.items()} for layer in tensors]
    total = sum(sum(layer.values()) for layer in numbers)
    needed = sum(count for layer in numbers for name, count in layer.items() if name in ("query", "key", "weights"))
    exact = total * 32 / 6 <= EXACT  # a character of base64 carries six bits
    whole = total * BITS / 6 <= WHOLE
    fits = needed * BITS / 6 <= MOST and len(reading.units) <= FINE
    carry = _exact if exact else _packed
    names = {"query", "key", "weights"} | ({"output"} if exact else set())
    names |= {"value", "hidden", "lengths"} if whole else set()
    pictures: Any = None
    kept: list[Any] = [None] * reading.layers
    if not fits:
        pictures = _pictures(reading, progress)
        kept = _heads_kept(reading, numbers, opening, len(pictures["cells"]["logarithms"]))
    layers: list[dict[str, Any] | None] = []
    for layer, some in enumerate(tensors):
        if layer not in attended:
            layers.append(None)
            continue
        heads = kept[layer]
        arrays = some if heads is None else _of_heads(some, heads, reading.heads)
        carried = {name: carry(tensor) for name, tensor in arrays.items() if name in names}
        shares = [
            [None if isnan(share) else round(share, 4) for share in row] for row in habits(reading, layer).tolist()
        ]
        layers.append({**_rule(reading, layer), **carried, "heads": heads, "shares": shares})
    rounded = (
        f"numbers rounded to {BITS} bits" if fits else f"pictures of {pictures['side']} × {pictures['side']} cells"
    )
    return {
        "card": {**card(reading), "reading": "frozen", "exactness": "" if exact else rounded},
        "bits": 32 if exact else BITS,
        "habits": HABITS,
        "named": NAMED,
        "layers": layers,
        "pictures": pictures,
        "compared": compared,
    }


def _tensors(reading: Reading, layer: int) -> dict[str, Tensor]:
    """The arrays of one layer, each with its vectors in the last dimension."""
    attention = reading.attention[layer]
    scores = attention.weights.scores
    more = {"hidden": reading.hidden[layer][None]}  # (1, N, dim)
    if scores.bias is not None or scores.mask.given is not None:
        # N × N numbers that no rule gives: the page gets what came of them, word by word.
        return {"weights": reading.weights(layer), **more}  # (H, U, U)
    if projected(reading, layer):  # of the values alone the page knows it itself
        more["lengths"] = lengths(reading, layer)[..., None]  # (H, N, 1)
    return {
        "query": scores.query[0],  # (H, N, D)
        "key": scores.key[0],  # (G, N, D)
        "value": attention.value,  # (G, N, E)
        "output": attention.output,  # (H, N, E)
        **more,
    }


def _rule(reading: Reading, layer: int) -> dict[str, Any]:
    """How the weights of a layer follow from its queries and keys."""
    weights = reading.attention[layer].weights
    scores, sinks = weights.scores, weights.sinks
    rule: dict[str, Any] = {
        "scale": float(scores.scale),
        "softcap": None if scores.softcap is None else float(scores.softcap),
        "sinks": None if sinks is None else sinks.double().tolist(),
        "spans": None,
        "made": origin(reading.explain(reading.units[0], layer, 0).made),
    }
    if scores.mask.bounded:
        rule["spans"] = [bound[0].tolist() for bound in scores.mask.spans]
    return rule


def _pictures(reading: Reading, progress: Progress) -> dict[str, Any]:
    """All heads as pictures of side × side cells, each the mean of its 2^level × 2^level weights."""
    layers = reading.attention_layers
    most = int((PICTURES * 6 / 16 / (len(layers) * reading.heads)) ** 0.5)
    level = max(0, (-(-len(reading.units) // min(most, 256)) - 1).bit_length())
    cells = []
    for n, (layer, head) in enumerate(product(layers, range(reading.heads))):
        progress(n / (len(layers) * reading.heads))
        cells.append(Matrix(reading, layer, head).whole(level))
    drawn = torch.stack(cells)
    fine = len(reading.units) <= FINE
    return {"level": level, "side": drawn.shape[-1], "fine": fine, "cells": _logarithms(drawn)}


def _heads_kept(
    reading: Reading, numbers: list[dict[str, int]], opening: dict[str, Any], taken: int
) -> list[list[int]]:
    """The heads whose query and key there is room for, by layer: the one shown first, its layer, then the others."""
    room, chosen = MOST - taken, (opening["layer"] or 0, opening["head"] or 0)
    order = sorted(
        product(reading.attention_layers, range(reading.heads)),
        key=lambda one: (one != chosen, one[0] != chosen[0], one),
    )
    kept: list[list[int]] = [[] for _ in range(reading.layers)]
    for layer, head in order:
        each = (
            2 * numbers[layer]["query"] // reading.heads
            if "query" in numbers[layer]
            else numbers[layer]["weights"] // reading.heads
        )
        room -= round(each * BITS / 6)
        if room < 0:
            break
        kept[layer].append(head)
    return [sorted(heads) for heads in kept]


def _of_heads(tensors: dict[str, Tensor], heads: list[int], count: int) -> dict[str, Tensor]:
    """Query and key, or the weights, of some heads, each with a key of its own."""
    if not heads:
        return {}
    return {
        name: tensor[[head * len(tensor) // count for head in heads]]
        for name, tensor in tensors.items()
        if name in ("query", "key", "weights")
    }


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
    return {"shape": list(tensor.shape), "packed": _deflated(step.astype("<f4").tobytes() + _planes(codes))}


def _logarithms(tensor: Tensor) -> dict[str, Any]:
    """Weights from 2⁻³² to 1 by their logarithms, in steps of 0.03 %: 16 bits each, in two planes, deflated."""
    logarithms = np.log2(np.maximum(_numpy(tensor), 2.0**-33))
    codes = np.rint(65535 + 2048 * logarithms).clip(0, 65535).astype("<u2")
    return {"shape": list(tensor.shape), "logarithms": _deflated(_planes(codes))}


def _planes(codes: np.ndarray) -> bytes:
    """The low bytes of numbers of 16 bits, then the high ones."""
    return codes.reshape(-1, 1).view(np.uint8).T.tobytes()


def _deflated(data: bytes) -> str:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)  # raw: no header
    return _base64(deflate.compress(data) + deflate.flush())


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float32).numpy()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _json(value: object) -> str:
    """JSON that may stand inside <script>: no character in it means anything to an HTML parser."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate({ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"})


def _hash(text: str) -> str:
    """The source expression by which a Content-Security-Policy allows exactly this inline text."""
    return f"'sha256-{_base64(hashlib.sha256(text.encode()).digest())}'"


def _shortened(text: str, length: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
