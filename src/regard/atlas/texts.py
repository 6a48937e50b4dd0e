"""What an atlas reads: texts that mean something, and random tokens that are repeated.

| | |
|---|---|
| texts | four texts of our own, or those that are given: as much of each as the model reads at once |
| repeated | random tokens of the vocabulary, four times the same: what comes next is known, and means nothing |
| needle.py | a text in which a sentence stands that a question is about, and the answer |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import pad

from regard.attribution.heads.sample import Sample, Text, sample_of
from regard.attribution.logits import directions_of
from regard.lens.encode import Encoded, check_text, encode

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor

    from regard.lens import Lens, Reading
    from regard.models import Model

TITLES = "harbour", "market", "report", "letter"
SEQUENCES, PERIOD, TIMES = 4, 64, 4
_NO_WORD = re.compile(r"<0x[0-9A-F]{2}>|\[unused\d+\]|<\|?[^<>]+\|?>")  # bytes, and names that no text has


@dataclass(frozen=True, eq=False)
class Input:
    """Tokens that a model is given, and what is known of them before it reads them.

    Attributes:
        kind: "text", "repeated" or "needle".
        text: the text, whose characters the spans of `encoded` count.
        encoded: the tokens.
        period, first: of repeated tokens, as in `Sample`.
        answer: of a needle, as in `Sample`.
        truncated: as in `Reading`.
    """

    kind: Text
    text: str
    encoded: Encoded = field(repr=False)
    period: int = 0
    first: int = 0
    answer: Int[Tensor, "n 2"] | None = field(default=None, repr=False)
    truncated: str | None = None

    @property
    def ids(self) -> Int[Tensor, "N"]:
        """The numbers of the tokens in the vocabulary, special ones included."""
        return torch.tensor(self.encoded.ids)

    def read(self, lens: Lens, progress: Callable[[float], object] | None = None) -> tuple[Reading, Sample]:
        """The tokens as a model reads them. After a source (`Lens.after`), the reading is that of the target.

        >>> import regard
        >>> lens = regard.Lens()
        >>> reading, sample = repeated(lens)[0].read(lens)
        >>> len(reading.tokens), sample.period, int(sample.rows.sum())          # 4 × 64 tokens, [CLS] and [SEP]
        (258, 64, 192)
        """
        reading = lens._read(self.encoded, self.text, progress=progress)
        reading = replace(reading.decoder or reading, truncated=self.truncated)
        return reading, self.sample(reading)

    def sample(self, reading: Reading) -> Sample:
        """What scores of heads need to know of these tokens, once they are read."""
        sample = sample_of(reading)
        if self.kind == "text":
            return sample
        rows = torch.zeros_like(sample.rows)
        virtual = len(rows) - len(self.encoded.ids)  # learned positions before the text, of a tuned prompt
        if self.answer is not None:
            answer = self.answer + virtual
            rows[answer[:, 0]] = True
            return replace(sample, text=self.kind, rows=rows, answer=answer)
        ids, place, first = pad(self.ids, (virtual, 0), value=-1), torch.arange(len(rows)), self.first + virtual
        rows = (place >= first + self.period) & (place < len(rows) - self._after)
        sample = replace(sample, text=self.kind, rows=rows, ids=ids, key_ids=ids, period=self.period, first=first)
        return with_directions(sample, reading)

    @property
    def _after(self) -> int:
        """How many special tokens follow the repeated ones."""
        return next(n for n, span in enumerate(reversed(self.encoded.spans)) if span is not None)


def with_directions(sample: Sample, reading: Reading) -> Sample:
    """A sample with the directions of its tokens' logits; as it was where the model has no head that is linear."""
    head = None if reading.opened is None else reading.opened.head
    if head is None or head.unembedding is None:
        return sample
    tokens, which = sample.ids[~sample.special].unique(return_inverse=True)
    try:
        directions, _ = directions_of(reading, tokens)
    except ValueError:  # what follows the last layer cannot be taken back to what heads add
        return sample
    direction_of = torch.full_like(sample.ids, -1)
    direction_of[~sample.special] = which
    return replace(sample, directions=directions, direction_of=direction_of)


# Texts that mean something


@cache
def prose(title: str) -> str:
    """One of the texts that an atlas reads where none are given, of some 280 words; "….target" is it in a few words.

    >>> prose("harbour")[:60]
    'The lighthouse at Carrow Point had been dark for eleven wint'
    """
    return (resources.files("regard.atlas") / "prose" / f"{title}.txt").read_text("utf-8").strip()


def default_texts() -> list[str]:
    """The texts that an atlas reads where none are given: a story, a scene, a report and a letter, in English.

    >>> [len(text.split()) for text in default_texts()]
    [269, 285, 296, 292]
    """
    return [prose(title) for title in TITLES]


def texts(lens: Lens, given: Sequence[str] | None = None) -> list[Input]:
    """Texts that mean something, as much of each as the model reads at once: those that are given, or our own.

    Raises TypeError or ValueError, naming the text, for anything but texts that have a token.

    >>> import regard
    >>> [len(text.ids) for text in texts(regard.Lens())]
    [344, 352, 367, 350]
    """
    checked = default_texts() if given is None else check_texts(given)
    return [_text(lens.model, text, f"atlas: text {number}") for number, text in enumerate(checked)]


