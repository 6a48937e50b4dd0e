"""Measuring: in turn, in processes of their own, and how much memory."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

from regard._internal.plurals import counted


def machine() -> dict[str, Any]:
    """The machine, and what runs on it."""
    import torch

    return {
        "processor": _processor(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "regard": version("regard"),
    }


def described(about: Mapping[str, Any] | None = None) -> str:
    """A machine, by default this one, in a line."""
    about = machine() if about is None else about
    cores, threads = counted(about["cores"], "core"), counted(about["threads"], "thread")
    return f"{about['processor']}, {cores}, torch {about['torch']}, {threads}"


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine() or "unknown processor"


def in_turn(
    runs: Mapping[str, Callable[[], object]], rounds: int, at_least: float = 0.0, *, warm: bool = False
) -> dict[str, float]:
    """A B A B …, one round not counted unless they are warm: the median seconds of each.

    What takes less than `at_least` seconds is run so often, one after the other, that a sample does not.
    """
    repeats = {name: 1 if warm else max(1, math.ceil(at_least / _seconds(run, 1))) for name, run in runs.items()}
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            taken[name].append(_seconds(run, repeats[name]))
    return {name: statistics.median(times) for name, times in taken.items()}


def _seconds(run: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def in_process(*arguments: str) -> Any:
    """Run Python by itself and give the JSON that it prints last: memory is measured in a process of its own."""
    done = subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def most_memory() -> int:
    """The most resident memory, in bytes, that this process had. Raises OSError where there is no Linux to ask."""
    return _status("VmHWM")


class PeakMemory:
    """`with PeakMemory() as peak: …`, then `peak.bytes`: the most resident memory above that at the beginning.

    Raises OSError where there is no Linux to ask.
    """

    def __enter__(self) -> PeakMemory:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # VmHWM counts from here
        self._before = _status("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        self.bytes = _status("VmHWM") - self._before


def _status(name: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))
