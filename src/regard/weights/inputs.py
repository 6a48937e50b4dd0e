"""What a map is made of: scores, lse, sinks and factors; the same on other devices, and copies."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from regard import _checks, backends
from regard._internal.deprecated import warn
from regard.backends.factors import Factor
from regard.backends.protocol import Matrix, Statistics
from regard.mask import Block, Mask
from regard.scores import Scores
from regard.weights.tensorlike import TensorLike

if TYPE_CHECKING:
    from jaxtyping import Float


class MapInputs(TensorLike):
    """The inputs of a map of weights, and who computes with them.

    They are kept, not copied; where one is changed in place, reading them raises RuntimeError.
    """

    _lse: Tensor
    _sinks: Tensor | None = None
    _factors: tuple[Factor, ...] = ()
    _gram: Tensor | None = None
    _collected: Statistics
    _known: Statistics
    _backend: str
    _versions: list[int] | None
    _of: tuple[Tensor, Tensor, float | None, bool]  # query, key, scale and causal of scores not yet written down

    def __init__(
        self,
        scores: Scores,
        lse: Float[Tensor, "B H Q"],
        sinks: Float[Tensor, "H"] | None = None,
        *,
        leading: Sequence[int] | None = None,
        collected: Statistics | None = None,
        dtype: torch.dtype | None = None,
        backend: str = "torch",
        factors: tuple[Factor, ...] = (),
        gram: Float[Tensor, "#B K H H"] | None = None,
    ) -> None:
        """A map of the weights of some scores.

        Args:
            scores, lse, sinks: in four dimensions; the sinks have gone into the lse.
            leading: the dimensions before Q and K, B and H if not given: none, or some that end in H and multiply up to
                B·H.
            collected: statistics by the names that `statistic` gives.
            dtype: what the results are converted to; that of the scores if not given.
            backend: the name of the backend that computed the lse, and computes what is asked of the map.
            factors, gram: what makes a map of the weights, as in `regard.backends.protocol.Matrix`.
        """
        if not torch.is_grad_enabled():
            scores, sinks = _detached(scores), None if sinks is None else sinks.detach()
            factors = tuple(_changed(factor, Tensor.detach) for factor in factors)
            gram = None if gram is None else gram.detach()
        vars(self).update(  # at once: the class's own __setattr__ refuses what would change a tensor
            _scores=scores,
            _lse=lse.detach() if lse.requires_grad else lse,
            _sinks=sinks,
            _factors=factors,
            _gram=gram,
            _collected={name: tuple(t.detach() for t in given) for name, given in (collected or {}).items()},
            _known={},  # what has been asked for, as it was answered
            _leading=tuple(scores.shape[:2] if leading is None else leading),
            _dtype=scores.dtype if dtype is None else dtype,
            _backend=backend,
            _versions=None,
        )
        if not torch.compiler.is_compiling():  # no graph counts them
            vars(self)["_versions"] = self._current_versions()

    @classmethod
    def _of_plain(cls, query: Tensor, key: Tensor, lse: Tensor, scale: float | None, causal: bool) -> Self:
        """The weights of an attention without options, made by the kernel, whose inputs have no derivative to follow.

        Its scores are written down when they are first asked for.
        """
        self = cls.__new__(cls)
        try:
            versions = [query._version, key._version, lse._version]
        except RuntimeError:  # of inference mode
            versions = _versions((query, key, lse))
        vars(self).update(
            _of=(query, key, scale, causal), _lse=lse, _collected={}, _known={}, _backend="cpu", _versions=versions
        )
        return self

    @cached_property
    def _scores(self) -> Scores:
        query, key, scale, causal = self._of
        rule = Mask(query.shape[2], key.shape[2], causal, device=query.device)
        return _detached(Scores(query, key, rule, _checks.scale(scale, query)))

    @cached_property
    def _leading(self) -> tuple[int, ...]:
        return tuple(self._scores.shape[:2])

    @cached_property
    def _dtype(self) -> torch.dtype:
        return self._scores.dtype

    # What they are made of

    @property
    def shape(self) -> torch.Size:
        """(…,Q,K), with the leading dimensions of the query; without that of the heads where they are combined."""
        return torch.Size((*self._outer, *self._scores.shape[2:]))

    @property
    def _outer(self) -> tuple[int, ...]:
        return self._leading if self._gram is None else self._leading[:-1]

    @property
    def dtype(self) -> torch.dtype:
        """The type of the numbers: float32, also for half precision, or float64; or what `to` has made it."""
        return self._dtype

    @property
    def device(self) -> torch.device:
        """The device of query and key, on which everything is computed."""
        return self._scores.query.device

    @property
    def backend(self) -> str:
        """The name of the backend that computes what is asked for, "cpu" for the native kernel; see `regard backends`.

        It stays the same for parts, copies and pickles of the weights. Where it cannot serve, as on another device,
        streamed blocks do.
        """
        return self._backend

    @property
    def requires_grad(self) -> bool:
        """Whether what is asked for is differentiable in query, key, bias, sinks, or what makes the map."""
        scores = self._scores
        tensors = (scores.query, scores.key, scores.bias, self._sinks, *self._made_of)
        return any(tensor is not None and tensor.requires_grad for tensor in tensors)

    @property
    def _made_of(self) -> tuple[Tensor | None, ...]:
        vectors = (tensor for factor in self._factors for tensor in (factor.query, factor.key))
        return (self._gram, *vectors)

    @property
    def scores(self) -> Scores:
        """The scores before the softmax, in four dimensions: query, key, mask, bias, scale, softcap."""
        if self._versions is not None and self._current_versions() != self._versions:
            raise RuntimeError(
                f"{self._label}: query, key, bias, sinks, mask, lengths, segments, lse or a factor was "
                "changed in place after the attention was computed, so the weights can no longer be computed. Read "
                "them before, or pass a clone to attention()."
            )
        return self._scores

    @property
    def sinks(self) -> Float[Tensor, "H"] | None:
        """The logit of each head's sink."""
        return self._sinks

    @property
    def factors(self) -> tuple[Factor, ...]:
        """What the weights are multiplied by, in four dimensions."""
        return self._factors

    @property
    def gram(self) -> Float[Tensor, "#B K H H"] | None:
        """The products of the vectors that the heads are combined by; None where they are not."""
        return self._gram

    def of_one(self) -> Self:
        """The old name of `of_sequence(0)`."""
        warn("Weights.of_one() is now called of_sequence(0).")
        return self.of_sequence(0)

    def of_sequence(self, n: int) -> Self:
        """The weights (…,Q,K) of one sequence, without the batch: not stored either, and by the same backend as these.

        n: the sequence, counted from 0 through all batch dimensions, or from −1 backwards. Raises IndexError past the
        end.
        """
        batch = self._scores.shape[0]
        n = operator.index(n)
        if not -batch <= n < batch:
            raise IndexError(f"{self._label}.of_sequence: there is no sequence {n} among {batch}.")
        n %= batch
        scores, only = self.scores, slice(n, n + 1)
        inputs = scores.of_heads(only, slice(0, scores.shape[1])), self._lse[only], self._sinks
        collected = {name: tuple(t[only] for t in tensors) for name, tensors in self._collected.items()}

        def own(tensor: Tensor) -> Tensor:
            return tensor if tensor.shape[0] == 1 else tensor[only]

        return self._like(*inputs, leading=self._leading[-1:], collected=collected, change=own)

    def compact(self) -> Self:
        """The same weights from their scores, Q·K numbers a head, so that query and key need not be kept.

        For a few queries, as when a model writes one token after the other: their scores are far fewer numbers than the
        keys of every step. Reductions of them have no gradient.
        """
        scores = _detached(self.scores)
        stored = scores.tile(Block(*(slice(0, size) for size in scores.shape)))
        lse = stored.double().logsumexp(-1)
        sinks = None if self._sinks is None else self._sinks.detach()
        if sinks is not None:
            lse = lse.logaddexp(sinks.double()[:, None])
        zero = stored.new_zeros(1, 1, 1, 1)
        query, key = zero.expand(*scores.query.shape[:3], 1), zero.expand(*scores.key.shape[:3], 1)
        scores = Scores(query, key, Mask(*scores.shape[2:]), 1.0, stored)
        return self._like(scores, lse.to(self._lse.dtype), sinks, collected=self._collected)

    # Elsewhere, and of another type

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """The same weights on another device, or with results of another type, as torch.Tensor.to; still not stored."""
        like = torch.empty(0, dtype=self._dtype, device=self.device)
        args = tuple(torch.empty(0, dtype=a.dtype, device=a.device) if isinstance(a, TensorLike) else a for a in args)
        wanted = like.to(*args, **kwargs)
        if not wanted.is_floating_point():
            return self.dense().to(*args, **kwargs)
        if wanted.device == like.device and wanted.dtype == like.dtype and not kwargs.get("copy"):
            return self
        non_blocking = kwargs.get("non_blocking", False)

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(wanted.device, non_blocking=non_blocking, copy=kwargs.get("copy", False))

        return self._with(moved, wanted.dtype)

    def detach(self) -> Self:
        """The same weights as constants: reductions of them have no gradient."""
        return self._with(Tensor.detach)

    def clone(self, memory_format: torch.memory_format = torch.preserve_format) -> Self:
        """The same weights from copies of query, key and the rest, which may then be changed."""
        return self._with(Tensor.clone)

    def _with(self, change: Callable[[Tensor], Tensor], dtype: torch.dtype | None = None) -> Self:
        def changed(thing: Any) -> Any:
            return change(thing) if isinstance(thing, Tensor) else thing

        scores, mask = self.scores, self.scores.mask
        segments = None if mask.segments is None else (change(mask.segments[0]), change(mask.segments[1]))
        mask = replace(mask, given=changed(mask.given), lengths=changed(mask.lengths), segments=segments)
        query, key, bias = change(scores.query), change(scores.key), changed(scores.bias)
        inputs = replace(scores, query=query, key=key, bias=bias, mask=mask), change(self._lse), changed(self._sinks)
        collected = {name: tuple(change(t) for t in tensors) for name, tensors in self._collected.items()}
        return self._like(*inputs, collected=collected, dtype=dtype, change=change)

    def _like(
        self,
        scores: Scores,
        lse: Float[Tensor, "B H Q"],
        sinks: Tensor | None,
        *,
        collected: Statistics,
        leading: Sequence[int] | None = None,
        dtype: torch.dtype | None = None,
        change: Callable[[Tensor], Tensor] = lambda tensor: tensor,
    ) -> Self:
        """The map of other inputs, by the same backend and, unless others are given, in the same shape and type.

        change: what is done to the factors.
        """
        return type(self)(
            scores,
            lse,
            sinks,
            leading=self._leading if leading is None else leading,
            collected=collected,
            dtype=self._dtype if dtype is None else dtype,
            backend=self._backend,
            factors=tuple(_changed(factor, change) for factor in self._factors),
            gram=None if self._gram is None else change(self._gram),
        )

    # Copies

    def __copy__(self) -> Self:
        return self._with(lambda tensor: tensor)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        if self.requires_grad:
            raise RuntimeError(
                f"{self._label}: a deep copy would lose the gradient of query and key, which are not "
                "leaves of the graph. Copy detach(), or take clone()."
            )
        return self._with(Tensor.clone)

    def __getstate__(self) -> dict[str, Any]:
        _ = self.scores  # a copy of what was changed in place would be wrong, and could not know it
        state = vars(self.detach() if self.requires_grad else self)
        return {name: kept for name, kept in state.items() if name != "_of"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._versions = self._current_versions()  # copies of tensors count from 0

    # For subclasses

    @property
    def _matrix(self) -> Matrix:
        reductions = backends.reductions(self._backend)
        return Matrix(self.scores, self._sinks, self._lse, reductions, self._factors, self._gram)

    def _shaped(self, tensor: Tensor) -> Tensor:
        """From (B,H,…) to the leading dimensions of the call, and to the type of these weights."""
        if tensor.is_floating_point():
            tensor = tensor.to(self._dtype)
        return tensor.reshape(*self._outer, *tensor.shape[2:])

    def _current_versions(self) -> list[int]:
        scores, mask = self._scores, self._scores.mask
        tensors = (scores.query, scores.key, scores.bias, mask.given, mask.lengths, *(mask.segments or ()))
        return _versions((*tensors, self._sinks, self._lse, *self._made_of))


def _versions(tensors: Iterable[Any]) -> list[int]:
    """How often each tensor has been changed in place, as far as that is counted."""
    return [t._version for t in tensors if isinstance(t, Tensor) and not t.is_inference()]


def _changed(factor: Factor, change: Callable[[Tensor], Tensor]) -> Factor:
    query, key = (None if vectors is None else change(vectors) for vectors in (factor.query, factor.key))
    return replace(factor, query=query, key=key)


def _detached(scores: Scores) -> Scores:
    if not any(t is not None and t.requires_grad for t in (scores.query, scores.key, scores.bias)):
        return scores
    bias = None if scores.bias is None else scores.bias.detach()
    return replace(scores, query=scores.query.detach(), key=scores.key.detach(), bias=bias)
