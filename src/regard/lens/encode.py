"""From a text to the tokens that a model reads: truncated to what it takes, with their spans in the text."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from regard.lens.units import Token
from regard.lens.words import Span, printable, trimmed, words
from regard.models import Model

if TYPE_CHECKING:
    from tokenizers import Encoding


def check_text(text: object, call: str) -> None:
    """Raise TypeError or ValueError, naming the call, for anything but a text that is not blank."""
    if not isinstance(text, str):
        raise TypeError(f"{call}: expected a str. Got {type(text).__name__}.")
    if not text.strip():
        raise ValueError(f"{call}: the text is empty.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{call}: the text is not valid Unicode at character {error.start}.") from None


@dataclass(frozen=True)
class Truncation:
    """Where a text was truncated that is longer than the model takes.

    Attributes:
        tokens: how many the whole text has.
        limit: how many the model takes.
        character: the first character that was not read.
        characters: how many the whole text has.
    """

    tokens: int
    limit: int
    character: int
    characters: int

    def __str__(self) -> str:
        return (
            f"Only the first {self.character:,} of {self.characters:,} characters were read: "
            f"this model takes at most {self.limit:,} tokens."
        )


class Encoded(NamedTuple):
    """A text, or a pair of texts, as a model reads it; one entry per token, special ones included.

    `spans` are places in the text, of a pair in `text + "\\n" + pair`; None for a token that the tokenizer added.
    """

    ids: list[int]
    types: list[int]
    pieces: list[str]
    spans: list[Span | None]


def encode(model: Model, text: str, limit: int, call: str) -> tuple[Encoded, Truncation | None]:
    """The text as at most `limit` tokens of the model, and where it was truncated.

    Raises TypeError or ValueError, naming the call, for anything but a text that has a token.
    """
    check_text(text, call)
    encoding = model.unprocessed.encode(text, add_special_tokens=False)
    special = model.tokenizer.num_special_tokens_to_add(False)
    tokens, truncation = len(encoding.ids) + special, None
    if tokens == special:
        raise ValueError(f"{call}: the text contains no tokens for {model.name}: {text[:60]!r}.")
    if tokens > limit:
        if limit <= special:
            raise ValueError(
                f"{call}: {model.name} takes at most {limit} tokens, and the special tokens take {special}."
            )
        encoding.truncate(limit - special)
        truncation = Truncation(tokens, limit, max(stop for _, stop in encoding.offsets), len(text))
    return _processed(model, [encoding], text), truncation


def encode_pair(model: Model, text: str, pair: str, limit: int) -> tuple[Encoded, str | None]:
    """Two texts as at most `limit` tokens of the model, the longer text truncated first, and a sentence about that.

    Raises TypeError or ValueError, as `encode`.
    """
    encodings, room = [], limit - model.tokenizer.num_special_tokens_to_add(True)
    if room < 2:
        raise ValueError(f"read: {model.name} takes at most {limit} tokens, too few for a pair of texts.")
    for sentence in (text, pair):
        check_text(sentence, "read")
        encoding = model.unprocessed.encode(sentence, add_special_tokens=False)
        if not encoding.ids:
            raise ValueError(f"read: the text contains no tokens for {model.name}: {sentence[:60]!r}.")
        encodings.append(encoding)
    first, second = encodings
    note = None
    if len(first.ids) + len(second.ids) > room:
        keep = min(len(second.ids), max(room // 2, room - len(first.ids)))
        first.truncate(room - keep)
        second.truncate(keep)
        ends = [max(stop for _, stop in encoding.offsets) for encoding in encodings]
        note = (
            f"Only the first {ends[0]:,} of {len(text):,} characters of the first text and the first {ends[1]:,} of "
            f"{len(pair):,} of the second were read: this model takes at most {limit:,} tokens."
        )
    return _processed(model, encodings, f"{text}\n{pair}", len(text) + 1), note


def _processed(model: Model, encodings: Sequence[Encoding], text: str, second: int = 0) -> Encoded:
    """With the special tokens. `second` is where the second text of a pair begins.

    The spans are those from before the tokenizer's post-processor: a byte-level one trims a letter off every span that
    it sees a second time.
    """
    processed = model.tokenizer.post_process(encodings[0], encodings[1] if len(encodings) > 1 else None)
    offsets = [iter(encoding.offsets) for encoding in encodings]
    spans: list[Span | None] = []
    for added, sequence in zip(processed.special_tokens_mask, processed.sequence_ids, strict=True):
        if added:
            spans.append(None)
        else:
            sequence = sequence or 0  # without a template, tokenizers numbers only the second text
            start, stop = next(offsets[sequence])
            spans.append(trimmed(text, start + second * sequence, stop + second * sequence))
    return Encoded(processed.ids, processed.type_ids, processed.tokens, spans)


def tokens_of(model: Model, encoded: Encoded, text: str) -> list[Token]:
    """The tokens; special are those that the tokenizer added, or flags as it does `<|im_start|>` in a chat."""
    tokens = []
    for id, piece, span in zip(encoded.ids, encoded.pieces, encoded.spans, strict=True):
        start, end = span or (0, 0)
        written = text[start:end]
        unknown = id == model.unknown_id and written != model.tokenizer.id_to_token(id)
        special = span is None or (id in model.flagged_special_ids and not unknown)
        tokens.append(Token(piece if span is None else written, start, end, special, piece, id, unknown))
    return tokens


def tokenization_notes(
    text: str, tokens: Sequence[Token], units: Sequence[tuple[Span | None, list[int]]], end: int
) -> list[str]:
    """Sentences about words, up to the character `end`, that the tokenizer does not know or leaves out."""
    known = [(span, any(tokens[token].unknown for token in members)) for span, members in units if span is not None]
    unknown = [text[slice(*span)] for span, is_unknown in known if is_unknown]
    starts = [span[0] for span, _ in known]
    notes = []
    if unknown:
        notes.append(
            f"The model knows {len(known) - len(unknown):,} of {len(known):,} words: "
            f"it has no token for {_listed(unknown)}."
        )
    written = [(token.start, token.end) for token in tokens if token.special]
    lost = []
    for start, stop in words(text):
        n = bisect_right(starts, start) - 1
        read = (n >= 0 and known[n][0][1] > start) or (n + 1 < len(known) and starts[n + 1] < stop)
        if start < end and not read and not any(first < stop and last > start for first, last in written):
            lost.append(text[start:stop])
    if lost:
        notes.append(f"The tokenizer leaves out {_listed(lost)}: the model did not read it.")
    return notes


def _listed(texts: Sequence[str], limit: int = 5) -> str:
    names = list(dict.fromkeys(f"“{printable(text)}”" for text in texts))
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
