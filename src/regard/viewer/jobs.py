"""A queue for work that takes long: it runs in the background, reports its progress, and can be cancelled.

api.py submits the work. It imports torch, and nothing else of the package.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, TypeVar, cast

import torch

ABANDONED = 10.0  # seconds after which a job that nobody asks for is given up
QUEUE_LIMIT = 64  # jobs that may run or wait
SHORT_TEXT = 4096  # characters: texts of no more are read in the short lane
REMEMBERED = 1024  # cancelled jobs whose numbers are remembered

Progress = Callable[[float], None]
Lane = Literal["short", "long"]
Result = TypeVar("Result")


def lane_of_texts(*texts: str) -> Lane:
    """The lane in which texts are read: short ones do not wait for long ones."""
    return "short" if sum(map(len, texts)) <= SHORT_TEXT else "long"


class Pending(Exception):  # noqa: N818  not an error: ask again
    """The job is not done: `progress` is the share that is, None while it waits for other jobs; `job` its number."""

    def __init__(self, progress: float | None, job: int) -> None:
        super().__init__(progress, job)
        self.progress, self.job = progress, job


class Cancelled(Exception):  # noqa: N818
    """The job was cancelled, or given up because nobody asked for it."""


class JobQueue:
    """Runs jobs in the background; requests with the same key share one job.

    There are two lanes, each of which runs one job at a time, so that short jobs do not wait for long ones.
    """

    def __init__(self) -> None:
        self._lanes: dict[Lane, ThreadPoolExecutor] = {
            lane: ThreadPoolExecutor(1, f"regard-{lane}") for lane in ("short", "long")
        }
        self._jobs: dict[Hashable, _Job] = {}
        self._cancelled: deque[int] = deque(maxlen=REMEMBERED)
        self._last_number = 0
        self._lock = threading.Lock()

    def result(self, key: Hashable, work: Callable[[Progress], Result], wait: float, lane: Lane = "long") -> Result:
        """What `work` returns; it is called with a function to which it reports its progress.

        Raises:
            Pending: it is not done within `wait` seconds; ask again with the same key.
            Cancelled: the job was cancelled.
            OverflowError: there are too many jobs.
            Exception: what `work` raises.
        """
        now = time.monotonic()
        with self._lock:
            self._drop_abandoned(now - ABANDONED)
            job = self._jobs.get(key)
            if job is None:
                if len(self._jobs) >= QUEUE_LIMIT:
                    raise OverflowError("Too much is being computed at once: try again in a moment.")
                self._last_number += 1
                job = self._jobs[key] = _Job(self._last_number)
                job.future = self._lanes[lane].submit(job.run, work)
        job.last_asked = now
        try:
            result = job.future.result(wait)
        except TimeoutError:
            if not job.future.done():
                raise Pending(job.progress, job.number) from None
            raise
        finally:
            if job.future.done():
                with self._lock:
                    if self._jobs.get(key) is job:
                        del self._jobs[key]
        return cast(Result, result)

    def _drop_abandoned(self, before: float) -> None:
        """Drops results and waiting jobs that nobody asked for since; a running job stops itself when it reports."""
        abandoned = [key for key, job in self._jobs.items() if job.last_asked < before]
        for key in abandoned:
            if self._jobs[key].future.done() or self._jobs[key].future.cancel():
                del self._jobs[key]

    def cancel(self, number: int) -> list[Hashable]:
        """Cancel the job of this number. Returns its key in a list, which is empty where there is no such job."""
        with self._lock:
            keys = [key for key, job in self._jobs.items() if job.number == number]
            self._cancel(keys)
        return keys

    def was_cancelled(self, number: int | None) -> bool:
        """Whether the job of this number was cancelled, as far back as is remembered."""
        with self._lock:
            return number in self._cancelled

    def close(self) -> None:
        """Cancel all jobs."""
        with self._lock:
            self._cancel(list(self._jobs))
        for lane in self._lanes.values():
            lane.shutdown(wait=False, cancel_futures=True)

    def _cancel(self, keys: list[Hashable]) -> None:
        for key in keys:
            job = self._jobs.pop(key)
            job.cancelled = True
            self._cancelled.append(job.number)


class _Job:
    future: Future[Any]

    def __init__(self, number: int) -> None:
        self.number = number
        self.progress: float | None = None
        self.last_asked = time.monotonic()
        self.cancelled = False
        self.threads = torch.get_num_threads()

    def run(self, work: Callable[[Progress], Result]) -> Result:
        # As many threads as the asker has: matrix products round differently with another number of them.
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        self.report(0.0)
        return work(self.report)

    def report(self, progress: float) -> None:
        self.progress = progress
        if self.cancelled or time.monotonic() - self.last_asked > ABANDONED:
            raise Cancelled
