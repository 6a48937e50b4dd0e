"""Distilling attentions: a student's weights are drawn towards a teacher's, without a matrix of either being stored.

The loss compares the weights pooled to a picture, their entropy, what each key receives, the largest of each row, a
few whole rows, and vectors that both average. Its gradient at 512 tokens is held against autograd through dense weights
in float64; at 4,096 tokens the peak memory of forward and backward is held against that of the forward pass alone.

python benchmarks/distill.py [--tokens 4096] [--heads 12]
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import starmap

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

import regard
from regard.backends import reference
from regard.bench.measure import PeakMemory, described, in_process

DIM, CELLS, ROWS = 64, 32, 8


def tensors(tokens: int, heads: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Query and key of the student, query and key of the teacher."""
    torch.manual_seed(0)
    query, key, other_query, other_key = (torch.randn(1, heads, tokens, DIM) for _ in range(4))
    return query.requires_grad_(), key.requires_grad_(), other_query, other_key


def asked(weights: regard.Weights, key: Tensor) -> list[Tensor]:
    """What the loss looks at."""
    return [
        weights.pool(CELLS, CELLS) * (weights.shape[-1] // CELLS),
        weights.entropy(),
        weights.received(),
        weights.max().values,
        weights[..., :: weights.shape[-2] // ROWS, :],
        weights @ key,
    ]


def asked_of_dense(dense: Tensor, key: Tensor) -> list[Tensor]:
    """The same of a stored matrix, by torch's own operations."""
    size = dense.shape[-1] // CELLS
    return [
        dense.unflatten(-1, (CELLS, size)).sum(-1).unflatten(-2, (CELLS, size)).mean(-2),
        torch.special.entr(dense).sum(-1),
        dense.sum(-2),
        dense.amax(-1),
        dense[..., :: dense.shape[-2] // ROWS, :],
        dense @ key,
    ]


def loss_between(student: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """The sum of squares for each row or cell, so that gradients are of the size of one."""
    return torch.stack(list(starmap(lambda a, b: mse_loss(a, b, reduction="sum"), zip(student, teacher, strict=True)))).sum()


def error(tokens: int, heads: int) -> tuple[float, float]:
    """The largest difference of the gradient from that through dense weights in float64, and its largest number."""
    query, key, *teacher = tensors(tokens, heads)
    vectors = teacher[1]
    ours, theirs = (regard.attention(q, k, k, causal=True).weights for q, k in ((query, key), teacher))
    with torch.no_grad():
        targets = asked(theirs, vectors)
    gradients = torch.autograd.grad(loss_between(asked(ours, vectors), targets), (query, key))
    student = [tensor.detach().double().requires_grad_() for tensor in (query, key)]
    dense = reference.attention(student[0], student[1], student[1], causal=True)[2]
    exact = loss_between(asked_of_dense(dense, vectors.double()), [target.double() for target in targets])
    expected = torch.autograd.grad(exact, student)
    differences = [(a - b).abs().max().item() for a, b in zip(gradients, expected, strict=True)]
    return max(differences), max(gradient.abs().max().item() for gradient in expected)


def peak(tokens: int, heads: int, backward: bool) -> tuple[int, float]:
    """Bytes above those of the idle process, query, key and output included, and seconds."""
    with PeakMemory() as memory:
        start = time.perf_counter()
        query, key, *teacher = tensors(tokens, heads)
        targets = [torch.zeros(())] * 6
        with torch.set_grad_enabled(backward):
            found = regard.attention(query, key, key, causal=True)
            loss = sum(look.square().sum() for look in asked(found.weights, teacher[1])) + found.output.square().sum()
        del targets
        if backward:
            loss.backward()
        seconds = time.perf_counter() - start
    return memory.bytes, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--peak", choices=["forward", "backward"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    tokens, heads = arguments.tokens, arguments.heads
    if arguments.peak:
        print(json.dumps(peak(tokens, heads, arguments.peak == "backward")))
        return
    print(described())
    largest, size = error(512, heads)
    print(f"  512 tokens, {heads} heads: gradient within {largest:.1e} of dense float64, whose largest is {size:.2f} (goal: 1e-5)")
    shape = "--tokens", str(tokens), "--heads", str(heads)
    forward, seconds = in_process(__file__, *shape, "--peak", "forward")
    both, all_seconds = in_process(__file__, *shape, "--peak", "backward")
    mib = 2**20
    print(f"  {tokens:,} tokens, {heads} heads: forward {forward / mib:.0f} MiB, {seconds:.1f} s;", end=" ")
    print(f"with the gradient {both / mib:.0f} MiB, {all_seconds:.1f} s: {both / forward:.2f} × the memory (goal: 1.5)")
    print(f"  the weights themselves would take {4 * heads * tokens**2 / mib:,.0f} MiB")


if __name__ == "__main__":
    main()
