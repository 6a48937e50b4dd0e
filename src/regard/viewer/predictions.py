"""What a language model predicts at each token of a reading, for the page: at the end, and after each of its layers.

`regard.lens.predictions` makes the predictions; api.py answers requests with them, payload.py puts them into a file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from regard.lens.predictions import language_model, predictions, unembeds_every_layer, vocabulary_of
from regard.lens.reading import Reading
from regard.viewer.protocol import PredictionsOffer, PredictionsReply, PredictionsRequest
from regard.viewer.protocol.errors import RequestError
from regard.viewer.protocol.limits import PREDICTED_MOST, PREDICTED_TOKENS, PREDICTIONS
from regard.viewer.protocol.parse import within

FILE_LIMIT = 300_000  # characters that the predictions may take in a file
TOKEN = 90  # characters that the predictions of a layer take for a token: five texts, five probabilities, the surprise
LEFT_OUT = "In a text this long, the file leaves {} out; a server, regard serve, shows them."


def offer(reading: Reading) -> PredictionsOffer | None:
    """What can be requested of a reading's predictions; None where its model predicts no tokens."""
    try:
        model, head = language_model(reading, "predictions")
    except ValueError:
        return None
    if head.kind == "class":
        return None
    if unembeds_every_layer(reading, model):
        return PredictionsOffer(kind=head.kind, layers=list(range(reading.layers)), missing=None)
    reason = (
        f"Only the last layer of {model.name} makes predictions: what follows it is no single norm that could be "
        "applied to the states of another."
    )
    return PredictionsOffer(kind=head.kind, layers=[reading.layers - 1], missing=reason)


def check(reading: Reading, request: PredictionsRequest) -> slice:
    """The tokens that a request is about. Raises RequestError where the reading has no such tokens, layer or head."""
    offered = offer(reading)
    if offered is None:
        raise RequestError(f"predictions: {reading.model} has no head that predicts tokens.")
    if request.layer is not None:
        within("layer", request.layer, reading.layers)
        if request.layer not in offered["layers"]:
            raise RequestError(f"layer: {offered['missing']}")
    if not 1 <= request.k <= PREDICTED_MOST:
        raise RequestError(f"k: expected a whole number from 1 to {PREDICTED_MOST}. Got {request.k}.")
    within("first", request.first, len(reading.tokens))
    return slice(request.first, request.first + PREDICTED_TOKENS)


def reply(reading: Reading, request: PredictionsRequest, rows: slice) -> PredictionsReply:
    """The predictions that a request asks for; fewer for each token where the vocabulary is smaller."""
    expected = predictions(reading, min(request.k, vocabulary_of(reading)), request.layer, rows)
    return PredictionsReply(
        texts=[list(texts) for texts in expected.texts],
        probabilities=expected.probabilities,
        surprise=expected.surprise,
    )


def carried(
    reading: Reading,
    offered: PredictionsOffer | None,
    encode: Callable[[Tensor], dict[str, Any]],
    progress: Callable[[float], None],
) -> list[dict[str, Any] | None]:
    """By layer, the predictions that a file has room for; `offered` then says which these are.

    Those of all layers, or else the model's own, which are those of the last.
    """
    layers: list[dict[str, Any] | None] = [None] * reading.layers
    if offered is None:
        return layers
    size = TOKEN * len(reading.tokens)
    if size > FILE_LIMIT:
        offered["layers"], offered["missing"] = [], LEFT_OUT.format("the predictions")
    elif size * len(offered["layers"]) > FILE_LIMIT:
        offered["layers"], offered["missing"] = offered["layers"][-1:], LEFT_OUT.format("those of the layers before")
    k = min(PREDICTIONS, vocabulary_of(reading))
    for n, layer in enumerate(offered["layers"]):
        progress(n / len(offered["layers"]))
        expected = predictions(reading, k, layer)
        layers[layer] = {
            "texts": expected.texts,
            "probabilities": encode(expected.probabilities),
            "surprise": encode(expected.surprise),
        }
    return layers
