"""Attention as PyTorch's dispatcher knows it: torch.ops.regard.attention and the operators of its derivatives.

With F the attention of its inputs θ (query, key, value, bias, sinks), g a gradient of what comes out, t a direction:

    attention            F(θ)                        its gradient is B(g; θ), its tangent T(t; θ)
    attention_backward   B(g; θ) = F′ᵀ g             from t: the gradient in g is T(t; θ), in θ S(t, g; θ)
    attention_tangent    T(t; θ) = F′ t              from g: the gradient in t is B(g; θ), in θ S(t, g; θ)
    attention_second     S(t, g; θ) = ∇θ g·T(t; θ)   third derivatives are refused

So autograd, forward mode, torch.func, torch.compile, torch.export, tracing, dispatch modes and the profiler see the
same four operators, whichever backend computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad
from torch.utils.flop_counter import register_flop_formula, sdpa_backward_flop_count, sdpa_flop_count

from regard.backends import derivatives, streaming
from regard.backends.derivatives import Direction
from regard.backends.problem import (
    BACKEND,
    DIFFERENTIABLE,
    MASK,
    SCHEMA,
    TENSORS,
    empty_gradients,
    empty_results,
    flatten,
    lse_dtype,
    unflatten,
)  # fmt: skip
from regard.backends.protocol import Matrix, Results, Statistics
from regard.backends.registry import BACKENDS
from regard.scores import Scores

_DIRECTION = "Tensor? to_query, Tensor? to_key, Tensor? to_value, Tensor? to_bias, Tensor? to_sinks"
Theta = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # a tensor for each of θ
_GRADS = "(Tensor query, Tensor key, Tensor value, Tensor bias, Tensor sinks)"


def run(
    name: str, scores: Scores, value: Tensor, sinks: Tensor | None, statistics: Sequence[str] = ()
) -> tuple[Tensor, Tensor, Statistics]:
    """Output, lse and statistics of the backend of this name; the first two are differentiable in θ.

    Statistics beyond the backend's own pass take another, and are left out where torch.compile follows.
    """
    backend = BACKENDS[name]
    counts = {statistic: int(statistic.removeprefix("topk:")) for statistic in statistics if ":" in statistic}
    if "max_score" in statistics and sinks is None:
        counts["max_score"] = 1
    largest = backend.CAPABILITIES.largest_top or scores.shape[3]
    top = max([0, *(count for count in counts.values() if count <= largest)])
    if backend.backward is None:
        scores.mask.check()
        results = backend.forward(scores, value, sinks, "entropy" in statistics, top)
    else:
        results = _dispatch(_ATTENTION, *flatten(name, scores, value, sinks), "entropy" in statistics, top)
    output, lse, entropies, values, keys = results
    collected: Statistics = {}
    for statistic in statistics:
        if statistic == "entropy":
            collected[statistic] = (entropies,)
        elif statistic == "max_score" and sinks is None:
            collected[statistic] = (values[..., 0].log() + lse,)
        elif counts.get(statistic, top + 1) <= top:
            collected[statistic] = values[..., : counts[statistic]], keys[..., : counts[statistic]]
        elif not torch.compiler.is_compiling():
            collected |= streaming.statistics(Matrix(scores, sinks, lse, streaming), [statistic])
    return output, lse, collected


# What the operators compute


def _attention(*arguments: Any) -> Results:
    *problem, entropy, top = arguments
    return BACKENDS[problem[BACKEND]].forward(*unflatten(*problem), entropy, top)


def _attention_backward(
    grad_output: Tensor, grad_lse: Tensor | None, output: Tensor, lse: Tensor, bias_needs_grad: bool, *problem: Any
) -> Theta:
    backward = BACKENDS[problem[BACKEND]].backward
    assert backward is not None  # those without one are no operators
    grads = backward(*unflatten(*problem), output, lse, grad_output, grad_lse, bias_needs_grad)
    return _as_results(problem, grads)


def _attention_tangent(*arguments: Any) -> tuple[Tensor, Tensor]:
    direction, problem = Direction(*arguments[:DIFFERENTIABLE]), arguments[DIFFERENTIABLE:]
    output, lse = derivatives.tangent(*unflatten(*problem), direction)
    return output, lse.to(lse_dtype(*problem))


def _attention_second(*arguments: Any) -> Theta:
    direction, (grad_output, grad_lse, *problem) = Direction(*arguments[:DIFFERENTIABLE]), arguments[DIFFERENTIABLE:]
    return _as_results(problem, derivatives.second(*unflatten(*problem), direction, grad_output, grad_lse))


def _as_results(problem: Sequence[Any], grads: Sequence[Tensor | None]) -> Theta:
    """Gradients as an operator returns them: in the inputs' types and layout, without elements where there is none."""
    results = []
    theta = [None if grad is None else tensor for tensor, grad in zip(problem[:DIFFERENTIABLE], grads, strict=True)]
    for grad, empty in zip(grads, empty_gradients(theta, problem[0]), strict=True):
        if grad is None:
            results.append(empty)
        elif grad.dtype == empty.dtype and grad.stride() == empty.stride():
            results.append(grad)
        else:
            results.append(empty.copy_(grad))
    return tuple(results)  # type: ignore[return-value]


