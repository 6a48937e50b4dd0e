"""The viewer's HTTP API, whatever carries it: it answers the requests that protocol/ declares.

server.py puts it behind HTTP (POST /api), widget.py behind the channel of a notebook. This file decides which reading a
request is about, what is kept (cache.py), and what runs in the background (jobs.py); the numbers are computed in
replies.py, tiles.py and bundle.py. It may import these and the rooms below the viewer, but not server.py or widget.py.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar, cast

import torch

from regard._internal import heap
from regard.attribution import Target
from regard.attribution.heads.named import PATTERNS, pattern_shares
from regard.attribution.heads.scores import NAMED_FROM
from regard.lens.generate import Generation
from regard.lens.lens import Lens
from regard.lens.reading import Reading
from regard.viewer import asking, chat, predictions, replies
from regard.viewer.bundle import render_page
from regard.viewer.cache import LRUCache, size_of, size_of_reading
from regard.viewer.jobs import Cancelled, JobQueue, Lane, Pending, Progress, lane_of_texts
from regard.viewer.maps import between_units, map_of, needs_target, of_unit, target_of, tensors_of
from regard.viewer.payload import metadata, shown_first
from regard.viewer.protocol import (
    MESSAGES,
    CancelledReply,
    CancelReply,
    CancelRequest,
    CompareReply,
    CompareRequest,
    HeadRequest,
    LayerRequest,
    LayerWeightsReply,
    LayerWeightsRequest,
    MapRequest,
    Memory,
    MetadataReply,
    MetadataRequest,
    PageReply,
    PageRequest,
    PendingReply,
    PredictionsReply,
    PredictionsRequest,
    ReadRequest,
    Request,
    StartReply,
    StartRequest,
    TargetReply,
    TargetRequest,
    ThumbnailsReply,
    ThumbnailsRequest,
    TileReply,
    TileRequest,
    WalkReply,
    WalkRequest,
    WordWeightsReply,
    WordWeightsRequest,
)
from regard.viewer.protocol.errors import CANCELLED, UNKNOWN_READING, RequestError
from regard.viewer.protocol.limits import LAYER_WEIGHTS_UNITS, LINK_LIMIT, SAMPLED_UNITS, TARGET_LIMIT, TEXT_LIMIT
from regard.viewer.protocol.parse import parse, within
from regard.viewer.protocol.writing import AskReply, AskRequest
from regard.viewer.tiles import OVERVIEW_LEVEL, Matrix, thumbnails
from regard.weights.map import Map

WAIT = 0.3  # seconds until a request whose work takes longer gets a PendingReply
SHORT_READING = 512  # units: requests about no more are answered at once, in the thread that asks

Reply = Mapping[str, object]
Result = TypeVar("Result")
Source = tuple[str, str, str | None] | Generation  # model, text and pair; or what a model wrote


class ViewerAPI:
    """Answers requests about readings. Any thread may call it.

    Args:
        lenses: by the name of the model, a function that opens it; the first is the default.
        memory: bytes that readings, and what is kept of them, may take.
        opening: what a page shows first: a reading, or a (text, pair) that it asks to be read.
    """

    def __init__(
        self,
        lenses: Mapping[str, Callable[[], Lens]],
        memory: int = 2 << 30,
        opening: Reading | tuple[str, str | None] | None = None,
    ) -> None:
        self._lenses = dict(lenses)
        self._opening_locks = {model: threading.Lock() for model in self._lenses}
        self.cache, self._sources, self.jobs = LRUCache(memory), LRUCache(64 * TEXT_LIMIT), JobQueue()
        self._writer = chat.Writer(self._model, self._lens, self._keep_written)
        self._pinned: tuple[str, Reading] | None = None  # the caller's own reading, which is never evicted
        self._start: StartReply = {"models": list(self._lenses), "opening": None}
        if isinstance(opening, Reading):
            self._pinned = (reading_id(opening.model, opening.text, ""), opening)
            self._start["opening"] = {"reading": self._pinned[0]}
        elif opening is not None:
            self._start["opening"] = {"text": opening[0], "pair": opening[1]}

    def handle(self, message: object, wait: float = WAIT) -> Reply:
        """The reply to a message, as declared in protocol/; a PendingReply where it takes more than `wait` seconds.

        Raises RequestError where the message is no request, or cannot be answered.
        """
        request = parse(message)
        try:
            if not isinstance(request, CancelRequest) and self.jobs.was_cancelled(request.job):
                raise Cancelled
            with torch.inference_mode():
                return _HANDLERS[type(request)](self, request, wait)
        except Pending as pending:
            return PendingReply(progress=pending.progress, job=pending.job)
        except Cancelled:
            return CancelledReply(cancelled=True)
        except OverflowError as error:
            raise RequestError(str(error), 503) from None
        except (ValueError, LookupError, TypeError, OSError, ImportError) as error:
            raise RequestError(str(error)) from error

    def close(self) -> None:
        """Cancel all that is being computed."""
        self._writer.close()
        self.jobs.close()

    # Readings

    def _handle_start(self, request: StartRequest, wait: float) -> StartReply:
        return self._start

    def _handle_read(self, request: ReadRequest, wait: float) -> MetadataReply:
        model = self._model(request.model)
        key = reading_id(model, request.text, request.pair or "")
        size = 4 * (len(request.text) + len(request.pair or ""))
        self._sources.put(key, (model, request.text, request.pair), size)
        return self._metadata(key, wait)

    def _handle_metadata(self, request: MetadataRequest, wait: float) -> MetadataReply:
        return self._metadata(request.reading, wait)

    def _metadata(self, key: str, wait: float) -> MetadataReply:
        key, _, attention = key.partition(".")
        whole = self._reading(key, wait, kind="read")
        reading = whole.attended(attention) if attention else shown_first(whole)
        name = f"{key}.{reading.part}" if whole.cross else key
        described = metadata(reading, whole=whole)
        reply = cast(MetadataReply, {"reading": name, **described, "memory": self._memory(whole)})
        if self._lenses and reading.lens is not None:
            reply["writes"] = chat.writes(reading.lens.model)
        source = self._sources.get(key)
        if isinstance(source, tuple) and source is not _CANCELLED:
            reply["source"] = {"model": source[0], "text": source[1], "pair": source[2]}
        return reply

    def _memory(self, reading: Reading) -> Memory:
        readings = sum(isinstance(key, str) for key in self.cache)
        return Memory(
            reading=size_of_reading(reading), used=self.cache.used, limit=self.cache.limit, readings=readings or 1
        )

    def _reading(self, key: str, wait: float, kind: str = "read again") -> Reading:
        """The reading of this id; one that was evicted is read again. A dot and a name are of one of its attentions.

        Whoever cancels a job of kind "read" does not want the reading; any other request may bring it back.
        """
        key, _, attention = key.partition(".")
        if self._pinned is not None and key == self._pinned[0]:
            return self._pinned[1].attended(attention or None)
        reading: Reading | None = self.cache.get(key)
        if reading is not None:
            return reading.attended(attention or None)
        source: Source | None = self._sources.get(key)
        if source is None:
            raise RequestError("Unknown reading: read the text again.", 404, UNKNOWN_READING)
        if source is _CANCELLED:
            raise RequestError("Reading this text was cancelled: read it again.", 409, CANCELLED)

        def read(progress: Progress) -> Reading:
            try:
                if isinstance(source, Generation):
                    reading = source.read(progress)
                else:
                    model, text, pair = source
                    reading = self._lens(model).read(text, pair, progress=progress)
                metadata(shown_first(reading))  # what takes long in it is found out here, once
                self.cache.put(key, reading, size_of_reading(reading))
            finally:
                heap.trim()
            return reading

        texts = [source.prompt, source.text] if isinstance(source, Generation) else [source[1], source[2] or ""]
        return self.jobs.result((kind, key), read, wait, lane_of_texts(*texts)).attended(attention or None)

    def _keep_written(self, model: str, generation: Generation) -> str:
        """The id of the reading of prompt and reply, which is read when it is asked for."""
        key = reading_id(model, generation.prompt, json.dumps([token.id for token in generation.tokens]))
        self._sources.put(key, generation, 4 * len(generation.prompt) + 500 * len(generation.tokens))
        return key

    def _handle_writing(self, request: Request, wait: float) -> Reply:
        return cast(Reply, self._writer.handle(request, wait))

    _handle_write = _handle_written = _handle_stop = _handle_writing

    def _model(self, name: str | None) -> str:
        """The model that is asked for; the first, if none is."""
        name = next(iter(self._lenses), None) if name is None else name
        if name is None or name not in self._lenses:
            known = ", ".join(self._lenses) or "none"
            raise RequestError(f"model: expected one of {known}, which were chosen at the start.", 403)
        return name

    def _lens(self, model: str) -> Lens:
        with self._opening_locks[model]:  # so that a model is opened once, and keeps no other waiting
            return self._lenses[model]()

    def _at_layer(self, request: LayerRequest, wait: float) -> Reading:
        """The reading that a request is about, which has the layer, and the head, that it names."""
        reading = self._reading(request.reading, wait)
        within("layer", request.layer, reading.layers)
        if isinstance(request, HeadRequest):
            within("head", request.head, reading.heads)
        return reading

    # Weights, or the map that is asked for in their place

    def _map(self, reading: Reading, request: MapRequest, wait: float) -> Map:
        """The map that is asked for, made once: for a gradient the model computes forwards and backwards."""
        if request.map == "weights":
            return reading.attention[request.layer].weights

        def make(progress: Progress) -> Map:
            target = self._target(reading, request.reading, request.target) if needs_target(request.map) else None
            return map_of(reading, request.layer, request.map, target)

        key = ("map", request.reading, request.layer, request.map, request.target)
        return self._cached(key, make, wait, None if len(reading.units) <= SHORT_READING else "long")

    def _target(self, reading: Reading, key: str, text: str | None) -> Target:
        """A target, with which its gradient is kept for the layers that are asked for next."""
        if text is not None and len(text) > TARGET_LIMIT:
            raise RequestError(f"target: it has {len(text):,} characters, and the limit is {TARGET_LIMIT:,}.", 413)
        named = ("target", key, text)
        target: Target | None = self.cache.get(named)
        if target is None:
            target = target_of(reading, text)
            self.cache.put(named, target, size_of(attention.output for attention in reading.attention))
        return target

    def _handle_target(self, request: TargetRequest, wait: float) -> TargetReply:
        reading = self._reading(request.reading, wait)
        return TargetReply(name=self._target(reading, request.reading, request.target).name)

    def _handle_word_weights(self, request: WordWeightsRequest, wait: float) -> WordWeightsReply:
        reading = self._at_layer(request, wait)
        ends = reading, reading.columns
        own, others = ends if request.side == "from" else ends[::-1]
        unit = own.units[within("word", request.word, len(own.units))]
        return WordWeightsReply(weights=of_unit(self._map(reading, request, wait), unit, request.side, others))

    def _handle_layer_weights(self, request: LayerWeightsRequest, wait: float) -> LayerWeightsReply:
        reading = self._at_layer(request, wait)
        units = max(len(reading.units), len(reading.columns.units))
        if units > LAYER_WEIGHTS_UNITS:
            raise RequestError(
                f"layer_weights: the text has {units:,} units, and the limit is {LAYER_WEIGHTS_UNITS}: "
                "request word_weights."
            )
        return LayerWeightsReply(weights=between_units(reading, self._map(reading, request, wait)))

    def _handle_thumbnails(self, request: ThumbnailsRequest, wait: float) -> ThumbnailsReply:
        reading = self._at_layer(request, wait)
        numbers = self._map(reading, request, wait)

        def draw(progress: Progress) -> ThumbnailsReply:
            return ThumbnailsReply(
                thumbnails=thumbnails(reading, request.layer, request.hide, progress, numbers, request.hide_first),
                shares=pattern_shares(reading, request.layer),
                patterns=PATTERNS,
                threshold=NAMED_FROM,
            )

        units = len(reading.units)
        lane: Lane | None = None if units <= SHORT_READING else "short" if units <= SAMPLED_UNITS else "long"
        hidden = request.hide, request.hide_first
        key = ("thumbnails", request.reading, request.layer, *hidden, request.map, request.target)
        return self._cached(key, draw, wait, lane)

    def _handle_tile(self, request: TileRequest, wait: float) -> TileReply:
        reading = self._at_layer(request, wait)
        numbers = self._map(reading, request, wait)
        head = request.head if len(numbers.shape) == 3 else 0
        hidden = request.hide, request.hide_first
        matrix = Matrix(reading, request.layer, head, request.reduce, request.hide, numbers, request.hide_first)
        overview = None
        if matrix.needs_overview and OVERVIEW_LEVEL <= request.level <= matrix.top:
            chosen = (request.layer, head, request.reduce, *hidden, request.map, request.target)
            key = ("overview", request.reading, *chosen)
            overview = self._cached(key, matrix.overview, wait, "long")
        return TileReply(cells=matrix.tile(request.level, request.row, request.column, overview))

    def _handle_walk(self, request: WalkRequest, wait: float) -> WalkReply:
        reading = self._at_layer(request, wait)
        within("token", request.token, len(reading.tokens))
        numbers = None if request.map == "weights" else self._map(reading, request, wait)
        return replies.walk(reading, request, numbers)

    def _handle_predictions(self, request: PredictionsRequest, wait: float) -> PredictionsReply:
        reading = self._reading(request.reading, wait)
        rows = predictions.check(reading, request)
        key = ("predictions", request.reading, request.layer, request.first, request.k)
        return self._cached(key, lambda progress: predictions.reply(reading, request, rows), wait, "short")

    def _cached(
        self, key: Hashable, compute: Callable[[Progress], Result], wait: float, lane: Lane | None = None
    ) -> Result:
        """What is computed once and kept: in a lane of the queue or, without one, in this thread."""

        def compute_and_keep(progress: Progress) -> Result:
            with torch.inference_mode():
                result = compute(progress)
            self.cache.put(key, result, size_of(tensors_of(result)) + 1000)
            return result

        kept: Result | None = self.cache.get(key)
        if kept is not None:
            return kept
        if lane is None:
            return compute_and_keep(lambda progress: None)
        return self.jobs.result(key, compute_and_keep, wait, lane)

    # Comparisons, pages, cancelling

    def _handle_compare(self, request: CompareRequest, wait: float) -> CompareReply:
        model, word, texts = self._model(request.model), request.word, request.texts

        def compare(progress: Progress) -> CompareReply:
            return replies.compare(self._lens(model), word, texts, progress)

        return self._cached(("compare", model, word, *texts), compare, wait, lane_of_texts(*texts))

    def _handle_ask(self, request: AskRequest, wait: float) -> AskReply:
        lens = partial(self._lens, self._model(request.model))
        return self.jobs.result(repr(replace(request, job=None)), partial(asking.answer, lens, request), wait)

    def _handle_page(self, request: PageRequest, wait: float) -> PageReply:
        reading = self._at_layer(request, wait)
        if request.word is not None:
            within("word", request.word, len(reading.units))
        if request.link is not None and len(request.link) > LINK_LIMIT:
            raise RequestError(f"link: expected a string of at most {LINK_LIMIT:,} characters.")
        chosen = None if request.target is None else self._target(reading, request.reading, request.target)
        compared: dict[str, Any] | None = None
        if request.comparison is not None:
            compared = replies.arrays_as_text(self._handle_compare(request.comparison, wait))

        whole = self._reading(request.reading.partition(".")[0], wait)

        def write(progress: Progress) -> PageReply:
            with torch.inference_mode():
                text = render_page(
                    whole,
                    word=request.word,
                    layer=request.layer,
                    head=request.head,
                    link=request.link,
                    target=chosen,
                    attention=reading.part or None,
                    compared=compared,
                    progress=progress,
                )
            return PageReply(html=text)

        lane: Lane = "short" if len(reading.units) <= SHORT_READING else "long"
        return self.jobs.result(repr(replace(request, job=None)), write, wait, lane)

    def _handle_cancel(self, request: CancelRequest, wait: float) -> CancelReply:
        keys = self.jobs.cancel(request.job)
        for key in keys:
            if isinstance(key, tuple) and key[0] == "read":
                self._sources.put(key[1], _CANCELLED, 100)
        return CancelReply(jobs=len(keys))


_CANCELLED: Source = ("", "", None)  # stands for a text whose reading was cancelled

_HANDLERS: dict[type[Request], Callable[[ViewerAPI, Any, float], Reply]] = {
    request: getattr(ViewerAPI, f"_handle_{kind}") for kind, (request, _) in MESSAGES.items()
}


def reading_id(model: str, text: str, pair: str) -> str:
    """The id of a reading: the same text, pair and model have the same, on every server."""
    return hashlib.sha256(json.dumps([model, text, pair]).encode()).hexdigest()[:16]
