"""From hidden states to vectors: of tokens, of words, of sentences or spans, by the model's pooling."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from regard.lens.embed_options import EmbedOptions, SubtokenPooling
from regard.lens.windows import TextError, WindowedText, joined_states, token_ranges
from regard.lens.words import Span, trimmed, units
from regard.models import Model


def vectors_of(
    model: Model, text: WindowedText, options: EmbedOptions, given: Sequence[Span] | None
) -> tuple[Tensor, list[Span]]:
    """The vectors (n,dim) of a text at the chosen level, and the characters that each stands for.

    `given` are the spans that the caller asks for: words at the level "word", else anything. Raises `TextError`.
    """
    if options.level == "sentence" and given is None:
        end = len(text.text) if text.truncated is None else text.truncated
        return _finished(model, _sentence(model, text, options)[None], options), [(0, end)]
    states = joined_states(model, text)
    of_text = states[len(model.prefix_ids) + len(text.prompt_ids) : len(states) - len(model.suffix_ids)]
    if options.level == "sentence" and given is not None:
        of_text = _applied(model.pooling.token_steps, of_text)
        pooled = [_pooled(of_text[tokens_within(text, span)], options.pools) for span in given]
        return (_finished(model, torch.stack(pooled), options) if pooled else of_text[:0]), list(given)
    spans = [trimmed(text.text, *span) for span in text.spans]
    if options.level == "token":
        return of_text, spans
    words: list[tuple[Span | None, list[int]]]
    if given is None:
        words = units(text.text, [None if _is_special(model, text, n) else span for n, span in enumerate(spans)])
    else:
        words = [(span, _overlapping(spans, span)) for span in given]
    kept = [(span, tokens) for span, tokens in words if span is not None and tokens]
    vectors = [_word(of_text[tokens[0] : tokens[-1] + 1], options.subtoken_pooling) for _, tokens in kept]
    empty = of_text.new_zeros(0, of_text.shape[1] * (2 if options.subtoken_pooling == "first-last" else 1))
    return torch.stack(vectors) if vectors else empty, [span for span, _ in kept]


def tokens_within(text: WindowedText, span: Span) -> list[int]:
    """The tokens that begin within a span, not counting the space that many begin with. Raises `TextError` for none."""
    starts = (trimmed(text.text, *token)[0] for token in text.spans)
    tokens = [n for n, start in enumerate(starts) if span[0] <= start < span[1]]
    if not tokens:
        raise TextError(f"no token begins between the characters {span[0]} and {span[1]}.")
    return tokens


def _overlapping(spans: Sequence[Span], word: Span) -> list[int]:
    return [n for n, (start, stop) in enumerate(spans) if start < word[1] and stop > word[0]]


def _is_special(model: Model, text: WindowedText, token: int) -> bool:
    """Whether a token is written in the text as a special one, such as "[SEP]": it is no word, as in a reading."""
    start, stop = text.spans[token]
    id = text.ids[token]
    unknown = id == model.unknown_id and text.text[start:stop] != model.tokenizer.id_to_token(id)
    return id in model.flagged_special_ids and not unknown


def _word(states: Tensor, pooling: SubtokenPooling) -> Tensor:
    if pooling == "mean":
        return states.mean(0)
    return torch.cat((states[0], states[-1])) if pooling == "first-last" else states[0 if pooling == "first" else -1]


def _sentence(model: Model, text: WindowedText, options: EmbedOptions) -> Tensor:
    """The pooled vector of a text. See `Lens.embed` for texts that are read in several windows."""
    steps = model.pooling.token_steps
    skipped = 0 if model.pooling.include_prompt else _prompt_length(model, options.prompt)
    windows = [_applied(steps, text.states[window])[skipped:] for window in range(len(text.starts))]
    whole = _applied(steps, joined_states(model, text))[skipped:]
    if not all(map(len, windows)):
        raise TextError("it has no tokens besides the prompt's.")
    if len(windows) == 1:
        return _pooled(whole, options.pools, skipped)
    shares = torch.tensor([last - first for first, last in token_ranges(text)], dtype=whole.dtype, device=whole.device)
    vectors = []
    for pool in options.pools:
        if pool in ("cls", "last"):
            ends = torch.stack([window[0 if pool == "cls" else -1] for window in windows])
            vectors.append(shares @ ends / shares.sum())
        else:
            vectors.append(_pooled(whole, (pool,), skipped))
    return torch.cat(vectors)


def pooled_text(model: Model, final: Tensor, pools: Sequence[str] | None = None, *, normalized: bool = True) -> Tensor:
    """The vector (dim,) of a text that was read at once, without a prompt, from its final states (N,dim).

    Args:
        model: its pooling, and the steps before and after it.
        final: differentiable.
        pools: other modes than the model's own.
        normalized: whether to divide the vector by its length, where the model's folder asks for it.
    """
    pooled = _pooled(_applied(model.pooling.token_steps, final), model.pooling.modes if pools is None else pools)[None]
    for step in model.pooling.sentence_steps:
        changed = step(pooled)
        if normalized or not torch.allclose(changed, step(2 * pooled)):
            pooled = changed
    return pooled[0, : model.pooling.truncate_dim]


def _prompt_length(model: Model, prompt: str) -> int:
    """How many tokens are left out with the prompt: those of the prompt alone, as sentence-transformers counts them."""
    if not prompt:
        return 0
    ids = [*model.prefix_ids, *model.tokenizer.encode(prompt, add_special_tokens=False).ids, *model.suffix_ids]
    return len(ids) - (ids[-1] in model.all_special_ids)


def _pooled(states: Tensor, pools: Sequence[str], skipped: int = 0) -> Tensor:
    """(N,dim) → (dim × pools). `skipped` tokens before the first count for the weights of "weightedmean"."""
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


def _applied(steps: Sequence[Callable[[Tensor], Tensor]], vectors: Tensor) -> Tensor:
    for step in steps:
        vectors = step(vectors)
    return vectors


def _finished(model: Model, vectors: Tensor, options: EmbedOptions) -> Tensor:
    """After the folder's modules that follow pooling, truncated to the chosen number of dimensions."""
    vectors = _applied(model.pooling.sentence_steps, vectors)
    if options.dims is None:
        return vectors if model.pooling.truncate_dim is None else vectors[:, : model.pooling.truncate_dim]
    if options.dims > vectors.shape[1]:
        raise ValueError(
            f"embed: dims: expected at most {vectors.shape[1]}, the size of {model.name}'s vectors. Got {options.dims}."
        )
    return vectors[:, : options.dims]
