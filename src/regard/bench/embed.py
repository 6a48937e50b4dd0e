"""The benchmark of sentence embeddings: the same texts, regard and its peers in turn.

python -m regard.bench.embed NAME FOLDER TEXTS: in a process of its own, the first vector, and the memory of all.
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

from regard._internal.measure import interleaved, machine, peak_memory
from regard.bench.ceilings import Ceilings, ceilings
from regard.bench.embedders import EMBEDDERS, Embed
from regard.nn import checkpoint
from regard.nn.layers import ACTIVATIONS

USUAL = ("st", "st-bf16", "transformers", "onnx")  # the others take minutes more
SHORT = ["Time flies like an arrow"]
AGREES = 0.99  # the least cosine to regard's vectors with which a peer is timed


@dataclass
class Result:
    """What was measured of one embedder: of all, and then in a process of its own."""

    name: str
    seconds: float  # for all texts
    cosine: float  # to the vectors of "st", or, if it is not there, of "regard": the least of all texts
    short: float | None = None  # seconds for one short text, warm
    first: float | None = None  # seconds from the start of the process to its first vector
    bytes: int | None = None  # of memory, at most


@dataclass
class Report:
    """All that was measured."""

    ceilings: Ceilings
    rounds: int
    texts: int
    tokens: int
    flops: float  # that the texts need, without padding
    machine: dict[str, Any] = field(default_factory=machine)
    results: dict[str, Result] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def speed(self, name: str) -> float:
        """Tokens a second."""
        return self.tokens / self.results[name].seconds

    def share(self, name: str) -> float:
        """Of the ceiling of its type."""
        return self.flops / self.results[name].seconds / self.ceilings.flops[EMBEDDERS[name][1]]

    def ratio(self, name: str, ours: str = "regard") -> float:
        """How many times as long as regard it takes."""
        return self.results[name].seconds / self.results[ours].seconds

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = {}
        for name, result in self.results.items():
            shown, dtype, _ = EMBEDDERS[name]
            rows[name] = vars(result) | {"shown": shown, "type": dtype, "tokens_per_second": self.speed(name)}
            rows[name] |= {"share": self.share(name), "ratio": self.ratio(name)}
        about = {"rounds": self.rounds, "texts": self.texts, "tokens": self.tokens, "flops": self.flops}
        versions = {name: _version(name) for name in ("sentence-transformers", "transformers", "onnxruntime")}
        return about | {
            "machine": self.machine | {name: found for name, found in versions.items() if found},
            "ceilings": self.ceilings._asdict(),
            "rows": rows,
            "refused": self.refused,
        }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return sys.modules[name].__version__ if name in sys.modules else None


def prose(count: int = 1500) -> list[str]:
    """English that every Python brings with it, its reference: texts of one sentence to eight."""
    whole = " ".join("\n".join(text for _, text in sorted(pydoc_data.topics.topics.items())).split())
    sentences = [each for each in re.split(r"(?<=[.:]) (?=[A-Z])", whole) if 20 < len(each) < 300]
    chance, at = random.Random(0), 0
    texts: list[str] = []
    while len(texts) < count:
        some = chance.choice((1, 1, 1, 1, 1, 1, 2, 2, 4, 8))
        texts.append(" ".join(sentences[(at + n) % len(sentences)] for n in range(some)))
        at += some
    return texts


def texts_of(files: Sequence[Path]) -> list[str]:
    """The texts of files, as `regard embed` reads them."""
    from regard.corpus.read import Bad, Source, find, records

    source, texts = Source(files), []
    for record in records(source, find(source)):
        if isinstance(record, Bad):
            raise ValueError(str(record))
        texts.append(record.text)
    if not texts:
        raise ValueError(f"There is no text in {', '.join(map(str, files))}.")
    return texts


def names_of_embedders(names: Sequence[str] | None = None) -> list[str]:
    """regard and some, checked; USUAL if not given. Raises ValueError for one that is not known."""
    for name in names or ():
        if name not in EMBEDDERS:
            raise ValueError(f"peers: expected some of {', '.join(EMBEDDERS)}. Got {name!r}.")
    return [name for name in EMBEDDERS if name in (USUAL if names is None else names) or name.startswith("regard")]


def measure(
    texts: Sequence[str],
    folder: Path,
    names: Sequence[str],
    rounds: int,
    alone: bool = True,
    advance: Callable[[int], object] = lambda done: None,
) -> Report:
    """Open all, see that they agree, time them in turn; `alone`: each in a process of its own too.

    Raises OSError or ValueError where there is no model of BERT's family in the folder.
    """
    if reason := checkpoint.incompatibility(folder, ACTIVATIONS):
        raise ValueError(f"bench embed: {folder} is no model of BERT's family: {reason}")
    types = dict.fromkeys(getattr(torch, EMBEDDERS[name][1]) for name in names)
    tokens, flops = _work(texts, folder)
    report = Report(ceilings(types), rounds, len(texts), tokens, flops)
    with _quiet():
        opened, vectors = _open(texts, folder, names, report)
        advance(1)
        seconds = interleaved({name: partial(embed, texts) for name, embed in opened.items()}, rounds, warm=True)
    advance(1)
    best = vectors.get("st", vectors["regard"])
    for name, found in vectors.items():
        report.results[name] = Result(name, seconds[name], _cosine(found, best))
    if alone:
        for name, result in report.results.items():
            result.first, result.short, result.bytes = _alone(name, folder, texts)
    advance(1)
    return report


def _open(
    texts: Sequence[str], folder: Path, names: Sequence[str], report: Report
) -> tuple[dict[str, Embed], dict[str, np.ndarray]]:
    opened: dict[str, Embed] = {}
    vectors: dict[str, np.ndarray] = {}
    for name in names:
        try:
            embed = EMBEDDERS[name][2](folder)
            found = embed(texts)
            if vectors and (cosine := _cosine(found, vectors["regard"])) < AGREES:
                raise ValueError(f"its vectors differ from regard's: a cosine of {cosine:.3f}")
            opened[name], vectors[name] = embed, found
        except Exception as error:  # a peer that fails is one that does not take part
            if name.startswith("regard"):
                raise
            report.refused[name] = (str(error).strip() or type(error).__name__).splitlines()[0]
    return opened, vectors


def _cosine(some: np.ndarray, others: np.ndarray) -> float:
    products = (some.astype(np.float64) * others).sum(1)
    return float((products / np.linalg.norm(some, axis=1) / np.linalg.norm(others, axis=1)).min())


def _work(texts: Sequence[str], folder: Path) -> tuple[int, float]:
    """Tokens, cut as the model's folder says, and floating-point operations of the layers."""
    from regard.models import open_model

    model = open_model(folder)
    limit = model.pooling.max_length or model.max_length
    special = len(model.prefix_ids) + len(model.suffix_ids)
    encoded = model.tokenizer.encode_batch(list(texts), add_special_tokens=False)
    sizes = np.array([min(len(each.ids) + special, limit) for each in encoded], np.float64)
    shape = checkpoint.sizes(folder, ACTIVATIONS)
    dim, d_ff, layers = shape["dim"], shape["d_ff"], shape["layers"]
    a_token = layers * 2 * (4 * dim * dim + 2 * dim * d_ff)
    return int(sizes.sum()), float(a_token * sizes.sum() + layers * 4 * dim * (sizes**2).sum())


