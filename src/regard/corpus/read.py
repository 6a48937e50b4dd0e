"""Files of texts → records, one at a time, however large the files are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from regard.corpus.formats import READERS, plain
from regard.corpus.lines import DAMAGE, Lines, Position, suffixes
from regard.corpus.parquet import of_parquet
from regard.corpus.records import Bad, Format, Record, Source, UnknownFormatError, shown
from regard.corpus.table import about

__all__ = ["Bad", "Position", "Record", "Source", "find", "records"]

FORMATS: dict[str, Format] = {
    ".txt": "lines", ".text": "lines", ".md": "lines", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet", ".conllu": "conllu",
}  # fmt: skip
_ABOUT = ("README", "LICENSE", "LICENCE")  # files that tell of the others in their folder

LeaveOut = Callable[[Path, str], object]


def find(source: Source, but: Sequence[Path] = (), leave_out: LeaveOut = lambda path, why: None) -> list[Path]:
    """The files, in order, folders replaced by what is in them; without `but` and what lies in it.

    Of a folder are read, sorted by name, all files of a known type, or all at all where `source.format` says what they
    hold. Links to folders are followed, and each file is read once. `leave_out` is told of files that are not read, and
    why; of those whose name begins with a dot nobody is told.

    Raises:
        OSError: what is not there, or cannot be read.
        UnknownFormatError: a file of another type.
        ValueError: a folder without files to read; a column of files that have none; stdin, twice.
    """
    files: list[Path] = []
    for path in source.files:
        if str(path) != "-" and path.is_dir():
            inside = sorted(_inside(path, but, source.format is not None, leave_out))
            if not inside:
                raise ValueError(f"{path}: no file in this folder has a known format ({', '.join(FORMATS)}).")
            files += inside
        else:
            files.append(path)
    formats = set()
    for path in files:
        if str(path) != "-":
            path.stat()  # is it there?
            if path.is_file():  # a pipe can be opened only once
                open(path, "rb").close()
        format = _format(source, path)
        formats.add(format)
        if format in ("lines", "paragraphs") and (named := [*source.columns[1:], *source.keep]):
            raise ValueError(f"{path}: plain text has no column {named[0]!r}.")
        if format == "parquet" and (str(path) == "-" or suffixes(path)[1]):
            raise ValueError(f"{path}: Parquet can be read from an uncompressed file alone.")
    if formats <= {"lines", "paragraphs"} and source.column != Source.column:
        raise ValueError(f"{files[0]}: plain text has no column {source.column!r}.")
    if sum(str(path) == "-" for path in files) > 1:
        raise ValueError("-: standard input can be read once.")
    return files


def _format(source: Source, path: Path) -> Format:
    suffix, _ = suffixes(path)
    if source.format is None and suffix and suffix not in FORMATS:
        raise UnknownFormatError(f"{path}: files of the type {suffix} are not known, as {', '.join(FORMATS)} are.")
    return source.format or FORMATS.get(suffix, "lines")


def _inside(top: Path, but: Sequence[Path], any_type: bool, leave_out: LeaveOut) -> Iterator[Path]:
    """The files in a folder that are to be read, each once, whatever links lead to it."""
    seen = {Path(os.path.realpath(path)) for path in but}
    paths, links = [top], list[Path]()  # what is there itself comes before links to it
    while paths or links:
        path = (paths or links).pop()
        real = Path(os.path.realpath(path))  # never raises, as resolve() does where links go round
        if real in seen or (path != top and top.resolve().is_relative_to(real)):
            if path.is_symlink():
                leave_out(path, "a link to what is read already")
        elif path != top and (why := _why_not(path, any_type)):
            leave_out(path, why)
        elif path.is_dir():
            for inner in sorted(path.iterdir(), reverse=True):  # the last is taken first
                if not inner.name.startswith("."):
                    (links if inner.is_symlink() else paths).append(inner)
        else:
            yield path
        seen.add(real)


def _why_not(path: Path, any_type: bool) -> str:
    """Why a file or a folder in a folder is not read."""
    if path.name.startswith("_"):
        return "its name begins with _"
    if path.is_dir():
        return "made by regard" if (path / "_regard.json").is_file() else ""
    if not path.is_file():
        return "a link to nothing" if path.is_symlink() and not path.exists() else "not a file"
    if path.name.partition(".")[0].upper() in _ABOUT:
        return "it tells of the folder"
    suffix, _ = suffixes(path)
    if suffix not in FORMATS and not any_type:
        return "of no known type"
    return "made by regard" if suffix == ".parquet" and about(path) else ""


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
        yield from of_parquet(source, path, position)
        return
    lines, count = Lines(path, position, raw=format in ("csv", "tsv")), 0
    try:
        for record in READERS[format](source, lines):
            count += 1
            yield record
    except (pa.ArrowException, OSError, *DAMAGE) as error:
        if isinstance(error, OSError) and error.errno:
            raise type(error)(error.errno, os.strerror(error.errno), shown(path)) from None
        if not lines.compression:
            raise
        after = f"item {count}" if format == "json" else f"line {lines.number}"
        yield Bad(f"{lines.name}, after {after}", f"the rest is lost: the file is damaged ({plain(error)}).")
    finally:
        lines.close()
