"""A run: records in parts, each embedded and written on its own, so that what was done stays done."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from regard.corpus import table as tables
from regard.corpus.read import Bad, Position, Record, Source, find, records
from regard.corpus.table import Store
from regard.files import write
from regard.lens import Lens
from regard.lens.embed import Embeddings, Level, Mix, Pool, RefusedError, Subwords, Truncation

TEXTS, CHARACTERS = 1024, 1 << 18  # of a part, at most: all that is in memory at once
ABOUT, WHOLE = "_regard.json", "_all.parquet"  # in the folder of a run; datasets leave out what begins with _

Progress = Callable[[int, int, float | None], object]


@dataclass(frozen=True)
class Recipe:
    """What is made of each text: the model, and the options of `Lens.embed`. store: the type of the numbers kept."""

    model: str | None = None
    revision: str | None = None
    allow_pickle: bool = False
    level: Level = "sentence"
    layers: int | Sequence[int] | str = -1
    pool: Pool | None = None
    mix: Mix = "mean"
    subwords: Subwords = "mean"
    truncation: Truncation = "windows"
    prompt: str | None = None
    dtype: str = "float32"
    store: Store = "float32"

    def open(self) -> Lens:
        """The lens. Raises what `Lens` raises, and ValueError for options that it does not know."""
        lens = Lens(self.model, revision=self.revision, allow_pickle=self.allow_pickle)
        self.embed(lens, [])
        return lens

    def embed(
        self,
        lens: Lens,
        records: Sequence[Record],
        progress: Callable[[int, int], object] = lambda texts, tokens: None,
    ) -> Embeddings:
        """The records' embeddings."""
        return lens.embed(
            [record.text for record in records],
            self.level,
            self.layers,  # type: ignore[arg-type]
            self.pool,
            mix=self.mix,
            subwords=self.subwords,
            parts=[record.words for record in records] if self.level == "word" else None,
            truncation=self.truncation,
            prompt=self.prompt,
            dtype=self.dtype,  # type: ignore[arg-type]
            names=[record.place for record in records],
            progress=progress,
        )

    def about(self, lens: Lens) -> dict[str, str]:
        """What the metadata of a file says of how it was made."""
        said = {key: value for key, value in asdict(self).items() if value is not None and key != "allow_pickle"}
        said |= {"model": lens.name, "revision": lens.revision, "version": version("regard")}
        said |= {"pool": lens.pool} if self.level == "sentence" and self.pool is None else {}
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in said.items()}


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
) -> dict[str, int]:
    """Embed all texts of a source, and write `out`: FILE.parquet, or a folder of such files.

    Columns at sentence level, a row a text: text_id, text, truncated, vector (fixed_size_list); at token and word level
    a row a vector: text_id, index, start, end, token or word, truncated, vector; with int8 also scale, which times a
    vector is the one that was. text_id is the record's id, or its number in the source. The schema's metadata says how
    it was made: regard.model and so on.

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
        warn: is told of bad records.

    Returns: the counts of texts, vectors, tokens, truncated texts and bad records, and the vectors' dim.

    Raises:
        ValueError: a bad record, with its file and line; options that are not known; no text at all.
        OSError: a file that is not there, or cannot be read or written; `out` is there already, or is another run's.
        ImportError: what is needed is not installed.
    """
    where, _, address = on.partition("=")
    if where not in ("local", "ray") or (where == "local" and address):
        raise ValueError(f"embed: on: expected 'local', 'ray' or 'ray=ADDRESS'. Got {on!r}.")
    if workers is not None and where == "local":
        raise ValueError("embed: workers: only with on='ray' (--on ray); here all threads of one process work.")
    for name, extra in (("pyarrow", "corpus"), ("ray", "ray")):
        if name in ("pyarrow", where) and find_spec(name) is None:
            raise ImportError(f"This needs {name}: pip install 'regard[{extra}]'.")
    if Path(out).suffix not in ("", ".parquet"):
        raise ValueError(f"Expected --out FILE.parquet, or the name of a folder. Got {str(out)!r}.")
    out, recipe = Path(os.path.realpath(out)), recipe or Recipe()
    folder = out.with_name(f"{out.name}.parts")
    if out.exists():
        if not (out.is_file() if out.suffix else (out / ABOUT).is_file()):
            raise FileExistsError(
                f"{out} is there already, and nothing that regard embed has made: choose another name."
            )
        if not overwrite and not folder.exists():
            raise FileExistsError(f"{out} is there already: choose another name, or --overwrite.")
    files = find(source, but=[out, folder])
    counts = dict.fromkeys(("texts", "vectors", "tokens", "truncated", "bad"), 0)

    def tell(bad: Bad) -> None:
        if on_error == "stop":
            raise ValueError(f"{bad} (--on-error skip leaves such records out.)")
        counts["bad"] += 1
        warn(str(bad))

    def count(said: dict[str, str]) -> None:
        for name in ("texts", "vectors", "tokens", "truncated"):
            counts[name] += int(said[name])
        for place, why in json.loads(said["refused"]):
            tell(Bad(place, why))

    with _working(folder):
        lens = recipe.open()
        job = Job(source, files, recipe, folder, recipe.about(lens))
        _begin(job, overwrite)
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
        counts["dim"] = _finish(job, out, names)
    return counts


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

    def digest(self, about: dict[str, str]) -> str:
        """Tells it from parts with other records, and from what another recipe makes of them."""
        both = zip(self.numbers, self.records, strict=True)
        content = [(number, record.id, record.text, record.words) for number, record in both]
        return hashlib.sha256(json.dumps([about, content]).encode()).hexdigest()


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
        if part.records and (len(part.records) == TEXTS or characters + len(record.text) > CHARACTERS):
            yield whole()
            part, characters = Part(part.number + 1), 0
        part.records.append(record)
        part.numbers.append(number)
        characters += len(record.text)
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
        return said if said.get("digest") == part.digest(self.about) else {}

    def make(
        self, part: Part, lens: Lens, progress: Callable[[int, int], object] = lambda texts, tokens: None
    ) -> dict[str, str]:
        """Embed a part and write its file. Gives what the metadata says."""
        refused: list[tuple[str, str]] = []
        kept = list(zip(part.numbers, part.records, strict=True))
        while True:
            try:
                embeddings = self.recipe.embed(lens, [record for _, record in kept], progress)
                break
            except RefusedError as error:
                for n, why in error.reasons.items():
                    place = kept[n][1].place
                    refused.append((place, why.removeprefix(f"embed: {place}: ")))
                kept = [each for n, each in enumerate(kept) if n not in error.reasons]
        numbers, records = [number for number, _ in kept], [record for _, record in kept]
        table = tables.table(records, embeddings, numbers, self.recipe.store)
        said = {
            "texts": str(len(kept)),
            "vectors": str(len(table)),
            "tokens": str(sum(embeddings.tokens)),
            "truncated": str(sum(at is not None for at in embeddings.truncated)),
            "refused": json.dumps(refused),
            "digest": part.digest(self.about),
        }
        tables.save(self.folder / part.file, [table], self.about | said)
        return said


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


