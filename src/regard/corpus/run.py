"""A run: the records of a source in shards, each embedded and written on its own, and merged in the end."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from regard._internal.deprecated import renamed_arguments
from regard.corpus import table as tables
from regard.corpus.config import EmbedConfig
from regard.corpus.files import Skipped, find_files
from regard.corpus.output import begin, check_new, locked, merge, move, target
from regard.corpus.records import BadRecord, BadRecordError, Source
from regard.corpus.shards import Progress, Shard, ShardJob, shards
from regard.lens import Lens


@renamed_arguments(recipe="config", leave_out="skipped")
def embed_files(
    source: Source,
    out: str | Path,
    config: EmbedConfig | None = None,
    *,
    on_error: Literal["stop", "skip"] = "stop",
    on: str = "local",
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress = lambda texts, tokens, share: None,
    warn: Callable[[str], object] = lambda message: None,
    skipped: Skipped = lambda path, reason: None,
) -> dict[str, int]:
    """Embed all texts of a source and write the vectors to `out`: FILE.parquet, or a folder of Parquet files.

    For sentences there is a row per text with the columns text_id, text, truncated and vector (fixed_size_list); for
    tokens, words and chunks a row per vector with text_id, index, start, end, then token, word or chunk, truncated and
    vector. With int8 there is also scale: scale × vector is the original vector. text_id is the id of the record, or
    its number in the source. After it come file and line if the source has `places`, and the columns in `keep`. The
    metadata of the schema says how the vectors were made: regard.model etc.

    Finished shards are in the folder `out`.parts until all are done. A run that was interrupted in any way resumes
    when it is started again, and `out` is then the same, byte for byte, as if it had never been interrupted.

    Args:
        source: Where the texts are.
        out: The output. It is not touched before the end of the run.
        config: The model and the options; by default sentence vectors of the embedded model.
        on_error: At a record that cannot be embedded, "stop" raises BadRecordError, "skip" calls `warn` and goes on.
        on: "local", "ray", or "ray=ADDRESS" for a Ray cluster; workers: its processes, by default one per processor.
        overwrite: Replace an existing output, or an unfinished run with other options.
        progress: Called with the texts and tokens just embedded, and the share of the files that is done, if known.
        warn, skipped: Called with messages, and with each file in a folder that is not read, and the reason.

    Returns: The counts of texts, vectors, tokens, truncated texts and bad records, and the dim of the vectors.

    Raises:
        BadRecordError: A record cannot be embedded, with its file and line.
        ValueError: An option or the type of a file is not known, or there is no text.
        ImportError: A package is missing.
        OSError: A file cannot be read or written, or another run is writing to `out`; OutputExistsError if `out`
            exists, or was begun with other options.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from regard.corpus import EmbedConfig, Source, embed_files
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     notes = Path(folder, "notes.txt")
    ...     _ = notes.write_text("Time flies like an arrow")
    ...     counts = embed_files(Source([notes]), notes.with_suffix(".parquet"), EmbedConfig(level="word"))
    >>> counts["texts"], counts["vectors"], counts["dim"]
    (1, 5, 384)
    """
    runner, address = _runner(on, workers)
    out, config = target(out), config or EmbedConfig()
    folder = out.with_name(f"{out.name}.parts")
    check_new(out, folder, overwrite)
    _check_columns(source, config)
    files = _find_files(source, out, folder, runner, skipped)
    tally = Tally(on_error, warn)
    with locked(folder):
        lens = _open(config, warn)
        job = ShardJob(source, files, config, folder, config.manifest(lens))
        begin(folder, job.manifest, overwrite)
        if runner == "ray":
            _embed_on_ray(job, tally, progress, address, workers)
        else:
            _embed_here(job, tally, progress, lens)
        dim = merge(folder, out, tally.shard_files, source, warn)
    move(folder, out)
    return {**tally.counts, "dim": dim}


@dataclass
class Tally:
    """What a run has done so far: the files of its shards, and its counts; and what it does at a bad record."""

    on_error: Literal["stop", "skip"]
    warn: Callable[[str], object]
    shard_files: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("texts", "vectors", "tokens", "truncated", "bad"), 0)
    )

    def begin(self, shard: Shard) -> None:
        """Count a shard that has been read, with its bad records."""
        self.shard_files.append(shard.file)
        for bad in shard.bad:
            self.reject(bad)

    def finish(self, stats: dict[str, str]) -> None:
        """Count the contents of a shard's file, and the records that could not be embedded."""
        for name in ("texts", "vectors", "tokens", "truncated"):
            self.counts[name] += int(stats[name])
        for place, why in json.loads(stats["refused"]):
            self.reject(BadRecord(place, why))

    def reject(self, bad: BadRecord) -> None:
        """Count a bad record and warn of it, or raise BadRecordError."""
        if self.on_error == "stop":
            raise BadRecordError(str(bad))
        self.counts["bad"] += 1
        self.warn(str(bad))


