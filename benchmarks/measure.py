"""What the benchmarks share: whole processes, timed in turn, and what they say of their memory."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence


def machine() -> str:
    """The processor, how many of them, and torch."""
    import torch

    with open("/proc/cpuinfo") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return f"{names[0] if names else 'unknown processor'}, {os.cpu_count()} cores, torch {torch.__version__}"


def seconds(command: Sequence[str]) -> float:
    """How long a command takes, from start to end."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def in_turn(commands: dict[str, Sequence[str]], rounds: int) -> dict[str, float]:
    """A B A B …, one round not counted; the median of each in seconds."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds + 1):
        for name, command in commands.items():
            times[name].append(seconds(command))
    return {name: statistics.median(taken[1:]) for name, taken in times.items()}


def in_process(file: str, *arguments: str) -> int:
    """Run a Python file by itself and read the JSON that it prints last: memory is measured in a process of its own."""
    done = subprocess.run([sys.executable, file, *arguments], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


class PeakMemory:
    """`with PeakMemory() as peak: …`, then `peak.bytes`: the most resident memory above that at the beginning."""

    def __enter__(self) -> PeakMemory:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # VmHWM counts from here
        self._before = self._status("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        self.bytes = self._status("VmHWM") - self._before

    @staticmethod
    def _status(name: str) -> int:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))
