"""Shards: runs of records that are embedded and written together, each on its own, so that what was done stays done."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from regard.corpus import table as tables
from regard.corpus.lines import Position
from regard.corpus.read import records
from regard.corpus.recipe import Recipe
from regard.corpus.records import Bad, Record, Source
from regard.lens import Lens
from regard.lens.embed import Embeddings

TEXTS, CHARACTERS = 1024, 1 << 18  # of a part, at most: all that is in memory at once

Progress = Callable[[int, int, float | None], object]


@dataclass
class Part:
    """Records that are embedded and written together, with their numbers in the source; bad: met among them.

    share: of all files, before it and with it; None where that is not known.
    """

    number: int
    numbers: list[int] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    bad: list[Bad] = field(default_factory=list)
    share: tuple[float, float] | None = None

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"part-{self.number:06}.parquet"

    def digest(self, about: dict[str, str], source: Source) -> str:
        """Tells it from parts with other records, and from what another recipe makes of them."""
        both = zip(self.numbers, self.records, strict=True)
        content = [(number, record.id, record.text, record.words) for number, record in both]
        columns = tables.content(tables.kept(source, self.records))
        places = [str(record.at) for record in self.records] if source.places else []
        return hashlib.sha256(json.dumps([about, content, columns, places]).encode()).hexdigest()


def parts(source: Source, files: Sequence[Path]) -> Iterator[Part]:
    """All records, in order, in parts that depend on nothing but the records."""
    position = Position()
    part, characters, before = Part(0), 0, 0.0

    def whole() -> Part:
        nonlocal before
        if position.total:
            part.share = before, before = before, min(position.read / position.total, 1)
        return part

    for number, record in enumerate(_without_doubles(records(source, files, position))):
        if isinstance(record, Bad):
            part.bad.append(record)
            continue
        size = len(record.text) + sum(map(tables.size, record.kept))
        if part.records and (len(part.records) == TEXTS or characters + size > CHARACTERS):
            yield whole()
            part, characters = Part(part.number + 1), 0
        part.records.append(record)
        part.numbers.append(number)
        characters += size
    if part.records or part.bad:
        yield whole()


def _without_doubles(found: Iterator[Record | Bad]) -> Iterator[Record | Bad]:
    """A record whose id was there before is bad. Where there are many ids, they are kept on disk."""
    seen: sqlite3.Connection | None = None
    try:
        for record in found:
            if isinstance(record, Bad) or record.id is None:
                yield record
                continue
            if seen is None:
                seen = sqlite3.connect("", check_same_thread=False)
                seen.execute("create table ids (id text primary key, place text) without rowid")
            if seen.execute("insert or ignore into ids values (?, ?)", (record.id, record.place)).rowcount:
                yield record
            else:
                (first,) = seen.execute("select place from ids where id = ?", (record.id,)).fetchone()
                yield Bad(record.place, f"its id {record.id!r} was there before, in {first}.")
    finally:
        if seen is not None:
            seen.close()


@dataclass(frozen=True)
class Job:
    """All that one needs to know to make a part. about: what the files' metadata says of how it was made."""

    source: Source
    files: Sequence[Path]
    recipe: Recipe
    folder: Path
    about: dict[str, str]

    def done(self, part: Part) -> dict[str, str]:
        """What the metadata of its file says, if it is there and is this part, made by this recipe; or nothing."""
        said = tables.about(self.folder / part.file)
        return said if said.get("digest") == part.digest(self.about, self.source) else {}

    def make(
        self, part: Part, lens: Lens, progress: Callable[[int, int], object] = lambda texts, tokens: None
    ) -> dict[str, str]:
        """Embed a part and write its file. Gives what the metadata says."""
        embeddings = self.recipe.embed(lens, part.records, progress)
        why = tables.unstored(embeddings, self.recipe.store)
        for n, reason in embeddings.errors.items():
            why[n] = reason.removeprefix(f"embed: {part.records[n].place}: ")
        good = [n for n in range(len(part.records)) if n not in why]
        records, numbers = [part.records[n] for n in good], [part.numbers[n] for n in good]
        embeddings = _chosen(embeddings, good)
        table = tables.table(self.source, records, embeddings, numbers, self.recipe.store, self.recipe.unit)
        said = {
            "texts": str(len(records)),
            "vectors": str(len(table)),
            "tokens": str(sum(embeddings.tokens)),
            "truncated": str(sum(at is not None for at in embeddings.truncated)),
            "refused": json.dumps([(part.records[n].place, why[n]) for n in sorted(why)]),
            "digest": part.digest(self.about, self.source),
        }
        tables.save(self.folder / part.file, [table], self.about | said)
        return said


def _chosen(embeddings: Embeddings, texts: list[int]) -> Embeddings:
    """The embeddings of some of the texts."""
    if len(texts) == len(embeddings):
        return embeddings

    def of(values: Any) -> Any:
        return [values[n] for n in texts] if isinstance(values, list) else values[texts]

    names = "vectors", "spans", "truncated", "windows", "tokens"
    return replace(embeddings, **{name: of(getattr(embeddings, name)) for name in names})
