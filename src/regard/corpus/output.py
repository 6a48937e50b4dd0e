"""The output of a run: a folder with the files of its shards, which become the output when all are there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from regard._internal.files import atomic_write
from regard.corpus import table as tables
from regard.corpus.records import Source, printable_path

MANIFEST, MERGED, LOCK = "_regard.json", "_all.parquet", ".lock"


class OutputExistsError(FileExistsError):
    """The output exists, or another run has begun it, and it is not to be overwritten.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from regard.corpus import OutputExistsError, Source, embed_files
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     notes, vectors = Path(folder, "notes.txt"), Path(folder, "vectors.parquet")
    ...     _ = notes.write_text("Time flies"), vectors.write_bytes(b"")
    ...     try:
    ...         embed_files(Source([notes]), vectors)
    ...     except OutputExistsError as error:
    ...         print(type(error).__name__)
    OutputExistsError
    """


def target(out: str | Path) -> Path:
    """The real path of the output. Raises ValueError or FileExistsError if nothing can be written there."""
    if Path(out).suffix not in ("", ".parquet"):
        raise ValueError(f"out: expected FILE.parquet, or the name of a folder. Got {str(out)!r}.")
    out = Path(os.path.realpath(out))
    if out.exists() and not _written_by_regard(out):
        raise FileExistsError(f"{out} is there already, and was not written by regard embed: choose another name.")
    return out


def check_new(out: Path, folder: Path, overwrite: bool) -> None:
    """Raise OutputExistsError if the output exists, and is neither to be overwritten nor being replaced already."""
    if out.exists() and not overwrite and not folder.exists() and (out.is_file() or any(out.iterdir())):
        raise OutputExistsError(f"{out} is there already: choose another name.")


def _written_by_regard(out: Path) -> bool:
    """Whether this is the output of an earlier run, or an empty folder: what may be overwritten."""
    if out.suffix:
        return out.is_file()
    if not out.is_dir():
        return False
    shards = sorted(path for path in out.iterdir() if path.name != MANIFEST)
    return all(path.match("part-*.parquet") for path in shards) and all(map(tables.read_metadata, shards[:1]))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The folder of a run, for this run alone. It is removed afterwards if it holds no finished shard.

    Raises FileExistsError if another run is using it.
    """
    lock = FileLock(folder / LOCK, timeout=0)
    message = f"{folder}: another run is using this folder."
    folder.mkdir(exist_ok=True)
    try:
        lock.acquire()
    except (Timeout, FileNotFoundError):  # or it has just finished, and removed the folder
        raise FileExistsError(message) from None
    if not (folder / LOCK).exists():
        lock.release()
        raise FileExistsError(message)
    try:
        for unfinished in folder.glob(".regard-*"):  # temporary files of a run that was killed
            unfinished.unlink()
        yield
    finally:
        lock.release()
        if folder.exists() and not any(folder.glob("part-*.parquet")):
            shutil.rmtree(folder)


def begin(folder: Path, manifest: dict[str, str], overwrite: bool) -> None:
    """Write the manifest, or check that the run begun here has the same. Raises OutputExistsError if it has not."""
    file = folder / MANIFEST
    try:
        begun = json.loads(file.read_text(encoding="utf-8")) if file.exists() and not overwrite else manifest
    except ValueError:
        begun = {}
    for key in sorted(begun.keys() | manifest.keys()):
        if (theirs := begun.get(key)) != (ours := manifest.get(key)):
            raise OutputExistsError(
                f"{folder} was begun by another run ({key}: {theirs}, here {ours}): finish that run, or choose another "
                "name."
            )
    atomic_write(file, lambda opened: opened.write(json.dumps(manifest, indent=1).encode()))


def merge(folder: Path, out: Path, names: Sequence[str], source: Source, warn: Callable[[str], object]) -> int:
    """Make of the shards, the files with these names, what `move` puts in the place of `out`.

    `warn` is called for columns that no record has. Returns the number of dimensions. Raises ValueError if there are
    no vectors.
    """
    import pyarrow.parquet as pq

    shards = [folder / name for name in names if pq.read_metadata(folder / name).num_rows]
    if not shards:
        shutil.rmtree(folder)
        raise ValueError(f"There is no text in {', '.join(map(printable_path, source.files))}.")
    types = tables.common_types(shards, source.keep)
    for name in [name for name, type in types.items() if type is None]:
        warn(f"keep: no record has a value for {name!r}: the column is empty.")
        types[name] = tables.text_type()
    if out.suffix:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        tables.save(folder / MERGED, (tables.cast(pq.read_table(path), types) for path in shards), manifest)
        return tables.dim(shards[0])
    for path in shards:
        schema = pq.read_schema(path)
        if any(schema.field(name).type != type for name, type in types.items()):
            tables.save(path, [tables.cast(pq.read_table(path), types)], tables.read_metadata(path))
    for path in set(folder.glob("part-*.parquet")) - set(shards):
        path.unlink()
    return tables.dim(shards[0])


def move(folder: Path, out: Path) -> None:
    """Replace `out` by what `merge` has made."""
    if out.suffix:
        os.replace(folder / MERGED, out)
        shutil.rmtree(folder, ignore_errors=True)  # another run may just be looking for its lock there
        return
    for name in (LOCK, MANIFEST):  # leave a dataset of Parquet files and nothing else
        (folder / name).unlink(missing_ok=True)
    if out.is_dir():
        shutil.rmtree(out)
    os.replace(folder, out)
