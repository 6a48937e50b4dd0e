"""Text → the tokens that a model reads: where each lies in the text, and which of them the model does not know."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from regard.lens.reading import Token
from regard.lens.words import Span, printable, trimmed, words
from regard.models.model import Cut, Model, check_text

if TYPE_CHECKING:
    from tokenizers import Encoding


class Encoded(NamedTuple):
    """A text, or a pair of texts, as a model reads it, special tokens included; one entry a token.

    `spans` count in the text itself, or in `text + "\\n" + pair`; None for a token that the tokenizer added.
    """

    ids: list[int]
    types: list[int]
    pieces: list[str]
    spans: list[Span | None]


def encode(model: Model, text: str, limit: int, call: str) -> tuple[Encoded, Cut | None]:
    """The text as the model's tokens, at most `limit`, and what was cut off.

    Raises TypeError or ValueError, naming the call, for what is no text, or an empty one.
    """
    check_text(text, call)
    encoding = model.unprocessed.encode(text, add_special_tokens=False)
    special = model.tokenizer.num_special_tokens_to_add(False)
    tokens, cut = len(encoding.ids) + special, None
    if tokens == special:
        raise ValueError(f"{call}: {model.name} sees no token in {text[:60]!r}.")
    if tokens > limit:
        if limit <= special:
            raise ValueError(f"{call}: {model.name} takes {limit} tokens, and {special} of them are special ones.")
        encoding.truncate(limit - special)
        cut = Cut(tokens, limit, max(stop for _, stop in encoding.offsets), len(text))
    return _processed(model, [encoding], text), cut


def encode_pair(model: Model, text: str, pair: str, limit: int) -> tuple[Encoded, str | None]:
    """Two texts as the model's tokens, at most `limit`, and what was cut off: of the longer one first.

    Raises TypeError or ValueError, as `encode`.
    """
    encodings, room = [], limit - model.tokenizer.num_special_tokens_to_add(True)
    for sentence in (text, pair):
        check_text(sentence, "read")
        encoding = model.unprocessed.encode(sentence, add_special_tokens=False)
        if not encoding.ids or room < 2:
            raise ValueError(f"read: {model.name} sees no token in {sentence[:60]!r}, or takes too few for a pair.")
        encodings.append(encoding)
    first, second = encodings
    tokens, cut = len(first.ids) + len(second.ids), None
    if tokens > room:
        keep = min(len(second.ids), max(room // 2, room - len(first.ids)))
        first.truncate(room - keep)
        second.truncate(keep)
        ends = [max(stop for _, stop in encoding.offsets) for encoding in encodings]
        cut = (
            f"Only the first {ends[0]:,} of {len(text):,} characters of the first text and the first {ends[1]:,} of "
            f"{len(pair):,} of the second were read: this model takes at most {limit:,} tokens."
        )
    return _processed(model, encodings, f"{text}\n{pair}", len(text) + 1), cut


def _processed(model: Model, encodings: Sequence[Encoding], text: str, second: int = 0) -> Encoded:
    """With the special tokens. `second` is where the second of a pair begins in the text.

    The tokenizer's post-processor runs once, and the spans are those from before it: byte-level ones trim a letter
    off every span that they meet a second time.
    """
    processed = model.tokenizer.post_process(encodings[0], encodings[1] if len(encodings) > 1 else None)
    offsets = [iter(encoding.offsets) for encoding in encodings]
    spans: list[Span | None] = []
    for added, sequence in zip(processed.special_tokens_mask, processed.sequence_ids, strict=True):
        if added:
            spans.append(None)
        else:
            sequence = sequence or 0  # without a template, tokenizers numbers the second text alone
            start, stop = next(offsets[sequence])
            spans.append(trimmed(text, start + second * sequence, stop + second * sequence))
    return Encoded(processed.ids, processed.type_ids, processed.tokens, spans)


def tokens_of(model: Model, encoded: Encoded, text: str) -> list[Token]:
    """The tokens, special where the tokenizer added them or flags them so, as it flags `<|im_start|>` in a chat."""
    tokens = []
    for id, piece, span in zip(encoded.ids, encoded.pieces, encoded.spans, strict=True):
        start, end = span or (0, 0)
        written = text[start:end]
        unknown = id == model.unknown_id and written != model.tokenizer.id_to_token(id)
        special = span is None or (id in model.special_ids and not unknown)
        tokens.append(Token(piece if span is None else written, start, end, special, piece, id, unknown))
    return tokens


def said_of(text: str, tokens: Sequence[Token], units: Sequence[tuple[Span | None, list[int]]], end: int) -> list[str]:
    """What a reader should know of how the text up to `end` came through the tokenizer: nothing, in most cases."""
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
        if start < end and not read and not any(one < stop and other > start for one, other in written):
            lost.append(text[start:stop])
    if lost:
        notes.append(f"The tokenizer leaves out {_listed(lost)}: the model did not read it.")
    return notes


def _listed(texts: Sequence[str], most: int = 5) -> str:
    names = list(dict.fromkeys(f"“{printable(text)}”" for text in texts))
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