# The folder of a run


@contextmanager
def _working(folder: Path) -> Iterator[None]:
    """The folder, for this run alone; gone afterwards where nothing was done."""
    folder.mkdir(exist_ok=True)
    with _alone(folder):
        for left in folder.glob(".regard-*"):  # of a run that was killed while it wrote
            left.unlink()
        try:
            yield
        finally:
            if folder.exists() and not any(folder.glob("part-*.parquet")):
                shutil.rmtree(folder)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileExistsError(f"{folder}: another run is at work there.") from None
        yield
    finally:
        os.close(handle)


def _begin(job: Job, overwrite: bool) -> None:
    """Write down what the run makes, or see that it is what was begun."""
    file, about = job.folder / ABOUT, job.about
    try:
        begun = json.loads(file.read_text(encoding="utf-8")) if file.exists() and not overwrite else about
    except ValueError:
        begun = {}
    for key in sorted(begun.keys() | about.keys()):
        if (theirs := begun.get(key)) != (ours := about.get(key)):
            raise FileExistsError(
                f"{job.folder} was begun by another run ({key}: {theirs}, here {ours}): "
                "finish that one, choose another name, or --overwrite."
            )
    write(file, lambda opened: opened.write(json.dumps(about, indent=1).encode()))


def _finish(job: Job, out: Path, names: Sequence[str]) -> int:
    """Parts → `out`. Gives the dim of the vectors."""
    import pyarrow.parquet as pq

    folder = job.folder
    sizes = {name: pq.read_metadata(folder / name).num_rows for name in names}
    filled = [name for name in names if sizes[name]]
    if not filled:
        shutil.rmtree(folder)
        raise ValueError(f"There is no text in {', '.join(map(str, job.source.files))}.")
    if out.suffix:
        tables.save(folder / WHOLE, (pq.read_table(folder / name) for name in filled), job.about)
        os.replace(folder / WHOLE, out)
        shutil.rmtree(folder)
    else:
        for file in folder.glob("part-*.parquet"):
            if file.name not in filled:
                file.unlink()
        if out.is_dir():
            shutil.rmtree(out)
        os.replace(folder, out)
    return pq.read_schema(out if out.suffix else out / filled[0]).field("vector").type.list_size
