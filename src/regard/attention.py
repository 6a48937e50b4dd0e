"""Attention: check, choose a backend, run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from regard import _checks, backends
from regard._typing import MaskMod
from regard.backends import plain as plain_attention
from regard.backends import torch as torch_backend
from regard.mask import make_mask
from regard.scores import Scores
from regard.weights import Weights, statistic

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, eq=False)
class Attention:
    """What attention gives: what the queries take home, and all that is needed to see why.

    output (…,Q,E), differentiable; lse (…,Q), the log of each row's sum of exponentials; weights, a
    `regard.Weights` of shape (…,Q,K) that is never stored; value (…,K,E), what the weights average.

    >>> import torch, regard
    >>> q, k, v = torch.randn(3, 2, 5, 8)                         # 2 heads, 5 positions, 8 numbers
    >>> a = regard.attention(q, k, v)
    >>> a.output.shape, a.lse.shape, a.weights.shape
    (torch.Size([2, 5, 8]), torch.Size([2, 5]), torch.Size([2, 5, 5]))
    >>> torch.allclose(a.output, a.weights @ a.value, atol=1e-6)
    True
    """

    output: Float[Tensor, "... Q E"]
    lse: Float[Tensor, "... Q"]
    weights: Weights
    value: Float[Tensor, "... K E"]

    @staticmethod
    def _of_plain(output: Tensor, weights: Weights, value: Tensor, lse: Tensor) -> Attention:
        """An attention whose lse is converted to the type of the arithmetic when it is first asked for."""
        attention = object.__new__(Attention)
        vars(attention).update(output=output, weights=weights, value=value, _lse=lse)
        return attention

    def __getattr__(self, name: str) -> Tensor:
        if name != "lse" or "_lse" not in vars(self):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        given = vars(self)["_lse"]
        lse: Tensor = given.to(torch.promote_types(self.output.dtype, torch.float32))
        if lse.requires_grad or not given.requires_grad:  # not what is asked for where no gradient is to follow
            vars(self)["lse"] = lse
        return lse

    def of_sequence(self, n: int) -> Attention:
        """The attention of one sequence, without the one dimension of the batch; by the same backend.

        >>> import torch, regard
        >>> x = torch.randn(3, 2, 5, 8)                               # a batch of 3
        >>> regard.attention(x, x, x).of_sequence(1).weights.shape
        torch.Size([2, 5, 5])
        """
        return Attention(self.output[n], self.lse[n], self.weights.of_sequence(n), self.value[n])


def attention(
    query: Float[Tensor, "*B_H Q D"],
    key: Float[Tensor, "*B_G K D"],
    value: Float[Tensor, "*B_G K E"],
    *,
    causal: bool | Literal["lengths"] = False,
    window: tuple[int | None, int | None] | None = None,
    lengths: Int[Tensor, "B"] | Sequence[int] | None = None,
    segments: Int[Tensor, "n+1"] | tuple[Int[Tensor, "n+1"], Int[Tensor, "n+1"]] | None = None,
    mask: Bool[Tensor, "..."] | MaskMod | None = None,
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
        query, key, value: (Q,D), (H,Q,D) or (B,…,H,Q,D), and as many dimensions for the others; of one type, float32,
            bfloat16, float16 or float64, on one device. bfloat16 and float16 are accumulated in float32. A batch of 1
            is repeated for the others. Under torch.autocast all but float64 are cast to its type.
        causal: query i sees key j iff j ≤ i + (K − Q): the last query sees every key. "lengths", for a cache with room
            for more keys: the last query of sequence b stands at key lengths[b] − 1, so j ≤ i + (lengths[b] − Q).
        window: (left, right): query i, moved as for causal, sees keys i − left … i + right; None is no bound.
        lengths: (B,…); keys at or past the length are unseen: right padding.
        segments: packed sequences as boundaries 0 … N, or a pair of them, for queries and keys. Nobody sees across a
            boundary; causal and window count within each segment.
        mask: bool, True = may look, broadcastable to (B,…,H,Q,K) and kept as given; or a callable(batch, head, query,
            key) → bool on index tensors, as FlexAttention's mask_mod, called for the blocks that are needed. Several
            batch dimensions count as one.
        bias: float, added to the scores, broadcastable likewise.
        scale: 1/√D if not given.
        softcap: c, for scores c·tanh(s/c).
        sinks: (H,), a logit a head that takes part in the softmax and has no value.
        collect: of "entropy", "max", "max_score", "topk:8": computed in the same pass; the methods of `Weights` then
            return them.
        backend: a name from `regard backends`; the first that serves if not given.

    A query that may look at nothing gets output 0, lse −inf and weights 0.

    Returns: `Attention`, with output and lse differentiable in query, key, value, bias and sinks: twice, and in forward
    mode. What the derivatives read may not be changed in place before them; PyTorch raises RuntimeError where it was.

    Raises: ValueError or TypeError with the call, the shapes, the argument and the cause.

    >>> import torch
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])  # three words, two features
    >>> a = attention(x, x, x)                                  # each becomes the weighted average of all
    >>> a.weights[2]
    tensor([0.2483, 0.2483, 0.5035])
    >>> torch.allclose(a.output[2], a.weights[2] @ x)
    True
    """
    if (
        segments is None
        and softcap is None
        and sinks is None
        and backend is None
        and (causal is False or causal is True)
        and (window is None or (type(window) is tuple and window == (None, None)))
        and (scale is None or (type(scale) is float and abs(scale) < _checks.HELD_BY_ALL_TYPES))
        and collect == ()
        and _checks.plain(query, key, value, lengths, mask, bias)
        and (plain := _plain(query, key, value, scale, causal, lengths, mask, bias)) is not None  # type: ignore[arg-type]
    ):
        return plain
    query, key, value = _checks.under_autocast((query, key, value))
    try:
        leading, (q, k, v) = _checks.four_dimensional((query, key, value))
        shape = (*((1,) * (2 - len(leading))), *leading, q.shape[2], k.shape[2])
        rule = make_mask(shape, q.device, causal=causal, window=window, lengths=lengths, segments=segments, mask=mask)
        q, k, v = q.resolve_neg(), k.resolve_neg(), v.resolve_neg()
        scores = Scores(q, k, rule, _checks.scale(scale, q), _checks.bias(bias, shape, q), _checks.softcap(softcap))
        sinks = _checks.sinks(sinks, q)
        names = [statistic(name, shape[-1]) for name in _checks.names(collect)]
        backend = backends.choose(backend, scores, v)
        output, lse, collected = backends.run(backend, scores, v, sinks, names)
    except (TypeError, ValueError) as error:
        call = f"attention({_checks.described(query, key, value)})"
        raise type(error)(f"{call}: {error}") from None
    weights = Weights(scores, lse, sinks, leading=leading, collected=collected, backend=backend)
    lse = lse.to(scores.dtype)
    if len(leading) != 2:
        output, lse = _as_given(output, leading), _as_given(lse, leading)
    return Attention(output, lse, weights, value)


