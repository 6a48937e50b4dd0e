"""The folder of a run: the files of its parts, until all are there."""

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
from regard.corpus.records import Source, shown

ABOUT, WHOLE, LOCK = "_regard.json", "_all.parquet", ".lock"


class OutputExistsError(FileExistsError):
    """What is to be written is there already, or was begun by another run, and may not be replaced unasked."""


@contextmanager
def working(folder: Path) -> Iterator[None]:
    """The folder, for this run alone; gone afterwards where nothing was done.

    Raises FileExistsError where another run is at work there.
    """
    lock = FileLock(folder / LOCK, timeout=0)
    at_work = f"{folder}: another run is at work there."
    folder.mkdir(exist_ok=True)
    try:
        lock.acquire()
    except (Timeout, FileNotFoundError):  # or it has just finished, and taken the folder away
        raise FileExistsError(at_work) from None
    if not (folder / LOCK).exists():
        lock.release()
        raise FileExistsError(at_work)
    try:
        for left in folder.glob(".regard-*"):  # of a run that was killed while it wrote
            left.unlink()
        yield
    finally:
        lock.release()
        if folder.exists() and not any(folder.glob("part-*.parquet")):
            shutil.rmtree(folder)


def begin(folder: Path, about: dict[str, str], overwrite: bool) -> None:
    """Write down what the run makes, or see that it is what was begun."""
    file = folder / ABOUT
    try:
        begun = json.loads(file.read_text(encoding="utf-8")) if file.exists() and not overwrite else about
    except ValueError:
        begun = {}
    for key in sorted(begun.keys() | about.keys()):
        if (theirs := begun.get(key)) != (ours := about.get(key)):
            raise OutputExistsError(
                f"{folder} was begun by another run ({key}: {theirs}, here {ours}): finish that one, or choose another "
                "name."
            )
    atomic_write(file, lambda opened: opened.write(json.dumps(about, indent=1).encode()))


def merge(folder: Path, out: Path, names: Sequence[str], source: Source, warn: Callable[[str], object]) -> list[Path]:
    """Make of the parts, whose files have these names, what is to be moved to `out`. Gives the files that have rows.

    `warn` is told of columns that no record has.
    """
    import pyarrow.parquet as pq

    filled = [folder / name for name in names if pq.read_metadata(folder / name).num_rows]
    if not filled:
        shutil.rmtree(folder)
        raise ValueError(f"There is no text in {', '.join(map(shown, source.files))}.")
    types = tables.common_types(filled, source.keep)
    for name in [name for name, kind in types.items() if kind is None]:
        warn(f"keep: no record has a value for {name!r}: the column is empty.")
        types[name] = tables.text_type()
    if out.suffix:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        tables.save(folder / WHOLE, (tables.converted(pq.read_table(path), types) for path in filled), about)
        return filled
    for path in filled:
        schema = pq.read_schema(path)
        if any(schema.field(name).type != kind for name, kind in types.items()):
            tables.save(path, [tables.converted(pq.read_table(path), types)], tables.about(path))
    for path in set(folder.glob("part-*.parquet")) - set(filled):
        path.unlink()
    return filled


def move(folder: Path, out: Path) -> None:
    """Put what `merge` has made in its place. Until then `out` is as it was."""
    if out.suffix:
        os.replace(folder / WHOLE, out)
        shutil.rmtree(folder, ignore_errors=True)  # another run may be about to look for its lock there
        return
    for name in (LOCK, ABOUT):  # the folder is a data set of Parquet files and nothing else
        (folder / name).unlink(missing_ok=True)
    if out.is_dir():
        shutil.rmtree(out)
    os.replace(folder, out)


def made_by_regard(out: Path) -> bool:
    """Whether there is a result of an earlier run, or an empty folder, which may be replaced."""
    if out.suffix:
        return out.is_file()
    if not out.is_dir():
        return False
    parts = sorted(path for path in out.iterdir() if path.name != ABOUT)
    return all(path.match("part-*.parquet") for path in parts) and all(map(tables.about, parts[:1]))
