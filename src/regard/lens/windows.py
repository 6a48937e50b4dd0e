"""Long texts in windows that a model can read: tokenizing, windows that overlap by half, and putting them together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from regard._internal.plurals import counted
from regard.lens.embed_options import EmbedOptions
from regard.lens.words import Span
from regard.models import Model

if TYPE_CHECKING:
    from tokenizers import Encoding


class TextError(Exception):
    """Why a single text cannot be embedded."""


@dataclass(eq=False)
class WindowedText:
    """A text, its tokens, the windows in which they are read, and the hidden states that have been computed so far.

    Attributes:
        indices: the places of the text among those to embed, more than one if it occurs more than once.
        text: without the prompt.
        ids, spans: its tokens, without special ones.
        prompt_ids: the tokens before it in every window.
        starts: the first token of each window.
        size: the most tokens of a window.
        truncated: the character from which on the text is not read; None if all of it is.
        states: {window: (tokens,dim)}, special tokens and prompt included.
    """

    indices: list[int]
    text: str
    ids: list[int]
    spans: list[Span]
    prompt_ids: list[int]
    starts: list[int]
    size: int
    truncated: int | None
    states: dict[int, Tensor] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether the states of all windows have been computed."""
        return len(self.states) == len(self.starts)


def windowed(
    model: Model, text: str, indices: list[int], encoding: Encoding | None, options: EmbedOptions
) -> WindowedText:
    """A text in windows, from the encoding of prompt and text. Raises `TextError` where it cannot be read."""
    if encoding is None:
        raise TextError(f"the tokenizer of {model.name} has no token for all of {text[:60]!r}.")
    limit = (model.pooling.max_length if options.level == "sentence" else None) or model.max_length
    shift = len(options.prompt)
    first = next((n for n, (_, stop) in enumerate(encoding.offsets) if stop > shift), len(encoding)) if shift else 0
    prompt_ids, ids = encoding.ids[:first], encoding.ids[first:]
    spans = [(max(start - shift, 0), stop - shift) for start, stop in encoding.offsets[first:]]
    size = limit - len(model.prefix_ids) - len(model.suffix_ids) - len(prompt_ids)
    _check_readable(model, text, ids, limit, size, bool(prompt_ids))
    largest = max(encoding.ids)
    if model.vocab_size is not None and largest >= model.vocab_size:
        token = model.tokenizer.id_to_token(largest)
        raise TextError(
            f"its token {token!r} has the id {largest:,}, and {model.name} has {model.vocab_size:,} tokens."
        )
    truncated = None
    if len(ids) > size and options.truncation == "truncate":
        if model.truncates_left:
            raise TextError(
                f"it is too long, and {model.name} truncates texts at their beginning; use truncation='windows'."
            )
        ids, spans = ids[:size], spans[:size]
        truncated = max(stop for _, stop in spans)
    elif len(ids) > size and options.truncation == "error":
        raise TextError(f"it has {len(ids) + limit - size:,} tokens, and {model.name} takes at most {limit:,}.")
    return WindowedText(indices, text, ids, spans, prompt_ids, _starts(len(ids), size), size, truncated)


def _check_readable(model: Model, text: str, ids: Sequence[int], limit: int, size: int, has_prompt: bool) -> None:
    """Raise `TextError` where no token fits beside the special ones, or where the text has none."""
    if size < 1:
        fixed = "the special tokens and the prompt" if has_prompt else "the special tokens"
        raise TextError(f"{model.name} takes at most {counted(limit, 'token')}, and {fixed} take {limit - size}.")
    if not ids:
        raise TextError(f"the text contains no tokens for {model.name}: {text[:60]!r}.")


def _starts(tokens: int, size: int) -> list[int]:
    """The first tokens of windows that overlap by half or more, the last of which ends with the text."""
    if tokens <= size:
        return [0]
    step = max(size // 2, 1)
    return [*range(0, tokens - size, step), tokens - size]


def window_ids(model: Model, text: WindowedText, window: int) -> list[int]:
    """The ids of a window as the model reads it, special tokens and prompt included."""
    start = text.starts[window]
    return [*model.prefix_ids, *text.prompt_ids, *text.ids[start : start + text.size], *model.suffix_ids]


def token_ranges(text: WindowedText) -> list[tuple[int, int]]:
    """For each window the range of the text's tokens that are farther from its ends than from any other window's."""
    stops = [(following + start + text.size + 1) // 2 for start, following in pairwise(text.starts)]
    return list(zip([0, *stops], [*stops, len(text.ids)], strict=True))


def joined_states(model: Model, text: WindowedText) -> Tensor:
    """(prefix + prompt + tokens + suffix,dim): each token from the window that gives it most context on both sides."""
    if len(text.starts) == 1:
        return text.states[0]
    before = len(model.prefix_ids) + len(text.prompt_ids)
    pieces = [text.states[0][:before]]
    for window, (start, (first, last)) in enumerate(zip(text.starts, token_ranges(text), strict=True)):
        pieces.append(text.states[window][before + first - start : before + last - start])
    tail = text.states[len(text.starts) - 1]
    return torch.cat([*pieces, tail[len(tail) - len(model.suffix_ids) :]])


def computed(model: Model, texts: Sequence[WindowedText], options: EmbedOptions) -> Iterator[WindowedText]:
    """The texts in any order, each as soon as the states of all its windows have been computed."""
    windows = [(text, window) for text in texts for window in range(len(text.starts))]
    ids = [window_ids(model, text, window) for text, window in windows]
    for number, states in model.states(ids, options.layers, options.dtype) if ids else ():
        text, window = windows[number]
        text.states[window] = _aggregated(states, options)
        if text.complete:
            yield text


def _aggregated(states: dict[int, Tensor], options: EmbedOptions) -> Tensor:
    """The chosen layers as one vector a token."""
    chosen = [states[layer].float() for layer in options.layers]
    if len(chosen) == 1:
        return chosen[0]
    if options.aggregate == "concatenate":
        return torch.cat(chosen, 1)
    if len({layer.shape[1] for layer in chosen}) > 1:
        sizes = ", ".join(str(layer.shape[1]) for layer in chosen)
        raise ValueError(
            f"embed: aggregate='mean' needs layers of the same size. Got sizes {sizes}; use 'concatenate'."
        )
    return torch.stack(chosen).mean(0)
