"""The options of `Lens.embed`: their values, and the checks that name what is wrong."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch

from regard._internal.deprecated import warn
from regard.models import Model
from regard.models.pooling import POOLS

Level = Literal["token", "word", "sentence"]
Pool = Literal["mean", "cls", "max", "last", "weightedmean", "mean_sqrt_len"]
Aggregate = Literal["mean", "concatenate"]
SubtokenPooling = Literal["mean", "first", "last", "first-last"]
TruncationStrategy = Literal["windows", "truncate", "error"]
OnError = Literal["raise", "skip"]
DType = Literal["float32", "bfloat16", "int8", "auto"]


@dataclass(frozen=True)
class EmbedOptions:
    """What `Lens.embed` is asked for, checked.

    Attributes:
        level, aggregate, subtoken_pooling, truncation, on_error: as in `Lens.embed`.
        layers: which of the L + 1 hidden states, from 0.
        pools: the pooling modes of sentence vectors.
        prompt: the text that is put before each text.
        dims: how many of a sentence vector's numbers are kept; None for as many as the model's folder says.
        dtype: the type of the computation.
    """

    level: Level
    layers: tuple[int, ...]
    aggregate: Aggregate
    pools: tuple[str, ...]
    subtoken_pooling: SubtokenPooling
    truncation: TruncationStrategy
    prompt: str
    dims: int | None
    on_error: OnError
    dtype: torch.dtype


def check_options(
    model: Model, *, level: str, layers: Any, pool: Any, aggregate: str, subtoken_pooling: str, truncation: str,
    prompt: str | None, prompt_text: str | None, dims: int | None, on_error: str, dtype: str,
) -> EmbedOptions:  # fmt: skip
    """The options, checked. Raises TypeError, ValueError or IndexError for values that `Lens.embed` does not know."""
    _check_choice("level", level, Level)
    _check_choice("aggregate", aggregate, Aggregate)
    _check_choice("subtoken_pooling", subtoken_pooling, SubtokenPooling)
    _check_choice("truncation", truncation, TruncationStrategy)
    _check_choice("on_error", on_error, OnError)
    _check_choice("dtype", dtype, DType)
    for name, value in (("prompt", prompt), ("prompt_text", prompt_text), ("dims", dims)):
        if value is not None and level != "sentence":
            raise ValueError(f"embed: {name}= can only be used with level='sentence'.")
    pools = _pools(model, pool, level)
    if dims is not None and not hasattr(dims, "__index__"):
        raise TypeError(f"embed: dims: expected a whole number. Got {dims!r}.")
    if dims is not None and (isinstance(dims, bool) or operator.index(dims) < 1):
        raise ValueError(f"embed: dims: expected a positive number. Got {dims!r}.")
    dtypes = {
        "float32": torch.float32,
        "bfloat16": torch.bfloat16,
        "int8": torch.int8,
        "auto": model.fastest_dtype,
    }
    return EmbedOptions(
        cast(Level, level),
        _layers(model, layers),
        cast(Aggregate, aggregate),
        pools,
        cast(SubtokenPooling, subtoken_pooling),
        cast(TruncationStrategy, truncation),
        _prompt(model, prompt, prompt_text) if level == "sentence" else "",
        dims,
        cast(OnError, on_error),
        dtypes[dtype],
    )


def current_truncation(truncation: str) -> str:
    """The truncation strategy under its current name."""
    if truncation == "cut":
        warn("embed: truncation='cut' is now called truncation='truncate'.", levels=4)
        return "truncate"
    return truncation


def _check_choice(name: str, value: str, choices: Any) -> None:
    if value not in get_args(choices):
        *others, last = map(repr, get_args(choices))
        raise ValueError(f"embed: {name}: expected {', '.join(others)} or {last}. Got {value!r}.")


def _pools(model: Model, pool: str | Sequence[str] | None, level: str) -> tuple[str, ...]:
    """The pooling modes: those that are chosen, or else those of the model's folder."""
    pooling = model.pooling
    if level == "sentence" and pooling.unsupported:
        raise ValueError(
            f"embed: {model.name} makes sentence vectors with {pooling.unsupported}, which regard does not compute; "
            "level='token' and level='word' can be used."
        )
    if level == "sentence" and pool is None and not pooling.modes:
        raise ValueError(f"embed: pool: {model.name}: {pooling.unspecified}; choose one of {', '.join(POOLS)}.")
    if not isinstance(pool, str | Sequence | None):
        raise TypeError(f"embed: pool: expected a pooling mode, or several. Got {pool!r}.")
    if pool is None:
        return pooling.modes
    pools = (pool,) if isinstance(pool, str) else tuple(pool)
    if not pools:
        raise ValueError("embed: pool: expected at least one pooling mode. Got none.")
    for name in pools:
        _check_choice("pool", name, Pool)
    return pools


def _prompt(model: Model, name: str | None, text: str | None) -> str:
    if text is not None:
        if name is not None:
            raise ValueError("embed: prompt= and prompt_text= cannot be used together.")
        if not isinstance(text, str):
            raise TypeError(f"embed: prompt_text: expected a str. Got {type(text).__name__}.")
        return text
    pooling = model.pooling
    name = pooling.default_prompt if name is None else name
    if name is not None and name not in pooling.prompts:
        known = ", ".join(pooling.prompts) or "none"
        raise ValueError(f"embed: prompt: expected a prompt that {model.name} has ({known}). Got {name!r}.")
    return "" if name is None else pooling.prompts[name]


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
        raise ValueError("embed: layers: expected at least one layer. Got none.")
    if outside := [layer for layer in chosen if not -count <= layer < count]:
        raise IndexError(f"embed: layers: expected 0 (static) to {count - 1} (the last). Got {outside[0]}.")
    return tuple(layer % count for layer in chosen)
