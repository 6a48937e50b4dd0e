"""Weights: the (B,H,Q,K) matrix that is never stored."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from regard import backends
from regard.backends import streaming
from regard.backends.protocol import Softmax, Statistics
from regard.mask import Block, Mask
from regard.scores import Scores
from regard.weights import reductions
from regard.weights.autograd import Reduction, ask, transformed
from regard.weights.indexing import selection
from regard.weights.tensorlike import TensorLike, densely

if TYPE_CHECKING:
    from jaxtyping import Float, Int

DENSE_LIMIT = 1 << 30  # bytes


class Top(NamedTuple):
    """The largest weights and the keys they belong to."""

    values: Float[Tensor, "..."]
    indices: Int[Tensor, "..."]


class Weights(TensorLike):
    """The weights of an attention, w_ij = exp(s_ij − lse_i), as a function of query, key and one number a row.

    It has the shape (…,Q,K) of the matrix and none of its memory: a row, a tile or a statistic is computed from the
    scores when it is asked for, in O(N) memory. Whole rows are softmaxed afresh, so that they sum to one to the last
    digit; parts of rows use the lse.

    All that is asked for is differentiable in query, key, bias and sinks, where they required grad when the attention
    was computed; the gradient is streamed too. There is no second derivative, and none in forward mode: both raise
    RuntimeError.

    Query, key and the other inputs are kept, not copied; if one is changed in place after that, asking raises
    RuntimeError.

    np.asarray(w), torch's functions given a Weights, and the operators and methods of torch.Tensor that this class does
    not have itself act on `dense()`, so that tools written for dense attentions go on working. `to`, `cpu`, `detach`
    and `clone` give Weights again. What changes a tensor in place raises TypeError.

    >>> import regard
    >>> q = torch.ones(2, 3, 5, 7)
    >>> w = regard.attention(q, q, q, causal=True).weights
    >>> w.shape
    torch.Size([2, 3, 5, 5])
    >>> w[0, 2, 1]                                    # whom query 1 looks at in head 2 of the first sequence
    tensor([0.5000, 0.5000, 0.0000, 0.0000, 0.0000])
    >>> w[..., 1:3, 2:].shape                         # a tile
    torch.Size([2, 3, 2, 3])
    """

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
    ) -> None:
        """Weights of some scores.

        Args:
            scores, lse, sinks: in four dimensions; the sinks have gone into the lse.
            leading: the dimensions before Q and K, B and H if not given: none, or some that end in H and multiply up to
                B·H.
            collected: statistics by the names that `statistic` gives.
            dtype: what the results are converted to; that of the scores if not given.
            backend: the name of the backend that computed the lse, and computes what is asked of the weights.
        """
        if not torch.is_grad_enabled():
            scores, sinks = _detached(scores), None if sinks is None else sinks.detach()
        self._scores = scores
        self._lse = lse.detach()
        self._sinks = sinks
        self._collected = {name: tuple(t.detach() for t in given) for name, given in (collected or {}).items()}
        self._known: Statistics = {}  # what has been asked for, as it was answered
        self._leading = tuple(scores.shape[:2] if leading is None else leading)
        self._dtype = scores.dtype if dtype is None else dtype
        self._backend = backend
        self._versions = None if torch.compiler.is_compiling() else self._current_versions()  # no graph counts them

    # What they are made of

    @property
    def shape(self) -> torch.Size:
        """(…,Q,K), with the leading dimensions of the query."""
        return torch.Size((*self._leading, *self._scores.shape[2:]))

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights: float32, also for half precision, or float64; or what `to` has made it."""
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
        """Whether what is asked for is differentiable in query, key, bias or sinks."""
        scores = self._scores
        return any(t is not None and t.requires_grad for t in (scores.query, scores.key, scores.bias, self._sinks))

    @property
    def scores(self) -> Scores:
        """The scores before the softmax, in four dimensions: query, key, mask, bias, scale, softcap."""
        if self._versions is not None and self._current_versions() != self._versions:
            raise RuntimeError(
                f"Weights{tuple(self.shape)}: query, key, bias, sinks, mask, lengths, segments or lse was changed in "
                "place after the attention was computed, so the weights can no longer be had. Read them before, or "
                "hand attention() a clone."
            )
        return self._scores

    @property
    def lse(self) -> Float[Tensor, "... Q"]:
        """log Σ_j exp(s_ij), sinks included; −inf for a query that sees nothing."""
        return self._ask(reductions.LSE)

    @property
    def sinks(self) -> Float[Tensor, "H"] | None:
        """The logit of each head's sink."""
        return self._sinks

    # Parts

    def __getitem__(self, index: Any) -> Float[Tensor, "..."]:
        """A part of the matrix, as from a tensor.

        Integers, slices, `...`, None and one list or tensor of positions cost what they name. Masks and several lists
        take it from `dense()`. Raises IndexError past the end and ValueError where it is too large.
        """
        chosen = selection(index, self.shape)
        if chosen is None:
            return self.dense()[densely(index)]
        self._refuse_if_large(chosen.shape, "Ask for a smaller part")
        tile = ask(reductions.TILE, self._softmax, chosen.pairs, chosen.rows, chosen.columns)
        return tile.to(self._dtype).reshape(chosen.shape)

    def dense(self, limit: int = DENSE_LIMIT) -> Float[Tensor, "... Q K"]:
        """The whole matrix. Raises ValueError where it takes more than `limit` bytes."""
        self._refuse_if_large(self.shape, "Ask for a tile, pool it, or call dense(limit=…)", limit)
        return self._ask(reductions.DENSE)

    def _refuse_if_large(self, shape: Sequence[int], what_to_do: str, limit: int | None = None, item: int = 0) -> None:
        limit = DENSE_LIMIT if limit is None else limit
        size = torch.Size(shape).numel() * (item or max(self._dtype.itemsize, self._scores.dtype.itemsize))
        if size > limit:
            raise ValueError(
                f"Weights{tuple(self.shape)}: {tuple(shape)} weights take {size / 2**30:.1f} GiB, "
                f"more than the limit of {limit / 2**30:.1f} GiB. {what_to_do}."
            )

    def of_sequence(self, n: int) -> Weights:
        """The weights (…,Q,K) of one sequence, without the batch: not stored either, and by the same backend as these.

        n: the sequence, counted from 0 through all batch dimensions, or from −1 backwards. Raises IndexError past the
        end.
        """
        batch = self._scores.shape[0]
        n = operator.index(n)
        if not -batch <= n < batch:
            raise IndexError(f"Weights{tuple(self.shape)}.of_sequence: there is no sequence {n} among {batch}.")
        n %= batch
        scores, only = self.scores, slice(n, n + 1)
        return Weights(
            scores.of_heads(only, slice(0, scores.shape[1])),
            self._lse[only],
            self._sinks,
            leading=self._leading[-1:],
            collected={name: tuple(t[only] for t in tensors) for name, tensors in self._collected.items()},
            dtype=self._dtype,
            backend=self._backend,
        )

    def compact(self) -> Weights:
        """The same weights from their scores, Q·K numbers a head, so that query and key need not be kept.

        For a few queries, as when a model writes one token after the other: their scores are far fewer numbers than the
        keys of every step. What is asked of them is differentiable in nothing.
        """
        scores = _detached(self.scores)
        stored = scores.tile(Block(*(slice(0, size) for size in scores.shape)))
        lse = stored.double().logsumexp(-1)
        sinks = None if self._sinks is None else self._sinks.detach()
        if sinks is not None:
            lse = lse.logaddexp(sinks.double()[:, None])
        zero = stored.new_zeros(1, 1, 1, 1)
        query, key = zero.expand(*scores.query.shape[:3], 1), zero.expand(*scores.key.shape[:3], 1)
        return Weights(
            Scores(query, key, Mask(*scores.shape[2:]), 1.0, stored),
            lse.to(self._lse.dtype),
            sinks,
            leading=self._leading,
            collected=self._collected,
            dtype=self._dtype,
            backend=self._backend,
        )

    # Statistics of rows

    def entropy(self) -> Float[Tensor, "... Q"]:
        """−Σ_j w_ij ln w_ij, in nats: 0 for a query with one key, ln K for one that looks at K keys alike."""
        return self._statistic("entropy", reductions.ENTROPY)

    def distance(self) -> Float[Tensor, "... Q"]:
        """Σ_j w_ij |i − j|: how far each query looks, in positions."""
        return self._statistic("distance", reductions.DISTANCE)

    def _statistic(self, name: str, reduction: Reduction) -> Float[Tensor, "... Q"]:
        known = self._known.get(name, self._collected.get(name, ()))
        row = ask(reduction, self._softmax, *known)
        if not known:
            self._remember(name, row)
        return self._shaped(row)

    def max(self, dim: Any = -1, keepdim: bool = False) -> Any:
        """The largest weight of each query and its key, ties to the lower; .values and .indices (…,Q).

        For another dimension than the keys', or against another tensor, as torch.Tensor.max of `dense()`.
        """
        if not self._by_key(dim):
            return self.dense().max(dim, keepdim) if isinstance(dim, int) else self.dense().max(dim)
        values, indices = self.topk(1)
        return Top(values, indices) if keepdim else Top(values[..., 0], indices[..., 0])

    def topk(self, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Top:
        """The k largest weights of each query and their keys, sorted, ties to the lower; (…,Q,k).

        For another dimension than the keys', or the least weights, as torch.Tensor.topk of `dense()`.
        """
        if not self._by_key(dim) or not largest:
            return Top(*self.dense().topk(k, dim, largest, sorted))
        k = _number_of_largest(k, self.shape[-1])
        self._refuse_if_large((*self.shape[:-1], k), "Ask for fewer", item=self._dtype.itemsize + 8)
        for name, known in self._known.items():
            if name.startswith("topk:") and known[0].shape[-1] >= k:
                return self._top(reductions.topk(k, settled=True), known)
        for name, known in self._collected.items():  # one more than k shows whether the order at the edge is sure
            if name.startswith("topk:") and known[0].shape[-1] >= min(k + 1, self.shape[-1]):
                return self._top(reductions.topk(k), known, remember=f"topk:{k}")
        return self._top(reductions.topk(k), (), remember=f"topk:{k}")

    def _top(self, reduction: Reduction, known: tuple[Tensor, ...], remember: str | None = None) -> Top:
        values, indices = ask(reduction, self._softmax, *known)
        if remember:
            self._remember(remember, values, indices)
        return Top(self._shaped(values), self._shaped(indices))

    def _by_key(self, dim: Any) -> bool:
        return isinstance(dim, int) and dim in (-1, self.ndim - 1)

    def _remember(self, name: str, *results: Tensor) -> None:
        if not transformed():
            self._known[name] = tuple(result.detach().clone() for result in results)

    def sink(self) -> Float[Tensor, "... Q"]:
        """The mass that the sink took from each row; 0 without sinks."""
        lse = ask(reductions.LSE, self._softmax)
        if self._sinks is None:
            return self._shaped(torch.zeros_like(lse))
        return self._shaped(streaming.sink_mass(self._sinks, lse))

    # Reductions over the matrix

    def received(self) -> Float[Tensor, "... K"]:
        """Σ_i w_ij: the attention that each key gets, from all queries."""
        return self._ask(reductions.RECEIVED)

    def grouped(
        self, queries: Int[Tensor, "Q"] | None = None, keys: Int[Tensor, "K"] | None = None
    ) -> Float[Tensor, "... R C"]:
        """Weights by word, sentence or passage: the mean over the queries of a group of the sum over its keys.

        Args:
            queries, keys: the group of each position, counted from 0; −1 is in none. Not given: each on its own.
        """
        _, _, rows, columns = self._scores.shape
        query_groups, key_groups = self._groups("queries", queries, rows), self._groups("keys", keys, columns)
        sizes = _count(query_groups), _count(key_groups)
        # The cells are summed in float64.
        self._refuse_if_large((*self._leading, *sizes), "Make fewer groups", item=8)
        total = ask(reductions.grouped(sizes, "sum"), self._softmax, query_groups, key_groups)
        members = torch.bincount(query_groups[query_groups >= 0], minlength=sizes[0]).clamp(min=1)
        return self._shaped(total / members[:, None])

    def _groups(self, name: str, groups: Any, size: int) -> Int[Tensor, "n"]:
        if groups is None:
            return torch.arange(size, device=self.device)
        call = f"Weights{tuple(self.shape)}.grouped: {name}"
        groups = torch.as_tensor(groups, device=self.device)
        if groups.shape != (size,) or (size and groups.dtype not in _INTEGERS):
            raise ValueError(
                f"{call}: expected the group of each position, {size} integers. "
                f"Got {tuple(groups.shape)} {groups.dtype}."
            )
        groups = groups.long()
        if size and int(groups.min()) < -1:
            raise ValueError(f"{call}: expected groups from 0 on, or −1 for none. Got {int(groups.min())}.")
        return groups

    def pool(self, rows: int, cols: int, reduce: Literal["mean", "max", "sum"] = "mean") -> Float[Tensor, "... R C"]:
        """The matrix as a picture of rows × cols cells: cell r holds queries ⌊r·Q/rows⌋ up to the next cell's first."""
        _, _, queries, keys = self._scores.shape
        call = f"Weights{tuple(self.shape)}.pool({rows}, {cols}, {reduce!r})"
        if reduce not in ("mean", "max", "sum"):
            raise ValueError(f"{call}: reduce: expected 'mean', 'max' or 'sum'.")
        sizes = _cells_of(call, "rows", rows, queries), _cells_of(call, "cols", cols, keys)
        # The cells are summed in float64.
        self._refuse_if_large((*self._leading, *sizes), "Ask for fewer cells", item=8)
        cell_of_row, cell_of_column = self._cells(queries, sizes[0]), self._cells(keys, sizes[1])
        reduction = reductions.grouped(sizes, "max" if reduce == "max" else "sum")
        cells = ask(reduction, self._softmax, cell_of_row, cell_of_column)
        if reduce == "mean":
            cells = cells / (cell_of_row.bincount()[:, None] * cell_of_column.bincount())
        return self._shaped(cells)

    def _cells(self, size: int, cells: int) -> Int[Tensor, "size"]:
        first = torch.arange(cells, device=self.device) * size // cells
        return torch.bucketize(torch.arange(size, device=self.device), first, right=True) - 1

    def __matmul__(self, x: Float[Tensor, "... K F"]) -> Float[Tensor, "... Q F"]:
        """w @ x: the weights applied to other vectors; x has one matrix a query head, a group, or for all.

        Differentiable in x too.
        """
        return self._applied(reductions.APPLY, "w @ x", x, transposed=False)

    def __rmatmul__(self, x: Float[Tensor, "... F Q"]) -> Float[Tensor, "... F K"]:
        """x @ w, for rows that the queries hand out by their weights."""
        return _from_the_left(x, self.T)

    @property
    def T(self) -> Transposed:  # noqa: N802
        """For w.T @ y."""
        return Transposed(self)

    @property
    def mT(self) -> Transposed:  # noqa: N802
        """The same: only the last two dimensions change places."""
        return Transposed(self)

    def _applied(self, reduction: Reduction, call: str, x: Any, *, transposed: bool) -> Tensor:
        _, _, queries, keys = self._scores.shape
        size, results = (queries, keys) if transposed else (keys, queries)
        if isinstance(x, TensorLike):
            x = x.dense()
        if isinstance(x, Tensor) and x.ndim == 1 and len(x) == size:
            return self._applied(reduction, call, x[:, None], transposed=transposed)[..., 0]
        if not isinstance(x, Tensor) or x.ndim < 2:
            raise ValueError(
                f"{call} with w {tuple(self.shape)}: expected a tensor (…, {size}, F). Got {_described(x)}."
            )
        x4 = self._in_four(x)
        if x4 is None or x.shape[-2] != size:
            try:
                torch.broadcast_shapes(self._leading, x.shape[:-2])
            except RuntimeError:
                fits = False
            else:
                fits = x.shape[-2] == size
            if not fits:
                raise ValueError(
                    f"{call}, w {tuple(self.shape)}: expected (…, {size}, F), with a matrix for each head, for each "
                    f"group of heads or for all. Got {tuple(x.shape)}."
                )
            dense = self.dense()
            return (dense.mT if transposed else dense) @ x.to(dense.dtype)
        self._refuse_if_large((*self._leading, results, x.shape[-1]), "Apply them to fewer vectors at a time")
        return self._shaped(ask(reduction, self._softmax, x4))

    def _in_four(self, x: Tensor) -> Float[Tensor, "B|1 H|G|1 n F"] | None:
        """Vectors for all sequences and heads; None where they do not fit without being repeated."""
        batch, heads = self._scores.shape[:2]
        *of_sequences, of_heads = x.shape[:-2] or (1,)
        if x.ndim - 2 > len(self._leading) or of_heads not in (1, self._scores.key.shape[1], heads):
            return None
        if torch.Size(of_sequences).numel() == 1:
            return x.reshape(1, of_heads, *x.shape[-2:])
        try:
            x = x.broadcast_to(*self._leading[:-1], *x.shape[-3:])
        except RuntimeError:
            return None
        return x.reshape(batch, *x.shape[-3:])

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

    def detach(self) -> Weights:
        """The same weights as constants: what is asked of them has no gradient."""
        return self._with(Tensor.detach)

    def clone(self, memory_format: torch.memory_format = torch.preserve_format) -> Weights:
        """The same weights from copies of query, key and the rest, which may then be changed."""
        return self._with(Tensor.clone)

    def _with(self, change: Callable[[Tensor], Tensor], dtype: torch.dtype | None = None) -> Weights:
        def changed(thing: Any) -> Any:
            return change(thing) if isinstance(thing, Tensor) else thing

        scores, mask = self.scores, self.scores.mask
        segments = None if mask.segments is None else (change(mask.segments[0]), change(mask.segments[1]))
        mask = replace(mask, given=changed(mask.given), lengths=changed(mask.lengths), segments=segments)
        query, key, bias = change(scores.query), change(scores.key), changed(scores.bias)
        return Weights(
            replace(scores, query=query, key=key, bias=bias, mask=mask),
            change(self._lse),
            changed(self._sinks),
            leading=self._leading,
            collected={name: tuple(change(t) for t in given) for name, given in self._collected.items()},
            dtype=self._dtype if dtype is None else dtype,
            backend=self._backend,
        )

    # Copies

    def __copy__(self) -> Weights:
        return self._with(lambda tensor: tensor)

    def __deepcopy__(self, memo: dict) -> Weights:
        if self.requires_grad:
            raise RuntimeError(
                f"Weights{tuple(self.shape)}: a deep copy would lose the gradient of query and key, which are not "
                "leaves of the graph. Copy detach(), or take clone()."
            )
        return self._with(Tensor.clone)

    def __getstate__(self) -> dict:
        _ = self.scores  # a copy of what was changed in place would be wrong, and could not know it
        return self.detach().__dict__ if self.requires_grad else self.__dict__

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._versions = self._current_versions()  # copies of tensors count from 0

    # Inside

    def _ask(self, reduction: Reduction, *tensors: Tensor) -> Tensor:
        return self._shaped(ask(reduction, self._softmax, *tensors))

    @property
    def _softmax(self) -> Softmax:
        return Softmax(self.scores, self._sinks, self._lse, backends.reductions(self._backend))

    def _shaped(self, tensor: Tensor) -> Tensor:
        """From (B,H,…) to the leading dimensions of the call, and to the type of these weights."""
        if tensor.is_floating_point():
            tensor = tensor.to(self._dtype)
        return tensor.reshape(*self._leading, *tensor.shape[2:])

    def _current_versions(self) -> list[int]:
        scores, mask = self._scores, self._scores.mask
        tensors = (scores.query, scores.key, scores.bias, mask.given, mask.lengths, *(mask.segments or ()))
        tensors += (self._sinks, self._lse)
        return [t._version for t in tensors if isinstance(t, Tensor) and not t.is_inference()]


class Transposed(TensorLike):
    """w.T, for w.T @ y: what each key would collect if the queries handed out y by their weights."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    @property
    def shape(self) -> torch.Size:
        """(…,K,Q)."""
        *leading, queries, keys = self._weights.shape
        return torch.Size((*leading, keys, queries))

    @property
    def dtype(self) -> torch.dtype:
        """That of the weights."""
        return self._weights.dtype

    @property
    def device(self) -> torch.device:
        """That of the weights."""
        return self._weights.device

    @property
    def T(self) -> Weights:  # noqa: N802
        """The weights."""
        return self._weights

    @property
    def mT(self) -> Weights:  # noqa: N802
        """The weights."""
        return self._weights

    def dense(self, limit: int = DENSE_LIMIT) -> Float[Tensor, "... K Q"]:
        """The whole matrix. Raises ValueError where it takes more than `limit` bytes."""
        return self._weights.dense(limit).mT

    def __matmul__(self, y: Float[Tensor, "... Q F"]) -> Float[Tensor, "... K F"]:
        """w.T @ y; y has one matrix a query head, a group, or for all. Differentiable in y too."""
        return self._weights._applied(reductions.TRANSPOSED, "w.T @ y", y, transposed=True)

    def __rmatmul__(self, y: Float[Tensor, "... F K"]) -> Float[Tensor, "... F Q"]:
        """y @ w.T."""
        return _from_the_left(y, self._weights)


def _from_the_left(x: Any, transposed: Weights | Transposed) -> Tensor:
    """x @ m from m.T."""
    return (transposed @ x.mT).mT if isinstance(x, Tensor) and x.ndim > 1 else transposed @ x


_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def statistic(name: str, keys: int) -> str:
    """The name of a row statistic to collect, checked: "entropy", or "topk:k" with k from 1 to the number of keys.

    "max" is the first of the largest. One more is collected than asked for, which shows whether the last has equals.
    """
    if name == "entropy":
        return name
    kind, _, number = ("topk:1" if name == "max" else str(name)).partition(":")
    if kind != "topk" or not number.isdecimal():
        raise ValueError(f'collect: expected "entropy", "max" or "topk:8". Got {name!r}.')
    return f"topk:{min(_number_of_largest(int(number), keys) + 1, keys)}"


def _number_of_largest(k: Any, keys: int) -> int:
    try:
        number = operator.index(k)
    except TypeError:
        number = 0
    if not 1 <= number <= keys or isinstance(k, bool):
        raise ValueError(f"topk: expected k from 1 to {keys}, the number of keys. Got {k}.")
    return number


def _cells_of(call: str, name: str, count: Any, size: int) -> int:
    try:
        number = operator.index(count)
    except TypeError:
        number = 0
    if not 1 <= number <= size:
        raise ValueError(f"{call}: {name}: expected 1 to {size}, as many as there are positions. Got {count}.")
    return number


def _count(groups: Int[Tensor, "n"]) -> int:
    return int(groups.max()) + 1 if len(groups) else 0


def _detached(scores: Scores) -> Scores:
    if not any(t is not None and t.requires_grad for t in (scores.query, scores.key, scores.bias)):
        return scores
    bias = None if scores.bias is None else scores.bias.detach()
    return replace(scores, query=scores.query.detach(), key=scores.key.detach(), bias=bias)


def _described(thing: Any) -> str:
    return f"{tuple(thing.shape)} {thing.dtype}" if isinstance(thing, Tensor) else type(thing).__name__
