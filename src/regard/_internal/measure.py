"""Measuring: interleaved timing, peak memory, programs in a process of their own, and the machine."""

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
    """The machine and the versions of what runs on it."""
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


def machine_line(facts: Mapping[str, Any] | None = None) -> str:
    """The facts that `machine` gives, by default those of this machine, in one line."""
    facts = machine() if facts is None else facts
    cores, threads = counted(facts["cores"], "core"), counted(facts["threads"], "thread")
    return f"{facts['processor']}, {cores}, torch {facts['torch']}, {threads}"


def cores() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine() or "unknown processor"


def interleaved(
    runs: Mapping[str, Callable[[], object]], rounds: int, at_least: float = 0.0, *, warm: bool = False
) -> dict[str, float]:
    """The median seconds of each run over a number of rounds, A B A B …, so that drift of the machine hits all alike.

    Unless they are warm, each runs before the first round. A run shorter than `at_least` seconds is repeated until one
    sample takes that long.
    """
    repeats = {name: 1 if warm else _repeats(run, at_least) for name, run in runs.items()}
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            samples[name].append(_seconds(run, repeats[name]))
    return {name: statistics.median(times) for name, times in samples.items()}


def _repeats(run: Callable[[], object], at_least: float) -> int:
    """How often to run for `at_least` seconds. The first runs are slower than all others, and count for nothing."""
    repeats = enough = 1
    while (seconds := _seconds(run, repeats)) * repeats < at_least:
        enough = math.ceil(at_least / seconds)
        if enough <= 2 * repeats:
            break
        repeats = min(enough, 10 * repeats)
    return enough


def _seconds(run: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def in_process(*arguments: str) -> Any:
    """Run Python in a process of its own, as memory is best measured, and return the JSON in its last line."""
    done = subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def peak_memory() -> int:
    """The peak resident memory of this process, in bytes. Raises OSError where this is not Linux."""
    return _proc_status("VmHWM")


class PeakMemory:
    """`with PeakMemory() as peak: …`, then `peak.bytes`: the peak resident memory above that at the beginning.

    Raises OSError where this is not Linux.
    """

    def __enter__(self) -> PeakMemory:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # resets VmHWM, the peak
        self._before = _proc_status("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        self.bytes = _proc_status("VmHWM") - self._before


def _proc_status(name: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))
