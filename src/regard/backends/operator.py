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

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad
from torch.utils.flop_counter import register_flop_formula, sdpa_backward_flop_count, sdpa_flop_count

from regard import _checks, backends
from regard._checks import known
from regard.backends import derivatives, streaming
from regard.backends.derivatives import Direction
from regard.mask import Mask, needed
from regard.scores import Scores, Softmax

# What every operator takes, as one run of arguments
DIFFERENTIABLE, TENSORS, MASK, BACKEND = 5, 11, 5, 18  # the first 5 are θ, the first 11 tensors
_THETA = "Tensor query, Tensor key, Tensor value, Tensor? bias, Tensor? sinks"
_PROBLEM = (
    f"{_THETA}, Tensor? mask, Tensor? start, Tensor? stop, Tensor? lengths, Tensor? query_bounds, Tensor? key_bounds, "
    "bool causal, bool to_lengths, SymInt? left, SymInt? right, float scale, float? softcap, bool checked, str backend"
)
_DIRECTION = "Tensor? to_query, Tensor? to_key, Tensor? to_value, Tensor? to_bias, Tensor? to_sinks"
_GRADS = "(Tensor query, Tensor key, Tensor value, Tensor bias, Tensor sinks)"

Five = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def run(
    backend: str, scores: Scores, value: Tensor, sinks: Tensor | None, names: Sequence[str]
) -> tuple[Tensor, Tensor, streaming.Statistics]:
    """Output, lse and statistics; the first two differentiable in query, key, value, bias and sinks.

    The statistics of a backend's own pass are there for free; others are added unless torch.compile follows.
    """
    arguments = _arguments(backend, scores, value, sinks)
    if not names:
        return *_call(_ATTENTION, *arguments, False, 0)[:2], {}
    largest_top = getattr(backends.BACKENDS[backend], "LARGEST_TOP", scores.shape[3])
    counts = {name: int(name.removeprefix("topk:")) for name in names if name != "entropy"}
    top = max([0, *(count for count in counts.values() if count <= largest_top)])
    output, lse, entropies, values, indices = _call(_ATTENTION, *arguments, "entropy" in names, top)
    collected: streaming.Statistics = {}
    for name in names:
        if name == "entropy":
            collected[name] = (entropies,)
        elif counts[name] <= top:
            collected[name] = values[..., : counts[name]], indices[..., : counts[name]]
        elif not torch.compiler.is_compiling():
            collected |= streaming.statistics(Softmax(scores, sinks, lse), [name])
    return output, lse, collected


def _arguments(backend: str, scores: Scores, value: Tensor, sinks: Tensor | None) -> tuple[Any, ...]:
    mask = scores.mask
    query_bounds, key_bounds = mask.segments or (None, None)
    runs = mask.causal or mask.window != (None, None) or mask.has_numbers
    checked = not (runs or sinks is not None) or known(mask.lengths, query_bounds, key_bounds, sinks)
    # The kernel reads runs of keys; those of a mask are made once, though many calls may share it.
    start, stop = mask.spans if runs and checked and backend == "cpu" and mask.bounded else (None, None)
    return (
        *(scores.query, scores.key, value, scores.bias, sinks, mask.given, start, stop, mask.lengths),
        *(query_bounds, key_bounds, mask.causal, mask.to_lengths, *mask.window),
        *(scores.scale, scores.softcap, checked, backend),
    )


def _problem(
    query, key, value, bias, sinks, mask, start, stop, lengths, query_bounds, key_bounds,
    causal, to_lengths, left, right, scale, softcap, checked, backend,
) -> tuple[Scores, Tensor, Tensor | None]:  # fmt: skip
    queries, keys = query.shape[2], key.shape[2]
    window = needed((left, right), queries, keys, causal)
    segments = None if query_bounds is None else (query_bounds, key_bounds)
    rule = Mask(queries, keys, causal, window, lengths, segments, mask, to_lengths, query.device)
    if start is not None:
        vars(rule)["spans"] = start, stop
    if not checked:
        rule.check()
        if sinks is not None:
            _checks.finite_sinks(sinks)
    return Scores(query, key, rule, scale, bias, softcap), value, sinks


# What the operators compute


def _attention(*arguments: Any) -> Five:
    *inputs, entropy, top = arguments
    return backends.BACKENDS[inputs[BACKEND]].forward(*_problem(*inputs), entropy, top)


def _attention_backward(grad_output, grad_lse, output, lse, wants_bias: bool, *inputs: Any) -> Five:
    backend = backends.BACKENDS[inputs[BACKEND]]
    return _grads(inputs, backend.backward(*_problem(*inputs), output, lse, grad_output, grad_lse, wants_bias))


