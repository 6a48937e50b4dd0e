"""Attention: check, choose a backend, run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from regard import backends
from regard.mask import Rule, broadcastable, make_mask
from regard.scores import Scores
from regard.weights import Weights, statistic

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, eq=False)
class Attention:
    """What attention gives: what the queries take home, and all that is needed to see why.

    output (…,Q,E), differentiable; lse (…,Q), the log of each row's sum of exponentials; weights, a
    `regard.Weights` of shape (…,Q,K) that is never stored; value (…,K,E), what the weights average.
    """

    output: Float[Tensor, "... Q E"]
    lse: Float[Tensor, "... Q"]
    weights: Weights
    value: Float[Tensor, "... K E"]


def attention(
    query: Float[Tensor, "*B_H Q D"],
    key: Float[Tensor, "*B_G K D"],
    value: Float[Tensor, "*B_G K E"],
    *,
    causal: bool = False,
    window: tuple[int | None, int | None] | None = None,
    lengths: Int[Tensor, "B"] | Sequence[int] | None = None,
    segments: Int[Tensor, "n+1"] | tuple[Int[Tensor, "n+1"], Int[Tensor, "n+1"]] | None = None,
    mask: Bool[Tensor, "..."] | Rule | None = None,
    bias: Float[Tensor, "..."] | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Float[Tensor, "H"] | None = None,
    collect: Sequence[str] = (),
    backend: str | None = None,
) -> Attention:
    """Scaled dot-product attention that can be looked into, exact, in O(N) memory.

        s_ij = scale · q_i·k_j      w_ij = exp(s_ij) / Σ_j exp(s_ij)      output_i = Σ_j w_ij v_j

    Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, equation 1. The order of things:
    scale·q·k → softcap → + bias → mask → sinks → softmax.

    B batch; H heads and G groups, H a multiple of G (grouped-query attention); Q queries; K keys; D dim; E value dim.

    Args:
        query, key, value: (Q,D), (H,Q,D) or (B,H,Q,D), and as many dimensions for the others; of one type, float32,
            bfloat16, float16 or float64, on one device. bfloat16 and float16 are accumulated in float32.
        causal: query i sees key j iff j ≤ i + (K − Q): the last query sees every key.
        window: (left, right): query i, moved by K − Q as above, sees keys i − left … i + right; None is no bound.
        lengths: (B,); keys at or past the length are unseen: right padding.
        segments: packed sequences as boundaries 0 … N, or a pair of them, for queries and keys. Nobody sees across a
            boundary; causal and window count within each segment.
        mask: bool, True = may look, broadcastable to (B,H,Q,K) and kept as given; or a rule(batch, head, query, key)
            → bool on index tensors, which is asked for the parts that are needed.
        bias: float, added to the scores, broadcastable likewise.
        scale: 1/√D if not given.
        softcap: c, for scores c·tanh(s/c).
        sinks: (H,), a logit a head that takes part in the softmax and has no value.
        collect: of "entropy", "max", "topk:8": computed in the same pass; the methods of `Weights` then return them.
        backend: a name from `regard backends`; the first that serves if not given.

    A query that may look at nothing gets output 0, lse −inf and weights 0.

    Returns: `Attention`, with output and lse differentiable in query, key, value, bias and sinks.

    Raises: ValueError or TypeError with the call, the shapes, the argument and the cause.

    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])  # three words, two features
    >>> a = attention(x, x, x)                                  # each becomes the weighted average of all
    >>> a.weights[2]
    tensor([0.2483, 0.2483, 0.5035])
    >>> torch.allclose(a.output[2], a.weights[2] @ x)
    True
    """
    try:
        q, k, v = _four_dimensional(query, key, value)
        shape = (*q.shape[:3], k.shape[2])
        rule = make_mask(shape, q.device, causal=causal, window=window, lengths=lengths, segments=segments, mask=mask)
        scores = Scores(q, k, rule, _scale(scale, q), _bias(bias, shape, q), _softcap(softcap))
        sinks = _sinks(sinks, q)
        names = [statistic(name, shape[3]) for name in _names(collect)]
        chosen = backends.choose(backend, scores, v)
    except (TypeError, ValueError) as error:
        raise type(error)(f"attention({_described(query, key, value)}): {error}") from None
    output, lse, collected = chosen.run(scores, v, sinks, names)
    weights = Weights(scores, lse, sinks, leading=query.shape[:-2], collected=collected)
    given = (0,) * (4 - query.ndim)  # as many dimensions as came in
    return Attention(output[given], lse.to(scores.dtype)[given], weights, value)


def _four_dimensional(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    tensors = {"query": query, "key": key, "value": value}
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: expected a torch.Tensor. Got {type(tensor).__name__}; torch.as_tensor makes one.")
        if tensor.dtype not in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
            raise TypeError(f"{name}: expected float32, bfloat16, float16 or float64. Got {tensor.dtype}.")
        if tensor.is_meta:
            raise ValueError(f"{name}: expected a tensor with numbers in it. Got one on the meta device.")
        if tensor.dtype != query.dtype or tensor.device != query.device:
            got, wanted = f"{tensor.dtype} on {tensor.device}", f"{query.dtype} on {query.device}"
            raise TypeError(f"{name}: expected {wanted}, as the query. Got {got}.")
        if tensor.ndim not in (2, 3, 4) or tensor.ndim != query.ndim:
            raise ValueError(
                f"{name}: expected (positions, dim), (heads, positions, dim) or (batch, heads, positions, dim), "
                f"with as many dimensions as the query. Got {tensor.ndim}."
            )
    q, k, v = (tensor[(None,) * (4 - tensor.ndim)] for tensor in tensors.values())
    if q.shape[-1] == 0:
        raise ValueError("query: expected a dim of 1 at least. Got 0.")
    expected = {
        ("key", "batch", 0): q.shape[0],
        ("key", "dim", 3): q.shape[3],
        ("value", "batch", 0): k.shape[0],
        ("value", "heads", 1): k.shape[1],
        ("value", "keys", 2): k.shape[2],
    }
    for (name, axis, dim), size in expected.items():
        found = (k if name == "key" else v).shape[dim]
        if found != size:
            other = "query" if name == "key" else "key"
            raise ValueError(f"{name}: expected {axis} = {size}, as the {other}. Got {found}.")
    heads, groups = q.shape[1], k.shape[1]
    if (heads % groups if groups else heads) != 0:
        raise ValueError(f"key: expected a number of heads that divides the query's {heads}. Got {groups}.")
    return q, k, v


def _scale(scale: float | None, query: Tensor) -> float:
    return query.shape[-1] ** -0.5 if scale is None else _number("scale", scale)


def _softcap(softcap: float | None) -> float | None:
    if softcap is not None and _number("softcap", softcap) <= 0:
        raise ValueError(f"softcap: expected a number > 0. Got {softcap}.")
    return softcap


def _number(name: str, number: float) -> float:
    if isinstance(number, bool) or not isinstance(number, int | float) or not abs(number) < float("inf"):
        raise ValueError(f"{name}: expected a finite number. Got {number!r}.")
    return float(number)


def _bias(bias: Tensor | None, shape: tuple[int, ...], query: Tensor) -> Tensor | None:
    if bias is None:
        return None
    if not isinstance(bias, Tensor) or not bias.dtype.is_floating_point:
        got = bias.dtype if isinstance(bias, Tensor) else type(bias).__name__
        raise TypeError(f"bias: expected a float tensor. Got {got}; who may look at whom is for mask=.")
    return broadcastable("bias", bias, shape, query.device)


def _sinks(sinks: Tensor | None, query: Tensor) -> Tensor | None:
    if sinks is None:
        return None
    if not isinstance(sinks, Tensor) or not sinks.dtype.is_floating_point:
        raise TypeError(f"sinks: expected a float tensor. Got {getattr(sinks, 'dtype', type(sinks).__name__)}.")
    if sinks.shape != query.shape[1:2] or sinks.device != query.device:
        got = f"{tuple(sinks.shape)} on {sinks.device}"
        raise ValueError(f"sinks: expected one logit a head, ({query.shape[1]},), on {query.device}. Got {got}.")
    return sinks


def _names(collect: Iterable[str]) -> Iterable[str]:
    if isinstance(collect, str) or not isinstance(collect, Iterable):
        raise TypeError(f'collect: expected several names, as in collect=("entropy",). Got {collect!r}.')
    return collect


def _described(*tensors: Tensor) -> str:
    def one(tensor: Tensor) -> str:
        if not isinstance(tensor, Tensor):
            return type(tensor).__name__
        return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"

    return ", ".join(f"{name} {one(tensor)}" for name, tensor in zip(("query", "key", "value"), tensors, strict=True))
