"""A run: records in parts, each embedded and written on its own, so that what was done stays done."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from regard.corpus import table as tables
from regard.corpus.folder import OutputExistsError, begin, made_by_regard, merge, move, working
from regard.corpus.lines import Position
from regard.corpus.read import LeaveOut, find, records
from regard.corpus.recipe import Recipe
from regard.corpus.records import Bad, BadRecordError, Record, Source
from regard.lens import Lens
from regard.lens.embed import Embeddings

TEXTS, CHARACTERS = 1024, 1 << 18  # of a part, at most: all that is in memory at once

Progress = Callable[[int, int, float | None], object]


def embed_files(
    source: Source,
    out: str | Path,
    recipe: Recipe | None = None,
    *,
    on_error: Literal["stop", "skip"] = "stop",
    on: str = "local",
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress = lambda texts, tokens, share: None,
    warn: Callable[[str], object] = lambda message: None,
    leave_out: LeaveOut = lambda path, why: None,
) -> dict[str, int]:
    """Embed all texts of a source, and write `out`: FILE.parquet, or a folder of such files.

    Columns at sentence level, a row a text: text_id, text, truncated, vector (fixed_size_list); of tokens, words and
    chunks, a row a vector: text_id, index, start, end, token, word or chunk, truncated, vector; with int8 also scale,
    which times a vector is the one that was. text_id is the record's id, or its number in the source. After it come
    `file` and `line` where the source asks for places, and the columns that it keeps, which have the type of the file,
    or of JSON: numbers, truth values, texts; all else, and what is mixed, as JSON in texts. The schema's metadata says
    how it was made: regard.model and so on.

    What is done lies in `out`.parts until all of it is. A run that was stopped, however it was, goes on there when it
    is started again, and `out` is then the same, byte for byte, as that of a run never stopped.

    Args:
        source: where the texts are.
        out: what is written in the end, and not before.
        recipe: the model, and what is made with it; sentences with the embedded one, if not given.
        on_error: a record that cannot be embedded ends the run ("stop"), or is told to `warn` and left out ("skip").
        on: "local", "ray", or "ray=ADDRESS" of a cluster.
        workers: processes on the cluster; as many as it has processors, if not given.
        overwrite: replace what is there, or was begun by another run.
        progress: is told of texts and tokens that were embedded, and the share of the files that is done, if known.
        warn: is told of bad records, of what one would not expect of the model, and of kept columns without a value.
        leave_out: is told of files in folders that are not read, and why (see `read.find`).

    Returns: the counts of texts, vectors, tokens, truncated texts and bad records, and the vectors' dim.

    Raises:
        BadRecordError: a record that cannot be embedded, with its file and line, unless `on_error` is "skip".
        ValueError: options that are not known; a file of an unknown type; no text at all.
        OSError: a file that is not there, or cannot be read or written; another run is at work on `out`.
        OutputExistsError: `out` is there already, or was begun with other options.
        ImportError: what is needed is not installed.
    """
    where, _, address = on.partition("=")
    if where not in ("local", "ray") or (where == "local" and address):
        raise ValueError(f"embed: on: expected 'local', 'ray' or 'ray=ADDRESS'. Got {on!r}.")
    if workers is not None and where == "local":
        raise ValueError("embed: workers: only with on='ray'; here all threads of one process work.")
    for name, extra in (("pyarrow", "corpus"), ("ray", "ray")):
        if name in ("pyarrow", where) and find_spec(name) is None:
            raise ImportError(f"This needs {name}: pip install 'regard[{extra}]'.")
    out, recipe = _target(out), recipe or Recipe()
    folder = out.with_name(f"{out.name}.parts")
    if out.exists() and not overwrite and not folder.exists() and (out.is_file() or any(out.iterdir())):
        raise OutputExistsError(f"{out} is there already: choose another name.")
    _check_columns(source, recipe)
    files = find(source, [out, folder], leave_out)
    if where == "ray":
        files = [path if str(path) == "-" else path.absolute() for path in files]  # workers begin in other folders
    for path in files:
        if path.resolve().is_relative_to(out):
            raise ValueError(f"{path} would be read, and replaced by what is written to {out}: choose another name.")
    counts = dict.fromkeys(("texts", "vectors", "tokens", "truncated", "bad"), 0)

    def tell(bad: Bad) -> None:
        if on_error == "stop":
            raise BadRecordError(str(bad))
        counts["bad"] += 1
        warn(str(bad))

    def count(said: dict[str, str]) -> None:
        for name in ("texts", "vectors", "tokens", "truncated"):
            counts[name] += int(said[name])
        for place, why in json.loads(said["refused"]):
            tell(Bad(place, why))

    with working(folder):
        lens = recipe.open()
        if lens.note:
            warn(lens.note)
        job = Job(source, files, recipe, folder, recipe.about(lens))
        begin(folder, job.about, overwrite)
        names = []

        def undone() -> Iterator[Part]:
            for part in parts(source, files):
                names.append(part.file)
                for bad in part.bad:
                    tell(bad)
                if said := job.done(part):
                    count(said)
                    progress(0, 0, part.share and part.share[1])
                else:
                    yield part

        if where == "ray":
            from regard.corpus.cluster import embed_there

            made = embed_there(job, undone(), address, workers, progress)
        else:
            made = _embed_here(job, undone(), lens, progress)
        for said in made:
            count(said)
        filled = merge(folder, out, names, source, warn)
        counts["dim"] = tables.dim(filled[0])
    move(folder, out)
    return counts


def _target(out: str | Path) -> Path:
    """Where the output goes. Raises ValueError or FileExistsError where it cannot."""
    if Path(out).suffix not in ("", ".parquet"):
        raise ValueError(f"out: expected FILE.parquet, or the name of a folder. Got {str(out)!r}.")
    out = Path(os.path.realpath(out))
    if out.exists() and not made_by_regard(out):
        raise FileExistsError(f"{out} is there already, and nothing that regard embed has made: choose another name.")
    return out


def _check_columns(source: Source, recipe: Recipe) -> None:
    """Raises ValueError for columns that the output would have twice."""
    own = [*tables.RESERVED, recipe.unit, *(["text"] if recipe.unit == "sentence" else [])]
    for n, name in enumerate(source.keep):
        if name in own:
            raise ValueError(f"keep: the output has a column {name!r} of its own.")
        if name in source.keep[:n]:
            raise ValueError(f"keep: {name!r} is named twice.")


# Parts


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


def _embed_here(job: Job, undone: Iterator[Part], lens: Lens, progress: Progress) -> Iterator[dict[str, str]]:
    for part in undone:
        done = 0

        def tell(texts: int, tokens: int, part: Part = part) -> None:
            nonlocal done
            done += texts
            before, after = part.share or (0, 0)
            share = before + (after - before) * done / len(part.records)
            progress(texts, tokens, share if part.share else None)

        yield job.make(part, lens, tell)