def _open(config: EmbedConfig, warn: Callable[[str], object]) -> Lens:
    """The lens, with a warning if there is a remark on the model."""
    lens = config.open()
    if lens.note:
        warn(lens.note)
    return lens


def _is_finished(job: ShardJob, shard: Shard, tally: Tally, progress: Progress) -> bool:
    """Whether an earlier run has embedded the shard, which is then counted."""
    tally.begin(shard)
    stats = job.finished(shard)
    if stats:
        tally.finish(stats)
        progress(0, 0, shard.share_after)
    return bool(stats)


def _embed_here(job: ShardJob, tally: Tally, progress: Progress, lens: Lens) -> None:
    for shard in shards(job.source, job.files):
        if not _is_finished(job, shard, tally, progress):
            tally.finish(job.embed(shard, lens, _progress_within(shard, progress)))


def _progress_within(shard: Shard, progress: Progress) -> Callable[[int, int], object]:
    """The progress of `Lens.embed` on one shard as progress of the run."""
    done = 0
    before, after = shard.share or (0, 0)

    def report(texts: int, tokens: int) -> None:
        nonlocal done
        done += texts
        share = before + (after - before) * done / len(shard.records)
        progress(texts, tokens, share if shard.share else None)

    return report


def _embed_on_ray(job: ShardJob, tally: Tally, progress: Progress, address: str, workers: int | None) -> None:
    from regard.corpus.cluster import Pending, embed_on_cluster

    pending = [
        Pending(shard.number, shard.fingerprint(job.manifest, job.source), len(shard.records))
        for shard in shards(job.source, job.files)
        if not _is_finished(job, shard, tally, progress)
    ]
    for stats in embed_on_cluster(job, pending, address, workers, progress):
        tally.finish(stats)


# Checks


def _runner(on: str, workers: int | None) -> tuple[str, str]:
    """Where the run takes place, "local" or "ray", and the address of the cluster."""
    runner, _, address = on.partition("=")
    if runner not in ("local", "ray") or (runner == "local" and address):
        raise ValueError(f"embed: on: expected 'local', 'ray' or 'ray=ADDRESS'. Got {on!r}.")
    if workers is not None and runner == "local":
        raise ValueError("embed: workers: only with on='ray'; on one machine, one process uses all threads.")
    for name, extra in (("pyarrow", "corpus"), ("ray", "ray")):
        if name in ("pyarrow", runner) and find_spec(name) is None:
            raise ImportError(f"This needs {name}: pip install 'regard[{extra}]'.")
    return runner, address


def _check_columns(source: Source, config: EmbedConfig) -> None:
    """Raise ValueError if the output would have a column twice."""
    own = [*tables.RESERVED, config.unit, *(["text"] if config.unit == "sentence" else [])]
    for n, name in enumerate(source.keep):
        if name in own:
            raise ValueError(f"keep: the output has a column {name!r} of its own.")
        if name in source.keep[:n]:
            raise ValueError(f"keep: {name!r} is named twice.")


def _find_files(source: Source, out: Path, folder: Path, runner: str, skipped: Skipped) -> list[Path]:
    """The files to read. Raises ValueError if the run would overwrite one of them, or workers could not read it."""
    files = find_files(source, [out, folder], skipped)
    if runner == "ray":
        if any(str(path) == "-" for path in files):
            raise ValueError("embed: on ray, stdin cannot be read: give files that every node sees.")
        files = [path.absolute() for path in files]  # workers run in other folders
    for path in files:
        if path.resolve().is_relative_to(out):
            raise ValueError(f"{path} would be read, and replaced by what is written to {out}: choose another name.")
    return files
