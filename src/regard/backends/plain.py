"""Attention where little is asked and nobody watches, by the native kernel and past PyTorch's dispatcher."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from regard import _checks
from regard.backends import cpu, operator
from regard.backends.problem import flatten
from regard.mask import Mask
from regard.scores import Scores

with suppress(ImportError):  # as cpu.available() says
    from regard import _kernel


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float | None,
    causal: bool,
    lengths: Tensor | None = None,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor] | None:
    """Output and lse of a plain attention (`regard._checks.plain`), in one call of the kernel; None if not for it."""
    if not cpu.available():
        return None
    options = scale, causal, lengths, mask, bias
    return _kernel.attend(query, key, value, *options, torch.float64, torch.get_num_threads())


def attend_backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    lse: Tensor,
    grad_output: Tensor,
    grad_lse: Tensor | None,
    scale: float | None,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Gradients of query, key and value of `attend`, in float32; None if not for the kernel."""
    delta = cpu.delta(output, grad_output, grad_lse)
    tensors = query, key, value, lse, delta, grad_output
    return _kernel.attend_backward(*tensors, scale, causal, cpu.LARGEST_LSE, torch.float32, **cpu.execution())


class PlainAttention(Function):
    """A plain attention by the kernel, past the dispatcher: nobody watches (`regard._checks.unwatched`).

    Its gradient goes past it too, unless somebody watches then or wants a gradient of it.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float | None, causal: bool) -> Any:
        results = attend(query, key, value, scale, causal)
        if results is not None:
            ctx.save_for_backward(query, key, value, *results)
            ctx.options = scale, causal
            ctx.set_materialize_grads(False)
        return results

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None, grad_lse: Tensor | None) -> Any:
        query, key, value, output, lse = ctx.saved_tensors
        if grad_output is None:
            grad_output = torch.zeros_like(output)
        if not torch.is_grad_enabled() and type(grad_output) is Tensor and _checks.unwatched():
            grads = attend_backward(query, key, value, output, lse, grad_output, grad_lse, *ctx.options)
            if grads is not None:
                inputs = zip(grads, (query, key, value), strict=True)
                return *(grad if grad.dtype is t.dtype else grad.to(t.dtype) for grad, t in inputs), None, None
        scale, causal = ctx.options
        rule = Mask(query.shape[2], key.shape[2], causal, device=query.device)
        problem = flatten("cpu", Scores(query, key, rule, _checks.scale(scale, query)), value, None)
        grads = operator.backward(grad_output, grad_lse, output, lse, False, *problem)
        return *grads[:3], None, None


def attend_differentiably(
    query: Tensor, key: Tensor, value: Tensor, scale: float | None, causal: bool
) -> tuple[Tensor, Tensor] | None:
    """Output and lse of a plain attention, differentiable; None if not for the kernel."""
    results: tuple[Tensor, Tensor] | None = _apply_plain(query, key, value, scale, causal)
    return results


# Past what Function.apply does for torch.func, which would watch.
_apply_plain: Callable[..., Any] = super(Function, PlainAttention).apply