def _text(model: Model, text: str, call: str) -> Input:
    encoded, truncation = encode(model, text, model.max_length, call)
    if truncation is None:
        return Input("text", text, encoded)
    return Input("text", text[: truncation.character], encoded, truncated=str(truncation))


def default_pairs() -> list[tuple[str, str]]:
    """The same as sources for an encoder-decoder, each with a target that says it in a few words, in the same order.

    >>> [len(target.split()) for _, target in default_pairs()]
    [91, 84, 85, 88]
    """
    return [(prose(title), prose(f"{title}.target")) for title in TITLES]


def check_texts(given: Sequence[str]) -> list[str]:
    """The texts as a list. Raises TypeError or ValueError, naming the text, where there are none or one is blank."""
    texts = _listed(given)
    for number, text in enumerate(texts):
        check_text(text, f"atlas: text {number}")
    return texts


def check_pairs(given: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The pairs of a source and a target as a list. Raises as `check_texts`."""
    pairs = _listed(given)
    for number, pair in enumerate(pairs):
        call = f"atlas: text {number}"
        if not (isinstance(pair, tuple | list) and len(pair) == 2):
            raise TypeError(f"{call}: an encoder-decoder reads pairs (source, target). Got a {type(pair).__name__}.")
        for text in pair:
            check_text(text, call)
    return [(source, target) for source, target in pairs]


def _listed(given: Sequence[Any]) -> list[Any]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise TypeError(f"atlas: texts: expected a list of texts. Got a {type(given).__name__}.")
    if not given:
        raise ValueError("atlas: texts: there are none.")
    return list(given)


# Random tokens that are repeated


def repeated(
    lens: Lens, seed: int = 0, *, sequences: int = SEQUENCES, period: int = PERIOD, times: int = TIMES
) -> list[Input]:
    """Sequences of random tokens, each repeated: t_1 … t_n t_1 … t_n …, with the special tokens that the model wants.

    The tokens are drawn from the ordinary ones of the vocabulary; those of a period are different. From the second
    period on, the next token is known from what came before, and from nothing else (Olsson et al. 2022,
    https://arxiv.org/abs/2209.11895).

    Args:
        lens: whose model reads them.
        seed: of the tokens.
        sequences: how many.
        period: after how many tokens they come again; fewer where the context or the vocabulary is small.
        times: how many times each is there.

    Returns:
        The sequences; an empty list for a model whose context or vocabulary has no room for a period of two tokens.

    >>> import regard
    >>> lens = regard.Lens()
    >>> text = repeated(lens, sequences=1, period=3, times=2)[0]
    >>> text.encoded.pieces
    ['[CLS]', 'bids', 'virgin', 'duc', 'bids', 'virgin', 'duc', '[SEP]']
    """
    model = lens.model
    ordinary = ordinary_tokens(model)
    room = model.max_length - len(model.prefix_ids) - len(model.suffix_ids)
    period = min(period, room // times, len(ordinary))
    if period < 2:
        return []
    chance = torch.Generator().manual_seed(seed)
    drawn = [torch.randperm(len(ordinary), generator=chance)[:period] for _ in range(sequences)]
    return [_repeated(model, [ordinary[n] for n in numbers.tolist()], times) for numbers in drawn]


def _repeated(model: Model, ids: Sequence[int], times: int) -> Input:
    """So many times the tokens; in the text, a space is between any two."""
    names = [model.tokenizer.decode([id], skip_special_tokens=False).strip() for id in ids]
    pieces = [model.tokenizer.id_to_token(id) or "" for id in ids]
    names = [piece if not name or "\ufffd" in name else name for name, piece in zip(names, pieces, strict=True)] * times
    starts = [0, *accumulate(len(name) + 1 for name in names)]
    before, after = model.prefix_ids, model.suffix_ids
    all_ids = [*before, *[*ids] * times, *after]
    special = [model.tokenizer.id_to_token(id) or "" for id in (*before, *after)]
    encoded = Encoded(
        all_ids,
        [0] * len(all_ids),
        [*special[: len(before)], *pieces * times, *special[len(before) :]],
        [
            *[None] * len(before),
            *((start, start + len(name)) for start, name in zip(starts, names, strict=False)),
            *[None] * len(after),
        ],
    )
    return Input("repeated", " ".join(names), encoded, period=len(ids), first=len(before))


def ordinary_tokens(model: Model) -> list[int]:
    """The tokens of a model's vocabulary that texts consist of: not special, not added, no bytes, nothing reserved.

    >>> import regard
    >>> model = regard.Lens().model
    >>> len(ordinary_tokens(model)), model.vocab_size
    (29523, 30522)
    """
    rows = model.vocab_size or model.tokenizer.get_vocab_size()
    apart = model.all_special_ids | model.flagged_special_ids | set(model.tokenizer.get_added_tokens_decoder())
    apart |= {*model.prefix_ids, *model.suffix_ids} | {-1 if model.unknown_id is None else model.unknown_id}
    vocabulary = model.tokenizer.get_vocab(with_added_tokens=False)
    return sorted(
        id for piece, id in vocabulary.items() if id < rows and id not in apart and not _NO_WORD.fullmatch(piece)
    )
