"""Records: texts that are read from files, and errors in place of texts, with their places."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from regard._typing import FileFormat

MAX_CHARACTERS = 1 << 20  # of a text: the embeddings of more would not fit into memory


class BadRecordError(ValueError):
    """A record cannot be embedded, and bad records are not to be skipped.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from regard.corpus import BadRecordError, Source, embed_files
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     notes = Path(folder, "notes.json")
    ...     _ = notes.write_text('[{"text": "Time flies"}, {"title": "no text"}]')
    ...     try:
    ...         embed_files(Source([notes]), notes.with_suffix(".parquet"))
    ...     except BadRecordError as error:
    ...         print(str(error).removeprefix(folder))
    /notes.json, item 2: it has no 'text', but 'title'.
    """


class UnknownFormatError(ValueError):
    """The extension of a file does not say what format it has.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from regard.corpus import Source, UnknownFormatError, embed_files
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = Path(folder, "page.html")
    ...     _ = page.write_text("<p>Time flies</p>")
    ...     try:
    ...         embed_files(Source([page]), page.with_suffix(".parquet"))
    ...     except UnknownFormatError as error:
    ...         print(type(error).__name__)
    UnknownFormatError
    """


@dataclass(frozen=True)
class Source:
    """Where the texts come from.

    Args:
        files: Files in any of the formats, also compressed (.gz, .bz2, .xz, .zst). A folder stands for all such files
            in it, sorted by name; - is stdin.
        format: The format of all files, instead of what their extensions say.
        column: The column with the text. A path such as "meta.title" or "turns.0.text" leads into objects and arrays
            of JSON and structs of Parquet; a column of exactly that name takes precedence.
        id: The column with a unique name of each text (in CoNLL-U a comment such as sent_id).
        keep: Columns to copy to the output.
        places: Whether the output has the columns `file` and `line`, which say where each text begins.

    >>> Source([Path("a.txt")]).column
    'text'
    """

    files: Sequence[Path]
    format: FileFormat | None = None
    column: str = "text"
    id: str | None = None
    keep: Sequence[str] = ()
    places: bool = False

    @property
    def required(self) -> list[str]:
        """The columns that every record must have: those of text and id. Those in `keep` may be missing from JSON."""
        return [self.column] if self.id is None else [self.column, self.id]

    @property
    def columns(self) -> list[str]:
        """All columns that are read."""
        return [*self.required, *self.keep]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record begins: a line of a file, a row of a Parquet file, or an item of a JSON array."""

    file: str
    line: int
    unit: Literal["line", "row", "item"] = "line"

    def __str__(self) -> str:
        return f"{self.file}, {self.unit} {self.line}"


@dataclass(frozen=True, slots=True)
class Record:
    """A text and where it is from.

    words: The (start, end) of its words, if the file has them. kept: The values of the columns in `Source.keep`, as
    Python values, or as Arrow arrays of length 1 where the file has types of its own.
    """

    at: Place
    text: str
    id: str | None = None
    words: list[tuple[int, int]] | None = None
    kept: tuple[Any, ...] = ()

    @property
    def place(self) -> str:
        """Its place, for a message."""
        return str(self.at)


@dataclass(frozen=True)
class BadRecord:
    """An error in place of a record: where it is, and why it cannot be embedded."""

    place: str
    why: str

    def __str__(self) -> str:
        return f"{self.place}: {self.why}"


def printable_path(path: Path) -> str:
    """A path as text; bytes that are not UTF-8 are written as \\xff."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def make_record(
    source: Source,
    at: Place,
    text: object,
    id: object = None,
    words: list[tuple[int, int]] | None = None,
    kept: tuple[Any, ...] = (),
) -> Record | BadRecord:
    """The record, or a BadRecord if the text, the id or a kept value cannot be written."""
    why = _why_bad_text(text) or (_why_bad_id(source, id) if source.id is not None else "")
    for name, value in zip(source.keep, kept, strict=False):  # plain text has no columns
        why = why or ("" if _is_utf8(value) else f"its {name!r} is not UTF-8.")
    if why:
        return BadRecord(str(at), why)
    assert isinstance(text, str)
    return Record(at, text, None if id is None else str(id), words, kept)


def _why_bad_text(text: object) -> str:
    if not isinstance(text, str):
        return f"expected a text. Got {'nothing' if text is None else type(text).__name__}."
    if len(text) > MAX_CHARACTERS:
        return f"it has {len(text):,} characters. The limit is {MAX_CHARACTERS:,}: split it into paragraphs."
    if not text.strip():
        return "the text is empty."
    if not _is_utf8(text):
        at = next(n for n, character in enumerate(text) if "\ud800" <= character <= "\udfff")
        return f"not UTF-8 at byte {len(text[:at].encode())} of the text."
    if "\0" in text:
        return f"a NUL at character {text.index(chr(0))}: the file is damaged, or not a text file."
    return ""


def _why_bad_id(source: Source, id: object) -> str:
    if id is None:
        return f"it has no id: its {source.id!r} is null."
    if isinstance(id, bool) or not isinstance(id, str | int):
        return f"expected an id that is a text or a whole number. Got {type(id).__name__}."
    if not _is_utf8(id):
        return f"its id {id!r} is not UTF-8."
    return "" if str(id).strip() else "its id is empty."


def _is_utf8(value: object) -> bool:
    """Whether all strings in a JSON value can be written as UTF-8."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return False
    if isinstance(value, dict):
        return all(_is_utf8(name) and _is_utf8(inner) for name, inner in value.items())
    return all(map(_is_utf8, value)) if isinstance(value, list) else True


def list_columns(names: Iterable[str]) -> str:
    """Names of columns, for a message.

    >>> list_columns(["a", "b"])
    "'a', 'b'"
    """
    quoted = list(map(repr, names))
    return ", ".join(quoted[:8]) + (f" and {len(quoted) - 8} more" if len(quoted) > 8 else "") or "none"


def one_line(error: BaseException) -> str:
    """The message of an error in one line, without the final full stop."""
    return " ".join(str(error).split()).rstrip(".")
