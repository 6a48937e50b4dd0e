"""JSON: an object per line, or an array of objects, or objects one after another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from regard.corpus.formats.text import too_long
from regard.corpus.lines import MAX_LINE, Lines
from regard.corpus.records import BadRecord, Place, Record, Source, list_columns, make_record, one_line


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are all different."""
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {repeated!r} is in one object {names.count(repeated)} times")
    return row


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def json_lines(source: Source, lines: Lines) -> Iterator[Record | BadRecord]:
    """A record per line."""
    for line in lines:
        if line is None:
            yield too_long(lines.at())
        elif line.strip():
            try:
                row = _DECODER.decode(line)
            except (ValueError, RecursionError) as error:
                yield BadRecord(str(lines.at()), f"not JSON: {one_line(error)}.")
                continue
            yield _record(source, lines.at(), row)


def json_values(source: Source, lines: Lines) -> Iterator[Record | BadRecord]:
    """A record per item of an array, or per value of several one after another; the file is read a block at a time."""
    number = 1
    try:
        for value in _values(_Scanner(lines)):
            yield _record(source, Place(lines.name, number, "item"), value)
            number += 1
    except (ValueError, RecursionError) as error:
        why = error.msg if isinstance(error, json.JSONDecodeError) else one_line(error)
        yield BadRecord(str(Place(lines.name, number, "item")), f"not JSON: {why}; the rest is lost.")


def _values(text: _Scanner) -> Iterator[Any]:
    if text.peek() != "[":
        while text.peek():
            yield text.value()
        return
    text.expect("[")
    while text.peek() not in ("]", ""):
        yield text.value()
        if text.peek() != "]":
            text.expect(",")
            if text.peek() == "]":
                raise ValueError("a value is missing after the last comma")
    text.expect("]")
    if text.peek():
        raise ValueError("more follows after the end of the array")


class _Scanner:
    """JSON values one after another, in a text that is read a block at a time; `at` is the place in `text`."""

    def __init__(self, lines: Lines) -> None:
        self.blocks = lines.blocks()
        self.text, self.at, self.ended = "", 0, False

    def peek(self) -> str:
        """The next character that is not white space, or "" at the end."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in " \t\r\n":
                self.at += 1
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self._read_more()

    def expect(self, character: str) -> None:
        """Pass over this character. Raises ValueError if another one is next."""
        if (actual := self.peek()) != character:
            raise ValueError(f"expected {character!r}. Got {repr(actual) if actual else 'the end of the file'}")
        self.at += 1

    def value(self) -> Any:
        """The value that begins here. Raises ValueError if there is none."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
            except (ValueError, RecursionError):
                if self.ended:
                    raise
                if len(self.text) - self.at > MAX_LINE:
                    raise ValueError(f"no value ends within {MAX_LINE:,} characters") from None
            else:
                if end < len(self.text) or self.ended:  # otherwise it may go on, as 12 of 123 does
                    self.at = end
                    return value
            self._read_more()

    def _read_more(self) -> None:
        """Double what is left of the text, if there is more."""
        rest = [self.text[self.at :]]
        size = len(rest[0]) + 1
        while size > 0 and not self.ended:
            block = next(self.blocks, "")
            self.ended = not block
            rest.append(block)
            size -= len(block)
        self.text, self.at = "".join(rest), 0


def _record(source: Source, at: Place, row: object) -> Record | BadRecord:
    if isinstance(row, str):
        row = {"text": row}
    if not isinstance(row, dict):
        return BadRecord(str(at), f"expected an object. Got {type(row).__name__}.")
    try:
        text = _look_up(row, source.column)
        id = None if source.id is None else _look_up(row, source.id)
    except KeyError as error:
        return BadRecord(str(at), f"it has no {error.args[0]!r}, but {list_columns(row)}.")
    kept = tuple(_look_up(row, name, None) for name in source.keep)
    return make_record(source, at, text, id, kept=kept)


_REQUIRED = object()


def _look_up(row: object, name: str, default: object = _REQUIRED) -> Any:
    """The value at a path such as "a.b.0" in objects and arrays. Raises KeyError if there is none, and no default.

    >>> _look_up({"a": {"b": ["x", "y"]}, "c.d": 7}, "a.b.1"), _look_up({"c.d": 7}, "c.d")
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
