"""Contextualised embeddings of texts: a vector a token, a word or a sentence."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from regard.lens.words import Span, trimmed, units
from regard.models.model import Model, check_text
from regard.models.pooling import POOLS
from regard.models.tokenizer import encoded

if TYPE_CHECKING:
    import numpy as np

Level = Literal["token", "word", "sentence"]
Pool = Literal["mean", "cls", "max", "last", "weightedmean", "mean_sqrt_len"]
Subwords = Literal["mean", "first", "last", "first-last"]
Mix = Literal["mean", "concatenate"]
Truncation = Literal["windows", "cut", "error"]
OnError = Literal["raise", "skip"]

_AT_ONCE = 1024  # texts that are tokenized together


@dataclass(frozen=True, eq=False)
class Embeddings:
    """What `Lens.embed` gives, a text at a time, in the order of the texts.

    Attributes:
        level: of the vectors.
        vectors: (texts,dim) for sentences; else, and for parts of texts, a list of (tokens, words or parts,dim).
        spans: the characters that each vector stands for, (start, end).
        truncated: for each text None, or the character from which on it was not read.
        windows: in how many pieces each text was read.
        tokens: how many each text has, special ones included.
        errors: why a text has no vector, by its number, with on_error="skip"; its row is zeros, or its array empty.
    """

    level: Level
    vectors: np.ndarray | list[np.ndarray] = field(repr=False)
    spans: list[list[Span]] = field(repr=False)
    truncated: list[int | None] = field(repr=False)
    windows: list[int] = field(repr=False)
    tokens: list[int] = field(repr=False)
    errors: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.spans)


class RefusedError(ValueError):
    """Texts that cannot be embedded: {number of the text: why}, and why the first of them."""

    def __init__(self, reasons: dict[int, str]) -> None:
        super().__init__(next(iter(reasons.values())))
        self.reasons = reasons


@dataclass(frozen=True)
class Options:
    """What `Lens.embed` is asked for, checked. layers: from 0; prompt: the text that stands before each text."""

    level: Level
    layers: tuple[int, ...]
    mix: Mix
    pools: tuple[str, ...]
    subwords: Subwords
    truncation: Truncation
    prompt: str
    dims: int | None
    on_error: OnError
    dtype: torch.dtype


def check(
    model: Model, *, level: str, layers: Any, pool: Any, mix: str, subwords: str, truncation: str, prompt: str | None,
    prompt_text: str | None, dims: int | None, on_error: str, dtype: str,
) -> Options:  # fmt: skip
    """Raises TypeError, ValueError or IndexError for what `Lens.embed` does not know."""
    _one_of("level", level, "token", "word", "sentence")
    _one_of("mix", mix, "mean", "concatenate")
    _one_of("subwords", subwords, "mean", "first", "last", "first-last")
    _one_of("truncation", truncation, "windows", "cut", "error")
    _one_of("on_error", on_error, "raise", "skip")
    _one_of("dtype", dtype, "float32", "bfloat16", "auto")
    for name, value in (("prompt", prompt), ("prompt_text", prompt_text), ("dims", dims)):
        if value is not None and level != "sentence":
            raise ValueError(f"embed: {name}: only for sentences.")
    pools = _pools(model, pool, level)
    if dims is not None and not hasattr(dims, "__index__"):
        raise TypeError(f"embed: dims: expected a whole number. Got {dims!r}.")
    if dims is not None and (isinstance(dims, bool) or operator.index(dims) < 1):
        raise ValueError(f"embed: dims: expected a number from 1 on. Got {dims!r}.")
    text = _prompt(model, prompt, prompt_text) if level == "sentence" else ""
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    kind = kinds[dtype] if dtype != "auto" else model.fastest
    return Options(level, _layers(model, layers), mix, pools, subwords, truncation, text, dims, on_error, kind)  # type: ignore[arg-type]


def _one_of(name: str, value: str, *known: str) -> None:
    if value not in known:
        *others, last = map(repr, known)
        raise ValueError(f"embed: {name}: expected {', '.join(others)} or {last}. Got {value!r}.")


def _pools(model: Model, pool: str | Sequence[str] | None, level: str) -> tuple[str, ...]:
    """How a sentence's vector is made of its tokens'."""
    says = model.sentences
    if level == "sentence" and says.refusal:
        raise ValueError(
            f"embed: {model.name} makes sentence vectors by {says.refusal}, which regard does not compute; "
            "level='token' and level='word' are served."
        )
    if level == "sentence" and pool is None and not says.pools:
        raise ValueError(f"embed: pool: {model.name}: {says.unpooled}; choose one of {', '.join(POOLS)}.")
    if not isinstance(pool, str | Sequence | None):
        raise TypeError(f"embed: pool: expected the name of one, or several. Got {pool!r}.")
    pools = says.pools if pool is None else (pool,) if isinstance(pool, str) else tuple(pool)
    if pool is not None and not pools:
        raise ValueError("embed: pool: expected one at least. Got none.")
    for name in pools:
        _one_of("pool", name, *POOLS)
    return pools


def _prompt(model: Model, name: str | None, text: str | None) -> str:
    if text is not None:
        if name is not None:
            raise ValueError("embed: prompt: expected the name of one, or prompt_text=, not both.")
        if not isinstance(text, str):
            raise TypeError(f"embed: prompt_text: expected a str. Got {type(text).__name__}.")
        return text
    says = model.sentences
    name = says.prompt if name is None else name
    if name is not None and name not in says.prompts:
        known = ", ".join(says.prompts) or "none"
        raise ValueError(f"embed: prompt: expected one that {model.name} knows ({known}). Got {name!r}.")
    return "" if name is None else says.prompts[name]


def _layers(model: Model, layers: Any) -> tuple[int, ...]:
    count = model.layers + 1
    if isinstance(layers, str):
        if layers != "all":
            raise ValueError(f"embed: layers: expected numbers or 'all'. Got {layers!r}.")
        return tuple(range(count))
    given = list(layers) if isinstance(layers, Iterable) else [layers]
    if wrong := [layer for layer in given if isinstance(layer, bool) or not hasattr(layer, "__index__")]:
        raise TypeError(f"embed: layers: expected whole numbers or 'all'. Got {wrong[0]!r}.")
    chosen = [operator.index(layer) for layer in given]
    if not chosen:
        raise ValueError("embed: layers: expected one at least. Got none.")
    if outside := [layer for layer in chosen if not -count <= layer < count]:
        raise IndexError(f"embed: layers: expected 0 (static) to {count - 1} (the last). Got {outside[0]}.")
    return tuple(layer % count for layer in chosen)


@dataclass(eq=False)
class _Text:
    """One text on its way: its tokens, the windows in which they are read, and the hidden states that have come in.

    numbers: of all the texts that are this one.
    """

    numbers: list[int]
    text: str
    ids: list[int]
    spans: list[Span]
    prompt: list[int]  # the tokens before it
    starts: list[int]  # of the windows
    size: int  # of a window
    truncated: int | None
    states: dict[int, Tensor] = field(default_factory=dict)


def embed(
    model: Model,
    texts: Sequence[str],
    options: Options,
    names: Sequence[str],
    parts: Sequence[Sequence[Span] | None] | None = None,
    progress: Callable[[int, int], object] = lambda texts, tokens: None,
) -> Embeddings:
    """Embed texts, many at a time, and those that are the same once.

    Raises `RefusedError`, or TypeError for what is no text.
    """
    call = _Call(model, options, texts, names, parts)
    vectors: list[Any] = [None] * len(texts)
    spans: list[list[Span]] = [[] for _ in texts]
    truncated: list[int | None] = [None] * len(texts)
    windows, tokens = [0] * len(texts), [0] * len(texts)
    for batch in call.checked():
        for text in _computed(model, batch, options):
            found = sum(map(len, text.states.values()))
            for n in text.numbers:
                try:
                    result, spans[n] = call.level(text, n)
                    vectors[n] = result.cpu().numpy()
                except _RefusedTextError as reason:
                    call.refuse(n, str(reason))
                truncated[n], windows[n], tokens[n] = text.truncated, len(text.starts), found
                progress(1, found)
            text.states.clear()
        call.stop()
    for n in call.errors:
        vectors[n], spans[n], truncated[n], windows[n], tokens[n] = None, [], None, 0, 0
    stacked = _stacked(vectors, options.level == "sentence" and parts is None)
    return Embeddings(options.level, stacked, spans, truncated, windows, tokens, call.errors)


class _RefusedTextError(Exception):
    """Why one text cannot be embedded."""


@dataclass(eq=False)
class _Call:
    """One call of `embed`: its arguments, and the texts that were refused, with the reasons."""

    model: Model
    options: Options
    texts: Sequence[str]
    names: Sequence[str]
    parts: Sequence[Sequence[Span] | None] | None
    errors: dict[int, str] = field(default_factory=dict)

    def refuse(self, n: int, reason: str) -> None:
        self.errors[n] = f"embed: {self.names[n]}: {reason}"

    def stop(self) -> None:
        if self.errors and self.options.on_error == "raise":
            raise RefusedError(dict(sorted(self.errors.items())))

    def checked(self) -> Iterator[list[_Text]]:
        """All texts, tokenized, some at a time; the first not before all are known to be good."""
        groups: dict[str, list[int]] = {}
        for n, text in enumerate(self.texts):
            try:
                check_text(text, f"embed: {self.names[n]}")
                groups.setdefault(text, []).append(n)
            except ValueError as error:
                self.errors[n] = str(error)
        known = list(groups.items())
        blocks = [known[first : first + _AT_ONCE] for first in range(0, len(known), _AT_ONCE)]
        first = self._tokenized(blocks[0]) if blocks else []
        for block in blocks[1:]:
            self._tokenized(block)  # twice: to be checked, and later to be computed
        self.stop()
        yield first
        for block in blocks[1:]:
            yield self._tokenized(block)

    def _tokenized(self, block: Sequence[tuple[str, list[int]]]) -> list[_Text]:
        prompt = self.options.prompt
        encodings = encoded(self.model.unprocessed, [prompt + text for text, _ in block])
        tokenized = []
        for (text, numbers), encoding in zip(block, encodings, strict=True):
            try:
                made = _text(self.model, text, numbers, encoding, self.options)
            except _RefusedTextError as reason:
                for n in numbers:
                    self.refuse(n, str(reason))
                continue
            made.numbers = [n for n in numbers if self._has_parts(made, n)]
            tokenized += [made] if made.numbers else []
        return tokenized

    def _has_parts(self, text: _Text, n: int) -> bool:
        try:
            if self.parts is not None and self.options.level == "sentence":
                for part in self.parts[n] or ():
                    _within(text, part)
        except _RefusedTextError as reason:
            self.refuse(n, str(reason))
            return False
        return True

    def level(self, text: _Text, n: int) -> tuple[Tensor, list[Span]]:
        """The vectors of a text and their spans."""
        vectors, spans = _level(self.model, text, self.options, None if self.parts is None else self.parts[n])
        if not vectors.isfinite().all():
            kind = "nan" if vectors.isnan().any() else "infinity"
            raise _RefusedTextError(f"{self.model.name} gives {kind} for it.")
        return vectors, spans


def _computed(model: Model, batch: Sequence[_Text], options: Options) -> Iterator[_Text]:
    """The texts, as soon as the states of all their windows are there."""
    pieces = [(text, window) for text in batch for window in range(len(text.starts))]
    ids = [_piece(model, text, window) for text, window in pieces]
    for piece, states in model.states(ids, options.layers, options.dtype) if ids else ():
        text, window = pieces[piece]
        text.states[window] = _mixed(states, options)
        if len(text.states) == len(text.starts):
            yield text


def _stacked(vectors: list[Any], as_one: bool) -> Any:
    """(texts,dim), or a list; zeros, or nothing, for those that are not there."""
    import numpy as np

    width = next((vector.shape[-1] for vector in vectors if vector is not None), 0)
    missing = np.zeros((int(as_one), width), np.float32)
    there = [missing if vector is None else vector for vector in vectors]
    if not as_one:
        return there
    return np.concatenate(there) if there else np.zeros((0, 0), np.float32)


# Tokens and windows


def _text(model: Model, text: str, numbers: list[int], encoding: Any, options: Options) -> _Text:
    """One text's tokens and windows, each of which begins with the prompt."""
    if encoding is None:
        raise _RefusedTextError(f"the tokenizer of {model.name} has no token for all of {text[:60]!r}.")
    limit = (model.sentences.limit if options.level == "sentence" else None) or model.limit
    shift = len(options.prompt)
    first = next((n for n, (_, stop) in enumerate(encoding.offsets) if stop > shift), len(encoding)) if shift else 0
    prompt, ids = encoding.ids[:first], encoding.ids[first:]
    spans = [(max(start - shift, 0), stop - shift) for start, stop in encoding.offsets[first:]]
    size = limit - len(model.before) - len(model.after) - len(prompt)
    if size < 1:
        whose = (
            "all of them are special ones" if not prompt else f"{limit - size} of them are special ones or the prompt's"
        )
        raise _RefusedTextError(f"{model.name} takes {limit} tokens, and {whose}.")
    if not ids:
        raise _RefusedTextError(f"{model.name} sees no token in {text[:60]!r}.")
    if model.rows is not None and max(encoding.ids) >= model.rows:
        beyond = max(encoding.ids)
        piece = model.tokenizer.id_to_token(beyond)
        raise _RefusedTextError(f"its token {piece!r} is number {beyond:,}, and {model.name} has {model.rows:,}.")
    cut = None
    if len(ids) > size and options.truncation == "cut":
        if model.left:
            raise _RefusedTextError(f"it is too long, and {model.name} cuts texts at their beginning; choose windows.")
        ids, spans = ids[:size], spans[:size]
        cut = max(stop for _, stop in spans)
    elif len(ids) > size and options.truncation == "error":
        tokens = len(ids) + limit - size
        raise _RefusedTextError(f"it has {tokens:,} tokens, and {model.name} takes {limit:,} at once.")
    return _Text(numbers, text, ids, spans, prompt, _starts(len(ids), size), size, cut)


