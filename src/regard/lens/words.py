"""Words as a reader sees them, and the tokens that make them up."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import regex

Span = tuple[int, int]  # of characters: text[start:stop]


def words(text: str) -> list[Span]:
    """Where the words and the punctuation of a text lie, by the word boundaries of Unicode (UAX #29).

    A contraction is one word, and so is an emoji with all its joiners or a letter with its accents; in scripts
    without spaces a word is a character, unless a token holds more of them (see `units`).

    >>> text = "Don't stop, 3.14 👍🏽!"
    >>> [text[start:stop] for start, stop in words(text)]
    ["Don't", 'stop', ',', '3.14', '👍🏽', '!']
    """
    edges = [match.start() for match in regex.finditer(r"(?V1w)\b", text)]
    edges = sorted({0, *edges, len(text)})
    pieces = (_trimmed(text, start, stop) for start, stop in pairwise(edges))
    return [(start, stop) for start, stop in pieces if regex.search(r"[^\s\p{Cc}\p{Cf}]", text[start:stop])]


def units(text: str, tokens: Sequence[Span | None]) -> list[tuple[Span | None, list[int]]]:
    """The words that tokens make up, in order: (span, its tokens). A token without a span stands alone.

    `tokens` are the spans of the tokens, None for one that is not of the text. Words that share a token are one.

    >>> units("unbelievable!", [None, (0, 2), (2, 12), (12, 13), None])
    [(None, [0]), ((0, 12), [1, 2]), ((12, 13), [3]), (None, [4])]
    """
    found: list[tuple[Span | None, list[int]]] = []
    spans, at = words(text), 0
    for token, span in enumerate(tokens):
        if span is None:
            found.append((None, [token]))
            continue
        start, stop = _trimmed(text, *span)
        while at < len(spans) and spans[at][1] <= start:
            at += 1
        touched = [word for word in spans[at : at + max(1, stop - start)] if word[0] < max(stop, start + 1)]
        whole = (min([start, *(word[0] for word in touched)]), max([stop, *(word[1] for word in touched)]))
        last = found[-1][0] if found else None
        if last is not None and whole[0] < last[1]:
            found[-1] = ((last[0], max(last[1], whole[1])), [*found[-1][1], token])
        else:
            found.append((whole, [token]))
    return found


def readable(token: str, text: str, span: Span | None) -> str:
    """A token as it stands in the text, without the marks that tokenizers put (##, Ġ, ▁)."""
    if span is None:
        return token
    start, stop = _trimmed(text, *span)
    return text[start:stop] or text[slice(*span)] or token


def _trimmed(text: str, start: int, stop: int) -> Span:
    """Without white space, and directional marks, at the ends."""
    piece = text[start:stop]
    left = len(piece) - len(regex.sub(r"^[\s\u200b\u200e\u200f\ufeff]+", "", piece))
    right = len(regex.sub(r"[\s\u200b\u200e\u200f\ufeff]+$", "", piece))
    return (start + left, start + right) if right > left else (start, stop)
