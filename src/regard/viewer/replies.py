"""The numbers of the viewer's replies, computed from readings: the walk of a token, a comparison, the metadata.

api.py calls these functions, in the background where they take long; what they return is declared in protocol/.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from math import isfinite

import torch
from torch import Tensor

from regard.lens.compare import comparison
from regard.lens.contributions import knows_output_weight, value_norms
from regard.lens.lens import Lens
from regard.lens.reading import Reading
from regard.lens.units import Word
from regard.mask import Block
from regard.viewer.jobs import Progress
from regard.viewer.payload import projections
from regard.viewer.protocol import CompareReply, LeftOut, WalkReply, WalkRequest
from regard.viewer.protocol.errors import RequestError
from regard.viewer.protocol.limits import COMPARED_PLACES, WALK_LARGEST, WALK_ROWS, WALK_TOKENS
from regard.weights.map import Map


def walk(reading: Reading, request: WalkRequest, numbers: Map | None = None) -> WalkReply:
    """The numbers by which a head makes the context vector of a token, for the tokens that are listed.

    With a map besides the weights, its `numbers` for the token, which then say which tokens are listed.
    """
    layer, head, token = request.layer, request.head, request.token
    unit = reading.units[int(reading.unit_of_token[token])]
    walk, row = reading.explain(unit, layer, head), unit.tokens.index(token)
    attention = reading.attention[layer]
    scores, weights = attention.weights.scores, walk.weights[row]
    assert walk.carried is not None
    carried, lengths = walk.carried[row], value_norms(reading, layer)[head].cpu()
    mapped = None if numbers is None else _row(numbers, head, token).double().cpu()
    rows = _listed(weights if mapped is None else mapped.abs(), request.all)
    row_of_scores = Block(slice(0, 1), slice(head, head + 1), slice(token, token + 1), slice(0, len(weights)))
    seen = ~scores.tile(row_of_scores)[0, 0, 0].isneginf().cpu()
    unseen = torch.tensor(torch.nan, dtype=torch.float64)
    reply = WalkReply(
        rows=rows.tolist(),
        best=int(weights.argmax()),
        scale=walk.scale,
        softcap=scores.softcap,
        adjusted=scores.bias is not None,
        sink=None if attention.weights.sinks is None else _finite(attention.weights.sink()[head, token]),
        masked=bool((~seen).any()),
        error=_finite(walk.error),
        carried_total=_finite(carried.sum()),
        projected=knows_output_weight(reading, layer),
        made=projections(walk.made),
        x=walk.x[row],
        query=walk.query[row],
        keys=walk.keys[rows],
        values=walk.values[rows],
        scores=torch.where(seen, walk.scores[row], unseen)[rows],
        scaled=torch.where(seen, walk.scaled[row], unseen)[rows],
        weights=weights[rows],
        lengths=lengths[rows],
        carried=carried[rows],
        context=walk.context[row],
    )
    if reading.source is None:
        reply["key"], reply["value"] = walk.keys[token], walk.values[token]
    if walk.made is not None and walk.made.norm:
        reply["normed"] = walk.made.normed[row]
    if walk.made is not None and walk.made.rotated:
        reply["unrotated"] = walk.made.query[row]
    if mapped is not None:
        reply["mapped"], reply["mapped_total"] = mapped[rows], _finite(mapped.abs().sum())
    return reply


def _row(numbers: Map, head: int, token: int) -> Tensor:
    """The numbers of a map for a token as the query, in a head or in all of them together."""
    return numbers[head, token] if len(numbers.shape) == 3 else numbers[token]


def _listed(weights: Tensor, everything: bool) -> Tensor:
    """The tokens that a walk lists: all of a short text, those with the largest weights of a longer one."""
    limit = WALK_ROWS if everything else WALK_TOKENS if len(weights) <= WALK_TOKENS else WALK_LARGEST
    return weights.topk(min(limit, len(weights))).indices.sort().values


def _finite(number: float | Tensor) -> float | None:
    """A number, or None for NaN and infinity, which JSON does not have."""
    return float(number) if isfinite(number) else None


def compare(lens: Lens, word: str, texts: Sequence[str], progress: Progress) -> CompareReply:
    """How the vectors of a word differ among the places where it stands in the texts.

    Raises RequestError where there are fewer than two such places, or more than COMPARED_PLACES.
    """
    words: list[Word] = []
    left_out: list[LeftOut] = []
    for n, text in enumerate(texts):
        try:
            reading = lens.read(text, progress=_share_of(progress, n, len(texts)))
            words += occurrences(reading, word, COMPARED_PLACES + 1 - len(words))
        except LookupError as error:
            left_out.append({"text": n, "reason": str(error)})
        if len(words) > COMPARED_PLACES:
            raise RequestError(f"“{word}” occurs more than {COMPARED_PLACES} times, the most that can be compared.")
    if not words:
        raise RequestError(left_out[0]["reason"])
    if len(words) < 2:
        raise RequestError(f"“{word}” occurs only once. A comparison needs two places or more.")
    compared = comparison(word, [place.reading for place in words], words)
    return CompareReply(
        word=word,
        places=[{"text": place.reading.text, "start": place.start, "end": place.end} for place in words],
        clusters=list(compared.clusters),
        left_out=left_out,
        similarity=compared.similarity,
        plane=compared.plane(),
    )


def _share_of(progress: Progress, n: int, count: int) -> Callable[[float], None]:
    """The progress of the n-th of several steps, reported as that of all."""
    return lambda share: progress((n + share) / count)


def occurrences(reading: Reading, word: str, limit: int) -> list[Word]:
    """The places at which a word stands, up to a limit. Raises LookupError where there is none."""
    places: list[Word] = []
    try:
        while len(places) < limit:
            places.append(reading.word(word, len(places) + 1))
    except LookupError as error:
        if not places:
            shown = reading.text if len(reading.text) <= 60 else reading.text[:57] + "…"
            raise LookupError(f"In “{shown}”: {error}") from None
    return places


def arrays_as_text(reply: Mapping[str, object]) -> dict[str, object]:
    """A reply for JSON: its arrays as {shape, float32}, in base64, as a saved page holds them."""
    return {
        name: {"shape": list(value.shape), "float32": base64.b64encode(value.float().numpy().tobytes()).decode()}
        if isinstance(value, Tensor)
        else value
        for name, value in reply.items()
    }
