"""Files of texts → records, one at a time, however large the files are."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    pass

Format = Literal["lines", "paragraphs", "jsonl", "csv", "tsv", "parquet", "conllu"]

LONGEST = 1 << 20  # characters of a text: what comes of more would not fit into memory
_LINE = 1 << 23  # bytes
_FORMATS: dict[str, Format] = {
    ".txt": "lines", ".text": "lines", ".md": "lines", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv",
    ".tsv": "tsv", ".parquet": "parquet", ".conllu": "conllu",
}  # fmt: skip
_COMPRESSED = {".gz": "gzip", ".zst": "zstd"}


@dataclass(frozen=True)
class Record:
    """A text, and where it stands. words: where its words lie, in (start, end), if the file says so."""

    place: str
    text: str
    id: str | None = None
    words: list[tuple[int, int]] | None = None


@dataclass(frozen=True)
class Bad:
    """What stands in a record's place and is none, and why."""

    place: str
    why: str

    def __str__(self) -> str:
        return f"{self.place}: {self.why}"


@dataclass(frozen=True)
class Source:
    """Where texts come from.

    files: of any of the formats, also compressed (.gz, .zst); folders, with all such files in them, by name; - is
    stdin. format: of all files, in place of what their names say. column: which holds the text, of files that have
    columns. id: which holds a name for it (of CoNLL-U a comment such as sent_id), none twice.

    >>> Source([Path("a.txt")]).column
    'text'
    """

    files: Sequence[Path]
    format: Format | None = None
    column: str = "text"
    id: str | None = None


@dataclass
class Position:
    """How far reading has come, in bytes of the files; total: None where a pipe is among them."""

    read: int = 0
    total: int | None = None


def find(source: Source, but: Sequence[Path] = ()) -> list[Path]:
    """The files, in order, folders replaced by what is in them; without `but` and what lies in it.

    Raises OSError or ValueError for what is not there, cannot be read, or holds no such file.
    """
    found: list[Path] = []
    for path in source.files:
        if str(path) == "-":
            found.append(path)
        elif path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.is_file() and _shown(file.relative_to(path)))
            known = [file for file in inside if _suffixes(file)[0] in _FORMATS and not _among(file, but)]
            if not known:
                raise ValueError(f"{path}: no file in this folder has a known format ({', '.join(_FORMATS)}).")
            found += known
        else:
            path.stat()  # is it there?
            if path.is_file():  # a pipe can be opened only once
                open(path, "rb").close()
            found.append(path)
    for path in found:
        if source.id is not None and _format(source, path) in ("lines", "paragraphs"):
            raise ValueError(f"{path}: plain text has no column {source.id!r}.")
        if _format(source, path) == "parquet" and (str(path) == "-" or _suffixes(path)[1]):
            raise ValueError(f"{path}: Parquet can be read from an uncompressed file alone.")
    return found


def _shown(path: Path) -> bool:
    return not any(part.startswith((".", "_")) for part in path.parts)


def _among(file: Path, folders: Sequence[Path]) -> bool:
    return any(file.resolve().is_relative_to(folder.resolve()) for folder in folders)


def _suffixes(path: Path) -> tuple[str, str]:
    """What a file's name says it holds, and how it is compressed."""
    last = path.suffix.lower()
    return (Path(path.stem).suffix.lower(), _COMPRESSED[last]) if last in _COMPRESSED else (last, "")


def _format(source: Source, path: Path) -> Format:
    return source.format or _FORMATS.get(_suffixes(path)[0], "lines")


def records(source: Source, files: Sequence[Path], position: Position | None = None) -> Iterator[Record | Bad]:
    """What is in the files, as `find` gave them. `position` is kept up to date."""
    position = Position() if position is None else position
    if all(path.is_file() for path in files):
        position.total = sum(path.stat().st_size for path in files)
    for path in files:
        yield from _of_file(source, path, position)


def _of_file(source: Source, path: Path, position: Position) -> Iterator[Record | Bad]:
    import pyarrow as pa

    format = _format(source, path)
    if format == "parquet":
        yield from _parquet(source, path, position)
        return
    lines = _Lines(path, position)
    try:
        yield from _READERS[format](source, lines)
    except (pa.ArrowException, OSError, EOFError) as error:
        if not lines.compressed or (isinstance(error, OSError) and error.errno):
            raise
        yield Bad(f"{path}, after line {lines.number}", f"the rest is lost: the file is damaged ({_plain(error)}).")
    finally:
        lines.close()