# Their derivatives


class _Operation(NamedTuple):
    """An operator, what it computes, and the autograd functions that differentiate it, torch.func's apart."""

    operator: Any
    compute: Callable[..., Any]
    function: type[Function]
    functional: type[Function]
    offset: int  # of θ among its arguments


def _dispatch(operation: _Operation, *arguments: Any) -> Any:
    is_callable = callable(arguments[operation.offset + MASK])
    if torch.compiler.is_compiling():
        if is_callable:
            from regard._internal import uncompiled

            return uncompiled.attention_with_callable_mask(differentiable, *arguments)
        return operation.operator(*arguments)
    if torch._C._get_tracing_state() is not None and not is_callable:
        return operation.operator(*arguments)
    return _differentiable(operation, *arguments)


def differentiable(*arguments: Any) -> Any:
    """Attention, outside of torch.compile."""
    return _differentiable(_ATTENTION, *arguments)


def backward(*arguments: Any) -> Any:
    """The gradients of attention, outside of torch.compile, differentiable themselves."""
    return _differentiable(_BACKWARD, *arguments)


def _differentiable(operation: _Operation, *arguments: Any) -> Any:
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return operation.functional.apply(*arguments)
    followed = torch.is_grad_enabled() and any(t.requires_grad for t in arguments if isinstance(t, Tensor))
    if followed or forward_ad._current_level >= 0:
        return operation.function.apply(*arguments)
    return _undifferentiated(operation, *arguments)


def _undifferentiated(operation: _Operation, *arguments: Any) -> Any:
    if callable(arguments[operation.offset + MASK]):
        return operation.compute(*arguments)  # no operator takes a callable
    with torch._C._AutoDispatchBelowAutograd():
        return operation.operator(*arguments)


def _save(ctx: Any, problem: Sequence[Any], *others: Tensor | None) -> None:
    """Saves what a derivative reads, so that PyTorch notices a change in place."""
    tensors = [t if isinstance(t, Tensor) else None for t in problem[:TENSORS]]
    ctx.save_for_backward(*tensors, *others)
    if forward_ad._current_level >= 0 or torch._C._functorch.peek_interpreter_stack() is not None:
        ctx.save_for_forward(*tensors, *others)
    ctx.callable_mask = problem[MASK] if callable(problem[MASK]) else None
    ctx.options = problem[TENSORS:]
    ctx.set_materialize_grads(False)


def _saved(ctx: Any) -> tuple[list[Any], Sequence[Any]]:
    """The problem, and the other tensors."""
    tensors = ctx.saved_tensors  # read once: a checkpoint computes them again each time
    problem = [*tensors[:TENSORS], *ctx.options]
    problem[MASK] = ctx.callable_mask or problem[MASK]
    return problem, tensors[TENSORS:]


def _save_attention(ctx: Any, arguments: Sequence[Any], results: Results) -> None:
    _save(ctx, arguments[: BACKEND + 1], *results[:2])
    ctx.mark_non_differentiable(*results[2:])


def _attention_vjp(ctx: Any, grad_output: Tensor | None, grad_lse: Tensor | None, *_: None) -> tuple[Any, ...]:
    problem, (output, lse) = _saved(ctx)
    if grad_output is None:
        grad_output = torch.zeros_like(output)
    bias_needs_grad = problem[3] is not None and ctx.needs_input_grad[3]
    grads = _dispatch(_BACKWARD, grad_output, grad_lse, output, lse, bias_needs_grad, *problem)
    return *_present(grads, problem, bias_needs_grad), *(None,) * (len(problem) + 2 - DIFFERENTIABLE)


