"""What is read from files: records, and bad ones, with the places where they stand."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Format = Literal["lines", "paragraphs", "json", "jsonl", "csv", "tsv", "parquet", "conllu"]

LONGEST = 1 << 20  # characters of a text: what comes of more would not fit into memory


class BadRecordError(ValueError):
    """A record that cannot be embedded, where such records end the run."""


class UnknownFormatError(ValueError):
    """A file whose name does not say what it holds."""


@dataclass(frozen=True)
class Source:
    """Where texts come from.

    Args:
        files: of any of the formats, also compressed (.gz, .bz2, .xz, .zst); folders, with all such files in them, by
            name; - is stdin.
        format: of all files, in place of what their names say.
        column: which column holds the text, of files that have columns. A path such as "meta.title" or "turns.0.text"
            goes into objects and arrays of JSON and structs of Parquet; a column of exactly that name comes first.
        id: which column holds a name for the text (of CoNLL-U a comment such as sent_id): no two may be equal.
        keep: columns that are carried into the output as they are.
        places: whether the output has the columns `file` and `line`, which say where each text stands.

    >>> Source([Path("a.txt")]).column
    'text'
    """

    files: Sequence[Path]
    format: Format | None = None
    column: str = "text"
    id: str | None = None
    keep: Sequence[str] = ()
    places: bool = False

    @property
    def columns(self) -> list[str]:
        """The columns that a record must have. Those in `keep` may be missing from an object of JSON."""
        return [self.column] if self.id is None else [self.column, self.id]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record stands: the line on which it begins, the row of a Parquet file or the item of a JSON array."""

    file: str
    line: int
    unit: Literal["line", "row", "item"] = "line"

    def __str__(self) -> str:
        return f"{self.file}, {self.unit} {self.line}"


@dataclass(frozen=True, slots=True)
class Record:
    """A text, and where it stands.

    words: where its words lie, in (start, end), if the file says so. kept: the values of the columns in `Source.keep`,
    Python's, or Arrow arrays of length 1 where the file has types of its own.
    """

    at: Place
    text: str
    id: str | None = None
    words: list[tuple[int, int]] | None = None
    kept: tuple[Any, ...] = ()

    @property
    def place(self) -> str:
        """Where it stands, in words."""
        return str(self.at)


@dataclass(frozen=True)
class Bad:
    """What stands in a record's place and is none, and why."""

    place: str
    why: str

    def __str__(self) -> str:
        return f"{self.place}: {self.why}"


def shown(path: Path) -> str:
    """The name of a file as text; bytes that are not UTF-8 are written as \\xff."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def checked(
    source: Source,
    at: Place,
    text: object,
    id: object = None,
    words: list[tuple[int, int]] | None = None,
    kept: tuple[Any, ...] = (),
) -> Record | Bad:
    """The record, if this can be embedded."""
    why = _why_no_text(text) or (_why_no_id(source, id) if source.id is not None else "")
    for name, value in zip(source.keep, kept, strict=False):  # plain text has none
        why = why or ("" if _encodable(value) else f"its {name!r} is not UTF-8.")
    if why:
        return Bad(str(at), why)
    assert isinstance(text, str)
    return Record(at, text, None if id is None else str(id), words, kept)


def _why_no_text(text: object) -> str:
    if not isinstance(text, str):
        return f"expected a text. Got {'nothing' if text is None else type(text).__name__}."
    if len(text) > LONGEST:
        return f"{len(text):,} characters. A text may have {LONGEST:,}: split it into paragraphs."
    if not text.strip():
        return "the text is empty."
    if not _encodable(text):
        at = next(n for n, character in enumerate(text) if "\ud800" <= character <= "\udfff")
        return f"not UTF-8 at byte {len(text[:at].encode())} of the text."
    if "\0" in text:
        return f"a NUL at character {text.index(chr(0))}: this is damaged, or no text."
    return ""


def _why_no_id(source: Source, id: object) -> str:
    if id is None:
        return f"it has no id: its {source.id!r} is null."
    if isinstance(id, bool) or not isinstance(id, str | int):
        return f"expected an id, a text or a whole number. Got {type(id).__name__}."
    if not _encodable(id):
        return f"its id {id!r} is not UTF-8."
    return "" if str(id).strip() else "its id is empty."


def _encodable(value: object) -> bool:
    """Whether all strings in a value of JSON can be written as UTF-8."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return False
    if isinstance(value, dict):
        return all(_encodable(name) and _encodable(inner) for name, inner in value.items())
    return all(map(_encodable, value)) if isinstance(value, list) else True


def columns(names: object) -> str:
    """Names of columns, for a message.

    >>> columns(["a", "b"])
    "'a', 'b'"
    """
    quoted = [repr(name) for name in names]  # type: ignore[attr-defined]
    return ", ".join(quoted[:8]) + (f" and {len(quoted) - 8} more" if len(quoted) > 8 else "") or "none"
