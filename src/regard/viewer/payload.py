"""What the file of a reading carries, from which its page computes every answer without Python.

The weights are a function, not an array, in the browser as well: the file holds query and key, and the page computes
any row that it shows (frontend/src/offline). The dense weights of 512 tokens in 6 × 12 heads take 75 MB; their queries
and keys take 5 MB here. Of a text that is too long for that, the file holds pictures of all heads, and query and key
of as many heads as there is room for.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable
from functools import partial
from itertools import product
from math import isnan
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from regard.attribution import Target
from regard.attribution.heads.named import PATTERNS, pattern_shares
from regard.attribution.heads.scores import NAMED_FROM
from regard.lens.contributions import knows_output_weight, value_norms
from regard.viewer import predictions
from regard.viewer.maps import REFUSALS, between_units, first_share, map_of, needs_target, offers, target_of
from regard.viewer.protocol import Columns, MapName, MapOffer, Metadata, Projections
from regard.viewer.protocol.limits import LOGARITHM_STEPS, MAPPED_UNITS
from regard.viewer.tiles import Matrix

if TYPE_CHECKING:
    from regard.lens import Reading
    from regard.lens.walk import Made

Encode = Callable[[Tensor], dict[str, Any]]
BITS = 14  # of a packed number
EXACT_LIMIT = 1_000_000  # characters: a reading that takes no more travels as float32, with its outputs
VALUES_LIMIT = 5_300_000  # characters: a packed reading that takes no more includes its values
KEYS_LIMIT = 9_000_000  # characters that queries and keys may take; beyond, as many heads as fit, and pictures of all
PICTURES_LIMIT = 3_000_000  # characters that the pictures may take
MAPS_LIMIT = 300_000  # characters that maps besides the weights may take in any case; more where VALUES_LIMIT has room
LEFT_OUT = "In a text this long, the file leaves its numbers out; a server, regard serve, shows it."


def metadata(reading: Reading, target: Target | None = None, whole: Reading | None = None) -> Metadata:
    """What a viewer must know of a reading before it asks for numbers, and the target of its maps, if not the usual.

    `whole` is the reading of an encoder-decoder whose attentions there are to choose from.
    """
    units = reading.units
    words = [unit.index for unit in units if not unit.special]
    maps = offers(reading)
    target = _target_of_maps(reading, maps) if target is None else target
    second = None if reading.second is None else next((n for n in words if units[n].start >= reading.second), None)
    return {
        "model": reading.model,
        "text": reading.text[:2000],
        "truncated": " ".join(filter(None, dict.fromkeys((reading.columns.truncated, reading.truncated)))) or None,
        "layers": reading.layers,
        "heads": reading.heads,
        "units": [unit.text for unit in units],
        "special": [unit.index for unit in units if unit.special],
        "first_tokens": [unit.tokens[0] for unit in units],
        "tokens": [token.text for token in reading.tokens],
        "second": second,
        "causal": reading.causal,
        "first_share": first_share(reading),
        "sinks": any(attention.weights.sinks is not None for attention in reading.attention),
        "unknown": [unit.index for unit in units if unit.unknown],
        "unknown_tokens": [n for n, token in enumerate(reading.tokens) if token.unknown],
        "note": " ".join(filter(None, dict.fromkeys((reading.columns.note, reading.note)))),
        "attention_layers": reading.attention_layers,
        "attention": reading.part or None,
        "attentions": list((whole or reading).parts),
        "columns": None if reading.source is None else _columns(reading.source),
        "maps": maps,
        "predictions": predictions.offer(reading),
        "target": None if target is None else target.name,
        "reply": _first_unit_of_reply(reading),
    }


def _first_unit_of_reply(reading: Reading) -> int | None:
    """The unit with which the reply begins that the model wrote; None where it wrote none."""
    if reading.reply is None or reading.reply.token >= len(reading.tokens):
        return None
    return int(reading.unit_of_token[reading.reply.token])


def _columns(reading: Reading) -> Columns:
    """The words that are attended to, where they are those of another text."""
    units = reading.units
    return {
        "text": reading.text[:2000],
        "units": [unit.text for unit in units],
        "special": [unit.index for unit in units if unit.special],
        "first_tokens": [unit.tokens[0] for unit in units],
        "tokens": [token.text for token in reading.tokens],
        "unknown": [unit.index for unit in units if unit.unknown],
        "unknown_tokens": [n for n, token in enumerate(reading.tokens) if token.unknown],
    }


def shown_first(reading: Reading) -> Reading:
    """What is shown of a reading at first: of an encoder-decoder with a target, its cross-attention."""
    return reading if reading.cross is None else reading.cross


def _target_of_maps(reading: Reading, maps: list[MapOffer]) -> Target | None:
    """The usual target of the maps that are about one; None where no map, or no target of this text, is served."""
    if not any(offer["target"] and offer["missing"] is None for offer in maps):
        return None
    try:
        return target_of(reading)
    except REFUSALS:
        return None  # the map itself says why, where it is chosen


def projections(made: Made | None) -> Projections | None:
    """How a layer makes query, key and value of x, without the numbers; None where it is not known."""
    if made is None:
        return None
    return Projections(norm=made.norm, head_norm=made.head_norm, rotated=made.rotated, factor=made.factor)


def payload(
    reading: Reading,
    opening: dict[str, Any],
    compared: dict[str, Any] | None,
    progress: Callable[[float], None],
    target: Target | None = None,
    whole: Reading | None = None,
) -> dict[str, Any]:
    """The metadata, and for each layer the numbers that its weights are a function of.

    `opening` says which layer and head are shown first: where not all fit, their numbers are included before others.
    `whole` is the reading of an encoder-decoder, whose other attentions follow; they share the room.
    """
    parts = {} if whole is None or whole.cross is None else whole.parts
    count, done = max(1, len(parts)), 0

    def share(of_one: float) -> None:
        progress((done + of_one) / count)

    described = _payload(reading, whole, opening, share, target, count)
    others = {}
    for name, part in parts.items():
        if part.part != reading.part:
            done += 1
            others[name] = _payload(part, whole, {"layer": None, "head": None}, share, None, count)
    return {**described, "others": others, "compared": compared}


def _payload(
    reading: Reading,
    whole: Reading | None,
    opening: dict[str, Any],
    progress: Callable[[float], None],
    target: Target | None,
    parts: int,
) -> dict[str, Any]:
    """The same of one attention, in its part of the room."""
    attended = reading.attention_layers
    tensors = {layer: _tensors(reading, layer) for layer in attended}
    total = sum(tensor.numel() for layer in tensors.values() for tensor in layer.values())
    needed = sum(
        tensor.numel()
        for layer in tensors.values()
        for name, tensor in layer.items()
        if name in ("query", "key", "weights")
    )
    exact = parts * total * 32 / 6 <= EXACT_LIMIT  # a character of base64 carries six bits
    units = max(len(reading.units), len(reading.columns.units))
    fits = parts * needed * BITS / 6 <= KEYS_LIMIT and units <= MAPPED_UNITS
    names = {"query", "key", "weights"} | ({"output"} if exact else set())
    if parts * total * BITS / 6 <= VALUES_LIMIT:
        names |= {"value", "hidden", "lengths"}
    pictures = None if fits else _pictures(reading, progress, PICTURES_LIMIT // parts)
    room = 0 if pictures is None else KEYS_LIMIT // parts - len(pictures["cells"]["logarithms"])
    heads = {} if pictures is None else _heads_that_fit(reading, tensors, opening, room)
    target = _target_of_maps(reading, offers(reading)) if target is None else target
    described = metadata(reading, target, whole)
    stored = sum(tensor.numel() for layer in tensors.values() for name, tensor in layer.items() if name in names)
    left = max(MAPS_LIMIT, VALUES_LIMIT - parts * stored * BITS / 6) / parts if fits else 0
    with_values = "value" in names
    make = partial(_map, reading, target=target, encode=_exact if exact else _packed, with_values=with_values)
    maps = _maps(reading, described["maps"], left, with_values, make)
    predicted = predictions.carried(reading, described["predictions"], _exact, progress)
    layers: list[dict[str, Any] | None] = [None] * reading.layers
    for layer in attended:
        arrays = _select_heads(tensors[layer], heads[layer], reading.heads) if layer in heads else tensors[layer]
        encode = _exact if exact else _packed
        shares = pattern_shares(reading, layer).tolist()
        layers[layer] = {
            **_rule(reading, layer),
            **{name: encode(tensor) for name, tensor in arrays.items() if name in names},
            "maps": maps[layer],
            "heads": heads.get(layer),
            "shares": [[None if isnan(share) else round(share, 4) for share in row] for row in shares],
        }
    rounded = f"numbers rounded to {BITS} bits"
    if pictures is not None:
        rounded = f"pictures of {pictures['rows']} × {pictures['side']} cells"
    name = f"offline.{reading.part}" if parts > 1 else "offline"
    return {
        "metadata": {**described, "reading": name, "exactness": "" if exact else rounded},
        "bits": 32 if exact else BITS,
        "patterns": PATTERNS,
        "threshold": NAMED_FROM,
        "layers": layers,
        "pictures": pictures,
        "predictions": predicted,
    }


def _tensors(reading: Reading, layer: int) -> dict[str, Tensor]:
    """The arrays of one layer, each with its vectors in the last dimension."""
    attention = reading.attention[layer]
    scores = attention.weights.scores
    arrays = {"hidden": reading.input_of(layer)[None]}  # (1, N, dim)
    if not _has_rule(reading, layer):
        # N × N numbers that no rule gives: the page gets the weights that result, word by word.
        return {"weights": reading.weights(layer), **arrays}  # (H, U, V)
    if knows_output_weight(reading, layer):  # those of the values alone the page computes
        arrays["lengths"] = value_norms(reading, layer)[..., None]  # (H, N, 1)
    return {
        "query": scores.query[0],  # (H, N, D)
        "key": scores.key[0],  # (G, N, D)
        "value": attention.value,  # (G, N, E)
        "output": attention.output,  # (H, N, E)
        **arrays,
    }


def _rule(reading: Reading, layer: int) -> dict[str, Any]:
    """How the weights of a layer follow from its queries and keys."""
    weights = reading.attention[layer].weights
    scores, sinks = weights.scores, weights.sinks
    return {
        "scale": float(scores.scale),
        "softcap": None if scores.softcap is None else float(scores.softcap),
        "sinks": None if sinks is None else sinks.double().tolist(),
        "spans": [bound[0].tolist() for bound in scores.mask.spans] if scores.mask.bounded else None,
        "made": projections(reading.explain(reading.units[0], layer, 0).made),
    }


def _maps(
    reading: Reading,
    offered: list[MapOffer],
    room: float,
    with_values: bool,
    make: Callable[[int, MapName], dict[str, Any]],
) -> dict[int, dict[str, Any]]:
    """By layer, the maps that there is room for, by their names; of the others, `offered` then says that they are not.

    The room is in characters. A map is the weights, which the page computes, times factors, which are given here.
    """
    carried: dict[int, dict[str, Any]] = {layer: {} for layer in reading.attention_layers}
    for offer in offered:
        name = offer["name"]
        if name == "weights" or offer["missing"] is not None:
            continue
        needed = sum(_characters_of_map(reading, layer, name, with_values) for layer in carried)
        try:
            if needed > room:
                raise ValueError(LEFT_OUT)
            for layer, maps in carried.items():
                maps[name] = make(layer, name)
            room -= needed
        except REFUSALS as error:
            offer["missing"] = str(error)
            for maps in carried.values():
                maps.pop(name, None)
    return carried


def _characters_of_map(reading: Reading, layer: int, name: MapName, with_values: bool) -> float:
    """How many characters a map of a layer takes, in a page that has the values or has not."""
    attention = reading.attention[layer]
    heads, tokens = reading.heads_of(layer), max(len(reading.tokens), len(reading.columns.tokens))
    if not _has_rule(reading, layer):
        return (1 if name == "norms" else heads) * len(reading.units) * len(reading.columns.units) * BITS / 6
    if name == "norms":
        return tokens * heads * (heads + 1) / 2 * 32 / 6
    if name == "gradient":
        return (attention.output.numel() + (0 if with_values else attention.value.numel())) * BITS / 6
    return heads * tokens * BITS / 6


def _map(
    reading: Reading, layer: int, name: MapName, target: Target | None, encode: Encode, with_values: bool
) -> dict[str, Any]:
    """The factors of a map, and the products G of the vectors that are combined over the heads; or else its numbers."""
    numbers = map_of(reading, layer, name, target if needs_target(name) else None)
    if not _has_rule(reading, layer):
        return {"dense": encode(between_units(reading, numbers))}  # (H, U, U)
    values = reading.attention[layer].value

    def encoded(tensor: Tensor | None) -> dict[str, Any] | str | None:
        if tensor is None:
            return None
        if with_values and tensor[0].shape == values.shape and torch.equal(tensor[0], values):
            return "value"  # which is there already
        return encode(tensor[0])  # (heads, groups or 1; N; F)

    factors = [
        {"query": encoded(factor.query), "key": encoded(factor.key), "activation": factor.activation}
        for factor in numbers.factors
    ]
    gram = None
    if numbers.gram is not None:  # symmetric: the upper triangle, row by row
        upper = torch.triu_indices(*numbers.gram.shape[-2:])
        gram = _exact(numbers.gram[:, :, upper[0], upper[1]])  # (1, N, H (H + 1) / 2)
    return {"factors": factors, "gram": gram}


def _has_rule(reading: Reading, layer: int) -> bool:
    """Whether the page can compute the weights of a layer: no N × N numbers are given that no rule makes."""
    scores = reading.attention[layer].weights.scores
    return scores.bias is None and scores.mask.given is None


def _pictures(reading: Reading, progress: Callable[[float], None], limit: int) -> dict[str, Any]:
    """All heads as pictures of rows × side cells, each cell the mean of its 2^level × 2^level weights."""
    heads = list(product(reading.attention_layers, range(reading.heads)))
    side = int((limit * 6 / 16 / len(heads)) ** 0.5)
    units = max(len(reading.units), len(reading.columns.units))
    level = max(0, (-(-units // min(side, 256)) - 1).bit_length())
    cells = []
    for n, (layer, head) in enumerate(heads):
        progress(n / len(heads))
        cells.append(Matrix(reading, layer, head).whole(level))
    pictures = torch.stack(cells)
    fine = units <= MAPPED_UNITS
    rows, columns = pictures.shape[-2:]
    return {"level": level, "rows": rows, "side": columns, "fine": fine, "cells": _logarithms(pictures)}


def _heads_that_fit(
    reading: Reading, tensors: dict[int, dict[str, Tensor]], opening: dict[str, Any], room: int
) -> dict[int, list[int]]:
    """By layer, the heads whose query and key there is room for: the one shown first, its layer, then the others."""
    first = (opening["layer"] or 0, opening["head"] or 0)
    order = sorted(
        product(reading.attention_layers, range(reading.heads)),
        key=lambda place: (place != first, place[0] != first[0], place),
    )
    kept: dict[int, list[int]] = {layer: [] for layer in tensors}
    for layer, head in order:
        arrays = tensors[layer]
        numbers = 2 * arrays["query"].numel() if "query" in arrays else arrays["weights"].numel()
        room -= round(numbers // reading.heads * BITS / 6)
        if room < 0:
            break
        kept[layer].append(head)
    return {layer: sorted(heads) for layer, heads in kept.items()}


def _select_heads(tensors: dict[str, Tensor], heads: list[int], count: int) -> dict[str, Tensor]:
    """Query and key, or the weights, of the given heads, each with a key of its own."""
    if not heads:
        return {}
    return {
        name: tensor[[head * len(tensor) // count for head in heads]]
        for name, tensor in tensors.items()
        if name in ("query", "key", "weights")
    }


# Encoding; frontend/src/offline/codec.js decodes


def _exact(tensor: Tensor) -> dict[str, Any]:
    return {"shape": list(tensor.shape), "float32": _base64(_numpy(tensor).astype("<f4").tobytes())}


def _packed(tensor: Tensor) -> dict[str, Any]:
    """Integers of 14 bits, with a step for each channel, in two planes of bytes, deflated.

    Trained queries and keys have a few channels far larger than the rest; a step for each channel leaves the small ones
    their precision, and makes the weights three times as exact as float16 does in the same space. The plane of high
    bytes has at most six bits in each byte, so that no data can make the file larger than 14 bits a number.
    """
    array = _numpy(tensor)
    largest = 2 ** (BITS - 1) - 1
    step = np.abs(array).max(axis=-2, keepdims=True) / np.float32(largest)  # (…, 1, D)
    if not np.isfinite(step).all():
        return _exact(tensor)  # NaN and inf have no place on a grid, and must reach the reader
    codes = np.rint(array / np.where(step > 0, step, 1)).clip(-largest, largest).astype("<i2")
    return {"shape": list(tensor.shape), "packed": deflated(step.astype("<f4").tobytes() + _planes(codes))}


def _logarithms(tensor: Tensor) -> dict[str, Any]:
    """Weights from 2⁻³² to 1 by their logarithms, in steps of 0.03 %: 16 bits each, in two planes, deflated."""
    logarithms = np.log2(np.maximum(_numpy(tensor), 2.0**-33))
    codes = np.rint(65535 + LOGARITHM_STEPS * logarithms).clip(0, 65535).astype("<u2")
    return {"shape": list(tensor.shape), "logarithms": deflated(_planes(codes))}


def _planes(codes: np.ndarray) -> bytes:
    """The low bytes of numbers of 16 bits, then the high ones."""
    return codes.reshape(-1, 1).view(np.uint8).T.tobytes()


def deflated(data: bytes) -> str:
    """Data as raw DEFLATE, without a header, in base64."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return _base64(deflate.compress(data) + deflate.flush())


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float32).numpy()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
