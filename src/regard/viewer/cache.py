"""What the viewer keeps, within bounds, and what takes long to make."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

import torch
from torch import Tensor

PATIENCE = 10.0  # seconds after which work that nobody asks for is given up
QUEUE = 64  # jobs that may be under way or waiting
REMEMBERED = 1024  # numbers of cancelled jobs


class Shelf:
    """Things by key, the latest used last, together at most `limit` bytes; the last one put is kept in any case."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._things: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        """Bytes."""
        with self._lock:
            return sum(size for _, size in self._things.values())

    def get(self, key: Hashable) -> Any:
        """What was put there, or None."""
        with self._lock:
            if key not in self._things:
                return None
            self._things.move_to_end(key)
            return self._things[key][0]

    def put(self, key: Hashable, thing: Any, size: int) -> None:
        """Keeps a thing of `size` bytes, and lets go of those that were not used for longest."""
        with self._lock:
            self._things[key] = thing, size
            self._things.move_to_end(key)
            used = sum(size for _, size in self._things.values())
            while used > self.limit and len(self._things) > 1:
                used -= self._things.popitem(last=False)[1][1]

    def __iter__(self) -> Iterator[Hashable]:
        """The keys, the least used first."""
        with self._lock:
            return iter(list(self._things))


def size_of(tensors: Iterable[Tensor | None]) -> int:
    """The bytes that tensors hold: each storage once, and all of it, also where only a part is looked at."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if t is not None}
    return sum(storages.values())


class Working(Exception):  # noqa: N818  not an error: an answer
    """It is not done yet: `share` of it is, or None while it waits for other work. `job` is its number."""

    def __init__(self, share: float | None, job: int) -> None:
        super().__init__(share, job)
        self.share, self.job = share, job


class Cancelled(Exception):  # noqa: N818
    """The job was cancelled, or nobody asked for it any more."""


Progress = Callable[[float], None]
Lane = Literal["short", "long"]


class Jobs:
    """Work that takes long, in the background; all who ask for the same share one job.

    Jobs run in two lanes, one at a time in each, so that what is short does not wait for what is long.
    """

    def __init__(self) -> None:
        self._lanes: dict[Lane, ThreadPoolExecutor] = {
            lane: ThreadPoolExecutor(1, f"regard-{lane}") for lane in ("short", "long")
        }
        self._jobs: dict[Hashable, _Job] = {}
        self._cancelled: deque[int] = deque(maxlen=REMEMBERED)
        self._last = 0
        self._lock = threading.Lock()

    def result(self, key: Hashable, work: Callable[[Progress], Any], wait: float, lane: Lane = "long") -> Any:
        """What `work` returns; it is given a function to which it reports its progress.

        Raises Working where it is not done within `wait` seconds: ask again; OverflowError where too much waits;
        Cancelled; and what the work raises.
        """
        now = time.monotonic()
        with self._lock:
            self._forget(now - PATIENCE)
            job = self._jobs.get(key)
            if job is None:
                if len(self._jobs) >= QUEUE:
                    raise OverflowError("Too much is being computed at once: try again in a moment.")
                self._last += 1
                job = self._jobs[key] = _Job(self._last)
                job.future = self._lanes[lane].submit(job.run, work)
        job.asked = now
        try:
            found = job.future.result(wait)
        except TimeoutError:
            if not job.future.done():
                raise Working(job.share, job.number) from None
            raise
        finally:
            if job.future.done():
                with self._lock:
                    if self._jobs.get(key) is job:
                        del self._jobs[key]
        return found

    def _forget(self, before: float) -> None:
        """Lets go of what nobody has asked for since: results, and jobs that wait; one under way sees to it itself."""
        stale = [key for key, job in self._jobs.items() if job.asked < before]
        for key in stale:
            if self._jobs[key].future.done() or self._jobs[key].future.cancel():
                del self._jobs[key]

    def cancel(self, number: int | None) -> list[Hashable]:
        """Cancels the job of this number, or all of them. Returns the keys of those that were under way."""
        with self._lock:
            keys = [key for key, job in self._jobs.items() if number in (None, job.number)]
            for key in keys:
                job = self._jobs.pop(key)
                job.cancelled = True
                self._cancelled.append(job.number)
        return keys

    def was_cancelled(self, number: object) -> bool:
        """Whether this is the number of a job that was cancelled, as far back as is remembered."""
        with self._lock:
            return number in self._cancelled

    def close(self) -> None:
        """Cancels everything."""
        self.cancel(None)
        for lane in self._lanes.values():
            lane.shutdown(wait=False, cancel_futures=True)


class _Job:
    future: Future

    def __init__(self, number: int) -> None:
        self.number = number
        self.share: float | None = None
        self.asked = time.monotonic()
        self.cancelled = False
        self.threads = torch.get_num_threads()

    def run(self, work: Callable[[Progress], Any]) -> Any:
        # As many threads as whoever asked has: matrix products round differently with another number of them.
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        self.progress(0.0)
        return work(self.progress)

    def progress(self, share: float) -> None:
        self.share = share
        if self.cancelled or time.monotonic() - self.asked > PATIENCE:
            raise Cancelled
