"""A run on a Ray cluster: workers open the model once, and are given the numbers of shards.

Sources and results are where every node of the cluster sees them, under the same names: only numbers are sent.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from regard.corpus.shards import Progress, Shard, ShardJob, shards
from regard.lens import Lens

MAX_FRUITLESS_ROUNDS = 3


class Pending(NamedTuple):
    """A shard that has to be embedded."""

    number: int
    fingerprint: str
    texts: int


def embed_on_cluster(
    job: ShardJob, pending: Sequence[Pending], address: str, workers: int | None, progress: Progress
) -> Iterator[dict[str, str]]:
    """Embed shards on the cluster at `address`, or, if that is "", on one for this run alone. Yields their statistics.

    Raises:
        RuntimeError: A worker could not embed its shard, with the reason.
        ConnectionError: There is no cluster at the address.
    """
    import ray

    job = replace(job, config=replace(job.config, model=_absolute(job.config.model)))
    started_here = not ray.is_initialized()
    if started_here and pending:
        _connect(address)
    try:
        yield from _embed_all(job, pending, workers, progress)
    finally:
        if started_here:
            ray.shutdown()


def _absolute(model: str | None) -> str | None:
    """The model, a folder by its absolute path: workers run in other folders."""
    folder = None if model is None else Path(model).expanduser()
    return str(folder.resolve()) if folder is not None and folder.is_dir() else model


def _embed_all(
    job: ShardJob, pending: Sequence[Pending], workers: int | None, progress: Progress
) -> Iterator[dict[str, str]]:
    """Give the shards to workers, those of lost workers again, until none is left."""
    import ray

    left = {shard.number: shard for shard in pending}
    total, done, fruitless = sum(shard.texts for shard in pending), 0, 0
    while left:
        before, lost = len(left), ""
        try:
            for row in _round(list(left), job, workers):
                if row["error"]:
                    raise RuntimeError(f"embed: on ray: {row['error']}")
                shard, stats = left.pop(row["number"]), row["stats"]
                if stats["digest"] != shard.fingerprint:
                    raise RuntimeError(
                        "embed: on ray: a worker does not see the same files, or has another version of regard."
                    )
                done += shard.texts
                progress(shard.texts, int(stats["tokens"]), done / total if total else None)
                yield stats
        except ray.exceptions.RayError as error:
            lost = str(error).strip().splitlines()[0]
        fruitless = 0 if len(left) < before else fruitless + 1
        if fruitless == MAX_FRUITLESS_ROUNDS:
            raise RuntimeError(f"embed: on ray: the workers are lost again and again. {lost}")


def _connect(address: str) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    host, colon, port = address.removeprefix("ray://").rpartition(":")
    try:
        if colon:  # Ray itself would try to connect for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address or None, log_to_driver=False, logging_level=logging.CRITICAL)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConnectionError(f"embed: no Ray cluster at {address!r}: {str(error).splitlines()[0]}") from None


def _round(numbers: list[int], job: ShardJob, workers: int | None) -> Iterator[dict[str, Any]]:
    """What workers return for shards, in any order. The shards of a lost worker are missing, for another round."""
    import ray
    import ray.data

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call, unused-ignore]
    workers = workers or max(int(resources.get("CPU", 1)), 1)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.max_errored_blocks = -1
    context.max_consecutive_actor_init_deaths = 8
    blocks = ray.data.from_items([{"number": number} for number in numbers], override_num_blocks=len(numbers))
    pool = ray.data.ActorPoolStrategy(
        min_size=1, max_size=workers, initial_size=min(workers, len(numbers)), max_tasks_in_flight_per_actor=2
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Do not wait for a lost worker, as Ray would for its node: others, or a new one, take over.
        results = blocks.map_batches(
            _Worker, fn_constructor_args=(job,), batch_size=1, num_cpus=1, compute=pool, max_restarts=0
        )
    for result in results.iter_rows():
        yield json.loads(result["row"])


class _Worker:
    """A process of the cluster with the model open, which reads forward to the shards that it is given."""

    def __init__(self, job: ShardJob) -> None:
        self.job = job
        self.lens: Lens | None = None
        self.shards: Iterator[Shard] = iter(())
        self.next_number = 0

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        number = int(batch["number"][0])
        row: dict[str, Any] = {"number": number, "stats": None, "error": ""}
        try:
            row["stats"] = self._embed(number)
        except Exception as error:
            row["error"] = f"{type(error).__name__}: {error}"
        return {"row": [json.dumps(row)]}

    def _embed(self, number: int) -> dict[str, str]:
        if self.lens is None:
            torch.set_num_threads(1)
            self.lens = self.job.config.open()
            if self.job.config.manifest(self.lens) != self.job.manifest:
                raise RuntimeError(f"{self.lens.name} is another model here, or this is another version of regard.")
        if number < self.next_number or self.next_number == 0:
            self.shards = shards(self.job.source, self.job.files)
        shard = next((shard for shard in self.shards if shard.number == number), None)
        self.next_number = number + 1
        if shard is None:
            raise FileNotFoundError(f"the files end before shard {number}.")
        return self.job.finished(shard) or self.job.embed(shard, self.lens)  # a worker lost since may have finished it
