"""An attention problem as PyTorch's dispatcher takes it: one flat run of arguments, which all operators share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from regard import _checks
from regard._typing import MaskMod
from regard.backends.protocol import Results
from regard.backends.registry import BACKENDS
from regard.mask import Mask, needed
from regard.scores import Scores

DIFFERENTIABLE = 5  # the first arguments are θ: query, key, value, bias and sinks
TENSORS = 11  # the first arguments are tensors
MASK = 5  # the place of the mask, a tensor or a Python callable
BACKEND = 18  # the place of the backend's name, which comes last
THETA = "Tensor query, Tensor key, Tensor value, Tensor? bias, Tensor? sinks"
SCHEMA = (
    f"{THETA}, Tensor? mask, Tensor? start, Tensor? stop, Tensor? lengths, Tensor? query_bounds, Tensor? key_bounds, "
    "bool causal, bool to_lengths, SymInt? left, SymInt? right, float scale, float? softcap, bool checked, str backend"
)


def flatten(backend: str, scores: Scores, value: Tensor, sinks: Tensor | None) -> tuple[Any, ...]:
    """The arguments of SCHEMA."""
    mask = scores.mask
    query_bounds, key_bounds = mask.segments or (None, None)
    has_spans = mask.causal or mask.window != (None, None) or mask.has_numbers
    checked = not (has_spans or sinks is not None) or _checks.known(mask.lengths, query_bounds, key_bounds, sinks)
    # Made once for a mask, though many calls may share it.
    reads_spans = BACKENDS[backend].CAPABILITIES.reads_spans
    start, stop = mask.spans if has_spans and checked and reads_spans and mask.bounded else (None, None)
    return (
        *(scores.query, scores.key, value, scores.bias, sinks, mask.given, start, stop, mask.lengths),
        *(query_bounds, key_bounds, mask.causal, mask.to_lengths, *mask.window),
        *(scores.scale, scores.softcap, checked, backend),
    )


def unflatten(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    sinks: Tensor | None,
    mask: Tensor | MaskMod | None,
    start: Tensor | None,
    stop: Tensor | None,
    lengths: Tensor | None,
    query_bounds: Tensor | None,
    key_bounds: Tensor | None,
    causal: bool,
    to_lengths: bool,
    left: int | None,
    right: int | None,
    scale: float,
    softcap: float | None,
    checked: bool,
    backend: str,
) -> tuple[Scores, Tensor, Tensor | None]:
    """Scores, value and sinks of the arguments of SCHEMA, with the checks that could not be made before."""
    queries, keys = query.shape[2], key.shape[2]
    window = needed((left, right), queries, keys, causal)
    segments = None if query_bounds is None or key_bounds is None else (query_bounds, key_bounds)
    rule = Mask(queries, keys, causal, window, lengths, segments, mask, to_lengths, query.device)
    if start is not None:
        vars(rule)["spans"] = start, stop
    if not checked:
        rule.check()
        if sinks is not None:
            _checks.finite_sinks(sinks)
    return Scores(query, key, rule, scale, bias, softcap), value, sinks


def lse_dtype(query: Tensor, *arguments: Any) -> torch.dtype:
    """float64 where the backend computes weights from the lse; the type of the arithmetic elsewhere."""
    from_lse = BACKENDS[arguments[BACKEND - 1]].CAPABILITIES.largest_lse is not None
    return torch.float64 if from_lse else torch.promote_types(query.dtype, torch.float32)


def empty_results(arguments: Sequence[Any], entropy: bool, top: int) -> Results:
    """Empty tensors for what attention gives; those that were not asked for have no elements."""
    query, _, value = arguments[:3]
    batch, heads, queries, _ = query.shape
    rows, dtype = (batch, heads, queries), torch.promote_types(query.dtype, torch.float32)
    return (
        value.new_empty(batch, queries, heads, value.shape[3]).transpose(1, 2),  # as models want it
        query.new_empty(rows, dtype=lse_dtype(*arguments)),
        query.new_empty(rows if entropy else 0, dtype=dtype),
        query.new_empty((*rows, top), dtype=dtype),
        query.new_empty((*rows, top), dtype=torch.int64),
    )


def empty_gradients(tensors: Sequence[Tensor | None], query: Tensor) -> Iterator[Tensor]:
    """Empty gradients of θ; those of None have no elements.

    Those of query, key and value lie as (B,N,H,D), which the gradient of a projection takes without a copy.
    """
    for n, tensor in enumerate(tensors):
        if tensor is None:
            yield query.new_empty(0)
        elif n < 3:
            batch, heads, rows, dim = tensor.shape
            yield tensor.new_empty(batch, rows, heads, dim).transpose(1, 2)
        else:
            yield torch.empty_like(tensor, memory_format=torch.contiguous_format)
