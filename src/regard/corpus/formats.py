"""The formats: lines of text → records."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from typing import Any

from regard._internal.plurals import counted
from regard.corpus.lines import LINE, Lines
from regard.corpus.records import Bad, Format, Place, Record, Source, checked, columns


def plain(error: BaseException) -> str:
    """What an error says, in one line, to be followed by something."""
    return " ".join(str(error).split()).rstrip(".")


def _too_long(at: Place) -> Bad:
    return Bad(str(at), f"longer than {LINE:,} bytes.")


def by_line(source: Source, lines: Lines) -> Iterator[Record | Bad]:
    """A text a line."""
    for line in lines:
        if line is None:
            yield _too_long(lines.at())
        elif line.strip():
            yield checked(source, lines.at(), line.strip())


def by_paragraph(source: Source, lines: Lines) -> Iterator[Record | Bad]:
    """A text a block of lines between blank ones."""
    for number, block in _blocks(lines):
        yield block if isinstance(block, Bad) else checked(source, lines.at(number), "\n".join(block).strip())


def _blocks(lines: Lines) -> Iterator[tuple[int, list[str] | Bad]]:
    """Lines between blank ones, and the number of the first of them."""
    block: list[str] = []
    first = size = 0
    for line in lines:
        if line is not None and not line.strip():
            if size:
                yield first, block if size < LINE else _too_long(lines.at(first))
            block, size = [], 0
            continue
        first = first if size else lines.number
        size += LINE if line is None else len(line)
        if line is not None and size < LINE:
            block.append(line.rstrip("\r\n"))
    if size:
        yield first, block if size < LINE else _too_long(lines.at(first))


# JSON


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} is in one object {names.count(twice)} times")
    return row


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def jsonl(source: Source, lines: Lines) -> Iterator[Record | Bad]:
    """An object a line."""
    for line in lines:
        if line is None:
            yield _too_long(lines.at())
        elif line.strip():
            try:
                row = _DECODER.decode(line)
            except (ValueError, RecursionError) as error:
                yield Bad(str(lines.at()), f"no JSON: {plain(error)}.")
                continue
            yield _of_json(source, lines.at(), row)


def json_values(source: Source, lines: Lines) -> Iterator[Record | Bad]:
    """An array of objects, or objects one after another, a piece at a time."""
    text = _Pieces(lines)
    array = text.next() == "["
    text.skip(array)
    number = 1
    try:
        while (text.next() not in ("]", "")) if array else text.next():
            yield _of_json(source, Place(lines.name, number, "item"), text.value())
            number += 1
            if array and text.next() != "]":
                text.expect(",")
                if text.next() == "]":
                    raise ValueError("a value is missing after the last comma")
        if array:
            text.expect("]")
            if text.next():
                raise ValueError("more follows after the end of the array")
    except (ValueError, RecursionError) as error:
        why = error.msg if isinstance(error, json.JSONDecodeError) else plain(error)
        yield Bad(str(Place(lines.name, number, "item")), f"no JSON: {why}; the rest is lost.")


class _Pieces:
    """JSON that is read a piece at a time, from `at` on in `text`."""

    def __init__(self, lines: Lines) -> None:
        self.pieces = lines.pieces()
        self.text, self.at, self.ended = "", 0, False

    def more(self) -> None:
        """Twice as much text, if there is any more."""
        parts = [self.text[self.at :]]
        size = len(parts[0]) + 1
        while size > 0 and not self.ended:
            piece = next(self.pieces, "")
            self.ended = not piece
            parts.append(piece)
            size -= len(piece)
        self.text, self.at = "".join(parts), 0

    def next(self) -> str:
        """The character that comes after white space, or ""."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in " \t\r\n":
                self.at += 1
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self.more()

    def skip(self, count: int) -> None:
        self.at += count

    def expect(self, character: str) -> None:
        if (found := self.next()) != character:
            raise ValueError(f"expected {character!r}. Got {repr(found) if found else 'the end of the file'}")
        self.skip(1)

    def value(self) -> Any:
        """The value that begins here. Raises ValueError where there is none."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
            except (ValueError, RecursionError):
                if self.ended:
                    raise
                if len(self.text) - self.at > LINE:
                    raise ValueError(f"no value ends within {LINE:,} characters") from None
            else:
                if end < len(self.text) or self.ended:  # else it may go on, as 12 of 123
                    self.at = end
                    return value
            self.more()


def _of_json(source: Source, at: Place, row: object) -> Record | Bad:
    if isinstance(row, str):
        row = {"text": row}
    if not isinstance(row, dict):
        return Bad(str(at), f"expected an object. Got {type(row).__name__}.")
    try:
        text = _inside(row, source.column)
        id = None if source.id is None else _inside(row, source.id)
    except KeyError as error:
        return Bad(str(at), f"it has no {error.args[0]!r}, but {columns(row)}.")
    kept = tuple(_inside(row, name, None) for name in source.keep)
    return checked(source, at, text, id, kept=kept)


_REQUIRED = object()


def _inside(row: object, name: str, default: object = _REQUIRED) -> Any:
    """What a path such as "a.b.0" leads to, in objects and arrays. Raises KeyError where it leads nowhere.

    >>> _inside({"a": {"b": ["x", "y"]}, "c.d": 7}, "a.b.1"), _inside({"c.d": 7}, "c.d")
    ('y', 7)
    """
    path, value, dot = name, row, "."
    while dot:
        if isinstance(value, dict) and path in value:
            return value[path]
        head, dot, path = path.partition(".")
        if isinstance(value, dict) and head in value:
            value = value[head]
        elif isinstance(value, list) and head.isdecimal() and int(head) < len(value):
            value = value[int(head)]
        elif default is _REQUIRED:
            raise KeyError(name)
        else:
            return default
    return value


# Tables


def comma_separated(source: Source, lines: Lines) -> Iterator[Record | Bad]:
    """A record a row, as RFC 4180 has it: a quoted cell may hold commas, line ends and doubled quotes."""
    too_long: list[Place] = []
    return _rows(source, lines, csv.reader(_readable(lines, too_long), strict=True), too_long)


def tab_separated(source: Source, lines: Lines) -> Iterator[Record | Bad]:
    """A record a row; a quote is a character like any other."""
    too_long: list[Place] = []
    rows = csv.reader(_readable(lines, too_long), delimiter="\t", quoting=csv.QUOTE_NONE)
    return _rows(source, lines, rows, too_long)


def _readable(lines: Lines, too_long: list[Place]) -> Iterator[str]:
    for line in lines:
        if line is None:
            too_long.append(lines.at())
        else:
            yield line


def _rows(source: Source, lines: Lines, rows: Any, too_long: list[Place]) -> Iterator[Record | Bad]:
    csv.field_size_limit(max(csv.field_size_limit(), LINE))
    wanted = [*source.columns, *source.keep]
    header: list[str] = []
    while True:
        at, before = lines.at(lines.number + 1), rows.line_num
        try:
            row = next(rows, None)
        except csv.Error as error:
            alone = header and lines.number == at.line  # then the next line begins a row
            yield Bad(str(at), f"{plain(error)}." if alone else f"{plain(error)}; the rest is lost.")
            if alone:
                continue
            return
        if too_long:
            yield from map(_too_long, too_long)
            too_long.clear()
            if rows.line_num - before > 1:  # it may be a line of this row
                continue
            at = lines.at()
        if row is None:
            return
        if not header:
            header = row
            if row and (why := _why_not(wanted, header)):
                yield Bad(lines.name, why)
                return
        elif row and len(row) != len(header):
            yield Bad(str(at), f"{counted(len(row), 'column')}, and the first line has {len(header):,}.")
        elif row:
            yield _of_row(source, at, dict(zip(header, row, strict=True)), rows.dialect.quoting == csv.QUOTE_NONE)


def _why_not(wanted: list[str], header: list[str]) -> str:
    """Why a table with this header cannot be read."""
    for name in wanted:
        if name not in header:
            return f"it has no column {name!r}, but {columns(header)}."
        if header.count(name) > 1:
            return f"its header has the column {name!r} {header.count(name)} times."
    return ""


def _of_row(source: Source, at: Place, row: dict[str, str], unquoted: bool) -> Record | Bad:
    for name in [*source.columns, *source.keep] if unquoted else ():
        cell = row[name]
        if len(cell) > 1 and cell[0] == cell[-1] == '"' and '""' in cell[1:-1]:
            return Bad(str(at), f"its {name!r} is quoted as in CSV; in TSV a quote is a character like any other.")
    id = None if source.id is None else row[source.id]
    return checked(source, at, row[source.column], id, kept=tuple(row[name] for name in source.keep))


# CoNLL-U


def conllu(source: Source, lines: Lines) -> Iterator[Record | Bad]:
    """https://universaldependencies.org/format.html: a sentence's text, and where its words lie in it."""
    for number, block in _blocks(lines):
        if isinstance(block, Bad):
            yield block
            continue
        at = lines.at(number)
        comments: dict[str, str] = {}
        rows = []
        for line in block:
            if line.startswith("#"):
                name, equals, value = line[1:].partition("=")
                comments |= {name.strip(): value.strip()} if equals else {}
            else:
                rows.append(line.split("\t"))
        if wrong := [row for row in rows if len(row) != 10]:
            yield Bad(str(at), f"a line of this sentence has {counted(len(wrong[0]), 'column')}. CoNLL-U has 10.")
        elif not rows:
            yield Bad(str(at), "this sentence has no words.")
        elif missing := [name for name in source.columns[1:] if name not in comments]:
            yield Bad(str(at), f"this sentence has no comment {missing[0]!r}, but {columns(comments)}.")
        else:
            yield _sentence(source, at, comments, rows)