def _plain(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float | None,
    causal: bool,
    lengths: Tensor | None,
    mask: Tensor | None,
    bias: Tensor | None,
) -> Attention | None:
    """Attention where little is asked (`_checks.plain`), in one call; None where the general way has to be gone."""
    special = not (lengths is None and mask is None and bias is None)
    options = scale, causal, lengths, mask, bias
    if torch.is_grad_enabled() and (
        query.requires_grad or key.requires_grad or value.requires_grad or (bias is not None and bias.requires_grad)
    ):
        results = plain_attention.attend_differentiably(query, key, value, *options)
        if results is None:
            return None
        output, lse = results
        return Attention._of_plain(output, Weights._of_plain(query, key, lse.detach(), *options), value, lse)
    by, results = "cpu", plain_attention.attend(query, key, value, *options)
    if results is None and not special:
        by, results = "torch", torch_backend.attend(query, key, value, scale, causal)
    if results is None:
        return None
    output, lse = results
    return Attention._of_plain(output, Weights._of_plain(query, key, lse, *options, backend=by), value, lse)


class _StandIn(NamedTuple):
    """What models compute instead of `attention`, and whether it hides keys that the model itself lets be seen."""

    compute: Callable[..., Attention]
    hides_keys: bool


_stand_in: ContextVar[_StandIn | None] = ContextVar("stand_in", default=None)


@contextmanager
def replaced_in_models(compute: Callable[..., Attention], *, hides_keys: bool = False) -> Iterator[None]:
    """Within this context, and in this thread, models call `compute(query, key, value, **options)`, not `attention`.

    It is called once for each attention of a pass, in their order: an experiment can keep, change or switch off what
    `attention` gives, whoever wrote the model.

    Args:
        compute: takes and returns what `attention` does.
        hides_keys: whether it hides keys that the model itself lets be seen. A query that is left with none then gets
            0; eager attention, which models of transformers imitate elsewhere, would give it the mean of all values.

    >>> import torch
    >>> def to_neighbours(query, key, value, **options):
    ...     return attention(query, key, value, **options, window=(1, 1))
    >>> x = torch.randn(1, 2, 5, 8)
    >>> with replaced_in_models(to_neighbours):
    ...     attended = attention_of_model(x, x, x)
    >>> (attended.weights[0, 0] > 0).sum(1)
    tensor([2, 3, 3, 3, 2])
    """
    token = _stand_in.set(_StandIn(compute, hides_keys))
    try:
        yield
    finally:
        _stand_in.reset(token)


@contextmanager
def replaced_where(chosen: Callable[[int], bool]) -> Iterator[None]:
    """Within this context, what replaces `attention` in models does so for those calls alone whose number is chosen.

    They are counted from 0. A decoder computes self-attention and cross-attention in turns, and an experiment is about
    one of them.
    """
    stand_in, calls = _stand_in.get(), count()
    if stand_in is None:
        yield
        return

    def compute(*inputs: Tensor, **options: Any) -> Attention:
        return (stand_in.compute if chosen(next(calls)) else attention)(*inputs, **options)

    with replaced_in_models(compute, hides_keys=stand_in.hides_keys):
        yield


def attention_of_model(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Attention:
    """What the modules of a model call: `attention`, or what replaces it (see `replaced_in_models`)."""
    stand_in = None if torch.compiler.is_compiling() else _stand_in.get()
    return (attention if stand_in is None else stand_in.compute)(query, key, value, **options)


def is_replaced() -> bool:
    """Whether models call something else than `attention` at present."""
    return _stand_in.get() is not None


def keys_are_hidden() -> bool:
    """Whether what replaces `attention` at present hides keys that the model itself lets be seen."""
    stand_in = _stand_in.get()
    return stand_in is not None and stand_in.hides_keys


def _as_given(tensor: Tensor, leading: tuple[int, ...]) -> Tensor:
    """From (B,H,…) to the leading dimensions of the call."""
    return tensor[(0,) * (2 - len(leading))] if len(leading) < 2 else tensor.unflatten(0, leading[:-1])
