"""Contextualised embeddings of texts: a vector a token, a word or a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from regard.lens.model import Model, encode, token_spans
from regard.lens.words import Span, units

if TYPE_CHECKING:
    import numpy as np
    from tokenizers import Encoding

Level = Literal["token", "word", "sentence"]
Pool = Literal["mean", "cls", "max"]


@dataclass(frozen=True, eq=False)
class Embeddings:
    """What `Lens.embed` gives, a text at a time, in the order of the texts.

    vectors: (texts,dim) for sentences; else a list of (tokens or words,dim). spans: the characters that each vector
    stands for, (start, end). truncated: for each text None, or the character from which on it was not read.
    """

    level: Level
    vectors: np.ndarray | list[np.ndarray] = field(repr=False)
    spans: list[list[Span]] = field(repr=False)
    truncated: list[int | None] = field(repr=False)

    def __len__(self) -> int:
        return len(self.spans)


def embed(
    model: Model,
    texts: Sequence[str],
    level: Level,
    layers: Sequence[int],
    pool: Pool,
    names: Sequence[str],
    batch_tokens: int = 4096,
    progress: Callable[[int], object] = lambda done: None,
) -> Embeddings:
    """Embed texts in batches of about one length, so that little is padded; in the order given."""
    limit = min(model.limit, _sentence_limit(model.folder)) if level == "sentence" else model.limit
    encoded = [encode(model, text, limit, f"embed: {name}") for text, name in zip(texts, names, strict=True)]
    encodings = [encoding for encoding, _ in encoded]
    cuts = [None if cut is None else cut.character for _, cut in encoded]
    vectors: Any = [None] * len(texts)
    spans: list[list[Span]] = [[] for _ in texts]
    normalised = level == "sentence" and _normalises(model.folder)
    for batch in _batches(encodings, batch_tokens):
        lengths = torch.tensor([len(encodings[n].ids) for n in batch])
        ids = torch.full((len(batch), int(lengths.max())), model.pad)
        for row, n in enumerate(batch):
            ids[row, : lengths[row]] = torch.tensor(encodings[n].ids)
        with torch.inference_mode():
            hidden, _ = model.forward(ids, None if (lengths == lengths[0]).all() else lengths)
            mixed = torch.stack([_hidden(hidden, layer) for layer in layers]).float().mean(0)
        for row, n in enumerate(batch):
            states = mixed[row, : lengths[row]]
            cut = cuts[n]
            read = len(texts[n]) if cut is None else cut
            vectors[n], spans[n] = _level(level, pool, states, encodings[n], texts[n], read)
            if normalised:
                vectors[n] = torch.nn.functional.normalize(vectors[n], dim=-1)
            vectors[n] = vectors[n].cpu()
        progress(len(batch))
    if level == "sentence":
        vectors = torch.stack(vectors).numpy() if vectors else torch.zeros(0, 0).numpy()
    else:
        vectors = [each.numpy() for each in vectors]
    return Embeddings(level, vectors, spans, cuts)


def _hidden(hidden: Sequence[Tensor], layer: int) -> Tensor:
    if not -len(hidden) <= layer < len(hidden):
        raise IndexError(f"embed: layers: expected 0 (static) to {len(hidden) - 1} (the last). Got {layer}.")
    return hidden[layer]


def _level(
    level: Level, pool: Pool, states: Tensor, encoding: Encoding, text: str, read: int
) -> tuple[Tensor, list[Span]]:
    if level == "sentence":
        pooled = {"mean": states.mean(0), "cls": states[0], "max": states.amax(0)}[pool]
        return pooled, [(0, read)]
    spans = token_spans(encoding, text)
    groups = [(span, [n]) for n, span in enumerate(spans)] if level == "token" else units(text, spans)
    kept = [(span, tokens) for span, tokens in groups if span is not None]
    means = [states[tokens].mean(0) for _, tokens in kept]
    return torch.stack(means) if means else states[:0], [span for span, _ in kept]


def _batches(encodings: Sequence[Encoding], batch_tokens: int) -> Iterator[list[int]]:
    batch: list[int] = []
    for n in sorted(range(len(encodings)), key=lambda n: len(encodings[n].ids)):
        if batch and (len(batch) + 1) * len(encodings[n].ids) > batch_tokens:
            yield batch
            batch = []
        batch.append(n)
    if batch:
        yield batch


def _sentence_limit(folder: Path | None) -> int:
    """The length to which a sentence encoder's folder says that it was trained."""
    file = folder / "sentence_bert_config.json" if folder else None
    config = json.loads(file.read_text(encoding="utf-8")) if file is not None and file.is_file() else {}
    return config.get("max_seq_length") or 1 << 30


def _normalises(folder: Path | None) -> bool:
    file = folder / "modules.json" if folder else None
    return file is not None and file.is_file() and ".Normalize" in file.read_text(encoding="utf-8")
