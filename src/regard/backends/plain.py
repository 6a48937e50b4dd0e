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
from regard.mask import make_mask
from regard.scores import Scores

with suppress(ImportError):  # as cpu.available() says
    from regard import _kernel

Gradients = tuple[Tensor, Tensor, Tensor, Tensor | None]  # of query, key, value and bias


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


class PlainAttention(Function):
    """A plain attention by the kernel, past the dispatcher: nobody watches (`regard._checks.unwatched`).

    Its gradient goes past it too, unless somebody watches then or wants a gradient of it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float | None,
        causal: bool,
        lengths: Tensor | None,
        mask: Tensor | None,
        bias: Tensor | None,
    ) -> Any:
        results = attend(query, key, value, scale, causal, lengths, mask, bias)
        if results is not None:
            ctx.save_for_backward(query, key, value, lengths, mask, bias, *results)
            ctx.options = scale, causal
            ctx.set_materialize_grads(False)
        return results

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None, grad_lse: Tensor | None) -> Any:
        tensors = ctx.saved_tensors
        if grad_output is None:
            grad_output = torch.zeros_like(tensors[6])
        bias_needs_grad = ctx.needs_input_grad[7]
        arguments = *tensors, *ctx.options, grad_output, grad_lse, bias_needs_grad
        grads = None
        if not torch.is_grad_enabled() and type(grad_output) is Tensor and _checks.unwatched():
            grads = _gradients(*arguments)
        if grads is None:
            grads = _general_gradients(*arguments)
        return *grads[:3], None, None, None, None, grads[3]


def _gradients(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: Tensor | None,
    mask: Tensor | None,
    bias: Tensor | None,
    output: Tensor,
    lse: Tensor,
    scale: float | None,
    causal: bool,
    grad_output: Tensor,
    grad_lse: Tensor | None,
    bias_needs_grad: bool,
) -> Gradients | None:
    """Gradients of query, key, value and, where it needs one, bias, in one call; None if not for the kernel."""
    options = scale, causal, lengths, mask, bias
    if grad_output.stride(3) != 1:
        grad_output = grad_output.contiguous()
    if grad_lse is not None:
        grad_lse = grad_lse.contiguous()
    grad_bias = torch.zeros(bias.shape, device=cpu.CPU) if bias is not None and bias_needs_grad else None
    of = output, lse, grad_output, grad_lse, grad_bias
    grads = _kernel.attend_backward(query, key, value, *options, *of, cpu.LARGEST_LSE, torch.get_num_threads())
    if grads is None:
        return None
    return *grads, None if grad_bias is None or bias is None else grad_bias.to(bias.dtype)


def _general_gradients(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: Tensor | None,
    mask: Tensor | None,
    bias: Tensor | None,
    output: Tensor,
    lse: Tensor,
    scale: float | None,
    causal: bool,
    grad_output: Tensor,
    grad_lse: Tensor | None,
    bias_needs_grad: bool,
) -> Gradients:
    """The same by the operators, which can be watched and differentiated."""
    shape = (*query.shape[:3], key.shape[2])
    rule = make_mask(shape, query.device, causal=causal, lengths=lengths, mask=mask)
    scores = Scores(query, key, rule, _checks.scale(scale, query), _checks.bias(bias, shape, query))
    problem = flatten("cpu", scores, value, None)
    grads = operator.backward(grad_output, grad_lse, output, lse, bias_needs_grad, *problem)
    return *grads[:3], grads[3].reshape(bias.shape) if bias is not None and bias_needs_grad else None


def attend_differentiably(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float | None,
    causal: bool,
    lengths: Tensor | None = None,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor] | None:
    """Output and lse of a plain attention, differentiable; None if not for the kernel."""
    results: tuple[Tensor, Tensor] | None = _apply_plain(query, key, value, scale, causal, lengths, mask, bias)
    return results


# Past what Function.apply does for torch.func, which would watch.
_apply_plain: Callable[..., Any] = super(Function, PlainAttention).apply
