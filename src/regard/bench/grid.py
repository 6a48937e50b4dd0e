"""The rows of the benchmark of attention: shapes, and how much work each of them is."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch

TYPES = (torch.float32, torch.bfloat16, torch.float16)

# The kinds of rows: regard and its peers at the same task, then what regard's weights cost.
BESIDE_PEERS = {
    "attention": "Attention",
    "tiny": "Calls of few products",
    "few queries": "Few queries on many keys",
    "few keys": "One key and few keys",
    "short": "Short sequences",
    "ragged": "Short sequences, packed; the others padded",
    "padded": "Short sequences, padded, with their lengths",
    "dims": "Dims from 1 to 512",
    "double": "float64",
    "window": "Window",
    "mask": "A mask as a rule, and as a tensor",
    "bias": "Bias per query and key, as in ALiBi",
    "grouped queries": "Grouped queries",
    "values": "Values of another dim",
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
    own and those before it; 0 for all. lengths: Of the sequences of the batch. value_dim: 0 for that of the keys.
    mask: "rule", "(N,N)" or "(B,H,Q,K)", what it is and the shape of the tensor; "" for none. isa: The instruction set;
    "" for the one in use.
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
    value_dim: int = 0
    mask: str = ""
    isa: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", self.groups or self.heads)
        object.__setattr__(self, "queries", self.queries or self.keys)
        object.__setattr__(self, "value_dim", self.value_dim or self.dim)

    @property
    def type(self) -> str:
        """The name of the dtype."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def size(self) -> int:
        """N, over which a picture shows the row."""
        return self.keys

    @property
    def gradient(self) -> bool:
        """Whether the backward pass is measured too."""
        return self.kind == "backward"

    @property
    def shape(self) -> str:
        """The sizes, for a table."""
        if self.lengths:
            shortest, longest = min(self.lengths), max(self.lengths)
            batch = f"{self.batch} of {longest}" if shortest == longest else f"{self.batch} of {shortest} to {longest}"
        else:
            batch = f"B {self.batch}" if self.batch > 1 else ""
        heads = f"H {self.heads}" + (f" G {self.groups}" if self.groups != self.heads else "")
        length = f"N {self.keys:,}" if self.queries == self.keys else f"Q {self.queries:,} K {self.keys:,}"
        dims = f"D {self.dim}" + (f" E {self.value_dim}" if self.value_dim != self.dim else "")
        window = f"window {self.window}" if self.window else ""
        return " ".join(filter(None, (batch, heads, "" if self.lengths else length, dims, window, self.mask)))

    @property
    def name(self) -> str:
        """Kind, dtype, mask, sizes and instruction set: unique to the row."""
        return " ".join(filter(None, (self.kind, self.type, "causal" if self.causal else "", self.shape, self.isa)))

    @property
    def sizes(self) -> dict[str, object]:
        """What JSON holds of the row, besides its kind and its type."""
        names = "batch heads groups queries keys dim value_dim causal window lengths mask isa"
        return {name: getattr(self, name) for name in names.split()}

    @property
    def pairs(self) -> int:
        """The number of pairs of a query and a key that it sees, per head, in all sequences.

        What a mask hides is counted: it is computed all the same.
        """
        if self.lengths:
            return sum(length * length for length in self.lengths)
        if self.window or self.causal:  # as many queries as keys, each sees its own and those before
            window = min(self.window or self.keys, self.keys)
            return self.batch * (window * (window + 1) // 2 + (self.keys - window) * window)
        return self.batch * self.queries * self.keys

    @property
    def flops(self) -> float:
        """Floating-point operations: 2·(D + E) per pair, and 6·D + 4·E more for the gradient, which computes the
        scores again.
        """
        of_dim, of_value_dim = (8.0, 6.0) if self.gradient else (2.0, 2.0)
        return (of_dim * self.dim + of_value_dim * self.value_dim) * self.heads * self.pairs

    @property
    def bytes(self) -> float:
        """The bytes that must be read at least: keys and values."""
        return 1.0 * self.batch * self.groups * self.keys * (self.dim + self.value_dim) * self.dtype.itemsize

    @property
    def bound(self) -> str:
        """What bounds the speed: "flops", or "bytes" if each key that is read meets few queries."""
        per_key = self.queries * self.heads // self.groups
        return "bytes" if self.kind in ("decoding", "few queries") and per_key < 8 else "flops"


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
