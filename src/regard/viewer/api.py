"""The desk: what a viewer may ask about readings, and the answers, as numbers.

A question is a dictionary with `what` in it, an answer a dictionary and some arrays of float32. They are the same over
HTTP and in a notebook, and assets/frozen.js answers them in a page that has no Python behind it:

    what      is asked with                               is answered with
    start     —                                           models, limit, first: a text or a reading to begin with
    read      text, pair, model                           the card of a reading: id, words, tokens, sizes, memory, and
                                                          in `source` the text, pair and model it was made of
    card      reading                                     the same
    look      reading, layer, word, side                  weights (H,U): from or to a unit, in each head
    all       reading, layer                              weights (H,U,U), of a short text
    thumbs    reading, layer, hide                        thumbs (H,n,n), shares (H,habits), habits, named
    tile      reading, layer, head, reduce, hide,         cells (r,c); needs the overview from level 5 on
              level, row, column
    walk      reading, layer, head, token, all            the numbers of the walk of one token; lengths are ‖v W_O‖, or
                                                          ‖v‖ where not `projected`: W_O is not known; carried is
                                                          weight × length, carried_total its sum
    compare   model, word, texts                          similarity (L+1,n,n), plane (L+1,n,2), places, clusters, and
                                                          in `left_out` the texts that lack the word, and why
    page      reading, layer, head, word, link, same      html: the reading as one file, which opens as `link`, an
                                                          address, says; same: a comparison to go along
    cancel    job                                         given_up: how many jobs were

U units (words and special tokens), as `reading.units` has them. A question whose answer takes long is answered by
{"working": share, "job": number}, and is to be asked again with this `job` in it; where it was cancelled meanwhile, or
given up because nobody asked, the answer is {"cancelled": true}. What cannot be answered gets a `Refusal`: 404 with the
code "unknown_reading" where the reading is not known, as after a restart (read the text again), 409 with the code
"cancelled" where its reading was cancelled, which only `read` starts again.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import threading
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from regard._internal import heap
from regard.lens.compare import comparison
from regard.lens.contributions import knows_output_weight, value_norms
from regard.lens.lens import Lens
from regard.lens.patterns import NAMED_FROM, PATTERNS, pattern_shares
from regard.lens.reading import Reading
from regard.lens.units import Word
from regard.mask import Block
from regard.viewer.bundle import render_page
from regard.viewer.cache import Cancelled, Jobs, Lane, Progress, Shelf, Working, size_of
from regard.viewer.payload import metadata, projections
from regard.viewer.tiles import BASE, WHOLE, Matrix, thumbs

LIMIT = 1 << 20  # characters of a text
TEXTS, OCCURRENCES = 32, 64  # of a comparison
LINK = 20_000  # characters of an address
ALL = 64  # units of a text whose weights are sent at once
SHORT = 512  # units: what concerns no more is computed while the asker waits
SHORT_TEXT = 4096  # characters: texts of no more are read in a lane of their own
WALK, FEW, ROWS = 24, 12, 2048  # tokens: up to WALK all are shown, of more the FEW most looked at, or at most ROWS
WAIT = 0.3  # seconds until an asker is told that it takes longer

Answer = tuple[dict[str, Any], dict[str, Tensor]]
Asked = tuple[str, str, str | None]  # model, text and pair


class Refusal(Exception):  # noqa: N818  the asker's mistake
    """What was asked cannot be answered, and why; `status` as in HTTP, `code` for a program to act on."""

    def __init__(self, message: str, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Desk:
    """Answers questions about readings; any thread may ask.

    Args:
        lenses: by the name under which they are offered, how each is had; the first is the default.
        memory: bytes that the readings and what is kept of them may take.
        first: a reading to begin with, or a (text, pair) to be read at once.
    """

    def __init__(
        self,
        lenses: Mapping[str, Callable[[], Lens]],
        memory: int = 2 << 30,
        first: Reading | tuple[str, str | None] | None = None,
    ) -> None:
        self._lenses = dict(lenses)
        self._opening = {model: threading.Lock() for model in self._lenses}
        self.shelf, self._texts, self.jobs = Shelf(memory), Shelf(64 * LIMIT), Jobs()
        self._first: dict[str, Any] | None = None
        self._kept: tuple[str, Reading] | None = None
        if isinstance(first, Reading):
            self._kept = (_name(first.model, first.text, ""), first)  # it is the caller's: not ours to let go
            self._first = {"reading": self._kept[0]}
        elif first is not None:
            self._first = {"text": first[0], "pair": first[1]}

    def ask(self, question: Any, wait: float = WAIT) -> Answer:
        """The answer, or after `wait` seconds how much of the work is done. Raises Refusal."""
        if not isinstance(question, dict):
            raise Refusal("A question is a JSON object with “what” in it.")
        asked = question.get("what")
        if not isinstance(asked, str) or asked not in _ANSWERS:
            raise Refusal(f"what: expected one of {', '.join(_ANSWERS)}.")
        try:
            if asked != "cancel" and self.jobs.was_cancelled(question.get("job")):
                raise Cancelled
            with torch.inference_mode():
                return _ANSWERS[asked](self, Question(question, wait))
        except Working as working:
            return {"working": working.share, "job": working.job}, {}
        except Cancelled:
            return {"cancelled": True}, {}
        except OverflowError as error:
            raise Refusal(str(error), 503) from None
        except (ValueError, LookupError, TypeError, OSError, ImportError) as error:
            raise Refusal(str(error)) from error

    def close(self) -> None:
        """Cancels what is being computed."""
        self.jobs.close()

    # Readings

    def _start(self, question: Question) -> Answer:
        return {"models": list(self._lenses), "limit": LIMIT, "first": self._first}, {}

    def _read(self, question: Question) -> Answer:
        model, text, pair = question.model(self._lenses), question.text("text"), question.get("pair")
        if pair is not None:
            pair = question.text("pair")
        key = _name(model, text, pair or "")
        self._texts.put(key, (model, text, pair), 4 * (len(text) + len(pair or "")))
        return self._card(Question({"what": "read", "reading": key}, question.wait))

    def _card(self, question: Question) -> Answer:
        reading = self._reading(question)
        about = {"reading": question["reading"], **metadata(reading), "memory": self._memory(reading)}
        asked = self._texts.get(question["reading"])
        if asked is not None and asked is not _CANCELLED:
            about["source"] = dict(zip(("model", "text", "pair"), asked, strict=True))
        return about, {}

    def _memory(self, reading: Reading) -> dict[str, int]:
        readings = sum(isinstance(key, str) for key in self.shelf)
        return {
            "reading": bytes_of(reading),
            "kept": self.shelf.used,
            "limit": self.shelf.limit,
            "readings": readings or 1,
        }

    def _reading(self, question: Question) -> Reading:
        """The reading that is asked about; one that had to make room for others is made again."""
        key = question["reading"]
        if self._kept is not None and key == self._kept[0]:
            return self._kept[1]
        reading = self.shelf.get(key) if isinstance(key, str) else None
        if reading is not None:
            return reading
        asked = self._texts.get(key) if isinstance(key, str) else None
        if asked is None:
            raise Refusal("This reading is not known here: read the text again.", 404, "unknown_reading")
        if asked is _CANCELLED:
            raise Refusal("Reading this text was cancelled: read it again.", 409, "cancelled")
        model, text, pair = asked

        def read(progress: Progress) -> Reading:
            try:
                reading = self._lens(model).read(text, pair, progress=progress)
                self.shelf.put(key, reading, bytes_of(reading))
            finally:
                heap.trim()
            return reading

        # Whoever cancels the first reading of a text does not want it; one that had made room may come back later.
        kind = "read" if question["what"] in ("read", "card") else "read again"
        return self.jobs.result((kind, key), read, question.wait, _lane_of(text, pair or ""))

    def _lens(self, model: str) -> Lens:
        with self._opening[model]:  # a model is opened once, and keeps no other waiting
            return self._lenses[model]()

    # Sentence

    def _look(self, question: Question) -> Answer:
        reading, layer = self._at_layer(question)
        unit = reading.units[question.number("word", len(reading.units))]
        side = question.choice("side", ("from", "to"))
        row = unit.attends_to(layer) if side == "from" else unit.attended_by(layer)
        return {}, {"weights": row}

    def _all(self, question: Question) -> Answer:
        reading, layer = self._at_layer(question)
        if len(reading.units) > ALL:
            raise Refusal(f"all: the text has {len(reading.units):,} words; ask for one at a time beyond {ALL}.")
        return {}, {"weights": reading.weights(layer)}

    def _at_layer(self, question: Question) -> tuple[Reading, int]:
        reading = self._reading(question)
        return reading, question.number("layer", reading.layers)

    # Heads

    def _thumbs(self, question: Question) -> Answer:
        reading, layer = self._at_layer(question)
        hide = question.flag("hide")

        def draw(progress: Progress) -> Answer:
            pictures = thumbs(reading, layer, hide, progress)
            shares = pattern_shares(reading, layer)
            return {"habits": PATTERNS, "named": NAMED_FROM}, {"thumbs": pictures, "shares": shares}

        key = ("thumbs", question["reading"], layer, hide)
        if len(reading.units) <= SHORT:
            return self._made(question, key, draw)
        return self._made(question, key, draw, "short" if len(reading.units) <= WHOLE else "long")

    def _made(
        self, question: Question, key: tuple, work: Callable[[Progress], Answer], lane: Lane | None = None
    ) -> Answer:
        """What is kept once it is made: in a lane in the background or, without one, while the asker waits."""

        def make(progress: Progress) -> Answer:
            with torch.inference_mode():
                made = work(progress)
            self.shelf.put(key, made, size_of(made[1].values()) + 1000)
            return made

        found = self.shelf.get(key)
        if found is not None:
            return found
        return make(lambda share: None) if lane is None else self.jobs.result(key, make, question.wait, lane)

    # Map

    def _tile(self, question: Question) -> Answer:
        reading, layer = self._at_layer(question)
        head = question.number("head", reading.heads)
        reduce, hide = question.choice("reduce", ("mean", "max")), question.flag("hide")
        matrix = Matrix(reading, layer, head, reduce, hide)
        level, row, column = (question.number(name) for name in ("level", "row", "column"))
        overview = None
        if matrix.needs_overview and BASE <= level <= matrix.top:

            def draw(progress: Progress) -> Answer:
                return {}, {str(level): cells for level, cells in enumerate(matrix.overview(progress), BASE)}

            made = self._made(question, ("overview", question["reading"], layer, head, reduce, hide), draw, "long")
            overview = list(made[1].values())
        return {}, {"cells": matrix.tile(level, row, column, overview)}

    # Walk

    def _walk(self, question: Question) -> Answer:
        reading, layer = self._at_layer(question)
        head, token = question.number("head", reading.heads), question.number("token", len(reading.tokens))
        unit = reading.units[int(reading.unit_of_token[token])]
        walk, row = reading.explain(unit, layer, head), unit.tokens.index(token)
        attended = reading.attention[layer]
        scores, weights = attended.weights.scores, walk.weights[row]
        assert walk.carried is not None
        carried, lengths = walk.carried[row], value_norms(reading, layer)[head].cpu()
        count = len(weights)
        rows = ROWS if question.flag("all") else WALK if count <= WALK else FEW
        most = weights.topk(min(rows, count)).indices.sort().values
        here = Block(slice(0, 1), slice(head, head + 1), slice(token, token + 1), slice(0, count))
        seen = ~scores.tile(here)[0, 0, 0].isneginf().cpu()
        none = torch.tensor(torch.nan, dtype=torch.float64)
        sink = float(attended.weights.sink()[head, token])
        made, made_arrays = walk.made, {}
        if made is not None and made.norm:
            made_arrays["normed"] = made.normed[row]
        if made is not None and made.rotated:
            made_arrays["unrotated"] = made.query[row]
        return {
            "rows": most.tolist(),
            "best": int(weights.argmax()),
            "scale": walk.scale,
            "softcap": scores.softcap,
            "adjusted": scores.bias is not None,
            "sink": sink if attended.weights.sinks is not None and isfinite(sink) else None,
            "masked": bool((~seen).any()),
            "error": walk.error if isfinite(walk.error) else None,
            "carried_total": total if isfinite(total := float(carried.sum())) else None,
            "projected": knows_output_weight(reading, layer),
            "made": projections(made),
        }, {
            "x": walk.x[row],
            "query": walk.query[row],
            "key": walk.keys[token],
            "value": walk.values[token],
            "keys": walk.keys[most],
            "values": walk.values[most],
            "scores": torch.where(seen, walk.scores[row], none)[most],
            "scaled": torch.where(seen, walk.scaled[row], none)[most],
            "weights": weights[most],
            "lengths": lengths[most],
            "carried": carried[most],
            "context": walk.context[row],
            **made_arrays,
        }

    # Compare

    def _compare(self, question: Question) -> Answer:
        model, word = question.model(self._lenses), question.text("word")
        texts = question["texts"]
        if not isinstance(texts, list) or not 1 <= len(texts) <= TEXTS:
            raise Refusal(f"texts: expected 1 to {TEXTS} texts.")
        asked = [Question({"text": text}).text("text") for text in texts]

        def compare(progress: Progress) -> Answer:
            lens = self._lens(model)
            places: list[Word] = []
            left_out: list[dict[str, Any]] = []
            for n, text in enumerate(asked):

                def tell(share: float, n: int = n) -> None:
                    progress((n + share) / len(asked))

                try:
                    places += every(lens.read(text, progress=tell), word, OCCURRENCES + 1 - len(places))
                except LookupError as error:
                    left_out.append({"text": n, "why": str(error)})
                if len(places) > OCCURRENCES:
                    raise Refusal(f"“{word}” occurs more than {OCCURRENCES} times, the most that can be compared.")
            if not places:
                raise Refusal(left_out[0]["why"])
            if len(places) < 2:
                raise Refusal(f"“{word}” occurs only once. A comparison needs two places or more.")
            compared = comparison(word, [place.reading for place in places], places)
            labels = [{"text": place.reading.text, "start": place.start, "end": place.end} for place in places]
            arrays = {"similarity": compared.similarity, "plane": compared.plane()}
            about = {"word": word, "places": labels, "clusters": list(compared.clusters), "left_out": left_out}
            return about, arrays

        return self._made(question, ("compare", model, word, *asked), compare, _lane_of(*asked))

    # The file, and giving up

    def _page(self, question: Question) -> Answer:
        reading, layer = self._at_layer(question)
        head = question.number("head", reading.heads)
        word = None if question.get("word") is None else question.number("word", len(reading.units))
        link = question.get("link")
        if link is not None and (not isinstance(link, str) or len(link) > LINK):
            raise Refusal(f"link: expected a string of at most {LINK:,} characters.")
        compared = None
        if question.get("same") is not None:
            if not isinstance(question["same"], dict):
                raise Refusal("same: expected the comparison, as an object with word and texts.")
            about, arrays = self._compare(Question(question["same"], question.wait))
            compared = about | {
                name: {
                    "shape": list(array.shape),
                    "float32": base64.b64encode(array.float().numpy().tobytes()).decode(),
                }
                for name, array in arrays.items()
            }

        def write(progress: Progress) -> Answer:
            with torch.inference_mode():
                text = render_page(
                    reading, word=word, layer=layer, head=head, link=link, compared=compared, progress=progress
                )
            return {"html": text}, {}

        lane: Lane = "short" if len(reading.units) <= SHORT else "long"
        key = ("page", question["reading"], layer, head, word, link, str(question.get("same")))
        return self.jobs.result(key, write, question.wait, lane)

    def _cancel(self, question: Question) -> Answer:
        keys = self.jobs.cancel(question.number("job"))
        for key in keys:
            if isinstance(key, tuple) and key[0] == "read":
                self._texts.put(key[1], _CANCELLED, 100)
        return {"given_up": len(keys)}, {}


_CANCELLED: Asked = ("", "", None)  # stands for a text whose reading was cancelled

_ANSWERS: dict[str, Callable[[Desk, Question], Answer]] = {
    "start": Desk._start,
    "read": Desk._read,
    "card": Desk._card,
    "look": Desk._look,
    "all": Desk._all,
    "thumbs": Desk._thumbs,
    "tile": Desk._tile,
    "walk": Desk._walk,
    "compare": Desk._compare,
    "page": Desk._page,
    "cancel": Desk._cancel,
}


class Question(dict):
    """A question's parts, checked, and how many seconds the asker waits. Raises Refusal, naming the part."""

    def __init__(self, parts: Mapping[str, Any], wait: float = WAIT) -> None:
        super().__init__(parts)
        self.wait = wait

    def __missing__(self, name: str) -> Any:
        raise Refusal(f"{name}: missing.")

    def number(self, name: str, size: int | None = None) -> int:
        """A whole number from 0, below `size`."""
        value = self[name]
        if type(value) is not int or value < 0 or (size is not None and value >= size):
            within = "from 0" if size is None else f"from 0 to {size - 1}"
            raise Refusal(f"{name}: expected a whole number {within}. Got {str(value)[:40]!r}.")
        return value

    def choice(self, name: str, choices: tuple) -> Any:
        """One of some words, the first if none is given."""
        value = self.get(name, choices[0])
        if value not in choices:
            raise Refusal(f"{name}: expected one of {', '.join(map(str, choices))}. Got {str(value)[:40]!r}.")
        return value

    def flag(self, name: str) -> bool:
        """True or false; false if not given."""
        return self.choice(name, (False, True))

    def text(self, name: str) -> str:
        """Some text within the limit."""
        value = self[name]
        if not isinstance(value, str) or not value.strip():
            raise Refusal(f"{name}: there is no text.")
        if len(value) > LIMIT:
            raise Refusal(f"{name}: it has {len(value):,} characters, and the limit is {LIMIT:,}.", 413)
        return value

    def model(self, lenses: Mapping[str, Any]) -> str:
        """One of the models that are offered, the first if none is given."""
        name = self.get("model")
        name = next(iter(lenses), None) if name is None else name
        if not isinstance(name, str) or name not in lenses:
            raise Refusal(f"model: expected one of {', '.join(lenses) or 'none'}, which were chosen at the start.", 403)
        return name


