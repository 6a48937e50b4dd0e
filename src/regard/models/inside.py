"""Inside a layer: how its query, key and value are made of what enters it, by the model's own modules.

A model is looked at once, while it reads a few tokens: which norm comes before the attention, which modules make query,
key and value of it, and which one puts the heads together. What is found that way is only ever used to compute numbers
that are then checked against the model's; where it does not fit, nothing is claimed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from regard.attention import Attention


class Call(NamedTuple):
    """A module of a layer, what it was called with and what it gave, without the batch."""

    module: nn.Module
    input: Tensor
    output: Tensor


class Projected(NamedTuple):
    """query (N,H,D), key (N,G,D) and value (N,G,E)."""

    query: Tensor
    key: Tensor
    value: Tensor


Split = Callable[[Sequence[Tensor]], Projected]


@dataclass(frozen=True, eq=False)
class Inside:
    """The modules around the attention of one layer.

    norm: what comes before the projections, None where x itself does. projections: one module for query, key and value
    together, or three; `split` tells their outputs apart. query_norm, key_norm: of each head, or of all of them
    together. rotated: whether query and key are turned by their places, which the first token alone cannot tell: its
    angle is 0. output: the module that puts the heads together, None where it is not known.
    """

    norm: nn.Module | None
    projections: Sequence[nn.Module]
    split: Split
    query_norm: tuple[nn.Module, bool] | None
    key_norm: tuple[nn.Module, bool] | None
    rotated: bool
    output: nn.Module | None

    def __call__(self, x: Tensor) -> tuple[Tensor, Projected]:
        """What the projections get of x (N,dim), and query, key and value, before any rotation."""
        normed = x if self.norm is None else self.norm(x[None])[0]
        made = self.split([module(normed[None])[0] for module in self.projections])
        query, key = _apply(self.query_norm, made.query), _apply(self.key_norm, made.key)
        return normed, Projected(query, key, made.value)

    @property
    def projects(self) -> bool:
        """Whether W_O is known, which puts the heads together."""
        return self._projection is not None

    @property
    def _projection(self) -> Tensor | None:
        weight = getattr(self.output, "weight", None)
        return None if weight is None or not weight.dtype.is_floating_point else weight

    def carried(self, values: Tensor, heads: int) -> Tensor:
        """The length of what a token's value (G,N,E) adds to the residual, by head: ‖v W_O‖ (H,N), or ‖v‖."""
        values = values.float().repeat_interleave(heads // len(values), 0)
        weight = self._projection
        if weight is None:
            return values.norm(dim=-1)
        across = weight if isinstance(self.output, nn.Linear) else weight.T  # (dim, H·E); Conv1D has it turned
        by_head = across.detach().double().unflatten(1, (heads, -1)).unbind(1)
        return torch.stack([_length(value.double(), part) for value, part in zip(values, by_head, strict=True)]).float()


def _length(value: Tensor, across: Tensor) -> Tensor:
    """The lengths of value @ across.T (N,), by way of the E × E products of its columns."""
    return ((value @ (across.T @ across)) * value).sum(-1).clamp(min=0).sqrt()


def _apply(norm: tuple[nn.Module, bool] | None, heads: Tensor) -> Tensor:
    """A norm of (N,H,D): of each head, or of all together."""
    if norm is None:
        return heads
    module, together = norm
    return module(heads.flatten(1)).view_as(heads) if together else module(heads)


def look_inside(forward: Callable[..., Any], blocks: Sequence[nn.Module], ids: Sequence[int]) -> list[Inside | None]:
    """For each layer its modules, or None where they do not make query, key and value in a way that is known here."""
    calls: list[list[Call]] = [[] for _ in blocks]
    thread, handles = threading.get_ident(), []
    for n, block in enumerate(blocks):
        for module in block.modules():
            handles.append(module.register_forward_hook(_noting(calls[n], thread), with_kwargs=True))
    try:
        with torch.inference_mode():
            hidden, attentions, _ = forward(torch.tensor([ids]), None)
            states = [state[0] for state in hidden]
            return [
                attention and _layer(calls[n], states[n], attention)
                for n, attention in enumerate(attentions[: len(blocks)])
            ]
    finally:
        for handle in handles:
            handle.remove()


def _noting(calls: list[Call], thread: int) -> Callable[..., None]:
    def note(module: nn.Module, inputs: tuple, options: dict, output: Any) -> None:
        tensors = [given for given in (*inputs, *options.values()) if _batched(given)]
        result = output[0] if isinstance(output, tuple) and output else output
        if threading.get_ident() == thread and tensors and _batched(result):
            calls.append(Call(module, tensors[0][0], result[0]))

    return note


def _batched(given: Any) -> bool:
    return isinstance(given, Tensor) and given.is_floating_point() and given.ndim > 1 and len(given) > 0


def _layer(calls: Sequence[Call], x: Tensor, attention: Attention) -> Inside | None:
    scores, value = attention.weights.scores, attention.value[0]
    query, key = scores.query[0], scores.key[0]  # (H,N,D), (G,N,D)
    linear = [call for call in calls if getattr(getattr(call.module, "weight", None), "ndim", 0) == 2]
    flat = attention.output[0].transpose(0, 1).flatten(1)
    output = next((call.module for call in linear if _same(call.input, flat)), None)
    for modules, split in _ways(linear, query, key, value):
        entering = modules[0].input
        made = split([call.output for call in modules])
        if not _same(made.value.transpose(0, 1), value):
            continue
        norm = (
            None
            if _same(entering, x)
            else next((call.module for call in calls if _same(call.input, x) and _same(call.output, entering)), x)
        )
        if norm is x:
            return None
        query_norm, made_query = _norm_of(calls, made.query)
        key_norm, made_key = _norm_of(calls, made.key)
        if _same_length(made_query, query) and _same_length(made_key, key):
            projections = [call.module for call in modules]
            rotated = factor(made_query, query)[1] > 10 * tolerance(query.dtype)
            return Inside(norm, projections, split, query_norm, key_norm, rotated, output)  # type: ignore[arg-type]
    return None


def _ways(linear: Sequence[Call], query: Tensor, key: Tensor, value: Tensor) -> Iterator[tuple[list[Call], Split]]:
    """The ways in which one or three modules with one input may make query, key and value."""
    (heads, _, dim), groups, value_dim = query.shape, len(key), value.shape[2]
    sizes = [heads * dim, groups * dim, groups * value_dim]

    def three(outputs: Sequence[Tensor]) -> Projected:
        q, k, v = outputs
        return Projected(
            q.unflatten(1, (heads, dim)), k.unflatten(1, (groups, dim)), v.unflatten(1, (groups, value_dim))
        )

    def blocks(outputs: Sequence[Tensor]) -> Projected:
        return three(outputs[0].split(sizes, 1))

    def by_group(outputs: Sequence[Tensor]) -> Projected:
        parts = outputs[0].unflatten(1, (groups, heads // groups + 2, dim))
        return Projected(parts[:, :, :-2].flatten(1, 2), parts[:, :, -2], parts[:, :, -1])

    for call in linear:
        if call.output.ndim == 2 and call.output.shape[1] == sum(sizes):
            yield [call], blocks
            if dim == value_dim:
                yield [call], by_group
    for n, call in enumerate(linear):
        beside = [
            other for other in linear[n:] if other.input.shape == call.input.shape and _same(other.input, call.input)
        ]
        for modules in permutations(beside, 3) if 3 <= len(beside) <= 5 else ():  # called in any order
            if [other.output.shape[-1] for other in modules] == sizes:
                yield list(modules), three


def _norm_of(calls: Sequence[Call], made: Tensor) -> tuple[tuple[nn.Module, bool] | None, Tensor]:
    """The norm that a layer takes of its queries or keys (N,H,D), and what it gives."""
    for call in calls:
        if call.input.numel() != made.numel() or call.output.shape != call.input.shape or call.input is made:
            continue
        for together, given in ((False, made), (False, made.transpose(0, 1)), (True, made.flatten(1))):
            if call.input.shape == given.shape and _same(call.input, given) and not _linear(call.module):
                result = call.output
                turned = given.shape == made.transpose(0, 1).shape and given.shape != made.shape
                result = result.transpose(0, 1) if turned else result
                return (call.module, together), result.reshape(made.shape)
    return None, made


def _linear(module: nn.Module) -> bool:
    return getattr(getattr(module, "weight", None), "ndim", 0) == 2 and "norm" not in type(module).__name__.lower()


def _same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    return float((one.float() - other.float()).abs().max()) <= tolerance(one.dtype) * float(other.abs().max())


def _same_length(made: Tensor, heads: Tensor) -> bool:
    """Whether (N,H,D) and (H,N,D) are the same vectors, each turned or not, and all stretched by one factor."""
    ratio = heads.float().norm(dim=-1) / made.float().norm(dim=-1).T.clamp(min=1e-12)
    return bool((ratio / ratio.mean() - 1).abs().max() <= 10 * tolerance(heads.dtype))


def tolerance(dtype: torch.dtype) -> float:
    """How far two ways of computing the same may lie apart, as a share of the largest number."""
    return 1e-4 if dtype in (torch.float32, torch.float64) else 3e-2


def factor(made: Tensor, heads: Tensor) -> tuple[float, float]:
    """The number by which (N,H,D) is to be multiplied to be (H,N,D), and how far off it then is, as a share."""
    ours, theirs = made.transpose(0, 1).double(), heads.double()
    number = float((ours * theirs).sum() / ours.square().sum().clamp(min=1e-30))
    return number, float((number * ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-30))


def rotation(made: Tensor, heads: Tensor) -> tuple[Tensor, bool] | None:
    """The rotation of each token that takes (N,H,D) to (H,N,D), as complex numbers (N,pairs), and how pairs lie.

    Rotary positions turn pairs of numbers, the same ones in all heads, by an angle that depends on the place: either
    (i, i + D/2) or (2i, 2i + 1), of all numbers or of the first ones. Su et al. 2021, https://arxiv.org/abs/2104.09864.
    None where there is no such rotation.
    """
    heads = heads.transpose(0, 1).double()
    changed = (heads - made.double()).abs().amax((0, 1)) > tolerance(made.dtype) * heads.abs().max()
    turned = int(changed.nonzero().max()) + 1 if changed.any() else 0
    for size in sorted({made.shape[-1], turned + turned % 2} - {0}):
        for interleaved in (False, True):
            if size % 2:
                continue
            before, after = _pairs(made, size, interleaved), _pairs(heads, size, interleaved)
            angle = (before.conj() * after).sum(1) / before.abs().square().sum(1).clamp(min=1e-30)
            error = float((before * angle[:, None] - after).abs().max())
            rest = float((made[..., size:].double() - heads[..., size:]).abs().max()) if size < made.shape[-1] else 0.0
            if max(error, rest) <= 10 * tolerance(made.dtype) * float(heads.abs().max()):
                return angle, interleaved
    return None


def rotate(made: Tensor, turn: tuple[Tensor, bool]) -> Tensor:
    """(N,H,D), turned as `rotation` has it."""
    angle, interleaved = turn
    size = 2 * angle.shape[1]
    pairs = torch.view_as_real(_pairs(made, size, interleaved) * angle[:, None])
    turned = pairs.flatten(-2) if interleaved else pairs.transpose(-1, -2).flatten(-2)
    return torch.cat([turned, made[..., size:].double()], -1)


def _pairs(heads: Tensor, size: int, interleaved: bool) -> Tensor:
    part = heads[..., :size].double()
    pairs = part.unflatten(-1, (size // 2, 2)) if interleaved else part.unflatten(-1, (2, size // 2)).transpose(-1, -2)
    return torch.view_as_complex(pairs.contiguous())
