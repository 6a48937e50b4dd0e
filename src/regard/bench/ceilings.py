"""What the machine can do at most: multiply-adds of each type, and bytes read from memory, a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import torch

from regard.backends import availability, cpu


class Ceilings(NamedTuple):
    """By the name of a type, floating-point operations a second; bytes a second; and what measured them."""

    flops: dict[str, float]
    bytes: float
    source: str


def ceilings(dtypes: Iterable[torch.dtype]) -> Ceilings:
    """Measured now, with all of torch's threads: by the kernel in registers, or, where there is none, by torch."""
    measure, read, source = _by_torch() if availability()["cpu"] else _by_kernel()
    flops = {dtype: measure(dtype) for dtype in dict.fromkeys(dtypes)}
    return Ceilings({str(dtype).removeprefix("torch."): found for dtype, found in flops.items()}, read(), source)


Parts = tuple[Callable[[torch.dtype], float], Callable[[], float], str]


def _by_kernel() -> Parts:
    from regard import _kernel

    isa, threads = cpu.instruction_set(), torch.get_num_threads()
    return (
        lambda dtype: _most(lambda: _kernel.flops(cpu.TYPES[dtype], isa, threads)),
        lambda: _most(lambda: _kernel.bytes(isa, threads)),
        f"regard's kernel, {isa}",
    )


def _most(measure: Callable[[], float]) -> float:
    """Of several: between them threads sleep, for now and then two wake on one processor, and stay there."""
    found = []
    for _ in range(6):
        found.append(measure())
        time.sleep(0.05)
    return max(found)


def _by_torch() -> Parts:
    return _matmul, _sum, "torch's matrix product and sum, for want of regard's kernel"


def _matmul(dtype: torch.dtype, enough: float = 0.05) -> float:
    """The speed of a square product so large that it takes a while."""
    size = 256
    while True:
        size *= 2
        one, other = torch.randn(2, size, size).to(dtype)
        seconds = min(_seconds(partial(torch.mm, one, other)) for _ in range(3))
        if seconds > enough:
            return 2 * size**3 / seconds


def _sum(size: int = 1 << 28) -> float:
    """The speed of adding up more numbers than any cache holds."""
    numbers = torch.ones(size // 4)
    return size / min(_seconds(numbers.sum) for _ in range(5))


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