def _alone(name: str, folder: Path, texts: Sequence[str]) -> tuple[float, float, int]:
    """In a process of its own: seconds to the first vector, the median of three; of a short text; the most memory."""
    taken, rest = [], [""]
    with tempfile.TemporaryDirectory() as made:
        file = Path(made, "texts.json")
        file.write_text(json.dumps(list(texts)), encoding="utf-8")
        for more in ("", "", str(file)):
            command = [sys.executable, "-m", __name__, name, str(folder), more]
            start = time.perf_counter()
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
                assert process.stdout is not None
                process.stdout.readline()
                taken.append(time.perf_counter() - start)
                rest = process.stdout.read().splitlines()
    return sorted(taken)[1], *json.loads(rest[-1])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the bars and advice of the libraries that are measured."""
    os.environ["TQDM_DISABLE"] = os.environ["HF_HUB_OFFLINE"] = "1"
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def _main(name: str, folder: str, texts: str) -> None:
    with _quiet():
        embed = EMBEDDERS[name][2](Path(folder))
        embed(SHORT)
        print("first", flush=True)
        if texts:
            short = interleaved({"": partial(embed, SHORT)}, 50)[""]
            embed(json.loads(Path(texts).read_text(encoding="utf-8")))
            print(json.dumps([short, peak_memory()]), flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
