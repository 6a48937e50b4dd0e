"""The formats that a corpus can have: lines of a file in, records out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from regard._typing import FileFormat
from regard.corpus.formats.conllu import conllu
from regard.corpus.formats.csv import comma_separated, tab_separated
from regard.corpus.formats.json import json_lines, json_values
from regard.corpus.formats.text import by_line, by_paragraph
from regard.corpus.lines import Lines, suffixes
from regard.corpus.records import BadRecord, Record, Source, UnknownFormatError

EXTENSIONS: dict[str, FileFormat] = {
    ".txt": "lines", ".text": "lines", ".md": "lines", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet", ".conllu": "conllu",
}  # fmt: skip

# Parquet has no lines, and is read by formats.parquet.
READERS: dict[FileFormat, Callable[[Source, Lines], Iterator[Record | BadRecord]]] = {
    "lines": by_line, "paragraphs": by_paragraph, "json": json_values, "jsonl": json_lines, "csv": comma_separated,
    "tsv": tab_separated, "conllu": conllu,
}  # fmt: skip


def format_of(source: Source, path: Path) -> FileFormat:
    """The format of a file: that of the source, or by its extension. Raises UnknownFormatError."""
    extension, _ = suffixes(path)
    if source.format is None and extension and extension not in EXTENSIONS:
        raise UnknownFormatError(
            f"{path}: files of the type {extension} are not known, as {', '.join(EXTENSIONS)} are."
        )
    return source.format or EXTENSIONS.get(extension, "lines")