def _attention_tangent(*arguments: Any) -> tuple[Tensor, Tensor]:
    direction, inputs = Direction(*arguments[:DIFFERENTIABLE]), arguments[DIFFERENTIABLE:]
    output, lse = derivatives.tangent(*_problem(*inputs), direction)
    return output, lse.to(_lse_dtype(*inputs))


def _attention_second(*arguments: Any) -> Five:
    direction, (grad_output, grad_lse, *inputs) = Direction(*arguments[:DIFFERENTIABLE]), arguments[DIFFERENTIABLE:]
    return _grads(inputs, derivatives.second(*_problem(*inputs), direction, grad_output, grad_lse))


def _grads(inputs: Sequence[Any], grads: Sequence[Tensor | None]) -> Five:
    """Gradients as an operator returns them: of the inputs' types, and of no numbers for what has none."""
    ready = []
    given = [None if grad is None else tensor for tensor, grad in zip(inputs[:DIFFERENTIABLE], grads, strict=True)]
    for grad, room in zip(grads, _room_of_grads(given, inputs[0]), strict=True):
        if grad is None:
            ready.append(room)
        elif grad.dtype == room.dtype and grad.stride() == room.stride():
            ready.append(grad)
        else:
            ready.append(room.copy_(grad))
    return tuple(ready)  # type: ignore[return-value]


def _room_of_grads(tensors: Sequence[Tensor | None], query: Tensor) -> Iterator[Tensor]:
    """Empty gradients; query's, key's and value's lie as (B,N,H,D), for a projection's gradient takes that uncopied."""
    for n, tensor in enumerate(tensors):
        if tensor is None:
            yield query.new_empty(0)
        elif n < 3:
            batch, heads, rows, dim = tensor.shape
            yield tensor.new_empty(batch, rows, heads, dim).transpose(1, 2)
        else:
            yield torch.empty_like(tensor, memory_format=torch.contiguous_format)


def room(inputs: Sequence[Any], entropy: bool, top: int) -> Five:
    """Empty tensors for what attention gives; those of no numbers were not asked for."""
    query, _, value = inputs[:3]
    batch, heads, queries, _ = query.shape
    rows, dtype = (batch, heads, queries), torch.promote_types(query.dtype, torch.float32)
    return (
        value.new_empty(batch, queries, heads, value.shape[3]).transpose(1, 2),  # as models want it
        query.new_empty(rows, dtype=_lse_dtype(*inputs)),
        query.new_empty(rows if entropy else 0, dtype=dtype),
        query.new_empty((*rows, top), dtype=dtype),
        query.new_empty((*rows, top), dtype=torch.int64),
    )


def _lse_dtype(query: Tensor, *inputs: Any) -> torch.dtype:
    """The kernel's is float64, from which it can compute any weight again."""
    kernel = inputs[BACKEND - 1] == "cpu"
    return torch.float64 if kernel else torch.promote_types(query.dtype, torch.float32)


# Their derivatives


class _Operation(NamedTuple):
    """An operator, what it computes, and the autograd functions that differentiate it, torch.func's apart."""

    operator: Any
    compute: Callable[..., Any]
    function: type[Function]
    functional: type[Function]
    first: int  # where the inputs θ start among its arguments


def _call(operation: _Operation, *arguments: Any) -> Any:
    rule = callable(arguments[operation.first + MASK])
    if torch.compiler.is_compiling():
        if rule:
            from regard._internal import uncompiled

            return uncompiled.attention_with_callable_mask(differentiable, *arguments)
        return operation.operator(*arguments)
    if torch._C._get_tracing_state() is not None and not rule:
        return operation.operator(*arguments)
    return _differentiable(operation, *arguments)


def differentiable(*arguments: Any) -> Any:
    """Attention, outside of torch.compile."""
    return _differentiable(_ATTENTION, *arguments)


def _differentiable(operation: _Operation, *arguments: Any) -> Any:
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return operation.functional.apply(*arguments)
    followed = torch.is_grad_enabled() and any(t.requires_grad for t in arguments if isinstance(t, Tensor))
    if followed or forward_ad._current_level >= 0:
        return operation.function.apply(*arguments)
    return _undifferentiated(operation, *arguments)


def _undifferentiated(operation: _Operation, *arguments: Any) -> Any:
    if callable(arguments[operation.first + MASK]):
        return operation.compute(*arguments)  # a rule, which no operator takes
    with torch._C._AutoDispatchBelowAutograd():
        return operation.operator(*arguments)


