"""Contextualised embeddings of many texts: a vector for each token, word, sentence or span.

`embed` groups identical texts, tokenizes them (windows.py), computes their hidden states, and turns these into vectors
(vectors.py). Its options are checked in embed_options.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from regard._internal.deprecated import renamed_names
from regard.lens.embed_options import EmbedOptions, Level
from regard.lens.encode import check_text
from regard.lens.vectors import tokens_within, vectors_of
from regard.lens.windows import TextError, WindowedText, computed, windowed
from regard.lens.words import Span
from regard.models import Model
from regard.models.tokenizer import encode_batch

if TYPE_CHECKING:
    import numpy as np

_TOKENIZED_AT_ONCE = 1024  # texts


@dataclass(frozen=True, eq=False)
class Embeddings:
    """What `Lens.embed` returns; every list has one entry per text, in the order of the texts.

    Attributes:
        level: of the vectors.
        vectors: (texts,dim) for sentences; otherwise, and for spans, a list of (tokens, words or spans,dim).
        spans: the characters that each vector stands for, (start, end).
        truncated: the character from which on a text was not read; None if all of it was.
        windows: in how many windows each text was read.
        tokens: how many tokens were read, special ones included.
        errors: {text: why it has no vector}, with on_error="skip"; its row is zeros, or its array empty.

    >>> import regard
    >>> lens = regard.Lens()
    >>> embeddings = lens.embed(["Time flies like an arrow", "Fruit flies like a banana"])
    >>> embeddings.vectors.shape
    (2, 384)
    >>> embeddings = lens.embed(["Time flies like an arrow"], level="word")
    >>> embeddings.vectors[0].shape, embeddings.spans[0][:2]
    ((5, 384), [(0, 4), (5, 10)])
    """

    level: Level
    vectors: np.ndarray[Any, Any] | list[np.ndarray[Any, Any]] = field(repr=False)
    spans: list[list[Span]] = field(repr=False)
    truncated: list[int | None] = field(repr=False)
    windows: list[int] = field(repr=False)
    tokens: list[int] = field(repr=False)
    errors: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.spans)


class RejectedTextsError(ValueError):
    """Texts that cannot be embedded. `reasons` is {text: reason}; the message is the first of them.

    >>> import regard
    >>> from regard.lens import RejectedTextsError
    >>> lens = regard.Lens()
    >>> try:
    ...     lens.embed(["Time flies", ""])
    ... except RejectedTextsError as error:
    ...     print(list(error.reasons))
    [1]
    """

    def __init__(self, reasons: dict[int, str]) -> None:
        super().__init__(next(iter(reasons.values())))
        self.reasons = reasons


__getattr__ = renamed_names(__name__, RefusedError="RejectedTextsError")


def embed(
    model: Model,
    texts: Sequence[str],
    options: EmbedOptions,
    names: Sequence[str],
    given: Sequence[Sequence[Span] | None] | None = None,
    progress: Callable[[int, int], object] = lambda texts, tokens: None,
) -> Embeddings:
    """Embed texts, identical ones once.

    Args:
        model: the model to embed with.
        texts: the texts.
        options: checked by `check_options`.
        names: what errors call the texts.
        given: for each text the spans to embed, or None.
        progress: called with how many more texts are done, and how many tokens they have.

    Raises:
        RejectedTextsError: with all reasons, unless `options.on_error` is "skip".
        TypeError: for a text that is not a str.
    """
    batch = _Texts(model, options, texts, names, given)
    vectors: list[Any] = [None] * len(texts)
    spans: list[list[Span]] = [[] for _ in texts]
    truncated: list[int | None] = [None] * len(texts)
    windows, tokens = [0] * len(texts), [0] * len(texts)
    for tokenized in batch.tokenized():
        for text in computed(model, tokenized, options):
            count = sum(map(len, text.states.values()))
            for n in text.indices:
                try:
                    result, spans[n] = batch.vectors(text, n)
                    vectors[n] = result.cpu().numpy()
                except TextError as reason:
                    batch.reject(n, str(reason))
                truncated[n], windows[n], tokens[n] = text.truncated, len(text.starts), count
                progress(1, count)
            text.states.clear()
        batch.raise_errors()
    for n in batch.errors:
        vectors[n], spans[n], truncated[n], windows[n], tokens[n] = None, [], None, 0, 0
    stacked = _stacked(vectors, options.level == "sentence" and given is None)
    return Embeddings(options.level, stacked, spans, truncated, windows, tokens, batch.errors)


@dataclass(eq=False)
class _Texts:
    """The texts of one call of `embed`, and those that were rejected, with the reasons."""

    model: Model
    options: EmbedOptions
    texts: Sequence[str]
    names: Sequence[str]
    given: Sequence[Sequence[Span] | None] | None
    errors: dict[int, str] = field(default_factory=dict)

    def reject(self, n: int, reason: str) -> None:
        self.errors[n] = f"embed: {self.names[n]}: {reason}"

    def raise_errors(self) -> None:
        if self.errors and self.options.on_error == "raise":
            raise RejectedTextsError(dict(sorted(self.errors.items())))

    def tokenized(self) -> Iterator[list[WindowedText]]:
        """The texts, some at a time; the first ones not before all have been checked."""
        groups: dict[str, list[int]] = {}
        for n, text in enumerate(self.texts):
            try:
                check_text(text, f"embed: {self.names[n]}")
                groups.setdefault(text, []).append(n)
            except ValueError as error:
                self.errors[n] = str(error)
        distinct = list(groups.items())
        chunks = [distinct[n : n + _TOKENIZED_AT_ONCE] for n in range(0, len(distinct), _TOKENIZED_AT_ONCE)]
        first = self._windowed(chunks[0]) if chunks else []
        for chunk in chunks[1:]:
            self._windowed(chunk)  # tokenized twice: now to be checked, later to be computed
        self.raise_errors()
        yield first
        for chunk in chunks[1:]:
            yield self._windowed(chunk)

    def _windowed(self, chunk: Sequence[tuple[str, list[int]]]) -> list[WindowedText]:
        prompt = self.options.prompt
        encodings = encode_batch(self.model.unprocessed, [prompt + text for text, _ in chunk])
        readable = []
        for (text, indices), encoding in zip(chunk, encodings, strict=True):
            try:
                windows = windowed(self.model, text, indices, encoding, self.options)
            except TextError as reason:
                for n in indices:
                    self.reject(n, str(reason))
                continue
            windows.indices = [n for n in indices if self._has_tokens(windows, n)]
            readable += [windows] if windows.indices else []
        return readable

    def _has_tokens(self, text: WindowedText, n: int) -> bool:
        """Whether every span to embed has a token; the text is rejected where one has none."""
        try:
            if self.given is not None and self.options.level == "sentence":
                for span in self.given[n] or ():
                    tokens_within(text, span)
        except TextError as reason:
            self.reject(n, str(reason))
            return False
        return True

    def vectors(self, text: WindowedText, n: int) -> tuple[Tensor, list[Span]]:
        """The vectors of the n-th text and their spans. Raises `TextError` where they are not finite."""
        vectors, spans = vectors_of(self.model, text, self.options, None if self.given is None else self.given[n])
        if not vectors.isfinite().all():
            kind = "nan" if vectors.isnan().any() else "infinity"
            raise TextError(f"{self.model.name} gives {kind} for it.")
        return vectors, spans


def _stacked(vectors: list[Any], as_one: bool) -> Any:
    """(texts,dim), or a list; zeros, or an empty array, for a text without vectors."""
    import numpy as np

    width = next((vector.shape[-1] for vector in vectors if vector is not None), 0)
    missing = np.zeros((int(as_one), width), np.float32)
    arrays = [missing if vector is None else vector for vector in vectors]
    if not as_one:
        return arrays
    return np.concatenate(arrays) if arrays else np.zeros((0, 0), np.float32)
