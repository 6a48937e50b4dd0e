"""Contextualised embeddings of texts: a vector a token, a word or a sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from regard.lens.model import Model, check_text
from regard.lens.sentence import POOLS
from regard.lens.words import Span, trimmed, units

if TYPE_CHECKING:
    import numpy as np

Level = Literal["token", "word", "sentence"]
Pool = Literal["mean", "cls", "max", "last"]
Subwords = Literal["mean", "first", "last", "first-last"]
Mix = Literal["mean", "concatenate"]
Truncation = Literal["windows", "cut", "error"]

_AT_ONCE = 1024  # texts that are tokenized together


@dataclass(frozen=True, eq=False)
class Embeddings:
    """What `Lens.embed` gives, a text at a time, in the order of the texts.

    vectors: (texts,dim) for sentences; else, and for parts of texts, a list of (tokens, words or parts,dim). spans: the
    characters that each vector stands for, (start, end). truncated: for each text None, or the character from which on
    it was not read. windows: in how many pieces it was read. tokens: of each text, special ones counted.
    """

    level: Level
    vectors: np.ndarray | list[np.ndarray] = field(repr=False)
    spans: list[list[Span]] = field(repr=False)
    truncated: list[int | None] = field(repr=False)
    windows: list[int] = field(repr=False)
    tokens: list[int] = field(repr=False)

    def __len__(self) -> int:
        return len(self.spans)


class RefusedError(ValueError):
    """Texts that cannot be embedded: {number of the text: why}, and why the first of them."""

    def __init__(self, reasons: dict[int, str]) -> None:
        super().__init__(next(iter(reasons.values())))
        self.reasons = reasons


@dataclass(frozen=True)
class Options:
    """What `Lens.embed` is asked for, checked. layers: from 0; prompt: what stands before each text."""

    level: Level
    layers: tuple[int, ...]
    mix: Mix
    pool: Pool
    subwords: Subwords
    truncation: Truncation
    prompt: str
    dtype: torch.dtype


def check(
    model: Model, level: str, layers: Any, mix: str, pool: str | None, subwords: str, truncation: str,
    prompt: str | None, dtype: str,
) -> Options:  # fmt: skip
    """Raises ValueError or IndexError for what `Lens.embed` does not know."""
    _one_of("level", level, "token", "word", "sentence")
    _one_of("mix", mix, "mean", "concatenate")
    _one_of("subwords", subwords, "mean", "first", "last", "first-last")
    _one_of("truncation", truncation, "windows", "cut", "error")
    _one_of("dtype", dtype, "float32", "bfloat16", "auto")
    says = model.sentences
    if level == "sentence" and pool is None and says.unknown:
        theirs = f"{model.name} makes sentence vectors by {says.unknown}, which is not known here"
        raise ValueError(f"embed: pool: {theirs}; choose one of {', '.join(POOLS)}.")
    pool = says.pool if pool is None else pool
    _one_of("pool", pool, *POOLS)
    if prompt is not None and level != "sentence":
        raise ValueError("embed: prompt: only for sentences.")
    name = says.prompt if prompt is None and level == "sentence" else prompt
    if name is not None and name not in says.prompts:
        known = ", ".join(says.prompts) or "none"
        raise ValueError(f"embed: prompt: expected one that {model.name} knows ({known}). Got {name!r}.")
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    kind = kinds[dtype] if dtype != "auto" else model.fastest
    return Options(level, _layers(model, layers), mix, pool, subwords, truncation, says.prompts.get(name, ""), kind)  # type: ignore[arg-type]


def _one_of(name: str, value: str, *known: str) -> None:
    if value not in known:
        *some, last = map(repr, known)
        raise ValueError(f"embed: {name}: expected {', '.join(some)} or {last}. Got {value!r}.")


def _layers(model: Model, layers: int | Sequence[int] | str) -> tuple[int, ...]:
    count = model.layers + 1
    if isinstance(layers, str):
        if layers != "all":
            raise ValueError(f"embed: layers: expected numbers or 'all'. Got {layers!r}.")
        return tuple(range(count))
    chosen = [int(layer) for layer in (layers if isinstance(layers, Sequence) else [layers])]
    if not chosen:
        raise ValueError("embed: layers: expected one at least. Got none.")
    if wrong := [layer for layer in chosen if not -count <= layer < count]:
        raise IndexError(f"embed: layers: expected 0 (static) to {count - 1} (the last). Got {wrong[0]}.")
    return tuple(layer % count for layer in chosen)


@dataclass(eq=False)
class _Text:
    """One text on its way: its tokens, the windows in which they are read, and the vectors that have come in."""

    text: str
    name: str
    ids: list[int]
    spans: list[Span]
    starts: list[int]  # of the windows
    size: int  # of a window
    truncated: int | None
    prompt: int  # characters that were put before it
    states: dict[int, Tensor] = field(default_factory=dict)


def embed(
    model: Model,
    texts: Sequence[str],
    options: Options,
    names: Sequence[str],
    parts: Sequence[Sequence[Span] | None] | None = None,
    progress: Callable[[int, int], object] = lambda texts, tokens: None,
) -> Embeddings:
    """Embed texts, some at a time. Raises `RefusedError`, or TypeError for what is no text."""
    vectors: Any = [None] * len(texts)
    spans: list[list[Span]] = [[] for _ in texts]
    truncated: list[int | None] = [None] * len(texts)
    windows, tokens = [1] * len(texts), [0] * len(texts)
    for first in range(0, len(texts), _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        on_their_way = _tokenized(model, texts[some], names[some], options, first)
        pieces = [(n, window) for n, each in enumerate(on_their_way) for window in range(len(each.starts))]
        ids = [_piece(model, on_their_way[n], window) for n, window in pieces]
        for piece, states in model.states(ids, options.layers, options.dtype):
            n, window = pieces[piece]
            each = on_their_way[n]
            each.states[window] = _mixed(states, options)
            if len(each.states) < len(each.starts):
                continue
            at = first + n
            found, spans[at] = _level(model, each, options, None if parts is None else parts[at])
            vectors[at] = found.cpu().numpy()
            truncated[at], windows[at] = each.truncated, len(each.starts)
            tokens[at] = sum(map(len, each.states.values()))
            each.states.clear()
            progress(1, tokens[at])
    if options.level == "sentence" and parts is None:
        import numpy as np

        vectors = np.concatenate(vectors) if vectors else np.zeros((0, 0), np.float32)
    return Embeddings(options.level, vectors, spans, truncated, windows, tokens)


# Tokens and windows


def _tokenized(model: Model, texts: Sequence[str], names: Sequence[str], options: Options, first: int) -> list[_Text]:
    """The texts' tokens. `first` is the number of the first text, in `RefusedError`."""
    refused: dict[int, str] = {}
    for n, (text, name) in enumerate(zip(texts, names, strict=True), first):
        try:
            check_text(text, f"embed: {name}")
        except ValueError as error:
            refused[n] = str(error)
    sentences = options.level == "sentence"
    limit = min(model.limit, model.sentences.limit) if sentences else model.limit
    size = limit - len(model.before) - len(model.after)
    if size < 1:
        raise ValueError(f"embed: {model.name} takes {limit} tokens, and all of them are special ones.")
    readable = ["" if n in refused else text for n, text in enumerate(texts, first)]
    lowered = [_lower(text) for text in readable] if sentences and model.sentences.lower else readable
    found = []
    encoded = model.tokenizer.encode_batch([options.prompt + text for text in lowered], add_special_tokens=False)
    for n, (text, name, encoding) in enumerate(zip(texts, names, encoded, strict=True), first):
        ids, offsets = encoding.ids, encoding.offsets
        cut = None
        if len(ids) > size and options.truncation == "cut":
            ids, offsets = ids[:size], offsets[:size]
            cut = max(max(stop for _, stop in offsets) - len(options.prompt), 0)
        if not ids and n not in refused:
            refused[n] = f"embed: {name}: {model.name} sees no token in {text[:60]!r}."
        elif len(ids) > size and options.truncation == "error":
            tokens = len(ids) + limit - size
            refused[n] = f"embed: {name}: it has {tokens:,} tokens, and {model.name} takes {limit:,} at once."
        spans = [(start - len(options.prompt), stop - len(options.prompt)) for start, stop in offsets]
        found.append(_Text(text, name, ids, spans, _starts(len(ids), size), size, cut, len(options.prompt)))
    if refused:
        raise RefusedError(refused)
    return found


