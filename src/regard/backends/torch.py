"""PyTorch's own attention where it is exact and yields the lse; streamed blocks where it is not, or cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from math import isfinite

import torch
from torch import Tensor

from regard.backends import cpu, gradient, streaming
from regard.backends.protocol import Capabilities, Gradients, Results, Statistics
from regard.mask import Mask
from regard.scores import Scores

_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
_FLASH_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default
LARGEST_LSE = 128  # of which float32 keeps 8e-6
CAPABILITIES = Capabilities()


@lru_cache
def _flash_shares_keys() -> bool:
    """Whether several heads may share one head of keys, for which old releases of torch read beyond the keys."""
    both = torch.tensor([0.0, 1.0], device="cpu").view(1, 2, 1, 1)
    return not _FLASH(torch.zeros_like(both), both[:, :1], both[:, :1])[0].any()


def reasons(scores: Scores, value: Tensor) -> list[str]:
    """Why this backend cannot serve: it always can."""
    return CAPABILITIES.reasons(scores, value)


def forward(scores: Scores, value: Tensor, sinks: Tensor | None, entropy: bool, top: int) -> Results:
    """Output, lse, and the entropy and the `top` largest weights with their keys, where they are asked for."""
    names = ["entropy"] * entropy + [f"topk:{top}"] * (top > 0)
    output, lse, collected = _forward(scores, value, sinks, names)
    (entropies,) = collected.get("entropy", (lse.new_empty(0),))
    nothing = lse.new_empty(*lse.shape, 0), lse.new_empty(*lse.shape, 0, dtype=torch.long)
    values, keys = collected.get(f"topk:{top}", nothing)
    return _heads_side_by_side(output), lse.contiguous(), entropies, values, keys


def _heads_side_by_side(output: Tensor) -> Tensor:
    """(B,H,Q,E) that lies in memory as (B,Q,H,E), as models want it."""
    return output.transpose(1, 2).contiguous().transpose(1, 2)


def _forward(
    scores: Scores, value: Tensor, sinks: Tensor | None, collect: Sequence[str]
) -> tuple[Tensor, Tensor, Statistics]:
    if not collect and _kernel_serves(scores, value):
        output, lse = cpu.forward_by_rule(scores, value, sinks)
        return output, lse.to(scores.dtype), {}
    if collect or not flash_serves(scores, value):
        return streaming.forward(scores, value, sinks, collect)
    output, lse = _by_segment(scores, value)
    if not output.isfinite().all():
        return streaming.forward(scores, value, sinks)  # 0 · nan is nan in there, though nobody may see it
    # Where there may be more keys than queries, what is put together by the lse has no more digits than that.
    merges = scores.mask.causal and (scores.shape[2] < scores.shape[3] or scores.mask.segments is not None)
    if merges and not (lse.masked_fill(lse == -torch.inf, 0).abs() < LARGEST_LSE).all():
        return streaming.forward(scores, value, sinks)
    if sinks is not None:
        output, lse = streaming.with_sinks(output, lse, sinks)
    return output.to(value.dtype), lse, {}


def _kernel_serves(scores: Scores, value: Tensor) -> bool:
    """Whether a callable mask is all that keeps this from the native kernel, which takes what it says of many rows."""
    if not callable(scores.mask.given) or 0 in scores.shape + value.shape:
        return False
    return not cpu.reasons(replace(scores, mask=replace(scores.mask, given=None)), value)


def attend(
    query: Tensor, key: Tensor, value: Tensor, scale: float | None, causal: bool
) -> tuple[Tensor, Tensor] | None:
    """Output and lse of a plain attention in float64 (`regard._checks.plain`) by one call of the operator; None if not.

    Where every query sees every key, what is not finite is not finite by right, in every row, if only its lse is
    finite. Causal, a hidden value that is not finite would show as nan in rows that do not see it.
    """
    if (
        query.dtype is not torch.float64
        or key.dtype is not torch.float64
        or not query.is_cpu
        or query.ndim != 4
        or query.layout is not torch.strided
        or key.shape != value.shape
        or (query.shape if causal else query.shape[:2]) != (key.shape if causal else key.shape[:2])
        or query.shape[3] != key.shape[3]
        or not query.numel() * key.numel()
        or not query.stride(3) == key.stride(3) == value.stride(3) == 1
    ):
        return None
    output, lse = _FLASH(query, key, value, 0.0, causal and query.shape[2] > 1, scale=scale)
    # Not where the operator takes a row of nothing but nan for one that sees nothing, and answers 0.
    if not (isfinite(float(lse.sum())) and lse.all()) or (causal and not isfinite(float(output.sum()))):
        return None
    return output, lse


def backward(
    scores: Scores,
    value: Tensor,
    sinks: Tensor | None,
    output: Tensor,
    lse: Tensor,
    grad_output: Tensor,
    grad_lse: Tensor | None,
    wants_bias: bool,
) -> Gradients:
    """Gradients of query, key, value, bias and sinks."""
    # exp(s − lse) of a lse in float32: where that is large, its last digits are missing in every weight.
    exact = sinks is None and grad_lse is None and not wants_bias and _in_one_call(scores, value)
    if exact and output.isfinite().all() and (lse.abs() < LARGEST_LSE).all():
        causal, bias, dtype = scores.mask.causal, scores.bias, scores.dtype
        tensors = (t.to(dtype) for t in (grad_output, *_ready(scores.query, scores.key, value), output))
        grads = _FLASH_BACKWARD(*tensors, lse, 0.0, causal, attn_mask=bias, scale=scores.scale)
        return *grads, None, None
    return gradient.backward(scores, value, sinks, output, grad_output, grad_lse, wants_bias)


# PyTorch's flash attention on the CPU


def flash_serves(scores: Scores, value: Tensor) -> bool:
    """Whether aten's flash attention for the CPU computes exactly this, in float32 or float64.

    It reads a bias of another type than the tensors as if it were of theirs, and knows no window.
    """
    mask, bias = scores.mask, scores.bias
    if scores.query.device.type != "cpu" or scores.softcap is not None or 0 in scores.shape + value.shape:
        return False
    if mask.window != (None, None) or (mask.causal and mask.to_lengths):
        return False
    hides = mask.lengths is not None or mask.given is not None
    if mask.segments is not None:
        return not hides and bias is None
    if bias is not None:
        return not hides and bias.dtype == scores.dtype and bool(bias.isfinite().all())
    # A mask may hide the same keys from every query: padding.
    return mask.given is None or (isinstance(mask.given, Tensor) and mask.given.shape[2] == 1)


def _in_one_call(scores: Scores, value: Tensor) -> bool:
    """Whether the forward pass was one call of the operator, so that its own backward serves."""
    mask, (_, heads, queries, keys) = scores.mask, scores.shape
    square = queries == keys or not mask.causal
    unmasked = mask.segments is None and mask.lengths is None and mask.given is None
    alike = scores.key.shape == value.shape and heads == scores.key.shape[1] and scores.key.dtype == value.dtype
    return flash_serves(scores, value) and square and unmasked and alike


def _by_segment(scores: Scores, value: Tensor) -> tuple[Tensor, Tensor]:
    # For half precision, aten's operator rounds the weights and takes a quicker exponential; in float32 it does not.
    query, key, value = (tensor.to(scores.dtype) for tensor in (scores.query, scores.key, value))
    mask = scores.mask
    if mask.segments is None:
        visible = _visible_keys(mask, key.device)
        if visible is None:
            return _flash(query, key, value, mask.causal, scores.bias, scores.scale)
        hidden = query.new_zeros(visible.shape).masked_fill_(~visible, -torch.inf)
        return _flash(query, key, value, mask.causal, hidden, scores.scale)
    output, lse = _nothing(query, value)
    query_bounds, key_bounds = (bounds.tolist() for bounds in mask.segments)
    for n in range(len(query_bounds) - 1):
        rows, columns = slice(*query_bounds[n : n + 2]), slice(*key_bounds[n : n + 2])
        inputs = query[:, :, rows], key[:, :, columns], value[:, :, columns]
        output[:, :, rows], lse[:, :, rows] = _flash(*inputs, mask.causal, None, scores.scale)
    return output, lse


def _visible_keys(mask: Mask, device: torch.device) -> Tensor | None:
    """Padding as one bool a key, (B|1,H|1,1,K)."""
    visible = mask.given if isinstance(mask.given, Tensor) else None
    if mask.lengths is not None:
        within = (torch.arange(mask.keys, device=device) < mask.lengths[:, None])[:, None, None]
        visible = within if visible is None else visible & within
    return visible if visible is None else visible.expand(-1, -1, -1, mask.keys)


def _nothing(query: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """What queries get that see no key."""
    batch, heads, queries, _ = query.shape
    lse_dtype = torch.promote_types(query.dtype, torch.float32)
    output = value.new_zeros(batch, queries, heads, value.shape[-1]).transpose(1, 2)
    return output, query.new_full((batch, heads, queries), -torch.inf, dtype=lse_dtype)


def _flash(
    query: Tensor, key: Tensor, value: Tensor, causal: bool, additive: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Output and lse; causal means bottom-right aligned here, and upper-left in the operator."""
    queries, keys = query.shape[2], key.shape[2]
    if queries == 0 or keys == 0:
        return _nothing(query, value)
    ahead = keys - queries  # keys that even the first query sees, itself aside
    if not causal or queries == 1 or ahead == 0:
        return _call(query, key, value, causal and queries > 1, additive, scale)
    if ahead < 0:  # the first queries see nothing, the others a square
        output, lse = _nothing(query, value)
        square = None if additive is None else _rows(additive, slice(-ahead, None))
        output[:, :, -ahead:], lse[:, :, -ahead:] = _flash(query[:, :, -ahead:], key, value, True, square, scale)
        return output, lse
    past, present = slice(0, ahead), slice(ahead, None)
    return merge(
        *(
            _call(query, key[:, :, run], value[:, :, run], square, _columns(additive, run), scale)
            for run, square in ((past, False), (present, True))
        )
    )


