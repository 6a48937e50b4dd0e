"""Roofline peaks of the machine: multiply-adds per second in each type, and bytes read from memory per second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import torch

from regard.backends import availability, cpu


class Peaks(NamedTuple):
    """flops: Floating-point operations per second, by the name of a dtype. bytes: Per second. source: What measured."""

    flops: dict[str, float]
    bytes: float
    source: str


# What describes a machine, whatever is measured on it.
MACHINE_TYPES = (torch.float32, torch.bfloat16, torch.int8)


def measure_peaks(dtypes: Iterable[torch.dtype]) -> Peaks:
    """Measure with all of torch's threads: by the native kernel in registers or, if it is missing, by torch.

    Of `MACHINE_TYPES`, and of others that are asked for; a type for which there is no measure is left out.
    """
    measure, read, source = _by_torch() if availability()["cpu"] else _by_kernel()
    flops: dict[str, float] = {}
    for dtype in dict.fromkeys((*MACHINE_TYPES, *dtypes)):
        with suppress(ValueError):
            flops[str(dtype).removeprefix("torch.")] = measure(dtype)
    return Peaks(flops, read(), source)


Measures = tuple[Callable[[torch.dtype], float], Callable[[], float], str]


def _by_kernel() -> Measures:
    from regard import _kernel

    isa, threads = cpu.instruction_set(), torch.get_num_threads()

    def flops(dtype: torch.dtype) -> float:
        if dtype == torch.float64:  # a register holds half as many
            return flops(torch.float32) / 2
        return _maximum(lambda: _kernel.flops(str(dtype).removeprefix("torch."), isa, threads))

    return (
        flops,
        lambda: _maximum(lambda: _kernel.bytes(isa, threads)),
        f"regard's kernel, {isa}",
    )


def _maximum(measure: Callable[[], float]) -> float:
    """The best of several, with pauses: now and then two threads wake on one processor, and stay there."""
    speeds = []
    for _ in range(6):
        speeds.append(measure())
        time.sleep(0.05)
    return max(speeds)


def _by_torch() -> Measures:
    return _matmul, _sum, "torch's matrix product and sum, because regard's kernel is missing"


def _matmul(dtype: torch.dtype, long_enough: float = 0.05) -> float:
    """The speed of a square matrix product that is large enough to take a while."""
    if not dtype.is_floating_point:
        raise ValueError(f"torch multiplies no matrices of {dtype} here")
    size = 256
    while True:
        size *= 2
        left, right = torch.randn(2, size, size).to(dtype)
        seconds = min(_seconds(partial(torch.mm, left, right)) for _ in range(3))
        if seconds > long_enough:
            return 2 * size**3 / seconds


def _sum(size: int = 1 << 28) -> float:
    """The speed of adding up more numbers than a cache holds."""
    numbers = torch.ones(size // 4)
    return size / min(_seconds(numbers.sum) for _ in range(5))


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