def _keep(ctx: Any, inputs: Sequence[Any], *more: Tensor | None) -> None:
    """Saves what a derivative reads, so that PyTorch notices a change in place."""
    tensors = [t if isinstance(t, Tensor) else None for t in inputs[:TENSORS]]
    ctx.save_for_backward(*tensors, *more)
    if forward_ad._current_level >= 0 or torch._C._functorch.peek_interpreter_stack() is not None:
        ctx.save_for_forward(*tensors, *more)
    ctx.rule = inputs[MASK] if callable(inputs[MASK]) else None
    ctx.numbers = inputs[TENSORS:]
    ctx.set_materialize_grads(False)


def _kept(ctx: Any) -> tuple[list[Any], Sequence[Tensor]]:
    tensors = ctx.saved_tensors  # read once: a checkpoint computes them again each time
    inputs = [*tensors[:TENSORS], *ctx.numbers]
    inputs[MASK] = ctx.rule or inputs[MASK]
    return inputs, tensors[TENSORS:]


def _keep_attention(ctx: Any, arguments: Sequence[Any], results: Five) -> None:
    _keep(ctx, arguments[: BACKEND + 1], *results[:2])
    ctx.mark_non_differentiable(*results[2:])


def _attention_vjp(ctx: Any, grad_output: Tensor | None, grad_lse: Tensor | None, *_: None) -> tuple[Any, ...]:
    inputs, (output, lse) = _kept(ctx)
    if grad_output is None:
        grad_output = torch.zeros_like(output)
    wants_bias = inputs[3] is not None and ctx.needs_input_grad[3]
    grads = _call(_BACKWARD, grad_output, grad_lse, output, lse, wants_bias, *inputs)
    return *_given(grads, inputs, wants_bias), *(None,) * (len(inputs) + 2 - DIFFERENTIABLE)


def _attention_jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Any, ...]:
    inputs, _ = _kept(ctx)
    return *_call(_TANGENT, *tangents[:DIFFERENTIABLE], *inputs), None, None, None


def _given(grads: Sequence[Tensor], inputs: Sequence[Any], bias: bool = True) -> list[Tensor | None]:
    """Gradients of the inputs that there are."""
    there = [True, True, True, bias and inputs[3] is not None, inputs[4] is not None]
    return [grad if has else None for grad, has in zip(grads, there, strict=True)]


def _keep_backward(ctx: Any, arguments: Sequence[Any], results: Five) -> None:
    grad_output, grad_lse, output, lse, ctx.wants_bias, *inputs = arguments
    _keep(ctx, inputs, grad_output, grad_lse, output, lse)


def _backward_vjp(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
    inputs, (grad_output, grad_lse, *_) = _kept(ctx)
    direction = _given(grads, inputs, ctx.wants_bias)  # type: ignore[arg-type]
    to_output, to_lse = _call(_TANGENT, *direction, *inputs)
    of_inputs = _given(_call(_SECOND, *direction, grad_output, grad_lse, *inputs), inputs)
    return (
        *(to_output, None if grad_lse is None else to_lse, None, None, None),
        *of_inputs,
        *(None,) * (len(inputs) - DIFFERENTIABLE),
    )


def _backward_jvp(ctx: Any, to_output, to_lse, _output, _lse, _wants_bias, *tangents: Tensor | None) -> tuple[Any, ...]:
    inputs, (grad_output, grad_lse, output, lse) = _kept(ctx)
    direction = tangents[:DIFFERENTIABLE]
    to_output = torch.zeros_like(output) if to_output is None else to_output
    first = _call(_BACKWARD, to_output, to_lse, output, lse, ctx.wants_bias, *inputs)
    then = _call(_SECOND, *direction, grad_output, grad_lse, *inputs)
    return tuple(one + other if one.numel() else one for one, other in zip(first, then, strict=True))


def _keep_tangent(ctx: Any, arguments: Sequence[Any], results: tuple[Tensor, Tensor]) -> None:
    _keep(ctx, arguments[DIFFERENTIABLE:], *arguments[:DIFFERENTIABLE])


def _tangent_vjp(ctx: Any, grad_output: Tensor | None, grad_lse: Tensor | None) -> tuple[Any, ...]:
    inputs, direction = _kept(ctx)
    output, lse, *_ = _call(_ATTENTION, *inputs, False, 0)
    grad_output = torch.zeros_like(output) if grad_output is None else grad_output
    wants_bias = direction[3] is not None
    of_direction = _call(_BACKWARD, grad_output, grad_lse, output, lse, wants_bias, *inputs)
    of_direction = [g if t is not None else None for g, t in zip(of_direction, direction, strict=True)]
    of_inputs = _given(_call(_SECOND, *direction, grad_output, grad_lse, *inputs), inputs)
    return *of_direction, *of_inputs, *(None,) * (len(inputs) - DIFFERENTIABLE)


def _tangent_jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Any, ...]:
    if any(tangent is not None for tangent in tangents[DIFFERENTIABLE:]):
        raise RuntimeError(
            "attention: there is no forward derivative of a forward derivative; take one of the two backward: "
            "torch.func.jacfwd(torch.func.jacrev(…)), or torch.func.hessian."
        )
    inputs, _ = _kept(ctx)
    return _call(_TANGENT, *tangents[:DIFFERENTIABLE], *inputs)


