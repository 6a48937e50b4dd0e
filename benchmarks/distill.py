"""Distilling attentions: a student's weights are trained towards a teacher's, without storing a matrix of either.

The loss compares the weights pooled to a picture, their entropy, what each key receives, the largest of each row, a
few whole rows, and vectors that both average. At 512 tokens its gradient is compared with autograd through dense
float64 weights; at 4,096 tokens the peak memory of a training step with that of the forward pass alone.

python benchmarks/distill.py [--tokens 4096] [--heads 12]
"""

from __future__ import annotations

import argparse
import json
import time

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

import regard
from regard._internal.measure import PeakMemory, in_process, machine_line
from regard.backends import reference
from regard.nn import Embeddings, Encoder

DIM, CELLS, ROWS = 64, 32, 8
KINDS = {
    "forward": "forward pass",
    "task": "training step, loss on the hidden states",
    "attentions": "training step, loss on attentions as well",
}


def tensors(tokens: int, heads: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Query and key of the student, query and key of the teacher."""
    torch.manual_seed(0)
    query, key, other_query, other_key = (torch.randn(1, heads, tokens, DIM) for _ in range(4))
    return query.requires_grad_(), key.requires_grad_(), other_query, other_key


def statistics(weights: regard.Weights, key: Tensor) -> list[Tensor]:
    """The statistics of the weights that the loss compares."""
    return [
        weights.pool(CELLS, CELLS) * (weights.shape[-1] // CELLS),
        weights.entropy(),
        weights.received(),
        weights.max().values,
        weights[..., :: weights.shape[-2] // ROWS, :],
        weights @ key,
    ]


def dense_statistics(dense: Tensor, key: Tensor) -> list[Tensor]:
    """The same statistics of a stored matrix, by PyTorch."""
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
    """The sum of squares for each head, averaged over heads; its gradients are of the order of 1."""
    heads = student[0].shape[1]
    return sum(mse_loss(a, b, reduction="sum") for a, b in zip(student, teacher, strict=True)) / heads


def error(tokens: int, heads: int) -> tuple[float, float]:
    """The largest difference of the gradient from that through dense weights in float64, and its largest number."""
    query, key, *teacher = tensors(tokens, heads)
    vectors = teacher[1]
    ours, theirs = (regard.attention(q, k, k, causal=True).weights for q, k in ((query, key), teacher))
    with torch.no_grad():
        targets = statistics(theirs, vectors)
    gradients = torch.autograd.grad(loss_between(statistics(ours, vectors), targets), (query, key))
    student = [tensor.detach().double().requires_grad_() for tensor in (query, key)]
    dense = reference.attention(student[0], student[1], student[1], causal=True)[2]
    exact = loss_between(dense_statistics(dense, vectors.double()), [target.double() for target in targets])
    expected = torch.autograd.grad(exact, student)
    differences = [(a - b).abs().max().item() for a, b in zip(gradients, expected, strict=True)]
    return max(differences), max(gradient.abs().max().item() for gradient in expected)


def peak(tokens: int, heads: int, kind: str) -> tuple[int, float]:
    """Bytes above those of the idle process, and seconds, of what KINDS says, for a student of two layers.

    The attentions in the loss are those of its last layer.
    """
    torch.manual_seed(0)
    dim = DIM * heads
    student = Encoder(Embeddings(1000, dim, tokens), 2, dim=dim, heads=heads, d_ff=4 * dim)
    ids, vectors = torch.randint(1000, (1, tokens)), torch.randn(1, heads, tokens, DIM)
    with PeakMemory() as memory:
        start = time.perf_counter()
        hidden, attentions = student(ids)
        loss = hidden[-1].square().mean()
        if kind == "attentions":
            compared = statistics(attentions[-1].weights, vectors)
            loss = loss + loss_between(compared, [torch.zeros_like(tensor) for tensor in compared]) / tokens
        if kind != "forward":
            loss.backward()
        seconds = time.perf_counter() - start
    return memory.bytes, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--peak", choices=KINDS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    tokens, heads, mib = arguments.tokens, arguments.heads, 2**20
    if arguments.peak:
        print(json.dumps(peak(tokens, heads, arguments.peak)))
        return
    print(machine_line())
    largest, size = error(512, heads)
    print(
        f"  512 tokens, {heads} heads: the gradient, up to {size:.2f}, is within {largest:.1e} of dense float64's",
        end=" ",
    )
    print("(goal: 1e-5)")
    options = "--tokens", str(tokens), "--heads", str(heads)
    used = {kind: in_process(__file__, *options, "--peak", kind) for kind in KINDS}
    stored = 4 * heads * tokens**2 / mib
    print(
        f"  two layers, {tokens:,} tokens, {heads} heads; stored, the weights of a layer would take {stored:,.0f} MiB:"
    )
    for kind, (memory, seconds) in used.items():
        ratio = memory / used["forward"][0]
        print(f"    {KINDS[kind]:46} {memory / mib:5.0f} MiB {seconds:6.1f} s   {ratio:.2f} × the forward pass")
    print("  goal: at most 1.5 × the forward pass")


if __name__ == "__main__":
    main()
