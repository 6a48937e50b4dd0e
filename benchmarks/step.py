"""A training step of regard.nn against the same model on PyTorch's scaled_dot_product_attention, interleaved.

python benchmarks/step.py [--rounds 7]
"""

import argparse
from types import SimpleNamespace
from unittest.mock import patch

import torch
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from regard._internal.measure import interleaved, machine_line
from regard.nn import Embeddings, Encoder, MaskedLanguageModel, Transformer

VOCABULARY = 2000


def sdpa(query, key, value, causal=False, lengths=None):
    assert lengths is None
    output = scaled_dot_product_attention(query, key, value, is_causal=causal)
    return SimpleNamespace(output=output)


def encoder(length, dim):
    embeddings = Embeddings(VOCABULARY, dim, length)
    model = MaskedLanguageModel(Encoder(embeddings, 4, dim=dim, heads=dim // 64, d_ff=4 * dim), dim)
    at = torch.rand(4096 // length, length) < 0.15
    return model, lambda ids: cross_entropy(model(ids, at), ids[at])


def transformer(length, dim):
    model = Transformer(VOCABULARY, 2, dim=dim, heads=dim // 64, dropout=0.0)
    return model, lambda ids: cross_entropy(model(ids, ids)[0].flatten(0, 1), ids.flatten())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    print(machine_line())
    for make in (encoder, transformer):
        for length in (128, 512, 2048):
            torch.manual_seed(0)
            model, loss = make(length, 256)
            optimizer = torch.optim.AdamW(model.parameters(), 1e-9)
            ids = torch.randint(VOCABULARY, (4096 // length, length))

            def step(loss=loss, optimizer=optimizer, ids=ids):
                optimizer.zero_grad()
                loss(ids).backward()
                optimizer.step()

            def theirs(step=step):
                with patch("regard.nn.attention.attention", sdpa):
                    step()

            taken = interleaved({"regard": step, "sdpa": theirs}, rounds)
            ratio = taken["sdpa"] / taken["regard"]
            times = f"regard {taken['regard']:.3f} s   sdpa {taken['sdpa']:.3f} s"
            print(f"  {make.__name__:11} {4096 // length:2} × {length:5,} tokens, dim 256: {times}   ratio {ratio:.2f}")
    print("  goal: a ratio of at least 1")


if __name__ == "__main__":
    main()