def _no_third_derivative(*_: Any) -> Any:
    raise RuntimeError("attention: there is no third derivative; take the second without create_graph=True.")


# Their registration

_library = torch.library.Library("regard", "DEF")


def _operation(name: str, schema: str, compute: Callable, fake: Callable, first: int, keep, vjp, jvp) -> _Operation:
    """Registers an operator: what it computes, its shapes, its derivatives and its rule for torch.vmap."""
    _library.define(f"{name}{schema}", tags=(torch.Tag.pt2_compliant_tag,))
    operator = getattr(torch.ops.regard, name).default

    def forward(ctx: Any, *arguments: Any) -> Any:
        results = _undifferentiated(operation, *arguments)
        keep(ctx, arguments, results)
        return results

    def functional_forward(*arguments: Any) -> Any:
        with torch.no_grad():
            if not callable(arguments[first + MASK]):
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
        each = [
            operator(*(a if d is None else a.select(d, n) for a, d in zip(arguments, in_dims, strict=True)))
            for n in range(info.batch_size)
        ]
        return tuple(torch.stack(parts) for parts in zip(*each, strict=True)), (0,) * len(each[0])

    operation = _Operation(
        operator,
        compute,
        functions(forward=forward, backward=vjp, jvp=jvp),
        functions(forward=functional_forward, setup_context=keep, backward=vjp, jvp=jvp),
        first,
    )
    _library.impl(name, compute, "CompositeExplicitAutograd")
    _library.impl(name, lambda *arguments: _differentiable(operation, *arguments), "Autograd")
    torch.library.register_fake(f"regard::{name}", fake, lib=_library)
    torch.library.register_vmap(f"regard::{name}", one_by_one, lib=_library)
    return operation


def _fake_grads(inputs: Sequence[Any], wants_bias: bool = True) -> Five:
    tensors = _given(inputs[:DIFFERENTIABLE], inputs, wants_bias)
    return tuple(_room_of_grads(tensors, inputs[0]))  # type: ignore[return-value]


_ATTENTION = _operation(
    "attention",
    f"({_PROBLEM}, bool entropy, SymInt top) -> (Tensor output, Tensor lse, Tensor entropy, Tensor top, Tensor keys)",
    _attention,
    lambda *arguments: room(arguments[:-2], *arguments[-2:]),
    0,
    _keep_attention,
    _attention_vjp,
    _attention_jvp,
)
_BACKWARD = _operation(
    "attention_backward",
    f"(Tensor grad_output, Tensor? grad_lse, Tensor output, Tensor lse, bool wants_bias, {_PROBLEM}) -> {_GRADS}",
    _attention_backward,
    lambda *arguments: _fake_grads(arguments[5:], arguments[4]),
    5,
    _keep_backward,
    _backward_vjp,
    _backward_jvp,
)
_TANGENT = _operation(
    "attention_tangent",
    f"({_DIRECTION}, {_PROBLEM}) -> (Tensor output, Tensor lse)",
    _attention_tangent,
    lambda *arguments: room(arguments[DIFFERENTIABLE:], False, 0)[:2],
    DIFFERENTIABLE,
    _keep_tangent,
    _tangent_vjp,
    _tangent_jvp,
)
_SECOND = _operation(
    "attention_second",
    f"({_DIRECTION}, Tensor grad_output, Tensor? grad_lse, {_PROBLEM}) -> {_GRADS}",
    _attention_second,
    lambda *arguments: _fake_grads(arguments[DIFFERENTIABLE + 2 :]),
    DIFFERENTIABLE + 2,
    lambda *_: None,
    _no_third_derivative,
    _no_third_derivative,
)


@register_flop_formula(torch.ops.regard.attention)
def _flops(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


@register_flop_formula(torch.ops.regard.attention_backward)
def _backward_flops(
    grad_output: torch.Size, _lse: Any, _output: Any, _: Any, _bias: bool, query, key, value, *__: Any, **___: Any
) -> int:
    return sdpa_backward_flop_count(grad_output, query, key, value)
