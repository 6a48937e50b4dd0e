"""Chunks of a text: spans of whole sentences, or of at most so many tokens, for the `spans` of `Lens.embed`."""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise
from typing import Literal

import regex

from regard.lens.words import Span, trimmed, units
from regard.models import Model

Chunk = int | Literal["sentences"]

_SENTENCE_END = regex.compile(
    r"""[。｡！？．]+ \p{SB=Close}*                                                 # in scripts without spaces
      | [\p{SB=STerm}!?] [\p{SB=STerm}\p{SB=ATerm}…]* \p{SB=Close}* (?=\s|$)
      | (?<!\b(?:\p{Lu}|Dr|Mr|Mrs|Ms|Prof|St|vs)) [.…]+ \p{SB=Close}* (?=\s+[^\s\p{Ll}]|\s*$)
      | (?=\s*\n\s*\n)                                                         # a blank line
    """,
    regex.VERSION1 | regex.VERBOSE,
)


def chunks(model: Model, text: str, by: Chunk) -> list[Span]:
    """The spans of the chunks of a text, one after the other; together they cover all of it.

    Args:
        model: whose tokens are counted.
        text: the text.
        by: "sentences", or the most tokens of a chunk. Words are kept whole unless a word alone has more. Sentences end
            by the rules of Unicode (UAX #29), except that some marks need white space after them, that initials and
            titles end none, and that a blank line ends one.

    >>> from regard.models import open_model
    >>> chunks(open_model(), "Time flies. Fruit flies like a banana!", "sentences")
    [(0, 11), (11, 38)]
    """
    starts = [start for start, _ in model.tokenizer.encode(text, add_special_tokens=False).offsets]
    edges = [start for start, _ in sentences(text)[1:]] if by == "sentences" else _of_tokens(model, text, starts, by)
    begins, previous = [0], 0
    for edge in edges:  # white space belongs to the chunk after it, a chunk without a token to the one before
        tokens = bisect_left(starts, edge)
        if previous < tokens < len(starts):
            begins.append(edge)
            previous = tokens
    return list(zip(begins, [*begins[1:], len(text)], strict=True))


def sentences(text: str) -> list[Span]:
    """The spans of sentences, one after the other; together they cover all of a text.

    >>> sentences("Time flies. Fruit flies like a banana!")
    [(0, 11), (11, 38)]
    """
    edges = sorted({0, *(match.end() for match in _SENTENCE_END.finditer(text)), len(text)})
    return list(pairwise(edges))


def _of_tokens(model: Model, text: str, starts: list[int], max_tokens: int) -> list[int]:
    """The characters at which chunks of at most `max_tokens` begin."""
    spans = [trimmed(text, *span) for span in model.tokenizer.encode(text, add_special_tokens=False).offsets]
    first_of_words = sorted({tokens[0] for _, tokens in units(text, spans)})
    edges, token = [], 0
    while len(starts) - token > max_tokens:
        word = first_of_words[bisect_left(first_of_words, token + max_tokens + 1) - 1]
        stop = word if word > token else token + max_tokens
        while stop < len(starts) and starts[stop] <= starts[token]:  # tokens of one character stay together
            stop += 1
        if stop == len(starts):
            break
        edges.append(starts[stop])
        token = stop
    return edges