def _attention_jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Any, ...]:
    problem, _ = _saved(ctx)
    return *_dispatch(_TANGENT, *tangents[:DIFFERENTIABLE], *problem), None, None, None


def _present(grads: Sequence[Tensor | None], problem: Sequence[Any], bias: bool = True) -> list[Tensor | None]:
    """The gradients of θ, None for a bias or sinks that the problem does not have."""
    present = [True, True, True, bias and problem[3] is not None, problem[4] is not None]
    return [grad if is_present else None for grad, is_present in zip(grads, present, strict=True)]


def _save_backward(ctx: Any, arguments: Sequence[Any], results: Theta) -> None:
    grad_output, grad_lse, output, lse, ctx.bias_needs_grad, *problem = arguments
    _save(ctx, problem, grad_output, grad_lse, output, lse)


def _backward_vjp(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
    problem, (grad_output, grad_lse, *_) = _saved(ctx)
    direction = _present(grads, problem, ctx.bias_needs_grad)
    to_output, to_lse = _dispatch(_TANGENT, *direction, *problem)
    of_theta = _present(_dispatch(_SECOND, *direction, grad_output, grad_lse, *problem), problem)
    return (
        *(to_output, None if grad_lse is None else to_lse, None, None, None),
        *of_theta,
        *(None,) * (len(problem) - DIFFERENTIABLE),
    )


def _backward_jvp(
    ctx: Any,
    to_output: Tensor | None,
    to_lse: Tensor | None,
    _output: Any,
    _lse: Any,
    _bias_needs_grad: Any,
    *tangents: Tensor | None,
) -> tuple[Any, ...]:
    problem, (grad_output, grad_lse, output, lse) = _saved(ctx)
    direction = tangents[:DIFFERENTIABLE]
    to_output = torch.zeros_like(output) if to_output is None else to_output
    linear = _dispatch(_BACKWARD, to_output, to_lse, output, lse, ctx.bias_needs_grad, *problem)
    second = _dispatch(_SECOND, *direction, grad_output, grad_lse, *problem)
    return tuple(g + of_theta if g.numel() else g for g, of_theta in zip(linear, second, strict=True))


def _save_tangent(ctx: Any, arguments: Sequence[Any], results: tuple[Tensor, Tensor]) -> None:
    _save(ctx, arguments[DIFFERENTIABLE:], *arguments[:DIFFERENTIABLE])


def _tangent_vjp(ctx: Any, grad_output: Tensor | None, grad_lse: Tensor | None) -> tuple[Any, ...]:
    problem, direction = _saved(ctx)
    output, lse, *_ = _dispatch(_ATTENTION, *problem, False, 0)
    grad_output = torch.zeros_like(output) if grad_output is None else grad_output
    bias_needs_grad = direction[3] is not None
    of_direction = _dispatch(_BACKWARD, grad_output, grad_lse, output, lse, bias_needs_grad, *problem)
    of_direction = [g if t is not None else None for g, t in zip(of_direction, direction, strict=True)]
    of_theta = _present(_dispatch(_SECOND, *direction, grad_output, grad_lse, *problem), problem)
    return *of_direction, *of_theta, *(None,) * (len(problem) - DIFFERENTIABLE)


def _tangent_jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Any, ...]:
    if any(tangent is not None for tangent in tangents[DIFFERENTIABLE:]):
        raise RuntimeError(
            "attention: there is no forward derivative of a forward derivative; take one of the two backward: "
            "torch.func.jacfwd(torch.func.jacrev(…)), or torch.func.hessian."
        )
    problem, _ = _saved(ctx)
    output, lse = _dispatch(_TANGENT, *tangents[:DIFFERENTIABLE], *problem)
    return output, lse


def _no_third_derivative(*_: Any) -> Any:
    raise RuntimeError("attention: there is no third derivative; take the second without create_graph=True.")


# Their registration

_library = torch.library.Library("regard", "DEF")