def encode(answer: Answer) -> bytes:
    """An answer as bytes: the length of its JSON in four, the JSON, and its arrays as float32, all little-endian."""
    about, arrays = answer
    sent = [(name, tensor.detach().to("cpu", torch.float32).contiguous().numpy()) for name, tensor in arrays.items()]
    head = json.dumps(
        {**about, "arrays": [[name, list(array.shape)] for name, array in sent]}, allow_nan=False
    ).encode()
    head += b" " * (-len(head) % 4)  # so that the numbers begin where float32 may
    return b"".join((struct.pack("<I", len(head)), head, *(array.astype("<f4").tobytes() for _, array in sent)))


def every(reading: Reading, word: str, most: int) -> list[Word]:
    """The places in a reading at which a word stands, up to so many. Raises LookupError where there is none."""
    places: list[Word] = []
    try:
        while len(places) < most:
            places.append(reading.word(word, len(places) + 1))
    except LookupError as error:
        if not places:
            shown = reading.text if len(reading.text) <= 60 else reading.text[:57] + "…"
            raise LookupError(f"In “{shown}”: {error}") from None
    return places


def _lane_of(*texts: str) -> Lane:
    """Short texts do not wait for long ones."""
    return "short" if sum(map(len, texts)) <= SHORT_TEXT else "long"


def bytes_of(reading: Reading) -> int:
    """What a reading holds in memory: hidden states, and query, key, value, output and lse of every layer."""
    tensors: list[Tensor | None] = [reading.hidden, reading.final]
    for attended in reading.attention:
        scores = attended.weights.scores
        tensors += [scores.query, scores.key, scores.bias, attended.value, attended.output, attended.lse]
        tensors += [attended.weights._lse]
    return size_of(tensors) + 300 * (len(reading.tokens) + len(reading.units)) + 4 * len(reading.text)


def _name(model: str, text: str, pair: str) -> str:
    return hashlib.sha256(json.dumps([model, text, pair]).encode()).hexdigest()[:16]
