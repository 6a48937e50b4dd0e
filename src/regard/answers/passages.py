"""Passages: what a document is divided into, so that an answer can name the places that it came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import regex

from regard._internal.files import read_text
from regard.lens.chunks import sentences
from regard.lens.words import Span, trimmed

By = Literal["paragraphs", "sentences", "lines"]

_EDGES = {"paragraphs": regex.compile(r"\n[^\S\n]*(?:\n[^\S\n]*)+"), "lines": regex.compile(r"\n")}
_VISIBLE = regex.compile(r"[^\p{White_Space}\p{Cf}]")


@dataclass(frozen=True)
class Passage:
    """A place in a document.

    Attributes:
        file: its name; "-" for stdin.
        start, end: of its characters in the file, after a byte order mark, as Python counts them.
        text: what stands there.

    >>> from regard.answers import passages
    >>> first, second = passages("The boat is red. The train is blue.", by="sentences")
    >>> second.start, second.end, second.text
    (17, 35, 'The train is blue.')
    """

    file: str
    start: int
    end: int
    text: str


def passages(text: str, by: By = "paragraphs", file: str = "-") -> list[Passage]:
    r"""The passages of a text, in order, without white space around them.

    Args:
        text: the text.
        by: "paragraphs", which blank lines divide, "lines", or "sentences", by the rules of `Lens.chunks`.
        file: where the text is from.

    Raises ValueError for any other word.

    >>> [passage.text for passage in passages("One line,\nanother.\n\nA new paragraph.")]
    ['One line,\nanother.', 'A new paragraph.']
    >>> passages("One line,\nanother.", by="lines")[1]
    Passage(file='-', start=10, end=18, text='another.')
    """
    if by not in get_args(By):
        raise ValueError(f"passages: by: expected one of {', '.join(map(repr, get_args(By)))}. Got {by!r}.")
    spans = sentences(text) if by == "sentences" else _between(text, by)
    spans = [trimmed(text, start, end) for start, end in spans if _VISIBLE.search(text, start, end)]
    return [Passage(file, start, end, text[start:end]) for start, end in spans]


def read_passages(files: Sequence[str | Path], by: By = "paragraphs") -> list[Passage]:
    """The passages of text files, in the order of the files; "-" is stdin.

    Raises:
        OSError: a file does not exist or cannot be read.
        ValueError: a file is empty, holds nothing but white space, or is no text in UTF-8.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from regard.answers import read_passages
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     notes = Path(folder, "notes.txt")
    ...     _ = notes.write_text("The boat is red. The train is blue.")
    ...     [passage.text for passage in read_passages([notes], by="sentences")]
    ['The boat is red.', 'The train is blue.']
    """
    if isinstance(files, str | Path):
        files = [files]
    if not files:
        raise ValueError("ask: files: expected one or more text files.")
    return [passage for file in files for passage in _of_file(file, by)]


def _of_file(file: str | Path, by: By) -> list[Passage]:
    name = "stdin" if str(file) == "-" else str(file)
    try:
        text = read_text(file)
    except ValueError as error:
        raise ValueError(f"{error} It is no text, or in another encoding; convert it to UTF-8.") from None
    if "\0" in text:
        raise ValueError(f"{name}: it holds a NUL at character {text.index(chr(0)):,}: a binary file, and no text.")
    if not text:
        raise ValueError(f"{name}: the file is empty.")
    divided = passages(text, by, str(file))
    if not divided:
        raise ValueError(f"{name}: there is nothing to read in it but white space.")
    return divided


def _between(text: str, by: By) -> Iterator[Span]:
    start = 0
    for edge in _EDGES[by].finditer(text):
        yield start, edge.start()
        start = edge.end()
    yield start, len(text)
