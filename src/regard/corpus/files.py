"""Which files a source has, and the records in them, one at a time, however large the files are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from regard.corpus.formats import EXTENSIONS, READERS, format_of
from regard.corpus.formats.parquet import parquet_rows
from regard.corpus.lines import DAMAGE, Lines, Position, suffixes
from regard.corpus.records import BadRecord, Record, Source, one_line, printable_path
from regard.corpus.table import read_metadata

_DOCUMENTATION = ("README", "LICENSE", "LICENCE")

Skipped = Callable[[Path, str], object]


def find_files(
    source: Source, exclude: Sequence[Path] = (), skipped: Skipped = lambda path, reason: None
) -> list[Path]:
    """The files of a source in order, each folder replaced by the files in it, without `exclude` and what it contains.

    Of a folder all files with a known extension are read, sorted by name; if the source has a format, all files. Links
    to folders are followed, and no file is read twice. `skipped` is called with each file or folder that is not read,
    and the reason, except for hidden ones.

    Raises:
        OSError: A file does not exist, or cannot be read.
        UnknownFormatError: The extension of a file is not known.
        ValueError: A folder has no files to read; files of plain text are to have columns; stdin is named twice.
    """
    files: list[Path] = []
    for path in source.files:
        if str(path) != "-" and path.is_dir():
            inside = sorted(_inside(path, exclude, source.format is not None, skipped))
            if not inside:
                raise ValueError(f"{path}: no file in this folder has a known format ({', '.join(EXTENSIONS)}).")
            files += inside
        else:
            files.append(path)
    formats = {_check_file(source, path) for path in files}
    if formats <= {"lines", "paragraphs"} and source.column != Source.column:
        raise ValueError(f"{files[0]}: plain text has no column {source.column!r}.")
    if sum(str(path) == "-" for path in files) > 1:
        raise ValueError("-: standard input can be read once.")
    return files


def _check_file(source: Source, path: Path) -> str:
    """The format of a file. Raises what `find_files` does."""
    if str(path) != "-":
        path.stat()  # does it exist?
        if path.is_file():  # a pipe can be opened only once
            open(path, "rb").close()
    format = format_of(source, path)
    if format in ("lines", "paragraphs") and (names := [*source.required[1:], *source.keep]):
        raise ValueError(f"{path}: plain text has no column {names[0]!r}.")
    if format == "parquet" and (str(path) == "-" or suffixes(path)[1]):
        raise ValueError(f"{path}: Parquet can be read only from an uncompressed file.")
    return format


def _inside(top: Path, exclude: Sequence[Path], any_extension: bool, skipped: Skipped) -> Iterator[Path]:
    """The files in a folder that are to be read, each once, however many links lead to it."""
    seen = {Path(os.path.realpath(path)) for path in exclude}
    paths, links = [top], list[Path]()  # files and folders come before links to them
    while paths or links:
        path = (paths or links).pop()
        real = Path(os.path.realpath(path))  # unlike resolve(), never raises at circular links
        if real in seen or (path != top and top.resolve().is_relative_to(real)):
            if path.is_symlink():
                skipped(path, "a link to a file or folder that is read already")
        elif path != top and (reason := _why_skipped(path, any_extension)):
            skipped(path, reason)
        elif path.is_dir():
            for inner in sorted(path.iterdir(), reverse=True):  # the last is popped first
                if not inner.name.startswith("."):
                    (links if inner.is_symlink() else paths).append(inner)
        else:
            yield path
        seen.add(real)


def _why_skipped(path: Path, any_extension: bool) -> str:
    """Why a file or a folder inside a folder is not read, or ""."""
    if path.name.startswith("_"):
        return "its name begins with _"
    if path.is_dir():
        return "written by regard" if (path / "_regard.json").is_file() else ""
    if not path.is_file():
        return "a broken link" if path.is_symlink() and not path.exists() else "not a file"
    if path.name.partition(".")[0].upper() in _DOCUMENTATION:
        return "it describes the folder"
    extension, _ = suffixes(path)
    if extension not in EXTENSIONS and not any_extension:
        return "its type is not known"
    return "written by regard" if extension == ".parquet" and read_metadata(path) else ""


def read_records(
    source: Source, files: Sequence[Path], position: Position | None = None
) -> Iterator[Record | BadRecord]:
    """The records in files that `find_files` has returned. `position` is kept up to date."""
    position = Position() if position is None else position
    if all(path.is_file() for path in files):
        position.total = sum(path.stat().st_size for path in files)
    for path in files:
        yield from _read_file(source, path, position)


def _read_file(source: Source, path: Path, position: Position) -> Iterator[Record | BadRecord]:
    import pyarrow as pa

    format = format_of(source, path)
    if format == "parquet":
        yield from parquet_rows(source, path, position)
        return
    lines, count = Lines(path, position, raw=format in ("csv", "tsv")), 0
    try:
        if lines.is_utf16():
            yield BadRecord(lines.name, "it is encoded in UTF-16: convert it to UTF-8.")
            return
        for record in READERS[format](source, lines):
            count += 1
            yield record
    except (pa.ArrowException, OSError, *DAMAGE) as error:
        if isinstance(error, OSError) and error.errno:
            raise type(error)(error.errno, os.strerror(error.errno), printable_path(path)) from None
        if not lines.compression:
            raise
        after = f"item {count}" if format == "json" else f"line {lines.number}"
        yield BadRecord(f"{lines.name}, after {after}", f"the rest is lost: the file is damaged ({one_line(error)}).")
    finally:
        lines.close()
