"""Autograd for reductions of the weights: their gradient is streamed too, and never takes an N × N tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor
from torch.autograd import forward_ad

from regard._checks import traced
from regard._internal.reasons import WEIGHTS_ARE_UNTRACEABLE
from regard.backends import streaming
from regard.backends.protocol import Matrix, Reductions
from regard.mask import Block, Mask
from regard.scores import Scores


class Cotangents(NamedTuple):
    """The derivatives of a loss L by the weights, G_ij = ∂L/∂w_ij: arguments of `streaming.gradient`."""

    cotangent: streaming.Cotangent | None
    delta: Tensor | None = None
    blocks: Iterable[Block] | None = None


@dataclass(frozen=True, eq=False)
class Reduction:
    """A function of the weights, and its derivative."""

    # (softmax, *tensors) → a tensor of floats, or one and integers beside it
    compute: Callable[..., Any]
    # (softmax, gradient of the floats, *tensors, *integers) → Cotangents
    cotangents: Callable[..., Cotangents]
    # (softmax, gradient of the floats) → gradient of the only tensor, in which it is linear
    adjoint: Callable[[Matrix, Tensor], Tensor] | None = None
    # whether it is computed by torch's operations alone, which a graph can hold
    traceable: bool = False


def evaluate(reduction: Reduction, matrix: Matrix, *tensors: Tensor) -> Any:
    """What `reduction.compute` gives, differentiable in query, key, bias, sinks and `tensors` if they ask for it."""
    if not reduction.traceable and traced():
        from regard._internal import uncompiled

        return uncompiled.reduce_weights(outside_of_graphs, reduction, matrix, *tensors)
    return _computed(reduction, matrix, *tensors)


def outside_of_graphs(reduction: Reduction, matrix: Matrix, *tensors: Tensor) -> Any:
    """The same, where torch.compile does not follow. Raises RuntimeError where something else records a graph."""
    if traced():
        raise RuntimeError(f"Weights: {WEIGHTS_ARE_UNTRACEABLE}")
    return _computed(reduction, matrix, *tensors)


def _computed(reduction: Reduction, matrix: Matrix, *tensors: Tensor) -> Any:
    scores, sinks, lse, reductions = matrix[:4]
    mask = scores.mask
    given = mask.given if isinstance(mask.given, Tensor) else None
    inputs = (scores.query, scores.key, scores.bias, sinks, given, mask.lengths, *(mask.segments or (None, None)), lse)
    inputs = (*inputs, *tensors)
    if transformed():
        mask = replace(mask)  # without what it has worked out from tensors that the transform has wrapped
    elif not _followed(inputs):
        return reduction.compute(matrix, *tensors)
    # Autograd does not save tensors that were made in inference mode.
    inputs = tuple(t.clone() if t is not None and t.is_inference() else t for t in inputs)
    return _differentiable(_Reduce, reduction, reductions, mask, scores.scale, scores.softcap, *inputs)


def _differentiable(function: type[torch.autograd.Function], *arguments: Any) -> Any:
    return function.apply(*arguments)


def transformed() -> bool:
    """Whether torch.func or torch.vmap is at work, whose tensors have no memory of their own."""
    return not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None


def _followed(tensors: Sequence[Tensor | None]) -> bool:
    if forward_ad._current_level >= 0:
        return True
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _matrix(
    reductions: Reductions, mask: Mask, scale: float, softcap: float | None, tensors: Sequence[Any]
) -> tuple[Matrix, Sequence[Tensor]]:
    """The inputs of a Function, put together again, and the tensors that come beside them."""
    query, key, bias, sinks, given, lengths, query_bounds, key_bounds, lse, *others = tensors
    if given is not None or lengths is not None or query_bounds is not None:
        segments = None if query_bounds is None else (query_bounds, key_bounds)
        mask = replace(mask, given=mask.given if given is None else given, lengths=lengths, segments=segments)
    return Matrix(Scores(query, key, mask, scale, bias, softcap), sinks, lse, reductions), others


class _Reduce(torch.autograd.Function):
    @staticmethod
    def forward(
        reduction: Reduction,
        reductions: Reductions,
        mask: Mask,
        scale: float,
        softcap: float | None,
        *tensors: Tensor | None,
    ) -> Any:
        matrix, others = _matrix(reductions, mask, scale, softcap, tensors)
        return reduction.compute(matrix, *others)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        reduction, reductions, mask, scale, softcap, *tensors = inputs
        integers = [t for t in (output if isinstance(output, tuple) else (output,)) if not t.is_floating_point()]
        ctx.mark_non_differentiable(*integers)
        ctx.rest = reduction, reductions, mask, scale, softcap
        ctx.save_for_backward(*tensors, *integers)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> Any:
        reduction, reductions, mask, scale, softcap = ctx.rest
        saved, wanted = ctx.saved_tensors, ctx.needs_input_grad[5:]
        grads = [None] * len(wanted)
        if any(wanted[:4]):
            gradients = _differentiable(_Gradient, *ctx.rest, wanted[2], grad, *saved)
            grads[:4] = [g if w else None for g, w in zip(gradients, wanted, strict=False)]
        if any(wanted[9:]):
            matrix, (tensor,) = _matrix(reductions, mask, scale, softcap, saved)
            assert reduction.adjoint is not None
            per_head = reduction.adjoint(matrix, grad)
            shared = per_head.unflatten(1, (tensor.shape[1], -1)).sum(2)  # by all heads, or by those of a group
            grads[9] = shared.sum_to_size(tensor.shape)
        return None, None, None, None, None, *grads

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        _refuse_forward_mode()

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> Any:
        return _one_by_one(_Reduce, info.batch_size, in_dims, arguments)


class _Gradient(torch.autograd.Function):
    """The gradients of query, key, bias and sinks, in an autograd function that cannot be differentiated again."""

    @staticmethod
    def forward(
        reduction: Reduction,
        reductions: Reductions,
        mask: Mask,
        scale: float,
        softcap: float | None,
        bias_needs_grad: bool,
        grad: Tensor,
        *tensors: Tensor | None,
    ) -> Any:
        matrix, others = _matrix(reductions, mask, scale, softcap, tensors)
        cotangents = reduction.cotangents(matrix, grad.to(matrix.scores.dtype), *others)
        gradients = streaming.gradient(
            matrix.scores, matrix.sinks, **cotangents._asdict(), bias_needs_grad=bias_needs_grad
        )
        inputs = tensors[:4]
        return tuple(
            grad.new_empty(0) if g is None or t is None else g.to(t.dtype)
            for g, t in zip(gradients, inputs, strict=True)
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(
            "Weights: reductions have no second derivative. Take the gradient without create_graph=True, or "
            "compute the weights by torch's own operations."
        )

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        _refuse_forward_mode()

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> Any:
        return _one_by_one(_Gradient, info.batch_size, in_dims, arguments)


def _refuse_forward_mode() -> NoReturn:
    raise RuntimeError(
        "Weights: reductions have no derivative in forward mode (torch.func.jvp, make_dual). Use backward() "
        "or torch.func.grad, or compute the weights by torch's own operations."
    )


def _of_batch(argument: Any, dim: int | None, n: int) -> Any:
    return argument if dim is None else argument.select(dim, n)


def _one_by_one(
    function: type[torch.autograd.Function], count: int, in_dims: Sequence[int | None], arguments: Sequence[Any]
) -> tuple[Any, Any]:
    """The function for every element of a batch, stacked: for torch.vmap."""
    results = [
        _differentiable(function, *(_of_batch(a, d, n) for a, d in zip(arguments, in_dims, strict=True)))
        for n in range(count)
    ]
    if isinstance(results[0], Tensor):
        return torch.stack(results), 0
    return tuple(torch.stack(tensors) for tensors in zip(*results, strict=True)), (0,) * len(results[0])