def _starts(tokens: int, size: int) -> list[int]:
    """Where windows begin that overlap by half or more, the last of them at the end."""
    if tokens <= size:
        return [0]
    step = max(size // 2, 1)
    return [*range(0, tokens - size, step), tokens - size]


def _piece(model: Model, text: _Text, window: int) -> list[int]:
    start = text.starts[window]
    return [*model.before, *text.prompt, *text.ids[start : start + text.size], *model.after]


def _mixed(states: dict[int, Tensor], options: Options) -> Tensor:
    chosen = [states[layer].float() for layer in options.layers]
    if len(chosen) == 1:
        return chosen[0]
    if options.mix == "concatenate":
        return torch.cat(chosen, 1)
    if len({layer.shape[1] for layer in chosen}) > 1:
        sizes = ", ".join(str(layer.shape[1]) for layer in chosen)
        raise ValueError(f"embed: mix: expected layers of one size for their mean. Got {sizes}: choose 'concatenate'.")
    return torch.stack(chosen).mean(0)


def _shares(text: _Text) -> list[tuple[int, int]]:
    """Of each window, from which of the text's tokens to which it is the one where they are farthest from its ends."""
    stops = [(nxt + start + text.size + 1) // 2 for start, nxt in zip(text.starts, text.starts[1:], strict=False)]
    return list(zip([0, *stops], [*stops, len(text.ids)], strict=True))


def _assembled(model: Model, text: _Text) -> Tensor:
    """(before + prompt + tokens + after,dim): each token from the window that has most context on both its sides."""
    if len(text.starts) == 1:
        return text.states[0]
    before = len(model.before) + len(text.prompt)
    pieces = [text.states[0][:before]]
    for n, (start, (first, last)) in enumerate(zip(text.starts, _shares(text), strict=True)):
        pieces.append(text.states[n][before + first - start : before + last - start])
    tail = text.states[len(text.starts) - 1]
    return torch.cat([*pieces, tail[len(tail) - len(model.after) :]])


# Vectors


def _level(model: Model, text: _Text, options: Options, parts: Sequence[Span] | None) -> tuple[Tensor, list[Span]]:
    if options.level == "sentence" and parts is None:
        read = len(text.text) if text.truncated is None else text.truncated
        return _finished(model, _sentence(model, text, options)[None], options), [(0, read)]
    states = _assembled(model, text)
    of_text = states[len(model.before) + len(text.prompt) : len(states) - len(model.after)]
    if options.level == "sentence" and parts is not None:
        of_text = _through(model.sentences.before, of_text)
        pooled = [_pooled(of_text[_within(text, part)], options.pools) for part in parts]
        return (_finished(model, torch.stack(pooled), options) if pooled else of_text[:0]), list(parts)
    own = [trimmed(text.text, *span) for span in text.spans]
    if options.level == "token":
        return of_text, own
    if parts is None:
        known = units(text.text, [None if _special(model, text, n) else span for n, span in enumerate(own)])
    else:
        known = [(part, _touching(own, part)) for part in parts]
    kept = [(span, tokens) for span, tokens in known if span is not None and tokens]
    words = [_word(of_text[tokens[0] : tokens[-1] + 1], options.subwords) for _, tokens in kept]
    empty = of_text.new_zeros(0, of_text.shape[1] * (2 if options.subwords == "first-last" else 1))
    return torch.stack(words) if words else empty, [span for span, _ in kept]


def _special(model: Model, text: _Text, n: int) -> bool:
    """Whether a token of the text is written there as such, "[SEP]" say: no word, as in a reading."""
    start, stop = text.spans[n]
    id = text.ids[n]
    unknown = id == model.unknown_id and text.text[start:stop] != model.tokenizer.id_to_token(id)
    return id in model.special_ids and not unknown


def _sentence(model: Model, text: _Text, options: Options) -> Tensor:
    """One vector of all tokens that count. See `Lens.embed` for texts that are read in windows."""
    skipped = 0 if model.sentences.with_prompt else _prompt_tokens(model, options.prompt)
    windows = [_through(model.sentences.before, text.states[n])[skipped:] for n in range(len(text.starts))]
    whole = _through(model.sentences.before, _assembled(model, text))[skipped:]
    if not all(map(len, windows)):
        raise _RefusedTextError("nothing of it is left without the prompt.")
    if len(windows) == 1:
        return _pooled(whole, options.pools, skipped)
    shares = torch.tensor([last - first for first, last in _shares(text)], dtype=whole.dtype, device=whole.device)
    vectors = []
    for pool in options.pools:
        if pool in ("cls", "last"):
            ends = torch.stack([window[0 if pool == "cls" else -1] for window in windows])
            vectors.append(shares @ ends / shares.sum())
        else:
            vectors.append(_pooled(whole, (pool,), skipped))
    return torch.cat(vectors)


def _prompt_tokens(model: Model, prompt: str) -> int:
    """The tokens that are left out with the prompt: those of the prompt alone, as sentence-transformers counts them."""
    if not prompt:
        return 0
    ids = [*model.before, *model.tokenizer.encode(prompt, add_special_tokens=False).ids, *model.after]
    return len(ids) - (ids[-1] in model.special)


def _pooled(states: Tensor, pools: Sequence[str], skipped: int = 0) -> Tensor:
    """(N,dim) → (dim × pools). skipped: how many stand before the first, which position weights count."""
    count = len(states)
    vectors = []
    for pool in pools:
        if pool == "weightedmean":
            weights = torch.arange(skipped + 1, skipped + count + 1, dtype=states.dtype, device=states.device)
            vectors.append(weights @ states / weights.sum())
        elif pool == "mean_sqrt_len":
            vectors.append(states.sum(0) / count**0.5)
        elif pool == "mean":
            vectors.append(states.mean(0))
        else:
            vectors.append(states.amax(0) if pool == "max" else states[0 if pool == "cls" else -1])
    return torch.cat(vectors)


def _through(steps: Sequence[Callable[[Tensor], Tensor]], vectors: Tensor) -> Tensor:
    for step in steps:
        vectors = step(vectors)
    return vectors


def _finished(model: Model, vectors: Tensor, options: Options) -> Tensor:
    """What follows the pooling: the folder's modules, then as many of the numbers as are wanted."""
    vectors = _through(model.sentences.after, vectors)
    if options.dims is None:
        return vectors if model.sentences.dims is None else vectors[:, : model.sentences.dims]
    if options.dims > vectors.shape[1]:
        raise ValueError(f"embed: dims: expected {vectors.shape[1]} at most, as {model.name} has. Got {options.dims}.")
    return vectors[:, : options.dims]


def _word(states: Tensor, subwords: Subwords) -> Tensor:
    if subwords == "mean":
        return states.mean(0)
    return torch.cat((states[0], states[-1])) if subwords == "first-last" else states[0 if subwords == "first" else -1]


def _within(text: _Text, part: Span) -> list[int]:
    """The tokens that begin in a part of a text, without the space that many begin with."""
    starts = (trimmed(text.text, *span)[0] for span in text.spans)
    tokens = [n for n, start in enumerate(starts) if part[0] <= start < part[1]]
    if not tokens:
        raise _RefusedTextError(f"no token begins between the characters {part[0]} and {part[1]}.")
    return tokens


def _touching(spans: Sequence[Span], word: Span) -> list[int]:
    return [n for n, (start, stop) in enumerate(spans) if start < word[1] and stop > word[0]]