def _plain(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")


class _Lines:
    """Lines as text, what is not UTF-8 as lone surrogates, with the number of the last; None for one too long."""

    def __init__(self, path: Path, position: Position) -> None:
        self.path, self.number = path, 0
        _, self.compressed = _suffixes(path)
        self.position = position
        self.file: Any = sys.stdin.buffer if str(path) == "-" else open(path, "rb")  # noqa: SIM115
        if self.compressed:
            import pyarrow as pa

            counted = pa.PythonFile(_Counted(self.file, position), "r")
            self.file = io.BufferedReader(cast(Any, pa.CompressedInputStream(counted, self.compressed)), 1 << 16)

    def __iter__(self) -> Iterator[str | None]:
        whole = True
        while line := self.file.readline(_LINE):
            self.position.read += 0 if self.compressed else len(line)
            begins, whole = whole, line.endswith(b"\n") or len(line) < _LINE
            if begins:
                self.number += 1
                text = line.decode("utf-8", "surrogateescape") if whole else None
                yield text.removeprefix("\ufeff") if text and self.number == 1 else text

    def close(self) -> None:
        if self.file is not sys.stdin.buffer:
            self.file.close()

    def place(self, number: int | None = None) -> str:
        return f"{self.path}, line {self.number if number is None else number}"


class _Counted(io.RawIOBase):
    """A file that says how much of it has been read."""

    def __init__(self, file: IO[bytes], position: Position) -> None:
        self.inner, self.position = file, position

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.inner.read(len(buffer))
        buffer[: len(data)] = data
        self.position.read += len(data)
        return len(data)

    def close(self) -> None:
        self.inner.close()
        super().close()


def _checked(place: str, text: object, id: object = None, words: list[tuple[int, int]] | None = None) -> Record | Bad:
    """The record, if this can be embedded."""
    if not isinstance(text, str):
        return Bad(place, f"expected a text. Got {'nothing' if text is None else type(text).__name__}.")
    if len(text) > LONGEST:
        return Bad(place, f"{len(text):,} characters. A text may have {LONGEST:,}: split it into paragraphs.")
    if not text.strip():
        return Bad(place, "the text is empty.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        at = len(text[: error.start].encode("utf-8", "surrogateescape"))
        return Bad(place, f"not UTF-8 at byte {at} of the text.")
    if "\0" in text:
        return Bad(place, f"a NUL at character {text.index(chr(0))}: this is damaged, or no text.")
    if isinstance(id, bool) or not isinstance(id, str | int | None):
        return Bad(place, f"expected an id, a text or a whole number. Got {type(id).__name__}.")
    return Record(place, text, None if id is None else str(id), words)


def _too_long(place: str) -> Bad:
    return Bad(place, f"longer than {_LINE:,} bytes.")


# The formats


def _by_line(source: Source, lines: _Lines) -> Iterator[Record | Bad]:
    for line in lines:
        if line is None:
            yield _too_long(lines.place())
        elif line.strip():
            yield _checked(lines.place(), line.strip())


def _by_paragraph(source: Source, lines: _Lines) -> Iterator[Record | Bad]:
    for number, block in _blocks(lines):
        yield block if isinstance(block, Bad) else _checked(lines.place(number), "\n".join(block).strip())


def _blocks(lines: _Lines) -> Iterator[tuple[int, list[str] | Bad]]:
    """Lines between blank ones, and the number of the first of them."""
    block: list[str] = []
    first = size = 0
    for line in lines:
        if line is not None and not line.strip():
            if size:
                yield first, block if size < _LINE else _too_long(lines.place(first))
            block, size = [], 0
            continue
        first = first if size else lines.number
        size += _LINE if line is None else len(line)
        if line is not None and size < _LINE:
            block.append(line.rstrip("\r\n"))
    if size:
        yield first, block if size < _LINE else _too_long(lines.place(first))


def _jsonl(source: Source, lines: _Lines) -> Iterator[Record | Bad]:
    for line in lines:
        if line is None:
            yield _too_long(lines.place())
        elif line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield Bad(lines.place(), f"no JSON: {_plain(error)}.")
                continue
            if not isinstance(row, dict):
                yield Bad(lines.place(), f"expected an object. Got {type(row).__name__}.")
            elif missing := [name for name in _columns(source) if name not in row]:
                yield Bad(lines.place(), f"it has no {missing[0]!r}, but {_names(row)}.")
            else:
                yield _checked(lines.place(), row[source.column], _id(source, row))


def _csv(source: Source, lines: _Lines, delimiter: str = ",") -> Iterator[Record | Bad]:
    csv.field_size_limit(max(csv.field_size_limit(), _LINE))
    too_long: list[str] = []

    def readable() -> Iterator[str]:
        for line in lines:
            if line is None:
                too_long.append(lines.place())
            else:
                yield line

    rows = csv.reader(readable(), "excel", delimiter=delimiter, quoting=csv.QUOTE_NONE if delimiter == "\t" else 0)
    header: list[str] = []
    while True:
        first = lines.number + 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            yield Bad(lines.place(first), f"{_plain(error)}; the rest is lost.")  # a quote that nothing closes, mostly
            return
        yield from map(_too_long, too_long)
        too_long.clear()
        if row is None:
            return
        if not header:
            header = row
            if missing := [name for name in _columns(source) if row and name not in row]:
                yield Bad(str(lines.path), f"it has no column {missing[0]!r}, but {_names(row)}.")
                return
        elif row and len(row) != len(header):
            yield Bad(lines.place(first), f"{len(row)} columns, and the first line has {len(header)}.")
        elif row:
            named = dict(zip(header, row, strict=True))
            yield _checked(lines.place(first), named[source.column], _id(source, named))


def _tsv(source: Source, lines: _Lines) -> Iterator[Record | Bad]:
    return _csv(source, lines, "\t")


def _conllu(source: Source, lines: _Lines) -> Iterator[Record | Bad]:
    """https://universaldependencies.org/format.html: a sentence's text, and where its words lie in it."""
    for number, block in _blocks(lines):
        if isinstance(block, Bad):
            yield block
            continue
        place = lines.place(number)
        about: dict[str, str] = {}
        rows = []
        for line in block:
            if line.startswith("#"):
                name, equals, value = line[1:].partition("=")
                about |= {name.strip(): value.strip()} if equals else {}
            else:
                rows.append(line.split("\t"))
        if wrong := [row for row in rows if len(row) != 10]:
            yield Bad(place, f"a line of this sentence has {len(wrong[0])} columns. CoNLL-U has 10.")
        elif source.id is not None and source.id not in about:
            yield Bad(place, f"this sentence has no comment {source.id!r}, but {_names(about)}.")
        else:
            yield _sentence(place, about, rows, None if source.id is None else about[source.id])


def _sentence(place: str, about: dict[str, str], rows: list[list[str]], id: str | None) -> Record | Bad:
    forms: list[tuple[str, bool]] = []  # as they are written, and whether a space follows
    covered = 0  # words up to here are parts of one that is written as one: 3-4 don't, 3 do, 4 n't
    for number, form, *_, last in rows:
        first, dash, end = number.partition("-")
        if not first.isdigit() or (dash and not end.isdigit()):
            if "." in number:
                continue  # an empty node: nothing is written
            return Bad(place, f"{number!r} is no number of a word.")
        if dash or int(first) > covered:
            forms.append((form, "SpaceAfter=No" not in last.split("|")))
            covered = int(end) if dash else covered
    text = about.get("text") or "".join(form + " " * space for form, space in forms).strip()
    spans, at = [], 0
    for form, _ in forms:
        start = text.find(form, at)
        if start < 0:
            return Bad(place, f"the word {form!r} is not in the text of the sentence.")
        at = start + len(form)
        spans.append((start, at))
    return _checked(place, text, id, spans)


def _parquet(source: Source, path: Path, position: Position) -> Iterator[Record | Bad]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row, size = 0, path.stat().st_size
    begun = position.read
    try:
        with pq.ParquetFile(path) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
            if missing := [name for name in _columns(source) if name not in schema.names]:
                yield Bad(str(path), f"it has no column {missing[0]!r}, but {_names(schema.names)}.")
                return
            kind = schema.field(source.column).type
            inner = kind.value_type if pa.types.is_dictionary(kind) else kind
            if not (pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_string_view(inner)):
                yield Bad(str(path), f"its column {source.column!r} holds {kind}, not text.")
                return
            for batch in file.iter_batches(256, columns=_columns(source)):
                columns = [batch.column(name) for name in _columns(source)]
                for values in zip(*columns, strict=True):
                    row += 1
                    position.read = begun + size * row // rows
                    yield _value(f"{path}, row {row}", *values)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        yield Bad(f"{path}, after row {row}", f"the rest is lost: the file is damaged ({_plain(error)}).")


def _value(place: str, text: Any, id: Any = None) -> Record | Bad:
    try:
        return _checked(place, text.as_py(), None if id is None else id.as_py())
    except UnicodeDecodeError as error:
        return Bad(place, f"not UTF-8 at byte {error.start} of the text.")


def _columns(source: Source) -> list[str]:
    return [source.column] if source.id is None else [source.column, source.id]


def _id(source: Source, row: dict[str, Any]) -> object:
    return None if source.id is None else row[source.id]


def _names(names: Any) -> str:
    found = [repr(name) for name in names]
    return ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "") or "none"


_READERS: dict[Format, Callable[[Source, _Lines], Iterator[Record | Bad]]] = {
    "lines": _by_line, "paragraphs": _by_paragraph, "jsonl": _jsonl, "csv": _csv, "tsv": _tsv, "conllu": _conllu,
}  # fmt: skip
