"""The rows of the roofline: what share of its peak each instruction set of this machine reaches.

Williams, Waterman and Patterson 2009, https://doi.org/10.1145/1498765.1498785. Attention of N tokens in float32 does
N / 2 FLOP for each byte that it must read, so that it is bound by arithmetic, and so is a linear layer of 2,048 rows:
the roof is the peak of multiply-adds, and what is shown is the share of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from regard._internal.measure import interleaved
from regard.backends import cpu
from regard.bench.grid import Row
from regard.models.linear import Linear

TYPES = (torch.float32, torch.bfloat16)
LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192)
SEGMENTS = (32, 64, 128, 256)
LAYERS = ((384, 1536), (1536, 384), (768, 3072))  # of MiniLM and of BERT-base


@dataclass(frozen=True)
class LinearRow:
    """A linear layer, (rows,inputs) to (rows,outputs), in the place of a `regard.bench.grid.Row`."""

    dtype: torch.dtype
    rows: int
    inputs: int
    outputs: int
    isa: str = ""
    kind: str = "linear"
    causal: bool = False
    gradient: bool = False
    bound: str = "flops"

    @property
    def type(self) -> str:
        """The name of the dtype."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def size(self) -> int:
        """The number of rows, as N of attention."""
        return self.rows

    @property
    def shape(self) -> str:
        """The sizes, for a table."""
        return f"{self.rows:,} rows {self.inputs:,} → {self.outputs:,}"

    @property
    def name(self) -> str:
        """Kind, dtype, sizes and instruction set: unique to the row."""
        return " ".join(filter(None, (self.kind, self.type, self.shape, self.isa)))

    @property
    def sizes(self) -> dict[str, object]:
        """What JSON holds of the row, besides its kind and its type."""
        return {"rows": self.rows, "inputs": self.inputs, "outputs": self.outputs, "isa": self.isa}

    @property
    def flops(self) -> float:
        """Floating-point operations."""
        return 2.0 * self.rows * self.inputs * self.outputs

    @property
    def bytes(self) -> float:
        """The bytes that must be read at least: rows and weights."""
        return 1.0 * self.inputs * (self.rows + self.outputs) * self.dtype.itemsize


def roofline(shrink: int = 1) -> list[Row | LinearRow]:
    """Every instruction set and type: attention over N, short segments side by side, linear layers."""
    rows: list[Row | LinearRow] = []
    for isa in cpu.instruction_sets() if cpu.available() else ():
        for dtype in TYPES:
            for causal in (False, True):
                for n in LENGTHS:
                    heads = min(32, max(1, (1 << 23) // n**2))  # as much to compute, as far as memory goes
                    rows.append(Row("attention", dtype, heads, max(2, n // shrink), causal=causal, isa=isa))
            for n in SEGMENTS:
                n = max(2, n // shrink)
                lengths = (n,) * (2048 // shrink // n)
                rows.append(Row("ragged", dtype, 12, n, 32, batch=len(lengths), lengths=lengths, isa=isa))
            rows += [LinearRow(dtype, 2048 // shrink, *sizes, isa=isa) for sizes in LAYERS]
    return rows


def measure_linear(row: LinearRow, rounds: int, at_least: float) -> dict[str, float]:
    """The seconds of a linear layer of the kernel, its weights packed beforehand."""
    generator = torch.Generator().manual_seed(0)
    layer = Linear([nn.Linear(row.inputs, row.outputs)], dtype=row.dtype)
    x = torch.randn(row.rows, row.inputs, generator=generator).to(row.dtype)
    return interleaved({"regard": lambda: layer(x)}, rounds, at_least)