def _operation(
    name: str,
    schema: str,
    compute: Callable[..., Any],
    fake: Callable[..., Any],
    offset: int,
    save: Callable[..., None],
    vjp: Callable[..., Any],
    jvp: Callable[..., Any],
) -> _Operation:
    """Registers an operator: what it computes, its shapes, its derivatives and its rule for torch.vmap."""
    _library.define(f"{name}{schema}", tags=(torch.Tag.pt2_compliant_tag,))
    operator = getattr(torch.ops.regard, name).default

    def forward(ctx: Any, *arguments: Any) -> Any:
        results = _undifferentiated(operation, *arguments)
        save(ctx, arguments, results)
        return results

    def functional_forward(*arguments: Any) -> Any:
        with torch.no_grad():
            if not callable(arguments[offset + MASK]):
                return operator(*arguments)
            if any(isinstance(a, Tensor) and torch._C._functorch.is_batchedtensor(a) for a in arguments):
                raise RuntimeError(
                    "attention: torch.vmap does not reach a mask= that is a Python callable. Give a bool tensor, or "
                    "the batch as a dimension."
                )
            return compute(*arguments)

    def functions(**methods: Any) -> type[Function]:
        members = {key: staticmethod(method) for key, method in methods.items()}
        return type(name, (Function,), {"generate_vmap_rule": "setup_context" in methods} | members)

    def one_by_one(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Any, Any]:
        results = [
            operator(*(a if d is None else a.select(d, n) for a, d in zip(arguments, in_dims, strict=True)))
            for n in range(info.batch_size)
        ]
        return tuple(torch.stack(tensors) for tensors in zip(*results, strict=True)), (0,) * len(results[0])

    operation = _Operation(
        operator,
        compute,
        functions(forward=forward, backward=vjp, jvp=jvp),
        functions(forward=functional_forward, setup_context=save, backward=vjp, jvp=jvp),
        offset,
    )
    _library.impl(name, compute, "CompositeExplicitAutograd")
    _library.impl(name, lambda *arguments: _differentiable(operation, *arguments), "Autograd")
    torch.library.register_fake(f"regard::{name}", fake, lib=_library)
    torch.library.register_vmap(f"regard::{name}", one_by_one, lib=_library)
    return operation


def _fake_grads(problem: Sequence[Any], bias_needs_grad: bool = True) -> Theta:
    tensors = _present(problem[:DIFFERENTIABLE], problem, bias_needs_grad)
    return tuple(empty_gradients(tensors, problem[0]))  # type: ignore[return-value]


_ATTENTION = _operation(
    "attention",
    f"({SCHEMA}, bool entropy, SymInt top) -> (Tensor output, Tensor lse, Tensor entropy, Tensor top, Tensor keys)",
    _attention,
    lambda *arguments: empty_results(arguments[:-2], *arguments[-2:]),
    0,
    _save_attention,
    _attention_vjp,
    _attention_jvp,
)
_BACKWARD = _operation(
    "attention_backward",
    f"(Tensor grad_output, Tensor? grad_lse, Tensor output, Tensor lse, bool bias_needs_grad, {SCHEMA}) -> {_GRADS}",
    _attention_backward,
    lambda *arguments: _fake_grads(arguments[5:], arguments[4]),
    5,
    _save_backward,
    _backward_vjp,
    _backward_jvp,
)
_TANGENT = _operation(
    "attention_tangent",
    f"({_DIRECTION}, {SCHEMA}) -> (Tensor output, Tensor lse)",
    _attention_tangent,
    lambda *arguments: empty_results(arguments[DIFFERENTIABLE:], False, 0)[:2],
    DIFFERENTIABLE,
    _save_tangent,
    _tangent_vjp,
    _tangent_jvp,
)
_SECOND = _operation(
    "attention_second",
    f"({_DIRECTION}, Tensor grad_output, Tensor? grad_lse, {SCHEMA}) -> {_GRADS}",
    _attention_second,
    lambda *arguments: _fake_grads(arguments[DIFFERENTIABLE + 2 :]),
    DIFFERENTIABLE + 2,
    lambda *_: None,
    _no_third_derivative,
    _no_third_derivative,
)


@register_flop_formula(torch.ops.regard.attention)
def _flops(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, _of_all_heads(query, key), _of_all_heads(query, value)))


@register_flop_formula(torch.ops.regard.attention_backward)
def _backward_flops(
    grad_output: torch.Size,
    _lse: Any,
    _output: Any,
    _: Any,
    _bias: bool,
    query: Any,
    key: Any,
    value: Any,
    *__: Any,
    **___: Any,
) -> int:
    keys, values = _of_all_heads(query, key), _of_all_heads(query, value)
    return int(sdpa_backward_flop_count(grad_output, query, keys, values))


def _of_all_heads(query: torch.Size, key: torch.Size) -> torch.Size:
    """The shape of keys or values when each head has its own: old releases of torch count no others."""
    return torch.Size((key[0], query[1], *key[2:]))
