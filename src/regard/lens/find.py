"""Finding a word of a reading by the text that a user names: a word, several in a row, a special token, or subwords.

Spelling is matched exactly first, then regardless of quotes, dashes and spaces, then regardless of case.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, SupportsIndex

from regard._internal.plurals import counted
from regard.lens.units import Word
from regard.lens.words import Span, printable

if TYPE_CHECKING:
    from regard.lens.reading import Reading

Form = Callable[[str], str]

_QUOTES = dict.fromkeys(map(ord, "‘’‚‛′ʼ＇`´"), "'") | dict.fromkeys(map(ord, "“”„‟″«»"), '"')
_DASHES = dict.fromkeys(map(ord, "‐‑‒–—―−﹘﹣－"), "-")
_TYPOGRAPHY = str.maketrans(_QUOTES | _DASHES)


def exact(text: str) -> str:
    """As it is written, with composed accents, and any white space as one space."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def typographic(text: str) -> str:
    """The same for straight and curly quotes, all dashes, ligatures, and with or without zero-width characters."""
    text = unicodedata.normalize("NFKC", text.translate(_TYPOGRAPHY)).translate(_TYPOGRAPHY)
    return " ".join("".join(letter for letter in text if unicodedata.category(letter) != "Cf").split())


def caseless(text: str) -> str:
    """The same for upper and lower case, too."""
    return unicodedata.normalize("NFKC", typographic(text).casefold())


FORMS: tuple[Form, ...] = (exact, typographic, caseless)


def find_word(reading: Reading, word: str | int | SupportsIndex, nth: int | None) -> Word:
    """See `Reading.word`."""
    if isinstance(word, bool) or not isinstance(word, str | SupportsIndex):
        raise TypeError(f"word: expected a word of the text, or its place among the words. Got {word!r}.")
    if not isinstance(word, str):
        return _by_place(reading, word.__index__())
    if not word.strip():
        raise LookupError("The word to look for is empty.")
    matches: list[Word] = []
    for matching in (_words, _special_tokens, _subwords):
        for form in FORMS:
            matches = max(matches, matching(reading, word, form), key=len)
            if len(matches) >= (nth or 1):
                break
        if matches:
            break
    if not matches:
        raise LookupError(f"There is no word {word!r} in the text.{_nearest(reading, word)}")
    if nth is None and len(matches) > 1:
        times, between = ("twice", "or") if len(matches) == 2 else (f"{len(matches)} times", "to")
        raise LookupError(f"“{printable(word)}” occurs {times}; choose one with nth=1 {between} nth={len(matches)}.")
    if nth is not None and not 1 <= nth <= len(matches):
        raise LookupError(f"{word!r} has no nth={nth}: it occurs {counted(len(matches), 'time')}.")
    return matches[(nth or 1) - 1]


def _by_place(reading: Reading, place: int) -> Word:
    words = reading.words
    if not -len(words) <= place < len(words):
        within = f", from 0 to {len(words) - 1}" if words else ""
        raise LookupError(f"There is no word {place}: the text has {len(words)}{within}.")
    return words[place]


def _words(reading: Reading, wanted: str, form: Form) -> list[Word]:
    """Words, or several in a row: with all tokens from the first to the last."""
    words, matches = reading.words, []
    for first, last in runs(reading.text, [(word.start, word.end) for word in words], wanted, form):
        start, stop = words[first], words[last]
        if first == last:
            matches.append(start)
        else:
            text, tokens = reading.text[start.start : stop.end], tuple(range(start.tokens[0], stop.tokens[-1] + 1))
            matches.append(Word(text, start.start, stop.end, tokens, False, start.index, start.reading))
    return matches


def _special_tokens(reading: Reading, wanted: str, form: Form) -> list[Word]:
    return [unit for unit in reading.units if unit.special and form(unit.text) == form(wanted)]


def _subwords(reading: Reading, wanted: str, form: Form) -> list[Word]:
    """Tokens within words, or several in a row."""
    places = [n for n, token in enumerate(reading.tokens) if token.end > token.start and not token.special]
    spans = [(reading.tokens[n].start, reading.tokens[n].end) for n in places]
    return [word_of_tokens(reading, places[a], places[b]) for a, b in runs(reading.text, spans, wanted, form)]


def word_of_tokens(reading: Reading, first: int, last: int) -> Word:
    """The tokens from the first to the last as a word."""
    start, end = reading.tokens[first].start, reading.tokens[last].end
    unit = reading.units[int(reading.unit_of_token[first])]
    text = reading.text[start:end] or unit.text
    return Word(text, start, end, tuple(range(first, last + 1)), unit.special, unit.index, unit.reading)


def _nearest(reading: Reading, word: str) -> str:
    """A sentence with the words of the text that are spelled most like it."""
    by_case = {unit.text.casefold(): unit.text for unit in reversed(reading.words)}
    near = [by_case[form] for form in difflib.get_close_matches(word.casefold(), by_case, n=3, cutoff=0)]
    listed = f" The nearest: {', '.join(map(printable, near))}." if near else " It has no words."
    return listed + (f" {reading.truncated}" if reading.truncated else "")


def runs(text: str, spans: Sequence[Span], wanted: str, form: Form) -> list[tuple[int, int]]:
    """(first, last) of each run of spans whose text is the wanted one in this form, in order; they never overlap.

    >>> runs("New York, New York", [(0, 3), (4, 8), (8, 9), (10, 13), (14, 18)], "new york", caseless)
    [(0, 1), (3, 4)]
    """
    wanted = form(wanted)
    matches: list[tuple[int, int]] = []
    for first, (start, _) in enumerate(spans):
        if matches and first <= matches[-1][1]:
            continue
        for last in range(first, len(spans)):
            reads = form(text[start : spans[last][1]])
            if reads == wanted:
                matches.append((first, last))
            if reads == wanted or not wanted.startswith(reads):
                break
    return matches
