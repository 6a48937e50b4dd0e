"""The benchmark of sentence embeddings: regard and its peers, interleaved, on the same texts.

python -m regard.bench.embed NAME FOLDER TEXTS measures an embedder in a process of its own.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pydoc_data.topics
import random
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from regard._internal.measure import interleaved, peak_memory
from regard.bench.embedders import EMBEDDERS, Embed
from regard.bench.machines import machine
from regard.bench.peaks import Peaks, measure_peaks
from regard.nn import checkpoint
from regard.nn.layers import ACTIVATIONS

DEFAULT_PEERS = (
    "st",
    "st-bf16",
    "transformers",
    "onnx",
    "onnx-int8",
    "onnx-package",
    "openvino",
)  # the others take minutes more
SHORT_TEXTS = ["Time flies like an arrow"]
# The lowest cosine to regard's float32 vectors; a peer whose vectors differ more is not timed. int8 is less accurate,
# how much is shown.
MIN_COSINE = {"float32": 0.99, "bfloat16": 0.99, "int8": 0.8}


@dataclass
class Result:
    """What was measured of an embedder, with all texts and then in a process of its own.

    seconds: For all texts. cosine, mean_cosine: To regard's vectors in float32, the lowest and the mean of all texts;
    of regard in float32 to those of "st", if it was measured. short: Seconds for one short text, warm. first: Seconds
    from the start of a process to its first vector. bytes: The peak memory of that process.
    """

    name: str
    seconds: float
    cosine: float
    mean_cosine: float
    short: float | None = None
    first: float | None = None
    bytes: int | None = None


@dataclass
class Report:
    """What was measured of all embedders. flops: That the texts need, without padding. unavailable: Reasons by name."""

    peaks: Peaks
    rounds: int
    texts: int
    tokens: int
    flops: float
    machine: dict[str, Any] = field(default_factory=machine)
    results: dict[str, Result] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)

    def speed(self, name: str) -> float:
        """Tokens per second."""
        return self.tokens / self.results[name].seconds

    def share(self, name: str) -> float | None:
        """The speed as a share of the peak of its dtype; None if that was not measured."""
        peak = self.peaks.flops.get(EMBEDDERS[name].dtype)
        return None if peak is None else self.flops / self.results[name].seconds / peak

    def ratio(self, name: str, ours: str = "regard") -> float:
        """The time of a peer divided by that of regard."""
        return self.results[name].seconds / self.results[ours].seconds

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON can hold it."""
        versions = {
            name: _version(name) for name in ("sentence-transformers", "transformers", "onnxruntime", "openvino")
        }
        return {
            "benchmark": "embed",
            "rounds": self.rounds,
            "texts": self.texts,
            "tokens": self.tokens,
            "flops": self.flops,
            "machine": self.machine | {name: version for name, version in versions.items() if version},
            "peaks": self.peaks._asdict(),
            "rows": {
                name: vars(result)
                | {"shown": EMBEDDERS[name].label, "type": EMBEDDERS[name].dtype}
                | {"tokens_per_second": self.speed(name), "share": self.share(name), "ratio": self.ratio(name)}
                for name, result in self.results.items()
            },
            "unavailable": self.unavailable,
        }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return sys.modules[name].__version__ if name in sys.modules else None


def sample_texts(count: int = 1500) -> list[str]:
    """English texts of one to eight sentences, always the same, from the reference that comes with Python."""
    reference = " ".join("\n".join(text for _, text in sorted(pydoc_data.topics.topics.items())).split())
    sentences = [text for text in re.split(r"(?<=[.:]) (?=[A-Z])", reference) if 20 < len(text) < 300]
    chance, start = random.Random(0), 0
    texts: list[str] = []
    while len(texts) < count:
        size = chance.choice((1, 1, 1, 1, 1, 1, 2, 2, 4, 8))
        texts.append(" ".join(sentences[(start + n) % len(sentences)] for n in range(size)))
        start += size
    return texts


def texts_of(files: Sequence[Path]) -> list[str]:
    """The texts of files, in the formats of `regard embed`. Raises ValueError at a bad record, or without texts."""
    from regard.corpus.files import find_files, read_records
    from regard.corpus.records import BadRecord, Source

    source, texts = Source(files), []
    for record in read_records(source, find_files(source)):
        if isinstance(record, BadRecord):
            raise ValueError(str(record))
        texts.append(record.text)
    if not texts:
        raise ValueError(f"There is no text in {', '.join(map(str, files))}.")
    return texts


def embedder_names(peers: Sequence[str] | None = None) -> list[str]:
    """The names of regard's embedders and of peers, by default DEFAULT_PEERS. Raises ValueError for an unknown name."""
    for name in peers or ():
        if name not in EMBEDDERS:
            raise ValueError(f"peers: expected names among {', '.join(EMBEDDERS)}. Got {name!r}.")
    chosen = DEFAULT_PEERS if peers is None else peers
    return [name for name in EMBEDDERS if name in chosen or name.startswith("regard")]


