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
from regard.backends.factors import Activation, Factor
from regard.backends.gradient import Cotangent, gradient, gradient_blocks, of_weights
from regard.backends.protocol import Matrix, Reductions
from regard.mask import Block, Mask
from regard.scores import Scores


class Cotangents(NamedTuple):
    """The derivatives of a loss L by the numbers of the matrix, G_ij = ∂L/∂M_ij: see `backends.gradient.gradient`."""

    cotangent: Cotangent | None
    delta: Tensor | None = None
    blocks: Iterable[Block] | None = None


@dataclass(frozen=True, eq=False)
class Reduction:
    """A function of the weights, and its derivative."""

    # (matrix, *tensors) → a tensor of floats, or one and integers beside it
    compute: Callable[..., Any]
    # (matrix, gradient of the floats, *tensors, *integers) → Cotangents
    cotangents: Callable[..., Cotangents]
    # (matrix, gradient of the floats) → gradient of the only tensor, in which it is linear
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
    rule, inputs = _taken_apart(matrix)
    inputs = (*inputs, *tensors)
    if transformed():
        # Without what the mask has worked out from tensors that the transform has wrapped.
        rule = replace(rule, mask=replace(rule.mask))
    elif not _followed(inputs):
        return reduction.compute(matrix, *tensors)
    # Autograd does not save tensors that were made in inference mode.
    inputs = tuple(t.clone() if t is not None and t.is_inference() else t for t in inputs)
    return _differentiable(_Reduce, reduction, rule, *inputs)


@dataclass(frozen=True, eq=False)
class _Rule:
    """What a matrix is made of beside tensors."""

    reductions: Reductions
    mask: Mask
    scale: float
    softcap: float | None
    activations: tuple[Activation | None, ...]  # of the factors

    @property
    def differentiable(self) -> int:
        """How many tensors come first that a gradient can reach: query, key, bias, sinks, gram, and a and b."""
        return 5 + 2 * len(self.activations)

    @property
    def tensors(self) -> int:
        """How many tensors the matrix is made of."""
        return self.differentiable + 5


def _taken_apart(matrix: Matrix) -> tuple[_Rule, tuple[Tensor | None, ...]]:
    scores, mask, factors = matrix.scores, matrix.scores.mask, matrix.factors
    rule = _Rule(
        matrix.reductions, mask, scores.scale, scores.softcap, tuple(factor.activation for factor in factors)
    )  # fmt: skip
    vectors = (tensor for factor in factors for tensor in (factor.query, factor.key))
    given = mask.given if isinstance(mask.given, Tensor) else None
    constants = (given, mask.lengths, *(mask.segments or (None, None)), matrix.lse)
    return rule, (scores.query, scores.key, scores.bias, matrix.sinks, matrix.gram, *vectors, *constants)


def _put_together(rule: _Rule, tensors: Sequence[Any]) -> tuple[Matrix, Sequence[Tensor]]:
    """The matrix, and the tensors that come beside it."""
    query, key, bias, sinks, gram, *vectors = tensors[: rule.differentiable]
    given, lengths, query_bounds, key_bounds, lse = tensors[rule.differentiable : rule.tensors]
    mask = rule.mask
    if given is not None or lengths is not None or query_bounds is not None:
        segments = None if query_bounds is None else (query_bounds, key_bounds)
        mask = replace(mask, given=mask.given if given is None else given, lengths=lengths, segments=segments)
    factors = map(Factor, vectors[::2], vectors[1::2], rule.activations)
    scores = Scores(query, key, mask, rule.scale, bias, rule.softcap)
    return Matrix(scores, sinks, lse, rule.reductions, tuple(factors), gram), tensors[rule.tensors :]


def _differentiable(function: type[torch.autograd.Function], *arguments: Any) -> Any:
    return function.apply(*arguments)


def transformed() -> bool:
    """Whether torch.func or torch.vmap is at work, whose tensors have no memory of their own."""
    return not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None


def _followed(tensors: Sequence[Tensor | None]) -> bool:
    if forward_ad._current_level >= 0:
        return True
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


class _Reduce(torch.autograd.Function):
    @staticmethod
    def forward(reduction: Reduction, rule: _Rule, *tensors: Tensor | None) -> Any:
        matrix, others = _put_together(rule, tensors)
        return reduction.compute(matrix, *others)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        reduction, rule, *tensors = inputs
        integers = [t for t in (output if isinstance(output, tuple) else (output,)) if not t.is_floating_point()]
        ctx.mark_non_differentiable(*integers)
        ctx.rest = reduction, rule
        ctx.save_for_backward(*tensors, *integers)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> Any:
        reduction, rule = ctx.rest
        saved, wanted = ctx.saved_tensors, ctx.needs_input_grad[2:]
        grads = [None] * len(wanted)
        count = rule.differentiable
        if any(wanted[:count]):
            gradients = _differentiable(_Gradient, *ctx.rest, wanted[2], grad, *saved)
            grads[:count] = [g if w else None for g, w in zip(gradients, wanted, strict=False)]
        if any(wanted[rule.tensors :]):
            matrix, (tensor,) = _put_together(rule, saved)
            assert reduction.adjoint is not None
            per_head = reduction.adjoint(matrix, grad)
            shared = per_head.unflatten(1, (tensor.shape[1], -1)).sum(2)  # by all heads, or by those of a group
            grads[rule.tensors] = shared.sum_to_size(tensor.shape)
        return None, None, *grads

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        _refuse_forward_mode()

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> Any:
        return _one_by_one(_Reduce, info.batch_size, in_dims, arguments)


class _Gradient(torch.autograd.Function):
    """The gradients of what a matrix is made of, in an autograd function that cannot be differentiated again."""

    @staticmethod
    def forward(reduction: Reduction, rule: _Rule, bias_needs_grad: bool, grad: Tensor, *tensors: Tensor | None) -> Any:
        matrix, others = _put_together(rule, tensors)
        scores = matrix.scores
        cotangent, delta, blocks = reduction.cotangents(matrix, grad.to(scores.dtype), *others)
        made_of: list[Tensor | None] = [None] * (rule.differentiable - 4)
        if cotangent is not None and not matrix.is_weights:
            cotangent, made_of = of_weights(matrix, cotangent)
        blocks = gradient_blocks(matrix) if blocks is None else map(matrix.source, blocks)
        gradients = gradient(
            scores, matrix.sinks, cotangent, blocks, delta=delta, bias_needs_grad=bias_needs_grad
        )  # fmt: skip
        inputs = tensors[: rule.differentiable]
        return tuple(
            grad.new_empty(0) if g is None or t is None else g.to(t.dtype)
            for g, t in zip((*gradients, *made_of), inputs, strict=True)
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