def _sentence(source: Source, at: Place, comments: dict[str, str], rows: list[list[str]]) -> Record | Bad:
    forms: list[tuple[str, bool]] = []  # as they are written, and whether a space follows
    covered = 0  # words up to here are parts of one that is written as one: 3-4 don't, 3 do, 4 n't
    for number, form, *_, last in rows:
        first, dash, end = number.partition("-")
        if not first.isdecimal() or (dash and not end.isdecimal()):
            if "." in number:
                continue  # an empty node: nothing is written
            return Bad(str(at), f"{number!r} is no number of a word.")
        if not form.strip():
            return Bad(str(at), f"the word {number} is empty.")
        if dash or int(first) > covered:
            forms.append((form, "SpaceAfter=No" not in last.split("|")))
            covered = int(end) if dash else covered
    text = comments.get("text") or "".join(form + " " * space for form, space in forms).strip()
    spans, after = [], 0
    for form, _ in forms:
        start = text.find(form, after)
        if start < 0:
            return Bad(str(at), f"the word {form!r} is not in the text of the sentence.")
        after = start + len(form)
        spans.append((start, after))
    id = None if source.id is None else comments[source.id]
    return checked(source, at, text, id, spans, tuple(comments.get(name) for name in source.keep))


READERS: dict[Format, Callable[[Source, Lines], Iterator[Record | Bad]]] = {
    "lines": by_line, "paragraphs": by_paragraph, "json": json_values, "jsonl": jsonl, "csv": comma_separated,
    "tsv": tab_separated, "conllu": conllu,
}  # fmt: skip
