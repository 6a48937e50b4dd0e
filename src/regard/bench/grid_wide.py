"""Sixty shapes that stand for what users call attention with: none of them should be slower than SDPA.

How they were chosen: by kind. Some are what ordinary models ask for, at several lengths and in all types. More are of
the kinds in which measurements and reports found attention libraries slower than SDPA: calls of few products, whose
time is that of the call; few queries on many keys and many on few, where there is little to share; many short
sequences; dims that fill no vector; float64; masks as rules; the gradient of short sequences. A kind has as many rows
as it takes to tell its shapes apart. The kinds for which SDPA has no way of its own, where the ratios are largest
(window, packed and padded sequences, decoding), have one row or two each, so that they do not decide the mean.
"""

from __future__ import annotations

import random

import torch

from regard.bench.grid import Row

F32, F64, BF16, F16 = torch.float32, torch.float64, torch.bfloat16, torch.float16


def wide(shrink: int = 1) -> list[Row]:
    """The sixty rows, lengths of more than 16 divided by `shrink`, and batches likewise."""

    def shrunk(size: int) -> int:
        return max(min(size, 16), size // shrink)

    lengths = tuple(random.Random(0).choices(range(8, 257), k=shrunk(64)))
    return [
        # Plain and causal, at several lengths, in all types.
        *(Row("attention", F32, 12, shrunk(n)) for n in (128, 512, 2048)),
        *(Row("attention", F32, 12, shrunk(n), causal=True) for n in (128, 512, 2048)),
        *(Row("attention", BF16, 12, shrunk(n)) for n in (128, 1024)),
        Row("attention", BF16, 12, shrunk(1024), causal=True),
        *(Row("attention", F16, 12, shrunk(n)) for n in (128, 1024)),
        # Calls of few products.
        *(Row("tiny", F32, 4, n, dim) for n, dim in ((4, 8), (8, 16), (16, 64))),
        Row("tiny", F32, 4, 8, 16, causal=True),
        Row("tiny", F32, 4, shrunk(64), queries=4),
        Row("tiny", F32, 12, shrunk(32)),
        # Few queries on many keys.
        *(Row("few queries", F32, 12, shrunk(2048), dim, queries=1) for dim in (8, 20, 64, 100)),
        *(Row("few queries", F32, 12, shrunk(4096), queries=queries) for queries in (8, 32)),
        # One key and few keys.
        Row("few keys", F32, 12, 1, batch=shrunk(64)),
        Row("few keys", F32, 12, 1, batch=shrunk(64), queries=shrunk(64)),
        *(Row("few keys", F32, 12, keys, queries=shrunk(4096)) for keys in (4, 16)),
        # Many short sequences: of unequal length, in time series, in the layers of an encoder.
        *(Row("short", F32, 12, n, batch=shrunk(64)) for n in (2, 16, shrunk(96))),
        Row("short", F32, 1, 16, 8, batch=shrunk(4096)),
        Row("short", F32, 128, shrunk(64), 32),
        Row("short", F32, 12, shrunk(128), 32, batch=shrunk(32)),
        Row("ragged", F32, 12, max(lengths), 32, batch=len(lengths), lengths=lengths),
        Row("ragged", BF16, 12, max(lengths), 32, batch=len(lengths), lengths=lengths),
        Row("padded", F32, 12, max(lengths), 32, batch=len(lengths), lengths=lengths),
        # Dims that fill no vector or no tile, and large ones.
        *(Row("dims", F32, 4, shrunk(512), dim) for dim in (1, 24, 80, 160, 256, 512)),
        # float64.
        *(Row("double", F64, 4, shrunk(n)) for n in (64, 512)),
        Row("double", F64, 4, shrunk(512), causal=True),
        # Masks and biases.
        *(Row("mask", F32, 12, shrunk(512), mask=mask) for mask in ("rule", "(N,N)", "(B,H,Q,K)")),
        Row("bias", F32, 8, shrunk(1024)),
        Row("window", F32, 8, shrunk(2048), window=shrunk(256)),
        # Grouped queries, values of another dim, decoding.
        Row("grouped queries", F32, 32, shrunk(512), groups=8, causal=True),
        Row("values", F32, 8, shrunk(1024), 64, value_dim=128),
        Row("values", F32, 8, shrunk(1024), 192, value_dim=128),
        Row("decoding", F32, 32, shrunk(4096), 128, groups=8, queries=1),
        Row("decoding", BF16, 32, shrunk(4096), 128, groups=8, queries=1),
        # Forward and backward.
        Row("backward", F32, 4, 8, 16),
        Row("backward", F32, 1, 16, batch=shrunk(512)),
        Row("backward", F32, 12, shrunk(32), 32, batch=shrunk(64)),
        Row("backward", F32, 12, shrunk(4096), queries=16),
        Row("backward", F32, 12, shrunk(512)),
    ]
