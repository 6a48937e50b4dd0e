"""Replies that a model writes for a page: `write` begins one, `written` asks for its tokens, `stop` ends it.

The tokens are kept here until the page asks for them. A page asks for what is new as long as it is open: a reply that
nobody asks for ends. api.py hands the requests on; when a reply has ended, its reading is one as any other.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import cast

import torch

from regard.lens.generate import Generation
from regard.lens.lens import Lens
from regard.models import Model
from regard.viewer.jobs import ABANDONED, Progress
from regard.viewer.protocol import Request
from regard.viewer.protocol.errors import RequestError
from regard.viewer.protocol.limits import REPLY_TOKENS, TEMPERATURE_LIMIT
from regard.viewer.protocol.writing import (
    Finished,
    StopReply,
    StopRequest,
    WriteReply,
    WriteRequest,
    Writes,
    WrittenReply,
    WrittenRequest,
    WrittenToken,
)

WAITING = 16  # replies that may wait or be written
KEPT = 64  # replies whose tokens can still be asked for
SEEDS = 1 << 63  # what the generator of random numbers takes


def writes(model: Model) -> Writes | None:
    """Whether a model replies to messages, goes on with a text, or does not write at all."""
    if model.step is None or model.head is None or model.head.kind != "next token":
        return None
    return "text" if model.chat is None else "message"


class Writer:
    """Writes the replies of all pages, one at a time. Any thread may call it.

    Args:
        model: gives the name of a model that is asked for, or raises RequestError.
        lens: opens a model by its name.
        keep: takes the name of a model and what it wrote, and returns the id of the reading of prompt and reply.
    """

    def __init__(
        self,
        model: Callable[[str | None], str],
        lens: Callable[[str], Lens],
        keep: Callable[[str, Generation], str],
    ) -> None:
        self._model, self._lens, self._keep = model, lens, keep
        self._lane = ThreadPoolExecutor(1, "regard-write")
        self._writings: OrderedDict[str, _Writing] = OrderedDict()
        self._lock = threading.Lock()

    def handle(self, request: Request, wait: float) -> WriteReply | WrittenReply | StopReply:
        """The reply to a request of protocol/writing.py; where no token is new, after `wait` seconds at most."""
        if isinstance(request, WriteRequest):
            return WriteReply(writing=self._begin(request))
        assert isinstance(request, WrittenRequest | StopRequest)
        with self._lock:
            writing = self._writings.get(request.writing)
        if writing is None:
            raise RequestError("Unknown reply: the server was restarted, or has forgotten it. Send it again.", 404)
        if isinstance(request, StopRequest):
            return StopReply(stopped=writing.stop())
        return writing.since(request.since, wait)

    def close(self) -> None:
        """Stop all that is being written."""
        with self._lock:
            for writing in self._writings.values():
                writing.stop()
        self._lane.shutdown(wait=False, cancel_futures=True)

    def _begin(self, request: WriteRequest) -> str:
        if not 1 <= request.max_tokens <= REPLY_TOKENS:
            raise RequestError(f"max_tokens: expected 1 to {REPLY_TOKENS:,}. Got {request.max_tokens:,}.")
        if request.temperature > TEMPERATURE_LIMIT:
            raise RequestError(f"temperature: expected 0 to {TEMPERATURE_LIMIT}. Got {request.temperature:g}.")
        if request.seed >= SEEDS:
            raise RequestError("seed: expected a number of at most 63 bits.")
        model, writing, key = self._model(request.model), _Writing(), secrets.token_hex(8)
        with self._lock:
            if sum(not other.ended for other in self._writings.values()) >= WAITING:
                raise RequestError("Too many replies are being written at once: try again in a moment.", 503)
            self._writings[key] = writing
            ended = [other for other, kept in self._writings.items() if kept.ended]
            for other in ended[: max(0, len(self._writings) - KEPT)]:
                del self._writings[other]
            writing.future = self._lane.submit(self._write, writing, model, request)
        return key

    def _write(self, writing: _Writing, model: str, request: WriteRequest) -> None:
        """Writes a reply, in the thread of the lane. Its reading is kept whatever ended it."""
        if torch.get_num_threads() != writing.threads:
            torch.set_num_threads(writing.threads)  # as many as the asker has: products round differently with others
        generation = None
        try:
            writing.report(0.0)
            lens = self._lens(model)
            generation = _generation(lens, request, writing.report)
            for token in generation:
                writing.add(WrittenToken(text=token.text, probability=token.probability))
                writing.check()
            finished = cast(Finished, generation.finished)
        except _Stopped:
            finished = "interrupted"
        except Exception as error:
            writing.end("interrupted", error=error)
            return
        writing.end(finished, None if generation is None else self._keep(model, generation))


def _generation(lens: Lens, request: WriteRequest, progress: Progress) -> Generation:
    """What a model is about to write. Raises ValueError where it cannot write, or the prompt does not fit."""
    *before, last = texts = request.texts
    if lens.model.chat is None and before:
        raise ValueError(f"texts: {lens.name} goes on with one text. Got {len(texts)}.")
    if len(texts) % 2 == 0:
        raise ValueError("texts: the last message is a person's: expected an odd number of messages.")
    options = (request.max_tokens, request.temperature, 1.0, request.seed)
    if lens.model.chat is None:
        return lens.generate(last, *options, progress=progress)
    messages = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
    return lens.chat(messages, *options, progress=progress)


class _Stopped(Exception):  # noqa: N818  not an error
    """Nobody wants the rest of the reply."""


class _Writing:
    """A reply that is written in one thread and read in others."""

    future: Future[None]

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tokens: list[WrittenToken] = []
        self._finished: Finished | None = None
        self._reading: str | None = None
        self._error: Exception | None = None
        self._progress: float | None = None  # the share of the prompt that is read; None while it waits
        self._stopped, self._last_asked = False, time.monotonic()
        self.threads = torch.get_num_threads()

    @property
    def ended(self) -> bool:
        """Whether nothing more will be written."""
        return self._finished is not None

    def since(self, known: int, wait: float) -> WrittenReply:
        """The tokens after those that are known. Raises what ended the reply where that was an error."""
        self._last_asked = time.monotonic()
        with self._changed:
            self._changed.wait_for(lambda: self.ended or len(self._tokens) > known, wait)
            if self._error is not None and known >= len(self._tokens):
                raise self._error
            reply = WrittenReply(tokens=self._tokens[known:], finished=None)
            if self.ended and self._error is None:
                reply["finished"] = self._finished
                if self._reading is not None:
                    reply["reading"] = self._reading
            elif not reply["tokens"]:
                reply["progress"] = self._progress
        return reply

    def stop(self) -> bool:
        """Have it stopped, after the layer of the prompt or the token under way; whether there was anything to stop."""
        was_writing = not self.ended
        self._stopped = True
        if self.future.cancel():  # it has not begun
            self.end("interrupted")
        return was_writing

    def add(self, token: WrittenToken) -> None:
        """One more token."""
        with self._changed:
            self._tokens.append(token)
            self._changed.notify_all()

    def end(self, finished: Finished, reading: str | None = None, error: Exception | None = None) -> None:
        """Nothing more will be written."""
        with self._changed:
            self._finished, self._reading, self._error = finished, reading, error
            self._changed.notify_all()

    def report(self, share: float) -> None:
        """Note the share of the prompt that is read. Raises _Stopped where nobody wants the rest."""
        self._progress = share
        self.check()

    def check(self) -> None:
        """Raises _Stopped where nobody wants the rest."""
        if self._stopped or time.monotonic() - self._last_asked > ABANDONED:
            raise _Stopped
