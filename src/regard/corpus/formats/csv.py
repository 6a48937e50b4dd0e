"""CSV and TSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any

from regard._internal.plurals import counted
from regard.corpus.formats.text import too_long
from regard.corpus.lines import MAX_LINE, Lines
from regard.corpus.records import BadRecord, Place, Record, Source, list_columns, make_record, one_line


def comma_separated(source: Source, lines: Lines) -> Iterator[Record | BadRecord]:
    """A record per row, as in RFC 4180: a quoted cell may hold commas, line ends and doubled quotes."""
    return _Reader(source, lines, strict=True).records()


def tab_separated(source: Source, lines: Lines) -> Iterator[Record | BadRecord]:
    """A record per row; a quote is a character like any other."""
    return _Reader(source, lines, delimiter="\t", quoting=csv.QUOTE_NONE).records()


class _Reader:
    """Rows by Python's csv, and the places of lines that are too long to be among them."""

    def __init__(self, source: Source, lines: Lines, **dialect: Any) -> None:
        csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE))
        self.source, self.lines = source, lines
        self.too_long: list[Place] = []
        self.rows = csv.reader(self._readable_lines(), **dialect)

    def _readable_lines(self) -> Iterator[str]:
        for line in self.lines:
            if line is None:
                self.too_long.append(self.lines.at())
            else:
                yield line

    def records(self) -> Iterator[Record | BadRecord]:
        header: list[str] = []
        while True:
            at, line_before = self.lines.at(self.lines.number + 1), self.rows.line_num
            try:
                row = next(self.rows, None)
            except csv.Error as error:
                in_one_line = header and self.lines.number == at.line  # then the next line begins a row
                yield BadRecord(str(at), one_line(error) + ("." if in_one_line else "; the rest is lost."))
                if in_one_line:
                    continue
                return
            if self.too_long:
                yield from map(too_long, self.too_long)
                self.too_long.clear()
                if self.rows.line_num - line_before > 1:  # the long line may belong to this row
                    continue
                at = self.lines.at()
            if row is None:
                return
            if not header:
                header = row
                if row and (why := _why_bad_header(self.source, header)):
                    yield BadRecord(self.lines.name, why)
                    return
            elif row:
                yield self._record(at, header, row)

    def _record(self, at: Place, header: list[str], cells: list[str]) -> Record | BadRecord:
        if len(cells) != len(header):
            return BadRecord(str(at), f"{counted(len(cells), 'column')}, and the first line has {len(header):,}.")
        row = dict(zip(header, cells, strict=True))
        if self.rows.dialect.quoting == csv.QUOTE_NONE and (name := _quoted_column(self.source, row)):
            return BadRecord(str(at), f"its {name!r} is quoted as in CSV; in TSV a quote is an ordinary character.")
        id = None if self.source.id is None else row[self.source.id]
        return make_record(
            self.source, at, row[self.source.column], id, kept=tuple(row[name] for name in self.source.keep)
        )


def _quoted_column(source: Source, row: dict[str, str]) -> str:
    """The name of a column whose cell is quoted as in CSV, with doubled quotes inside."""
    for name in source.columns:
        cell = row[name]
        if len(cell) > 1 and cell[0] == cell[-1] == '"' and '""' in cell[1:-1]:
            return name
    return ""


def _why_bad_header(source: Source, header: list[str]) -> str:
    for name in source.columns:
        if name not in header:
            return f"it has no column {name!r}, but {list_columns(header)}."
        if header.count(name) > 1:
            return f"its header has the column {name!r} {header.count(name)} times."
    return ""
