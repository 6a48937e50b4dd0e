"""Shards: records that are embedded and written together, in a file of their own, so that finished work is kept."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from regard.corpus import table as tables
from regard.corpus.config import EmbedConfig
from regard.corpus.files import read_records
from regard.corpus.lines import Position
from regard.corpus.records import BadRecord, Record, Source
from regard.lens import Lens
from regard.lens.embed import Embeddings

MAX_TEXTS, MAX_CHARACTERS = 1024, 1 << 18  # of a shard, which bounds what is in memory at once

Progress = Callable[[int, int, float | None], object]
"""Called with the texts and tokens just embedded, and the share of all files that is done, if known."""


@dataclass
class Shard:
    """Records with their numbers in the source, and the bad records among them.

    share: Of all files, before this shard and after it; None if that is not known.
    """

    number: int
    numbers: list[int] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    bad: list[BadRecord] = field(default_factory=list)
    share: tuple[float, float] | None = None

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"part-{self.number:06}.parquet"

    @property
    def share_after(self) -> float | None:
        """The share of all files that is done when this shard is."""
        return self.share and self.share[1]

    def fingerprint(self, manifest: dict[str, str], source: Source) -> str:
        """A hash of the records and of how they are embedded."""
        content = [
            (number, record.id, record.text, record.words)
            for number, record in zip(self.numbers, self.records, strict=True)
        ]
        columns = tables.content(tables.kept_columns(source, self.records))
        places = [str(record.at) for record in self.records] if source.places else []
        return hashlib.sha256(json.dumps([manifest, content, columns, places]).encode()).hexdigest()


def shards(source: Source, files: Sequence[Path]) -> Iterator[Shard]:
    """All records in order, in shards that depend on nothing but the records."""
    position = Position()
    shard, characters, share_before = Shard(0), 0, 0.0
    for number, record in enumerate(_unique_ids(read_records(source, files, position))):
        if isinstance(record, BadRecord):
            shard.bad.append(record)
            continue
        size = len(record.text) + sum(map(tables.size, record.kept))
        if shard.records and (len(shard.records) == MAX_TEXTS or characters + size > MAX_CHARACTERS):
            share_before = _set_share(shard, position, share_before)
            yield shard
            shard, characters = Shard(shard.number + 1), 0
        shard.records.append(record)
        shard.numbers.append(number)
        characters += size
    if shard.records or shard.bad:
        _set_share(shard, position, share_before)
        yield shard


def _set_share(shard: Shard, position: Position, before: float) -> float:
    """Set what share of the files a shard is, from `before` to the position, which is returned as a share."""
    after = min(position.read / position.total, 1) if position.total else before
    if position.total:
        shard.share = before, after
    return after


def _unique_ids(records: Iterator[Record | BadRecord]) -> Iterator[Record | BadRecord]:
    """The records, one whose id was there before as a bad record. The ids are kept in a temporary database."""
    ids: sqlite3.Connection | None = None
    try:
        for record in records:
            if isinstance(record, BadRecord) or record.id is None:
                yield record
                continue
            if ids is None:
                ids = sqlite3.connect("", check_same_thread=False)
                ids.execute("create table ids (id text primary key, place text) without rowid")
            if ids.execute("insert or ignore into ids values (?, ?)", (record.id, record.place)).rowcount:
                yield record
            else:
                (first,) = ids.execute("select place from ids where id = ?", (record.id,)).fetchone()
                yield BadRecord(record.place, f"its id {record.id!r} was used before, in {first}.")
    finally:
        if ids is not None:
            ids.close()


@dataclass(frozen=True)
class ShardJob:
    """Everything a worker needs to embed a shard. manifest: how the vectors are made, for the files' metadata."""

    source: Source
    files: Sequence[Path]
    config: EmbedConfig
    folder: Path
    manifest: dict[str, str]

    def finished(self, shard: Shard) -> dict[str, str]:
        """The statistics of a shard whose file is there and was made of the same records in the same way, or {}."""
        metadata = tables.read_metadata(self.folder / shard.file)
        return metadata if metadata.get("digest") == shard.fingerprint(self.manifest, self.source) else {}

    def embed(
        self, shard: Shard, lens: Lens, progress: Callable[[int, int], object] = lambda texts, tokens: None
    ) -> dict[str, str]:
        """Embed a shard, write its file, and return its statistics, which are also in the file's metadata."""
        embeddings = self.config.embed(lens, shard.records, progress)
        rejected = tables.unwritable(embeddings, self.config.output_dtype)
        for n, reason in embeddings.errors.items():
            rejected[n] = reason.removeprefix(f"embed: {shard.records[n].place}: ")
        good = [n for n in range(len(shard.records)) if n not in rejected]
        embeddings = _select(embeddings, good)
        table = tables.to_table(
            self.source,
            [shard.records[n] for n in good],
            embeddings,
            [shard.numbers[n] for n in good],
            self.config.output_dtype,
            self.config.unit,
        )
        stats = {
            "texts": str(len(good)),
            "vectors": str(len(table)),
            "tokens": str(sum(embeddings.tokens)),
            "truncated": str(sum(at is not None for at in embeddings.truncated)),
            "refused": json.dumps([(shard.records[n].place, rejected[n]) for n in sorted(rejected)]),
            "digest": shard.fingerprint(self.manifest, self.source),
        }
        tables.save(self.folder / shard.file, [table], self.manifest | stats)
        return stats


def _select(embeddings: Embeddings, texts: list[int]) -> Embeddings:
    """The embeddings of the texts with these numbers."""
    if len(texts) == len(embeddings):
        return embeddings

    def select(values: Any) -> Any:
        return [values[n] for n in texts] if isinstance(values, list) else values[texts]

    names = "vectors", "spans", "truncated", "windows", "tokens"
    return replace(embeddings, **{name: select(getattr(embeddings, name)) for name in names})
