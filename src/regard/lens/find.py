"""Finding what a reader names in a text: a word, a run of them, or tokens; however its quotes and dashes are set."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence

from regard.lens.words import Span

_QUOTES = dict.fromkeys(map(ord, "‘’‚‛′ʼ＇`´"), "'") | dict.fromkeys(map(ord, "“”„‟″«»"), '"')
_DASHES = dict.fromkeys(map(ord, "‐‑‒–—―−﹘﹣－"), "-")
_TYPOGRAPHY = str.maketrans(_QUOTES | _DASHES)


def exact(text: str) -> str:
    """As it is written, however its accents are put together, with one space for any white space."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def typographic(text: str) -> str:
    """The same for straight and curly quotes, all dashes, ligatures, and with or without marks of no width."""
    text = unicodedata.normalize("NFKC", text.translate(_TYPOGRAPHY)).translate(_TYPOGRAPHY)
    return " ".join("".join(letter for letter in text if unicodedata.category(letter) != "Cf").split())


def caseless(text: str) -> str:
    """The same in upper and lower case too."""
    return unicodedata.normalize("NFKC", typographic(text).casefold())


FORMS: tuple[Callable[[str], str], ...] = (exact, typographic, caseless)


def runs(text: str, spans: Sequence[Span], wanted: str, form: Callable[[str], str]) -> list[tuple[int, int]]:
    """(first, last) of each run of spans that reads as what is wanted, in the order of the text; none overlap.

    >>> runs("New York, New York", [(0, 3), (4, 8), (8, 9), (10, 13), (14, 18)], "new york", caseless)
    [(0, 1), (3, 4)]
    """
    wanted = form(wanted)
    places: list[tuple[int, int]] = []
    for first, (start, _) in enumerate(spans):
        if places and first <= places[-1][1]:
            continue
        for last in range(first, len(spans)):
            reads = form(text[start : spans[last][1]])
            if reads == wanted:
                places.append((first, last))
            if reads == wanted or not wanted.startswith(reads):
                break
    return places
