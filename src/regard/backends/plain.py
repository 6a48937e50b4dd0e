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
        query, key, value, lengths, mask, bias, output, lse = ctx.saved_tensors
        if grad_output is None:
            grad_output = torch.zeros_like(output)
        scale, causal = ctx.options
        options = scale, causal, lengths, mask, bias
        needs_bias = bias is not None and ctx.needs_input_grad[7]
        if not torch.is_grad_enabled() and type(grad_output) is Tensor and _checks.unwatched():
            dense = grad_output if grad_output.stride(3) == 1 else grad_output.contiguous()
            of_lse = None if grad_lse is None else grad_lse.contiguous()
            of_bias = torch.zeros(bias.shape, dtype=torch.float32, device=cpu.CPU) if needs_bias else None
            given = query, key, value, *options, output, lse, dense, of_lse, of_bias
            grads = _kernel.attend_backward(*given, cpu.LARGEST_LSE, torch.get_num_threads())
            if grads is not None:
                return *grads, None, None, None, None, None if of_bias is None else of_bias.to(bias.dtype)
        of_query, of_key, of_value, in_four, _ = _by_operators(
            query, key, value, options, output, lse, grad_output, grad_lse, needs_bias
        )
        return of_query, of_key, of_value, None, None, None, None, in_four.reshape(bias.shape) if needs_bias else None


def _by_operators(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    options: tuple[float | None, bool, Tensor | None, Tensor | None, Tensor | None],
    output: Tensor,
    lse: Tensor,
    grad_output: Tensor,
    grad_lse: Tensor | None,
    bias_needs_grad: bool,
) -> operator.Theta:
    """The gradients by the operators, which can be watched and differentiated; that of the bias in four dimensions."""
    scale, causal, lengths, mask, bias = options
    shape = (*query.shape[:3], key.shape[2])
    rule = make_mask(shape, query.device, causal=causal, lengths=lengths, mask=mask)
    scores = Scores(query, key, rule, _checks.scale(scale, query), _checks.bias(bias, shape, query))
    problem = flatten("cpu", scores, value, None)
    grads: operator.Theta = operator.backward(grad_output, grad_lse, output, lse, bias_needs_grad, *problem)
    return grads


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
