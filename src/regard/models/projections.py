"""The modules around the attention of a layer: W_Q, W_K, W_V and the norm before them, W_O and the norms after.

`find_surroundings` watches a model once, while it reads a few tokens: which norm comes before the attention, which
modules compute query, key and value, which one joins the heads, and which norms follow the sum with the residual
stream. What they compute is compared with the model's own numbers; where they do not fit, nothing is claimed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from regard._internal.modules import is_linear, is_norm

if TYPE_CHECKING:
    from regard.attention import Attention


class Call(NamedTuple):
    """A call of a module: its input and its output, without the batch dimension."""

    module: nn.Module
    input: Tensor
    output: Tensor


class Projected(NamedTuple):
    """query (N,H,D), key (N,G,D) and value (N,G,E)."""

    query: Tensor
    key: Tensor
    value: Tensor


Split = Callable[[Sequence[Tensor]], Projected]


HeadNorm = tuple[nn.Module, bool]  # the norm, and whether it is taken of all heads together


@dataclass(frozen=True, eq=False)
class Projections:
    """The modules that make query, key and value in one layer.

    Attributes:
        norm: the norm before the projections; None where they take x itself.
        modules: one module for query, key and value together, or three.
        split: tells the outputs of the modules apart.
        query_norm, key_norm: a norm of query or key after that.
        rotated: whether query and key are rotated by position.
    """

    norm: nn.Module | None
    modules: Sequence[nn.Module]
    split: Split
    query_norm: HeadNorm | None
    key_norm: HeadNorm | None
    rotated: bool

    def __call__(self, x: Tensor, source: Tensor | None = None) -> tuple[Tensor, Projected]:
        """x (N,dim) after the norm, and its query, key and value before any rotation.

        Of cross-attention, key and value are those of the states of a source, and the first module alone reads x.
        """
        normed = x if self.norm is None else self.norm(x[None])[0]
        inputs = [normed] + [normed if source is None else source] * (len(self.modules) - 1)
        projected = self.split([module(states[None])[0] for module, states in zip(self.modules, inputs, strict=True)])
        query, key = _apply(self.query_norm, projected.query), _apply(self.key_norm, projected.key)
        return normed, Projected(query, key, projected.value)


@dataclass(frozen=True, eq=False)
class Surroundings:
    """The modules around the attention of one layer, before it and after it.

    Attributes:
        projections: the modules that make query, key and value; None where they are not known.
        output: the module that joins the heads, W_O; None where it is not known.
        inner_norm: the norm of what that module gives, before it is added (Gemma 2, OLMo 2); None in most models.
        residual: whether it is added, as it is, to the input x of the layer.
        norms: in a post-norm model, the norms of the residual stream after the attention and after the feed-forward
            network.
    """

    projections: Projections | None = None
    output: nn.Module | None = None
    inner_norm: nn.Module | None = None
    residual: bool = False
    norms: tuple[nn.Module, ...] = ()


def _apply(norm: HeadNorm | None, heads: Tensor) -> Tensor:
    """A norm of (N,H,D): of each head, or of all together."""
    if norm is None:
        return heads
    module, together = norm
    normed: Tensor = module(heads.flatten(1)).view_as(heads) if together else module(heads)
    return normed


def find_surroundings(
    forward: Callable[..., Any], blocks: Sequence[nn.Module], ids: Sequence[int], source: Tensor | None = None
) -> list[Surroundings]:
    """For each layer the modules around its attention, as far as it computes in a way that is known here.

    Of cross-attention, key and value are made of the states of a source (N,dim).
    """
    calls: list[list[Call]] = [[] for _ in blocks]
    thread, handles = threading.get_ident(), []
    for n, block in enumerate(blocks):
        for module in block.modules():
            handles.append(module.register_forward_hook(_recorder(calls[n], thread), with_kwargs=True))
    try:
        with torch.inference_mode():
            passed = forward(torch.tensor([ids]), None)
            entering, hidden = passed.entering or passed.hidden, passed.hidden
            return [
                Surroundings()
                if attention is None or entering[n] is None
                else _of_layer(calls[n], entering[n][0], hidden[n + 1][0], attention, source)
                for n, attention in enumerate(passed.attentions[: len(blocks)])
            ]
    finally:
        for handle in handles:
            handle.remove()


def _recorder(calls: list[Call], thread: int) -> Callable[..., None]:
    def record(module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any], output: Any) -> None:
        tensors = [value for value in (*inputs, *options.values()) if _is_batch(value)]
        result = output[0] if isinstance(output, tuple) and output else output
        if threading.get_ident() == thread and tensors and _is_batch(result):
            calls.append(Call(module, tensors[0][0], result[0]))

    return record


def _is_batch(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 1 and len(value) > 0


def _of_layer(calls: Sequence[Call], x: Tensor, y: Tensor, attention: Attention, source: Tensor | None) -> Surroundings:
    """What surrounds the attention of a layer that makes y (N,dim) of x."""
    flat = attention.output[0].transpose(0, 1).flatten(1)
    joining = [call for call in calls if is_linear(call.module) and _same(call.input, flat)]
    projections = _projections(calls, x, attention, source)
    if not joining:
        return Surroundings(projections)
    output = joining[-1]  # of a module and what wraps it, the outer one
    if output.output.shape != x.shape:
        return Surroundings(projections, output.module)
    for inner in (None, *(call for call in calls if is_norm(call.module) and _same(call.input, output.output))):
        total = x + (output.output if inner is None else inner.output)
        entered = [call.module for call in calls if _same(call.input, total)]
        parallel = [call for call in calls if call.output.shape == y.shape and _same(total + call.output, y)]
        if not entered and not parallel:  # in parallel, attention and feed-forward network are added to the same x
            continue
        last = [call.module for call in calls if is_norm(call.module) and _same(call.output, y)]
        after_attention = [module for module in entered if is_norm(module)] if last else []
        norms = tuple(dict.fromkeys(after_attention[:1] + last[-1:])) if after_attention else ()
        return Surroundings(projections, output.module, None if inner is None else inner.module, True, norms)
    return Surroundings(projections, output.module)


def _projections(calls: Sequence[Call], x: Tensor, attention: Attention, source: Tensor | None) -> Projections | None:
    scores, value = attention.weights.scores, attention.value[0]
    query, key = scores.query[0], scores.key[0]  # (H,N,D), (G,N,D)
    linear = [call for call in calls if is_linear(call.module)]
    for candidates, split in _candidates(linear, query, key, value, source):
        entering = candidates[0].input
        projected = split([call.output for call in candidates])
        if not _same(projected.value.transpose(0, 1), value):
            continue
        norm = None
        if not _same(entering, x):
            norms = (call.module for call in calls if _same(call.input, x) and _same(call.output, entering))
            norm = next(norms, None)
            if norm is None:
                continue
        query_norm, normed_query = _norm_of(calls, projected.query)
        key_norm, normed_key = _norm_of(calls, projected.key)
        if _same_length(normed_query, query) and _same_length(normed_key, key):
            modules = [call.module for call in candidates]
            rotated = factor(normed_query, query)[1] > 10 * tolerance(query.dtype)
            return Projections(norm, modules, split, query_norm, key_norm, rotated)
    return None


def _candidates(
    linear: Sequence[Call], query: Tensor, key: Tensor, value: Tensor, source: Tensor | None
) -> Iterator[tuple[list[Call], Split]]:
    """The one or three modules with the same input that may make query, key and value, and how to split them.

    Of cross-attention, those of key and value have the source as their input.
    """
    (heads, _, dim), groups, value_dim = query.shape, len(key), value.shape[2]
    sizes = [heads * dim, groups * dim, groups * value_dim]

    def three(outputs: Sequence[Tensor]) -> Projected:
        q, k, v = outputs
        return Projected(
            torch.unflatten(q, 1, (heads, dim)),
            torch.unflatten(k, 1, (groups, dim)),
            torch.unflatten(v, 1, (groups, value_dim)),
        )

    def blocks(outputs: Sequence[Tensor]) -> Projected:
        return three(torch.split(outputs[0], sizes, 1))

    def by_group(outputs: Sequence[Tensor]) -> Projected:
        grouped = torch.unflatten(outputs[0], 1, (groups, heads // groups + 2, dim))
        return Projected(grouped[:, :, :-2].flatten(1, 2), grouped[:, :, -2], grouped[:, :, -1])

    if source is not None:
        of_source = [call for call in linear if _same(call.input, source)]
        for own in (call for call in linear if call.output.shape == (query.shape[1], sizes[0])):
            for first, second in permutations(of_source, 2):
                if [first.output.shape[-1], second.output.shape[-1]] == sizes[1:]:
                    yield [own, first, second], three
        return
    for call in linear:
        if call.output.ndim == 2 and call.output.shape[1] == sum(sizes):
            yield [call], blocks
            if dim == value_dim:
                yield [call], by_group
    for n, call in enumerate(linear):
        beside = [
            other for other in linear[n:] if other.input.shape == call.input.shape and _same(other.input, call.input)
        ]
        for modules in permutations(beside, 3) if 3 <= len(beside) <= 5 else ():  # in whatever order they were called
            if [other.output.shape[-1] for other in modules] == sizes:
                yield list(modules), three


def _norm_of(calls: Sequence[Call], heads: Tensor) -> tuple[HeadNorm | None, Tensor]:
    """The norm that a layer takes of its queries or keys (N,H,D), and its result."""
    for call in calls:
        if call.input.numel() != heads.numel() or call.output.shape != call.input.shape or call.input is heads:
            continue
        for together, candidate in ((False, heads), (False, heads.transpose(0, 1)), (True, heads.flatten(1))):
            if call.input.shape == candidate.shape and _same(call.input, candidate) and not is_linear(call.module):
                result = call.output
                transposed = candidate.shape == heads.transpose(0, 1).shape and candidate.shape != heads.shape
                result = result.transpose(0, 1) if transposed else result
                return (call.module, together), result.reshape(heads.shape)
    return None, heads


def _same(first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape:
        return False
    return float((first.float() - second.float()).abs().max()) <= tolerance(first.dtype) * float(second.abs().max())


def _same_length(projected: Tensor, heads: Tensor) -> bool:
    """Whether (N,H,D) and (H,N,D) are the same vectors but for rotations and one factor for all."""
    ratio = heads.float().norm(dim=-1) / projected.float().norm(dim=-1).T.clamp(min=1e-12)
    return bool((ratio / ratio.mean() - 1).abs().max() <= 10 * tolerance(heads.dtype))


def tolerance(dtype: torch.dtype) -> float:
    """How far two computations of the same numbers may differ, as a share of the largest."""
    return 1e-4 if dtype in (torch.float32, torch.float64) else 3e-2


def factor(projected: Tensor, heads: Tensor) -> tuple[float, float]:
    """The factor that takes (N,H,D) closest to (H,N,D), and the remaining error as a share of the largest number."""
    ours, theirs = projected.transpose(0, 1).double(), heads.double()
    number = float((ours * theirs).sum() / ours.square().sum().clamp(min=1e-30))
    return number, float((number * ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-30))


def rotation(projected: Tensor, heads: Tensor) -> tuple[Tensor, bool] | None:
    """The rotation of each token that takes (N,H,D) to (H,N,D): complex numbers (N,pairs), and whether interleaved.

    Rotary positions rotate pairs of numbers, the same pairs in all heads, by an angle that depends on the position:
    the pairs (i, i + D/2) or, interleaved, (2i, 2i + 1), of all numbers or of the first ones. None where there is no
    such rotation. Su et al. 2021, https://arxiv.org/abs/2104.09864.
    """
    heads = heads.transpose(0, 1).double()
    changed = (heads - projected.double()).abs().amax((0, 1)) > tolerance(projected.dtype) * heads.abs().max()
    rotated = int(changed.nonzero().max()) + 1 if changed.any() else 0
    for size in sorted({projected.shape[-1], rotated + rotated % 2} - {0}):
        for interleaved in (False, True):
            if size % 2:
                continue
            before, after = _pairs(projected, size, interleaved), _pairs(heads, size, interleaved)
            angles = (before.conj() * after).sum(1) / before.abs().square().sum(1).clamp(min=1e-30)
            error = float((before * angles[:, None] - after).abs().max())
            unrotated = (projected[..., size:].double() - heads[..., size:]).abs()
            error = max(error, float(unrotated.max())) if unrotated.numel() else error
            if error <= 10 * tolerance(projected.dtype) * float(heads.abs().max()):
                return angles, interleaved
    return None


def rotate(projected: Tensor, turn: tuple[Tensor, bool]) -> Tensor:
    """(N,H,D), rotated by a result of `rotation`."""
    angles, interleaved = turn
    size = 2 * angles.shape[1]
    pairs = torch.view_as_real(_pairs(projected, size, interleaved) * angles[:, None])
    rotated = pairs.flatten(-2) if interleaved else pairs.transpose(-1, -2).flatten(-2)
    return torch.cat([rotated, projected[..., size:].double()], -1)


def _pairs(heads: Tensor, size: int, interleaved: bool) -> Tensor:
    numbers = heads[..., :size].double()
    if interleaved:
        return torch.complex(numbers[..., 0::2], numbers[..., 1::2])
    return torch.complex(*numbers.chunk(2, dim=-1))
