"""A run on a Ray cluster: workers that open the model once, and are given the numbers of parts.

Sources and results lie where every node of the cluster sees them, under the same names: what travels is numbers.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from regard.corpus.shards import Job, Part, Progress, parts
from regard.lens import Lens


def embed_there(
    job: Job, undone: Iterator[Part], address: str, workers: int | None, progress: Progress
) -> Iterator[dict[str, str]]:
    """Embed parts on the cluster at `address`, or one for this run alone where that is "".

    Raises:
        ValueError: stdin, which no other node can read. RuntimeError: a worker could not do its part, with the reason.
        ConnectionError: no cluster at the address.
    """
    import ray

    if any(str(path) == "-" for path in job.files):
        raise ValueError("embed: on ray, stdin cannot be read: give files that every node sees.")
    left = {part.number: (part.digest(job.about, job.source), len(part.records)) for part in undone}
    total, done = sum(texts for _, texts in left.values()), 0
    ours = not ray.is_initialized()
    if ours and left:
        _connect(address)
    model = job.recipe.model
    if model is not None and Path(model).expanduser().is_dir():
        model = str(Path(model).expanduser().resolve())  # workers begin in folders of their own
    job = replace(job, recipe=replace(job.recipe, model=model))
    try:
        fruitless = 0
        while left:
            before, lost = len(left), ""
            try:
                for row in _round(list(left), job, workers):
                    if row["error"]:
                        raise RuntimeError(f"embed: on ray: {row['error']}")
                    digest, texts = left.pop(row["part"])
                    if row["said"]["digest"] != digest:
                        raise RuntimeError("embed: on ray: a worker does not see the files, or the version, seen here.")
                    done += texts
                    progress(texts, int(row["said"]["tokens"]), done / total if total else None)
                    yield row["said"]
            except ray.exceptions.RayError as error:
                lost = str(error).strip().splitlines()[0]
            fruitless = 0 if len(left) < before else fruitless + 1
            if fruitless == 3:
                raise RuntimeError(f"embed: on ray: the workers are lost again and again. {lost}")
    finally:
        if ours:
            ray.shutdown()


def _connect(address: str) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # which Ray would tell its makers
    import ray

    host, colon, port = address.removeprefix("ray://").rpartition(":")
    try:
        if colon:  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address or None, log_to_driver=False, logging_level=logging.CRITICAL)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConnectionError(f"embed: no Ray cluster at {address!r}: {str(error).splitlines()[0]}") from None


def _round(numbers: list[int], job: Job, workers: int | None) -> Iterator[dict[str, Any]]:
    """What workers say of parts, in any order. What was a lost worker's is missing, and is left to another round."""
    import ray
    import ray.data

    workers = workers or max(int(ray.cluster_resources().get("CPU", 1)), 1)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.max_errored_blocks = -1
    context.max_consecutive_actor_init_deaths = 8
    blocks = ray.data.from_items([{"part": number} for number in numbers], override_num_blocks=len(numbers))
    first = min(workers, len(numbers))
    pool = ray.data.ActorPoolStrategy(min_size=1, max_size=workers, initial_size=first, max_tasks_in_flight_per_actor=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # A lost worker is not waited for: others, or a new one, take over. Ray would wait for its node.
        done = blocks.map_batches(
            _Worker, fn_constructor_args=(job,), batch_size=1, num_cpus=1, compute=pool, max_restarts=0
        )
    for row in done.iter_rows():
        yield json.loads(row["row"])


class _Worker:
    """One process of the cluster, with the model open, that reads forward to the parts it is given."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.lens: Lens | None = None
        self.parts: Iterator[Part] = iter(())
        self.at = 0  # the number of the next part

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        number = int(batch["part"][0])
        row: dict[str, Any] = {"part": number, "said": None, "error": ""}
        try:
            row["said"] = self._embed(number)
        except Exception as error:
            row["error"] = f"{type(error).__name__}: {error}"
        return {"row": [json.dumps(row)]}

    def _embed(self, number: int) -> dict[str, str]:
        if self.lens is None:
            torch.set_num_threads(1)
            self.lens = self.job.recipe.open()
            if self.job.recipe.about(self.lens) != self.job.about:
                raise RuntimeError(f"{self.lens.name} is another model here, or this is another version of regard.")
        if number < self.at or self.at == 0:
            self.parts = parts(self.job.source, self.job.files)
        part = next((part for part in self.parts if part.number == number), None)
        self.at = number + 1
        if part is None:
            raise FileNotFoundError(f"the files end before part {number}.")
        return self.job.done(part) or self.job.make(part, self.lens)  # done by one that was lost after that
