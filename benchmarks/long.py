"""One head over N tokens, with every reduction of its weights: the memory above that of the idle process.

python benchmarks/long.py [N]
"""

from __future__ import annotations

import sys

from regard._internal.measure import machine_line
from regard.bench.memory import measure


def main(n: int = 65_536, dim: int = 64) -> None:
    print(machine_line())
    usage, gib = measure(n, dim), 2.0**30
    print(
        f"  attention + entropy + top-8 + received + pool(512, 512), one head, N {n:,}, D {dim}, float32: "
        f"{usage.seconds:.0f} s"
    )
    print(
        f"  {usage.bytes / gib:.2f} GiB above the idle process, query, key, value and output included (goal: at most 1)"
    )
    print(f"  ratio {usage.bytes / (4 * n * n):.4f} of the {4 * n * n / gib:.0f} GiB that the weights would take")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
