"""How exact it is: every figure is the largest difference found, and the tests hold regard to its limit.

python benchmarks/exact.py [MODEL_FOLDER]

MODEL_FOLDER: a decoder that transformers opens; then only its weights are measured, at 64, 512 and 1,024 tokens.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
import transformers

import regard
import regard.hf
from regard._internal.measure import machine_line
from regard.backends import BACKENDS, reference

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # for the inputs, options, models and oracles of the tests

from support import data, models, oracles, transformers_models  # noqa: E402

TYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
FIGURES = ("output", "weights", "sum of rows", "entropy", "received", "pool", "topk")


def against_the_reference() -> None:
    """Each backend and type, every option alone and every two together, and a long row."""
    print("\nthe largest error against the float64 reference:")
    print(f"  {'':<20}" + "".join(f"{name:>12}" for name in FIGURES))
    for backend in BACKENDS:
        for dtype in TYPES:
            largest: dict[str, float] = defaultdict(float)
            torch.manual_seed(0)
            inputs = oracles.inputs(queries=67, keys=67, dtype=dtype)
            names = [names for n in (1, 2) for names in combinations(oracles.OPTIONS, n)]
            cases = [(inputs, oracles.options(chosen, *inputs[:2])) for chosen in names]
            cases.append((oracles.inputs(1, 2, 2, 64, 16_001, 64, 3, dtype), {}))
            served = sum(measured(backend, *case, largest) for case in cases)
            figures = "".join(f"{largest[name]:12.1e}" for name in FIGURES) if served else "    cannot serve"
            print(f"  {backend + ', ' + str(dtype).removeprefix('torch.'):<20}{figures}")


def measured(backend: str, inputs, options, largest: dict[str, float]) -> bool:
    """Whether the backend serves; and its errors, where they are larger than those known."""
    try:
        found = regard.attention(*inputs, backend=backend, collect=("entropy", "topk:3"), **options)
    except ValueError:
        return False
    output, _, dense = oracles.oracle(*inputs, **options)
    weights = found.weights
    rows, columns = ([cell * size // 7 for cell in range(7)] for size in dense.shape[2:])
    pooled = np.add.reduceat(np.add.reduceat(dense.numpy(), rows, 2), columns, 3)
    pairs = {
        "output": (found.output, output),
        "weights": (weights.dense(), dense),
        "sum of rows": (weights.dense().double().sum(-1), dense.sum(-1)),
        "entropy": (weights.entropy(), torch.special.entr(dense).sum(-1)),
        "received": (weights.received(), dense.sum(-2)),
        "pool": (weights.pool(7, 7, "sum"), torch.from_numpy(pooled)),
        "topk": (weights.topk(3).values, dense.sort(dim=-1, descending=True).values[..., :3]),
    }
    for name, (one, other) in pairs.items():
        error = float((one.double() - other).abs().max())
        largest[name] = float(np.maximum(largest[name], error))  # nan is the largest
    return True


def against_pytorch() -> None:
    """The root mean square error of float32 outputs as a multiple of that of scaled_dot_product_attention."""
    kinds = "random", "sentinel", "one-hot", "large", "constant"
    print("\nfloat32: the error against float64 as a multiple of PyTorch's own, 256 queries:")
    print(f"  {'keys':<8}" + "".join(f"{kind:>12}" for kind in kinds))
    for keys in (64, 256, 1024, 4096, 16_384):
        ratios = [error_ratio(kind, keys) for kind in kinds]
        print(f"  {keys:<8,}" + "".join(f"{ratio:12.2f}" for ratio in ratios))


def error_ratio(kind: str, keys: int) -> float:
    torch.manual_seed(0)
    bias = None
    query, key, value = torch.randn(3, 1, 2, keys, 64)
    if kind == "sentinel":  # a window as a finite bias: most of the row is hidden
        ahead = torch.arange(keys) - torch.arange(keys)[:, None]
        bias = torch.where(ahead.abs() < 100, 0.0, torch.finfo(torch.float32).min)[-256:]
    if kind == "one-hot":
        query, key = (8.0 * F.one_hot(torch.randint(64, (1, 2, keys)), 64) for _ in range(2))
    if kind == "large":  # scores up to 100
        query, key = (F.normalize(x, dim=-1) * 800**0.5 for x in (query, key))
    if kind == "constant":
        query, key = torch.full_like(query, 0.5), torch.full_like(key, 0.25)
    query = query[:, :, -256:]
    exact = reference.attention(query, key, value, bias=bias)[0]
    outputs = (
        regard.attention(query, key, value, bias=bias).output,
        F.scaled_dot_product_attention(query, key, value, attn_mask=bias),
    )
    error, peer = ((output.double() - exact).square().mean().sqrt() for output in outputs)
    least = exact.abs().max() * torch.finfo(torch.float32).eps / 8  # below the last digit nobody is more exact
    return float(error / peer.maximum(least))


def walks() -> None:
    reading = regard.Lens().read("Time flies like an arrow")
    errors = [reading.explain("flies", n, h).error for n in range(reading.layers) for h in range(reading.heads)]
    print(f"\nthe walk of “flies” over {len(errors)} heads against the model: {np.max(errors):.1e}")


@torch.no_grad()
def against_eager() -> None:
    """Tiny models of each family, with padding on the left."""
    hf, differences = transformers_models, {}
    stacks = {**hf.ENCODERS, **hf.DECODERS}
    for name, family in {**stacks, **hf.SEQ2SEQ, "vit": hf.VIT}.items():
        model, real = hf.make(family), None
        inputs, names = hf.batch("left"), ["attentions"]
        if name in hf.SEQ2SEQ:
            inputs, _, real = hf.seq2seq_inputs(family, "left")
            names = ["decoder_attentions", "cross_attentions"]
        elif name == "vit":
            inputs = {"pixel_values": torch.randn(2, 3, 12, 12)}
        else:
            real = inputs["attention_mask"]
        eager, ours = hf.both(model, lambda model=model, inputs=inputs: model(**inputs, output_attentions=True))
        rows = 1 if real is None else real[:, None, :, None]
        pairs = [pair for kind in names for pair in zip(eager[kind], ours[kind], strict=True)]
        differences[name] = np.max([((dense - weights.dense()) * rows).abs().max() for dense, weights in pairs])
    print("\noutput_attentions of regard against transformers' eager, by family:")
    print("\n".join(f"  {name:<16}{difference:.1e}" for name, difference in differences.items()))


@torch.no_grad()
def trained(folder: Path, *lengths: int) -> None:
    """A trained decoder: the layers below hand their rounding errors on, regard's as eager's."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    layers, size = model.config.num_hidden_layers, model.config.vocab_size
    print(f"\na trained decoder of {layers} layers: the largest error of a weight against float64:")
    print(f"  {'':<14}{'first layer':>14}{'middle':>10}{'last':>10}{'largest':>10}")
    for length in lengths:
        ids = torch.randint(3, size, (1, length), generator=torch.Generator().manual_seed(0))
        model.double().set_attn_implementation("eager")
        exact = model(ids, output_attentions=True).attentions
        for name in ("eager", "regard"):
            model.float().set_attn_implementation(name)
            weights = model(ids, output_attentions=True).attentions
            dense = (layer.dense() if name == "regard" else layer for layer in weights)
            errors = [float((layer - right).abs().max()) for layer, right in zip(dense, exact, strict=True)]
            shown = errors[0], errors[layers // 2], errors[-1], max(errors)
            print(f"  {f'{length:,} {name}':<14}{shown[0]:14.1e}" + "".join(f"{error:10.1e}" for error in shown[1:]))


def sentences() -> None:
    lens = regard.Lens()
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        print("\nsentences against sentence-transformers: skipped, it is not installed")
    else:
        lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
        texts = [line for line in lines if line.strip()] + models.ODD
        theirs = SentenceTransformer(str(models.EMBEDDED), device="cpu").encode(texts, show_progress_bar=False)
        cosines = (lens.embed(texts).vectors * theirs).sum(-1) / np.linalg.norm(theirs, axis=-1)
        print(f"\n{len(texts)} texts against sentence-transformers: cosines of {cosines.min():.7f} at least")
    if not data.STS.is_file():
        print(f"STS-B, development set: skipped, {data.STS} does not exist")
        return
    with open(data.STS, encoding="utf-8", newline="") as file:
        rows = [row[4:7] for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    one, other = (torch.from_numpy(lens.embed([row[n] for row in rows]).vectors).double() for n in (1, 2))
    scores = torch.tensor([float(row[0]) for row in rows]).double()
    print(f"STS-B, development set: Spearman correlation {oracles.spearman(scores, (one * other).sum(-1)):.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model_folder", nargs="?", type=Path)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    print(machine_line())
    if options.model_folder is not None:
        trained(options.model_folder, 64, 512, 1024)
        raise SystemExit
    against_the_reference()
    against_pytorch()
    walks()
    against_eager()
    if data.STORIES.is_dir():
        trained(data.STORIES, 512)
    else:
        print(f"\na trained decoder: skipped, {data.STORIES} does not exist")
    sentences()