def _lower(text: str) -> str:
    """Lower case, letter by letter, so that every letter stays where it is."""
    return "".join(low if len(low := letter.lower()) == 1 else letter for letter in text)


def _starts(tokens: int, size: int) -> list[int]:
    """Where windows begin that overlap by half or more, the last of them at the end."""
    if tokens <= size:
        return [0]
    step = max(size // 2, 1)
    return [*range(0, tokens - size, step), tokens - size]


def _piece(model: Model, text: _Text, window: int) -> list[int]:
    start = text.starts[window]
    return [*model.before, *text.ids[start : start + text.size], *model.after]


def _mixed(states: dict[int, Tensor], options: Options) -> Tensor:
    chosen = [states[layer].float() for layer in options.layers]
    if len(chosen) == 1:
        return chosen[0]
    return torch.stack(chosen).mean(0) if options.mix == "mean" else torch.cat(chosen, 1)


def _assembled(model: Model, text: _Text) -> tuple[Tensor, int, int]:
    """(before + tokens + after,dim): each token from the window in which it is farthest from both ends."""
    before, after = len(model.before), len(model.after)
    if len(text.starts) == 1:
        return text.states[0], before, after
    at, pieces = 0, [text.states[0][:before]]
    for n, start in enumerate(text.starts):
        last = n + 1 == len(text.starts)
        # Between two windows that overlap, in the middle of what both have read.
        stop = start + text.size if last else (text.starts[n + 1] + start + text.size + 1) // 2
        pieces.append(text.states[n][before + at - start : before + stop - start])
        at = stop
    tail = text.states[len(text.starts) - 1]
    return torch.cat([*pieces, tail[len(tail) - after :]]), before, after


# Vectors


def _level(model: Model, text: _Text, options: Options, parts: Sequence[Span] | None) -> tuple[Tensor, list[Span]]:
    states, before, after = _assembled(model, text)
    of_text = states[before : len(states) - after]
    if options.level == "sentence":
        if parts is None:
            if options.prompt and not model.sentences.with_prompt:
                states = states[before + sum(start < 0 for start, _ in text.spans) :]
            read = len(text.text) if text.truncated is None else text.truncated
            found, spans = [_pooled(states, options.pool)], [(0, read)]
        else:
            groups = [_within(text, part) for part in parts]
            found, spans = [_pooled(of_text[tokens], options.pool) for tokens in groups], list(parts)
        vectors = torch.stack(found) if found else of_text[:0]
        return torch.nn.functional.normalize(vectors, dim=-1) if model.sentences.normalised else vectors, spans
    own = [trimmed(text.text, *span) for span in text.spans]
    if options.level == "token":
        return of_text, own
    known = units(text.text, own) if parts is None else [(part, _touching(own, part)) for part in parts]
    kept = [(span, tokens) for span, tokens in known if span is not None and tokens]
    found = [_word(of_text[tokens[0] : tokens[-1] + 1], options.subwords) for _, tokens in kept]
    empty = of_text.new_zeros(0, of_text.shape[1] * (2 if options.subwords == "first-last" else 1))
    return torch.stack(found) if found else empty, [span for span, _ in kept]


def _pooled(states: Tensor, pool: Pool) -> Tensor:
    if pool == "mean":
        return states.mean(0)
    return states.amax(0) if pool == "max" else states[0 if pool == "cls" else -1]


def _word(states: Tensor, subwords: Subwords) -> Tensor:
    if subwords == "mean":
        return states.mean(0)
    return torch.cat((states[0], states[-1])) if subwords == "first-last" else states[0 if subwords == "first" else -1]


def _within(text: _Text, part: Span) -> list[int]:
    """The tokens that begin in a part of a text."""
    tokens = [n for n, (start, _) in enumerate(text.spans) if part[0] <= start < part[1]]
    if not tokens:
        raise ValueError(f"embed: {text.name}: no token begins between the characters {part[0]} and {part[1]}.")
    return tokens


def _touching(spans: Sequence[Span], word: Span) -> list[int]:
    return [n for n, (start, stop) in enumerate(spans) if start < word[1] and stop > word[0]]
