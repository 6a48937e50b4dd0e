"""What maps of the weights cost: each as a multiple of one forward pass of the same shape, measured in turn with it.

python benchmarks/maps.py [--tokens 4096] [--heads 12] [--rounds 7] [--only norms]
"""

import argparse
from collections.abc import Callable

import torch

import regard
from regard._internal.measure import interleaved, machine_line
from regard.backends import cpu
from regard.backends.factors import Factor

DIM = 64


def reductions_of(weights: regard.Weights, value: torch.Tensor) -> dict[str, tuple[float, Callable[[], object]]]:
    """By name: the goal, as a multiple of a forward pass, and what is measured."""
    _, heads, tokens, _ = value.shape
    matrix = weights._matrix
    key_norms = Factor(None, value.norm(dim=-1, keepdim=True))
    gradient = Factor(torch.randn_like(value), value, "relu")
    vectors = torch.randn(1, tokens, heads, DIM)
    gram = vectors @ vectors.mT
    everything, by_key = torch.zeros(tokens, dtype=torch.long), torch.arange(tokens)
    cells = by_key * 512 // tokens
    relevance = torch.rand(1, 1, tokens, 1)

    def received(**rule):
        return lambda: cpu.grouped(matrix._replace(**rule), everything, by_key, (1, tokens), "sum")

    def pooled(**rule):
        return lambda: cpu.grouped(matrix._replace(**rule), cells, cells, (512, 512), "max")

    return {
        "weights, received": (0.7, received()),
        "value-weighted, received": (0.7, received(factors=(key_norms,))),
        "gradient, received": (1.3, received(factors=(gradient,))),
        "gradient, pool": (1.3, pooled(factors=(gradient,))),
        "gradient, top-8": (1.3, lambda: cpu.largest(matrix._replace(factors=(gradient,)), 8, False)),
        "norms, received": (1.5, received(gram=gram)),
        "norms, pool": (1.5, pooled(gram=gram)),
        "rollout, a layer": (0.7, lambda: cpu.apply_transposed(matrix, relevance)),
        "diagonal": (0.01, lambda: cpu.diagonal(matrix, slice(1, tokens), slice(0, tokens - 1))),
        "rollout of norms, a layer": (1.5, lambda: cpu.apply_transposed(matrix._replace(gram=gram), relevance)),
    }


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="only those whose name contains this")
    options = parser.parse_args()
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, options.heads, options.tokens, DIM)
    weights = regard.attention(query, key, value, backend="cpu").weights
    print(machine_line())
    print(f"  {options.heads} heads of {DIM}, {options.tokens:,} tokens, float32, as a multiple of a forward pass")
    for name, (goal, reduce) in reductions_of(weights, value).items():
        if options.only not in name:
            continue
        runs = {"forward": lambda: regard.attention(query, key, value, backend="cpu"), name: reduce}
        taken = interleaved(runs, options.rounds)
        ratio = taken[name] / taken["forward"]
        print(f"  {name:<26}{taken[name]:8.3f} s{ratio:9.3f}   (goal: at most {goal})")


if __name__ == "__main__":
    main()
