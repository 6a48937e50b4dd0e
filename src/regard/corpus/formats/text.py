"""Plain text: a text per line, or per paragraph."""

from __future__ import annotations

from collections.abc import Iterator

from regard.corpus.lines import MAX_LINE, Lines
from regard.corpus.records import BadRecord, Place, Record, Source, make_record


def too_long(at: Place) -> BadRecord:
    """The record of a line, or of a paragraph, that is too long to be read."""
    return BadRecord(str(at), f"longer than {MAX_LINE:,} bytes.")


def by_line(source: Source, lines: Lines) -> Iterator[Record | BadRecord]:
    """A text per line."""
    for line in lines:
        if line is None:
            yield too_long(lines.at())
        elif line.strip():
            yield make_record(source, lines.at(), line.strip())


def by_paragraph(source: Source, lines: Lines) -> Iterator[Record | BadRecord]:
    """A text per block of lines between blank ones."""
    for number, block in paragraphs(lines):
        if isinstance(block, BadRecord):
            yield block
        else:
            yield make_record(source, lines.at(number), "\n".join(block).strip())


def paragraphs(lines: Lines) -> Iterator[tuple[int, list[str] | BadRecord]]:
    """Blocks of lines between blank ones, with the number of the first line."""
    block: list[str] = []
    first = size = 0
    for line in lines:
        if line is not None and not line.strip():
            if size:
                yield first, block if size < MAX_LINE else too_long(lines.at(first))
            block, size = [], 0
            continue
        first = first if size else lines.number
        size += MAX_LINE if line is None else len(line)
        if line is not None and size < MAX_LINE:
            block.append(line.rstrip("\r\n"))
    if size:
        yield first, block if size < MAX_LINE else too_long(lines.at(first))
