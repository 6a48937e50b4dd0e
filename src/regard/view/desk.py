"""The desk: what a viewer may ask about readings, and the answers, as numbers.

A question is a dictionary with `what` in it, an answer a dictionary and some arrays of float32. They are the same over
HTTP and in a notebook, and assets/frozen.js answers them in a page that has no Python behind it:

    what      is asked with                               is answered with
    start     —                                           models, limit, reading: what there is to begin with
    read      text, pair, model                           the card of a reading: id, words, tokens, sizes, memory
    card      reading                                     the same
    look      reading, layer, word, side                  weights (H,U): from or to a unit, in each head
    all       reading, layer                              weights (H,U,U), of a short text
    thumbs    reading, layer, hide                        thumbs (H,n,n), habits (H,habits)
    tile      reading, layer, head, reduce, hide,         cells (r,c); needs the overview from level 5 on
              level, row, column
    walk      reading, layer, head, token, all            the numbers of the walk of one token
    compare   model, word, texts                          similarity (L+1,n,n), plane (L+1,n,2)
    page      reading, layer, head, word, link, same      html: the reading as one file, which opens as the address `link`
                                                          says; same: a comparison to go along
    cancel    job                                         given_up: how many jobs were

U units (words and special tokens), as `reading.units` has them. A question whose answer takes long is answered by
{"working": share, "job": number}, and is to be asked again. What cannot be answered gets a `Refusal`.
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

from regard.lens.compare import comparison
from regard.lens.habits import HABITS, NAMED, habits
from regard.lens.lens import Lens
from regard.lens.reading import Reading, Word
from regard.mask import Block
from regard.view.html import card, page
from regard.view.shelf import Cancelled, Jobs, Shelf, Working, give_back, size_of
from regard.view.tiles import BASE, Matrix

LIMIT = 1 << 20  # characters of a text
TEXTS, OCCURRENCES = 32, 64  # of a comparison
LINK = 20_000  # characters of an address
ALL = 64  # units of a text whose weights are sent at once
SHORT = 512  # units: what concerns no more is computed while the asker waits
WALK, FEW, ROWS = 24, 12, 2048  # tokens: up to WALK all are shown, of more the FEW most looked at, or at most ROWS
WAIT = 0.3  # seconds until an asker is told that it takes longer

Answer = tuple[dict[str, Any], dict[str, Tensor]]


class Refusal(Exception):  # noqa: N818  the asker's mistake
    """What was asked cannot be answered, and why; `status` as in HTTP."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


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
        self._opening = threading.Lock()
        self.shelf, self._texts, self.jobs = Shelf(memory), Shelf(64 * LIMIT), Jobs()
        self._first: dict[str, Any] | None = None
        self._kept: tuple[str, Reading] | None = None
        if isinstance(first, Reading):
            self._kept = (_name(first.model, first.text, ""), first)  # it is the caller's: not ours to let go
            self._first = {"reading": self._kept[0]}
        elif first is not None:
            self._first = {"text": first[0], "pair": first[1]}

    def ask(self, question: Any) -> Answer:
        """The answer. Raises Refusal."""
        if not isinstance(question, dict):
            raise Refusal("A question is a JSON object with “what” in it.")
        asked = question.get("what")
        if not isinstance(asked, str) or asked not in _ANSWERS:
            raise Refusal(f"what: expected one of {', '.join(_ANSWERS)}.")
        try:
            with torch.inference_mode():
                return _ANSWERS[asked](self, Question(question))
        except Working as working:
            return {"working": working.share, "job": working.job}, {}
        except Cancelled:
            return {"cancelled": True}, {}
        except OverflowError as error:
            raise Refusal(str(error), 503) from None
        except (ValueError, LookupError, TypeError, OSError, ImportError) as error:
            raise Refusal(str(error)) from error

    def close(self) -> None:
        """Gives up what is being computed."""
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
        return self._card(Question({"reading": key}))

    def _card(self, question: Question) -> Answer:
        reading = self._reading(question["reading"])
        return {"reading": question["reading"], **card(reading), "memory": self._memory(reading)}, {}

    def _memory(self, reading: Reading) -> dict[str, int]:
        readings = sum(isinstance(key, str) for key in self.shelf)
        return {
            "reading": bytes_of(reading),
            "kept": self.shelf.used,
            "limit": self.shelf.limit,
            "readings": readings or 1,
        }

    def _reading(self, key: Any) -> Reading:
        if self._kept is not None and key == self._kept[0]:
            return self._kept[1]
        reading = self.shelf.get(key) if isinstance(key, str) else None
        if reading is not None:
            return reading
        known = self._texts.get(key) if isinstance(key, str) else None
        if known is None:
            raise Refusal("This reading is not known here: read the text again.", 404)
        model, text, pair = known

        def read(progress: Callable[[float], None]) -> Reading:
            found = self._lens(model).read(text, pair, progress=progress)
            self.shelf.put(key, found, bytes_of(found))
            give_back()
            return found

        return self.jobs.result(("read", key), read, WAIT)

    def _lens(self, model: str) -> Lens:
        with self._opening:
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
        reading = self._reading(question["reading"])
        return reading, question.number("layer", reading.layers)

    # Heads

    def _thumbs(self, question: Question) -> Answer:
        reading, layer = self._at_layer(question)
        hide = question.flag("hide")

        def draw(progress: Callable[[float], None]) -> Answer:
            thumbs = []
            for head in range(reading.heads):
                progress(head / reading.heads)
                thumbs.append(Matrix(reading, layer, head, "max", hide).thumb())
            return {"habits": HABITS, "named": NAMED}, {"thumbs": torch.stack(thumbs), "shares": habits(reading, layer)}

        return self._made(("thumbs", question["reading"], layer, hide), draw, len(reading.units) <= SHORT)

    def _made(self, key: tuple, work: Callable[[Callable[[float], None]], Answer], short: bool = False) -> Answer:
        """What is kept once it is made: while the asker waits where it is short, or else in the background."""

        def make(progress: Callable[[float], None]) -> Answer:
            with torch.inference_mode():
                made = work(progress)
            self.shelf.put(key, made, size_of(made[1].values()) + 1000)
            return made

        found = self.shelf.get(key)
        if found is not None:
            return found
        return make(lambda share: None) if short else self.jobs.result(key, make, WAIT)

    # Map

    def _tile(self, question: Question) -> Answer:
        reading, layer = self._at_layer(question)
        head = question.number("head", reading.heads)
        reduce, hide = question.choice("reduce", ("mean", "max")), question.flag("hide")
        matrix = Matrix(reading, layer, head, reduce, hide)
        level, row, column = (question.number(name) for name in ("level", "row", "column"))
        overview = None
        if matrix.needs_overview and BASE <= level <= matrix.top:

            def draw(progress: Callable[[float], None]) -> Answer:
                return {}, {str(level): cells for level, cells in enumerate(matrix.overview(progress), BASE)}

            made = self._made(("overview", question["reading"], layer, head, reduce, hide), draw)
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
        count = len(weights)
        rows = ROWS if question.flag("all") else WALK if count <= WALK else FEW
        most = weights.topk(min(rows, count)).indices.sort().values
        here = Block(slice(0, 1), slice(head, head + 1), slice(token, token + 1), slice(0, count))
        seen = ~scores.tile(here)[0, 0, 0].isneginf().cpu()
        none = torch.tensor(torch.nan, dtype=torch.float64)
        sink = float(attended.weights.sink()[head, token])
        return {
            "rows": most.tolist(),
            "best": int(weights.argmax()),
            "scale": walk.scale,
            "softcap": scores.softcap,
            "adjusted": scores.bias is not None,
            "sink": sink if attended.weights.sinks is not None else None,
            "masked": bool((~seen).any()),
            "error": walk.error if isfinite(walk.error) else None,
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
            "context": walk.context[row],
        }

    # Compare

    def _compare(self, question: Question) -> Answer:
        model, word = question.model(self._lenses), question.text("word")
        texts = question["texts"]
        if not isinstance(texts, list) or not 1 <= len(texts) <= TEXTS:
            raise Refusal(f"texts: expected 1 to {TEXTS} texts.")
        asked = [Question({"text": text}).text("text") for text in texts]

        def compare(progress: Callable[[float], None]) -> Answer:
            lens, found = self._lens(model), []
            for n, text in enumerate(asked):

                def tell(share: float, n: int = n) -> None:
                    progress((n + share) / len(asked))

                found += every(lens.read(text, progress=tell), word)
            if len(found) < 2:
                raise Refusal(f"{word!r} is there once; a comparison takes two places or more.")
            if len(found) > OCCURRENCES:
                raise Refusal(f"{word!r} is there {len(found):,} times; a comparison takes at most {OCCURRENCES}.")
            compared = comparison(word, [one._reading for one in found], found)
            labels = [{"text": w._reading.text, "start": w.start, "end": w.end} for w in found]
            arrays = {"similarity": compared.similarity, "plane": compared.plane()}
            return {"word": word, "places": labels, "clusters": list(compared.clusters)}, arrays

        return self._made(("compare", model, word, *asked), compare)

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
            about, arrays = self._compare(Question(question["same"]))
            compared = about | {
                name: {
                    "shape": list(array.shape),
                    "float32": base64.b64encode(array.float().numpy().tobytes()).decode(),
                }
                for name, array in arrays.items()
            }

        def write(progress: Callable[[float], None]) -> Answer:
            with torch.inference_mode():
                text = page(reading, word=word, layer=layer, head=head, link=link, compared=compared, progress=progress)
            return {"html": text}, {}

        return self.jobs.result(
            ("page", question["reading"], layer, head, word, link, str(question.get("same"))), write, WAIT
        )

    def _cancel(self, question: Question) -> Answer:
        return {"given_up": self.jobs.cancel(question.number("job"))}, {}


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
    """A question's parts, checked. Raises Refusal, naming the part."""

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


def every(reading: Reading, word: str) -> list[Word]:
    """Each place in a reading at which a word stands. Raises LookupError, naming the text, where there is none."""
    found: list[Word] = []
    try:
        found.append(reading.word(word, 1))
        while True:
            found.append(reading.word(word, len(found) + 1))
    except LookupError as error:
        if not found:
            raise LookupError(f"In “{reading.text[:60]}”: {error}") from None
    return found


def bytes_of(reading: Reading) -> int:
    """What a reading holds in memory: hidden states, and query, key, value, output and lse of every layer."""
    tensors: list[Tensor | None] = [reading.hidden]
    for attended in reading.attention:
        scores = attended.weights.scores
        tensors += [scores.query, scores.key, scores.bias, attended.value, attended.output, attended.lse]
        tensors += [attended.weights._lse]
    return size_of(tensors) + 300 * (len(reading.tokens) + len(reading.units)) + 4 * len(reading.text)


def _name(model: str, text: str, pair: str) -> str:
    return hashlib.sha256(json.dumps([model, text, pair]).encode()).hexdigest()[:16]
