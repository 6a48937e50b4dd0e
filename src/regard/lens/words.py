"""The words of a text, by the word boundaries of Unicode, and the tokens that each consists of."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from typing import Any, SupportsIndex

import regex

Span = tuple[int, int]  # of characters: text[start:stop]

_EDGES = regex.compile(r"(?V1w)\b")
_FLAGS = regex.compile(
    r"(?<![{X}])(?:[{R}]{{2}}){{2,}}+[{R}]?+(?![{X}])".format(
        R=r"\p{WB=Regional_Indicator}",
        X=r"\p{WB=Regional_Indicator}\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}",
    )
)
_VISIBLE = regex.compile(r"[^\s\p{Cc}\p{Cf}]")
_BLANK = "".join(  # white space and zero-width characters: of direction, of order, joiners and non-joiners
    chr(code)
    for code in (*range(0x09, 0x0E), *range(0x1C, 0x21), 0x85, 0xA0, 0x61C, 0x1680, *range(0x2000, 0x200C),
                 *range(0x200E, 0x2010), *range(0x2028, 0x2030), 0x205F, *range(0x2060, 0x2065),
                 *range(0x2066, 0x206A), 0x3000, 0xFEFF)
)  # fmt: skip


def words(text: str, whole: Sequence[Span] = ()) -> list[Span]:
    """The spans of words and punctuation in a text, by the word boundaries of Unicode (UAX #29).

    `whole` are spans to be taken as words, whatever they contain. A contraction is one word, and so is an emoji with
    all its joiners or a letter with its accents. In scripts without spaces a word is a character, unless a token spans
    several (see `units`).

    >>> text = "Don't stop, 3.14 👍🏽!"
    >>> [text[start:stop] for start, stop in words(text)]
    ["Don't", 'stop', ',', '3.14', '👍🏽', '!']
    """
    # A flag is two letters. In a run of flags the search finds other boundaries: each becomes a letter with an accent.
    plain = _FLAGS.sub(lambda run: "§\u0301" * (len(run[0]) // 2) + run[0][len(run[0]) // 2 * 2 :], text)
    edges = sorted({0, *(match.start() for match in _EDGES.finditer(plain)), len(text), *chain(*whole)})
    if whole:
        starts = [start for start, _ in sorted(whole)]
        stops = [stop for _, stop in sorted(whole)]
        edges = [edge for edge in edges if not (n := bisect_left(starts, edge)) or edge >= stops[n - 1]]
    return [trimmed(text, start, stop) for start, stop in pairwise(edges) if _VISIBLE.search(text, start, stop)]


def units(text: str, tokens: Sequence[Span | None], whole: Sequence[Span] = ()) -> list[tuple[Span | None, list[int]]]:
    """The words that tokens make up, in order: (span, its tokens).

    `tokens` are the spans of the tokens, None for one that the tokenizer added. Such a token, and one of white space,
    is a unit of its own without a span; but a space before a word belongs to it, as in tokenizers that mark the
    beginnings of words. Words that share a token are one. Raises ValueError where a word of `whole` shares a token.

    >>> units("unbelievable!", [None, (0, 2), (2, 12), (12, 13), None])
    [(None, [0]), ((0, 12), [1, 2]), ((12, 13), [3]), (None, [4])]
    """
    result: list[tuple[Span | None, list[int]]] = []
    known = words(text, whole)
    stops = [stop for _, stop in known]
    for token, span in enumerate(tokens):
        word = None if span is None else _touched(text, known, stops, *trimmed(text, *span))
        members = [token]
        if span and not word and result and (last := result[-1][0]) and span[0] < last[1]:
            word = last[0], max(last[1], span[1])  # invisible, but it begins within a word
        while word and result and (last := result[-1][0]) and word[0] < last[1]:
            word = min(last[0], word[0]), max(last[1], word[1])
            earlier = result.pop()[1]
            earlier += members  # in place: a word may have very many tokens
            members = earlier
        result.append((word, members))
    _check_whole(text, whole, result)
    return result


def check_spans(text: str, whole: Sequence[Span]) -> list[Span]:
    """The spans of words given by a user, in order, without white space at their ends.

    Raises TypeError or ValueError for anything but (start, end) of visible text, and for spans that overlap.
    """
    spans = []
    for span in _listed(whole):
        places = _listed(span)
        if len(places) != 2 or not all(isinstance(place, SupportsIndex) for place in places):
            raise TypeError(f"read: words: expected (start, end) for each word. Got {span!r}.")
        start, stop = (place.__index__() for place in places)
        if not 0 <= start < stop <= len(text) or not _VISIBLE.search(text, start, stop):
            raise ValueError(f"read: words: there is no word at {start}:{stop} of this text of {len(text)} characters.")
        spans.append(trimmed(text, start, stop))
    spans.sort()
    for first, second in pairwise(spans):
        if first[1] > second[0]:
            raise ValueError(f"read: words: {first[0]}:{first[1]} and {second[0]}:{second[1]} overlap.")
    return spans


def _listed(things: Any) -> list[Any]:
    if isinstance(things, str | bytes) or not isinstance(things, Iterable):
        raise TypeError(f"read: words: expected (start, end) for each word. Got {things!r}.")
    return list(things)


def _check_whole(text: str, whole: Sequence[Span], units: Sequence[tuple[Span | None, list[int]]]) -> None:
    """Raise ValueError where one of these words shares a token with its neighbours."""
    spans = [span for span, _ in units if span is not None]
    starts = [start for start, _ in spans]
    for start, stop in whole:
        start, stop = trimmed(text, start, stop)
        n = bisect_right(starts, start) - 1
        if n >= 0 and spans[n][1] > start and spans[n] != (start, stop):
            raise ValueError(
                f"read: words: {text[start:stop]!r} at {start}:{stop} shares a token with its neighbours: the model "
                f"reads {text[slice(*spans[n])]!r} as one."
            )


def _touched(text: str, words: list[Span], stops: list[int], start: int, stop: int) -> Span | None:
    """From the beginning of the first word that a token touches to the end of the last; None if it touches none."""
    first = last = bisect_right(stops, start)
    if first < len(words) and words[first][0] == stop and not text[start:stop].strip(" "):
        return words[first]
    while last < len(words) and words[last][0] < max(stop, start + 1):
        last += 1
    if first < last:
        return min(start, words[first][0]), max(stop, words[last - 1][1])
    return (start, stop) if _VISIBLE.search(text, start, stop) else None


def trimmed(text: str, start: int, stop: int) -> Span:
    """The span without white space and zero-width characters at its ends; unchanged if it has nothing else."""
    piece = text[start:stop]
    left, right = len(piece) - len(piece.lstrip(_BLANK)), len(piece.rstrip(_BLANK))
    return (start + left, start + right) if left < right else (start, stop)


def printable(text: str) -> str:
    """The text with a visible symbol for each character that would move, hide or reverse the text around it.

    >>> printable("a\\tb\\x1b[31m\\u202e")
    'a⇥b␛[31m�'
    """
    visible: str = _UNPRINTABLE.sub(lambda match: _sign(match[0]), text)
    return visible


_UNPRINTABLE = regex.compile(r"[\p{Cc}\p{Cs}\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def _sign(character: str) -> str:
    code = ord(character)
    known = {"\n": "⏎", "\t": "⇥", "\u2028": "⏎", "\u2029": "⏎", "\x7f": "␡"}
    return known.get(character) or (chr(0x2400 + code) if code < 0x20 else "\ufffd")
