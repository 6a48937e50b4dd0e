"""The memory that every reduction of the weights of a head over N tokens needs, in a process of its own.

python -m regard.bench.memory N
"""

from __future__ import annotations

import json
import sys
import time
from typing import NamedTuple

import torch

import regard
from regard._internal.measure import PeakMemory, in_process


class Used(NamedTuple):
    """Bytes above those of the idle process, and seconds."""

    bytes: int
    seconds: float


def measure(n: int, dim: int = 64) -> Used:
    """Attention, entropy, top-8, received and pool(512, 512), with query, key, value and output."""
    return Used(**in_process("-m", __name__, str(n), str(dim), str(torch.get_num_threads())))


def _run(n: int, dim: int, threads: int) -> Used:
    torch.set_num_threads(threads)
    cells = min(512, n)
    with PeakMemory() as peak:
        start = time.perf_counter()
        query, key, value = (torch.randn(n, dim) for _ in range(3))
        weights = regard.attention(query, key, value, collect=("entropy", "topk:8")).weights
        weights.entropy(), weights.topk(8), weights.received(), weights.pool(cells, cells)
        seconds = time.perf_counter() - start
    return Used(peak.bytes, seconds)


if __name__ == "__main__":
    print(json.dumps(_run(*map(int, sys.argv[1:]))._asdict()))