def _call(
    query: Tensor, key: Tensor, value: Tensor, causal: bool, additive: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    value_dim = value.shape[-1]
    output, lse = _FLASH(*_ready(query, key, value), 0.0, causal, attn_mask=additive, scale=scale)
    output = output[..., :value_dim]
    if additive is not None and additive.shape[2] == 1:  # padding: the operator's lse of a row that sees nothing is 0
        seen = additive > -torch.inf
        first = torch.where(seen.any(-1), seen.int().argmax(-1), key.shape[2])  # (B|1, H|1, 1)
        empty = torch.arange(1, query.shape[2] + 1, device=first.device) <= first if causal else (first == key.shape[2])
        if empty.any():
            output, lse = output.masked_fill(empty[..., None], 0), lse.masked_fill(empty, -torch.inf)
    if (lse == 0).any():  # the operator may take a row of nothing but nan for one that sees nothing, and answer 0
        unsure = (lse == 0) & ~output.any(-1)
        output = output.masked_fill(unsure[..., None], torch.nan)  # not finite, so that it is streamed
    return output, lse


def _ready(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As the operator wants them: one head dim for all, filled up with zeros, numbers of a head side by side."""
    if query.shape[1] != key.shape[1] and not _flash_shares_keys():
        key, value = (tensor.repeat_interleave(query.shape[1] // tensor.shape[1], dim=1) for tensor in (key, value))
    dim = max(query.shape[-1], value.shape[-1])

    def ready(tensor: Tensor) -> Tensor:
        tensor = torch.nn.functional.pad(tensor, (0, dim - tensor.shape[-1])) if tensor.shape[-1] < dim else tensor
        return tensor if tensor.stride(-1) == 1 else tensor.contiguous()

    return ready(query), ready(key), ready(value)


def _rows(additive: Tensor, rows: slice) -> Tensor:
    return additive if additive.shape[2] == 1 else additive[:, :, rows]


def _columns(additive: Tensor | None, columns: slice) -> Tensor | None:
    return additive if additive is None or additive.shape[3] == 1 else additive[..., columns]


def merge(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Output and lse over all keys, from those over a part of the keys and over the rest."""
    (output, lse), (other_output, other_lse) = first, second
    total = lse.logaddexp(other_lse)
    finite = total.masked_fill(total == -torch.inf, 0)
    weight, other_weight = ((of_keys - finite).exp()[..., None] for of_keys in (lse, other_lse))
    merged = output.to(total.dtype) * weight + other_output.to(total.dtype) * other_weight
    return merged.to(output.dtype), total
