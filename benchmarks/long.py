"""One head over N tokens, with everything one may ask of its weights: the memory above that of the idle process.

python benchmarks/long.py [N]
"""

from __future__ import annotations

import sys
import time

import torch
from measure import PeakMemory, machine

import regard


def main(n: int = 65_536, dim: int = 64) -> None:
    print(machine())
    torch.manual_seed(0)
    with PeakMemory() as peak:
        start = time.perf_counter()
        query, key, value = (torch.randn(n, dim) for _ in range(3))
        attended = regard.attention(query, key, value, collect=("entropy", "topk:8"))
        attended.weights.entropy(), attended.weights.topk(8), attended.weights.received()
        attended.weights.pool(512, 512)
        taken = time.perf_counter() - start
    gib = 2.0**30
    print(
        f"  attention + entropy + top-8 + received + pool(512, 512), one head, N {n:,}, D {dim}, float32: {taken:.0f} s"
    )
    print(
        f"  {peak.bytes / gib:.2f} GiB above the idle process, query, key, value and output included (goal: at most 1)"
    )
    print(f"  ratio {peak.bytes / (4 * n * n):.4f} of the {4 * n * n / gib:.0f} GiB that the weights would take")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
