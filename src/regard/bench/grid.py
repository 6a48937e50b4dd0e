"""The rows of the benchmark of attention: shapes, and how much work each of them is."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch

TYPES = (torch.float32, torch.bfloat16, torch.float16)

# The kinds of rows: regard and its peers at the same task, then what regard's weights cost.
BESIDE_PEERS = {
    "attention": "Attention",
    "short": "Short sequences",
    "ragged": "Short sequences, packed; the others padded",
    "window": "Window",
    "bias": "Bias per query and key, as in ALiBi",
    "decoding": "Decoding: one query",
    "backward": "Forward and backward",
}
WEIGHTS_COST = {
    "collected": "entropy + max + top-8 in the same pass",
    "received": "received(), in a second pass",
    "pooled": "pool(256, 256), in a second pass",
    "grouped": "grouped() by 20 tokens, in a second pass",
    "threads": "one thread",
    "memory": "forward + entropy + top-8 + received + pool",
}


@dataclass(frozen=True)
class Row:
    """A problem, and what to measure: kind is a key of the tables above.

    groups: 0 for as many as heads. queries: 0 for as many as keys. window: The number of keys that a query sees, its
    own and those before it; 0 for all. lengths: Of the sequences of the batch.
    """

    kind: str
    dtype: torch.dtype
    heads: int
    keys: int
    dim: int = 64
    batch: int = 1
    groups: int = 0
    queries: int = 0
    causal: bool = False
    window: int = 0
    lengths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", self.groups or self.heads)
        object.__setattr__(self, "queries", self.queries or self.keys)

    @property
    def type(self) -> str:
        """The name of the dtype."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def gradient(self) -> bool:
        """Whether the backward pass is measured too."""
        return self.kind == "backward"

    @property
    def shape(self) -> str:
        """The sizes, for a table."""
        if self.lengths:
            batch = f"{self.batch} of {min(self.lengths)} to {max(self.lengths)}"
        else:
            batch = f"B {self.batch}" if self.batch > 1 else ""
        heads = f"H {self.heads}" + (f" G {self.groups}" if self.groups != self.heads else "")
        length = f"N {self.keys:,}" if self.queries == self.keys else f"Q {self.queries:,} K {self.keys:,}"
        window = f"window {self.window}" if self.window else ""
        return " ".join(filter(None, (batch, heads, "" if self.lengths else length, f"D {self.dim}", window)))

    @property
    def name(self) -> str:
        """Kind, dtype, mask and sizes: unique to the row."""
        return " ".join(filter(None, (self.kind, self.type, "causal" if self.causal else "", self.shape)))

    @property
    def pairs(self) -> int:
        """The number of pairs of a query and a key that it sees, per head, in all sequences."""
        if self.lengths:
            return sum(length * length for length in self.lengths)
        if self.window or self.causal:  # as many queries as keys, each sees its own and those before
            window = min(self.window or self.keys, self.keys)
            return self.batch * (window * (window + 1) // 2 + (self.keys - window) * window)
        return self.batch * self.queries * self.keys

    @property
    def flops(self) -> float:
        """Floating-point operations: 4·D per pair, and 10·D more for the gradient, which recomputes the scores."""
        return (14.0 if self.gradient else 4.0) * self.dim * self.heads * self.pairs

    @property
    def bytes(self) -> float:
        """The bytes that must be read at least: keys and values."""
        return 2.0 * self.batch * self.groups * self.keys * self.dim * self.dtype.itemsize

    @property
    def bound(self) -> str:
        """What bounds the speed: "flops", or "bytes" if each key that is read meets few queries."""
        return "bytes" if self.kind == "decoding" else "flops"


def grid(shrink: int = 1) -> list[Row]:
    """All rows, their lengths divided by `shrink`; of short sequences the batch is divided instead."""

    def shrunk(size: int) -> int:
        return max(2, size // shrink)

    shapes = [(12, 512, 64), (12, 2048, 64), (12, 4096, 64), (8, 8192, 64), (1, 16_384, 64), (8, 4096, 128)]
    rows = [
        Row("attention", dtype, heads, shrunk(n), dim, causal=causal)
        for dtype in TYPES
        for causal in (False, True)
        for heads, n, dim in shapes
    ]
    lengths = tuple(random.Random(0).choices(range(8, 257), k=shrunk(256)))
    for dtype in TYPES[:2]:
        rows += [
            Row("short", dtype, 12, 128, 32, batch=shrunk(32)),
            Row("ragged", dtype, 12, max(lengths), 32, batch=len(lengths), lengths=lengths),
            Row("window", dtype, 1, shrunk(16_384), window=shrunk(512)),
            Row("bias", dtype, 8, shrunk(4096)),
            Row("decoding", dtype, 32, shrunk(32_768), 128, groups=8, queries=1),
            Row("backward", dtype, 12, shrunk(2048)),
            Row("backward", dtype, 1, shrunk(4096)),
            Row("collected", dtype, 12, shrunk(2048)),
        ]
    rows += [Row(kind, torch.float32, 12, shrunk(2048)) for kind in ("received", "pooled", "grouped")]
    rows += [Row("threads", torch.float32, 12, shrunk(2048), causal=causal) for causal in (False, True)]
    return [*rows, Row("memory", torch.float32, 1, shrunk(131_072))]
