"""CoNLL-U, the format of treebanks: https://universaldependencies.org/format.html."""

from __future__ import annotations

from collections.abc import Iterator

from regard._internal.plurals import counted
from regard.corpus.formats.text import paragraphs
from regard.corpus.lines import Lines
from regard.corpus.records import BadRecord, Place, Record, Source, list_columns, make_record


def conllu(source: Source, lines: Lines) -> Iterator[Record | BadRecord]:
    """A text per sentence, with its words."""
    for number, block in paragraphs(lines):
        yield block if isinstance(block, BadRecord) else _sentence(source, lines.at(number), block)


def _sentence(source: Source, at: Place, block: list[str]) -> Record | BadRecord:
    comments: dict[str, str] = {}
    rows = []
    for line in block:
        if line.startswith("#"):
            name, equals, value = line[1:].partition("=")
            comments |= {name.strip(): value.strip()} if equals else {}
        else:
            rows.append(line.split("\t"))
    try:
        _check_sentence(source, comments, rows)
        forms = _forms(rows)
        text = comments.get("text") or "".join(form + " " * space for form, space in forms).strip()
        words = _find_words(text, [form for form, _ in forms])
    except ValueError as error:
        return BadRecord(str(at), str(error))
    id = None if source.id is None else comments[source.id]
    return make_record(source, at, text, id, words, tuple(comments.get(name) for name in source.keep))


def _check_sentence(source: Source, comments: dict[str, str], rows: list[list[str]]) -> None:
    if not rows:
        raise ValueError("this sentence has no words.")
    for row in rows:
        if len(row) != 10:
            raise ValueError(f"a line of this sentence has {counted(len(row), 'column')}. CoNLL-U has 10.")
    for name in source.required[1:]:
        if name not in comments:
            raise ValueError(f"this sentence has no comment {name!r}, but {list_columns(comments)}.")


def _forms(rows: list[list[str]]) -> list[tuple[str, bool]]:
    """The words as they are written, and whether a space follows each."""
    forms: list[tuple[str, bool]] = []
    covered = 0  # the last word in a multiword token: 3-4 don't covers 3 do and 4 n't
    for number, form, *_, misc in rows:
        first, dash, end = number.partition("-")
        if not first.isdecimal() or (dash and not end.isdecimal()):
            if "." in number:
                continue  # an empty node is not written
            raise ValueError(f"{number!r} is not a word number.")
        if not form.strip():
            raise ValueError(f"the word {number} is empty.")
        if dash or int(first) > covered:
            forms.append((form, "SpaceAfter=No" not in misc.split("|")))
            covered = int(end) if dash else covered
    return forms


def _find_words(text: str, forms: list[str]) -> list[tuple[int, int]]:
    """The (start, end) of words that follow one another in a text."""
    spans, after = [], 0
    for form in forms:
        start = text.find(form, after)
        if start < 0:
            raise ValueError(f"the word {form!r} is not in the text of the sentence.")
        after = start + len(form)
        spans.append((start, after))
    return spans