def measure(
    texts: Sequence[str],
    folder: Path,
    names: Sequence[str],
    rounds: int,
    alone: bool = True,
    advance: Callable[[int], object] = lambda stages: None,
) -> Report:
    """Open the model with all embedders, check that their vectors agree, and time them, interleaved.

    Args:
        folder: The folder of a model of the BERT family.
        names: Of embedders; "regard" is among them.
        alone: Also measure each in a process of its own.
        advance: Called after each of three stages.

    Raises OSError or ValueError if there is no model of the BERT family in the folder.
    """
    if reason := checkpoint.incompatibility(folder, ACTIVATIONS):
        raise ValueError(f"bench embed: {folder} is no model of BERT's family: {reason}")
    os.environ.setdefault("RAYON_NUM_THREADS", str(torch.get_num_threads()))  # the tokenizers' threads, of all alike
    dtypes = dict.fromkeys(getattr(torch, EMBEDDERS[name].dtype) for name in names)
    tokens, flops = _work(texts, folder)
    report = Report(measure_peaks(dtypes), rounds, len(texts), tokens, flops)
    with _quiet():
        opened, vectors = _open(texts, folder, names, report)
        advance(1)
        seconds = interleaved({name: partial(embed, texts) for name, embed in opened.items()}, rounds, warm=True)
    advance(1)
    for name, actual in vectors.items():
        expected = vectors.get("st", actual) if name == "regard" else vectors["regard"]
        cosines = _cosines(actual, expected)
        report.results[name] = Result(name, seconds[name], float(cosines.min()), float(cosines.mean()))
    if alone:
        for name, result in report.results.items():
            result.first, result.short, result.bytes = _alone(name, folder, texts)
    advance(1)
    return report


def _open(
    texts: Sequence[str], folder: Path, names: Sequence[str], report: Report
) -> tuple[dict[str, Embed], dict[str, np.ndarray]]:
    """The embedders that work, and their vectors; the reasons of the others go into the report."""
    opened: dict[str, Embed] = {}
    vectors: dict[str, np.ndarray] = {}
    for name in names:
        try:
            embed = EMBEDDERS[name].open(folder)
            actual = embed(texts)
            if (
                vectors
                and not (cosine := _cosines(actual, vectors["regard"]).min()) >= MIN_COSINE[EMBEDDERS[name].dtype]
            ):
                raise ValueError(f"its vectors differ from regard's: a cosine of {cosine:.3f}")
            opened[name], vectors[name] = embed, actual
        except Exception as error:  # a peer that fails is not measured
            if name.startswith("regard") and name != "regard-int8":  # int8 needs what not every machine has
                raise
            report.unavailable[name] = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return opened, vectors


def _cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    products = (left.astype(np.float64) * right).sum(1)
    cosines: np.ndarray = products / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)
    return cosines


def _work(texts: Sequence[str], folder: Path) -> tuple[int, float]:
    """The tokens of the texts, truncated as the model's folder says, and the FLOP of the layers."""
    from regard.models import open_model

    model = open_model(folder)
    limit = model.pooling.max_length or model.max_length
    special = len(model.prefix_ids) + len(model.suffix_ids)
    encodings = model.tokenizer.encode_batch(list(texts), add_special_tokens=False)
    lengths = np.array([min(len(encoding.ids) + special, limit) for encoding in encodings], np.float64)
    sizes = checkpoint.sizes(folder, ACTIVATIONS)
    dim, d_ff, layers = sizes["dim"], sizes["d_ff"], sizes["layers"]
    per_token = layers * 2 * (4 * dim * dim + 2 * dim * d_ff)
    return int(lengths.sum()), float(per_token * lengths.sum() + layers * 4 * dim * (lengths**2).sum())


def _alone(name: str, folder: Path, texts: Sequence[str]) -> tuple[float, float, int]:
    """In processes of their own: seconds to the first vector, the median of three; for a short text; peak bytes."""
    first, output = [], [""]
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary, "texts.json")
        file.write_text(json.dumps(list(texts)), encoding="utf-8")
        for argument in ("", "", str(file)):
            command = [sys.executable, "-m", __name__, name, str(folder), argument]
            start = time.perf_counter()
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
                assert process.stdout is not None
                process.stdout.readline()
                first.append(time.perf_counter() - start)
                output = process.stdout.read().splitlines()
    return sorted(first)[1], *json.loads(output[-1])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars and warnings of the libraries."""
    os.environ["TQDM_DISABLE"] = os.environ["HF_HUB_OFFLINE"] = "1"
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), open(os.devnull, "w") as devnull, contextlib.redirect_stderr(devnull):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def _main(name: str, folder: str, texts: str) -> None:
    with _quiet():
        embed = EMBEDDERS[name].open(Path(folder))
        embed(SHORT_TEXTS)
        print("first", flush=True)
        if texts:
            short = interleaved({"": partial(embed, SHORT_TEXTS)}, 50)[""]
            embed(json.loads(Path(texts).read_text(encoding="utf-8")))
            print(json.dumps([short, peak_memory()]), flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
