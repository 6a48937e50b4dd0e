"""A run: records in parts, each embedded and written on its own, so that what was done stays done."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from regard.corpus import table as tables
from regard.corpus.folder import OutputExistsError, begin, made_by_regard, merge, move, working
from regard.corpus.read import LeaveOut, find
from regard.corpus.recipe import Recipe
from regard.corpus.records import Bad, BadRecordError, Source
from regard.corpus.shards import Job, Part, Progress, parts
from regard.lens import Lens


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
