"""Weights: the (B,H,Q,K) matrix that is never stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from regard.backends import streaming
from regard.weights import arguments, reductions
from regard.weights.autograd import Reduction, evaluate, transformed
from regard.weights.indexing import selection
from regard.weights.inputs import WeightInputs
from regard.weights.tensorlike import TensorLike, densely

if TYPE_CHECKING:
    from jaxtyping import Float, Int

DENSE_LIMIT = 1 << 30  # bytes


class Top(NamedTuple):
    """The largest weights and the keys they belong to."""

    values: Float[Tensor, "..."]
    indices: Int[Tensor, "..."]


class Weights(WeightInputs):
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

    @property
    def lse(self) -> Float[Tensor, "... Q"]:
        """log Σ_j exp(s_ij), sinks included; −inf for a query that sees nothing."""
        return self._reduced(reductions.LSE)

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
        tile: Tensor = evaluate(reductions.TILE, self._matrix, chosen.pairs, chosen.rows, chosen.columns)
        return tile.to(self._dtype).reshape(chosen.shape)

    def dense(self, limit: int = DENSE_LIMIT) -> Float[Tensor, "... Q K"]:
        """The whole matrix. Raises ValueError where it takes more than `limit` bytes."""
        self._refuse_if_large(self.shape, "Ask for a tile, pool it, or call dense(limit=…)", limit)
        return self._reduced(reductions.DENSE)

    def _refuse_if_large(self, shape: Sequence[int], what_to_do: str, limit: int | None = None, item: int = 0) -> None:
        limit = DENSE_LIMIT if limit is None else limit
        size = torch.Size(shape).numel() * (item or max(self._dtype.itemsize, self._scores.dtype.itemsize))
        if size > limit:
            raise ValueError(
                f"{self._label}: {tuple(shape)} weights take {size / 2**30:.1f} GiB, "
                f"more than the limit of {limit / 2**30:.1f} GiB. {what_to_do}."
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
        row = evaluate(reduction, self._matrix, *known)
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
        k = arguments.number_of_largest(k, self.shape[-1])
        self._refuse_if_large((*self.shape[:-1], k), "Ask for fewer", item=self._dtype.itemsize + 8)
        for name, known in self._known.items():
            if name.startswith("topk:") and known[0].shape[-1] >= k:
                return self._top(reductions.topk(k, settled=True), known)
        for name, known in self._collected.items():  # one more than k shows whether the order at the edge is sure
            if name.startswith("topk:") and known[0].shape[-1] >= min(k + 1, self.shape[-1]):
                return self._top(reductions.topk(k), known, remember=f"topk:{k}")
        return self._top(reductions.topk(k), (), remember=f"topk:{k}")

    def _top(self, reduction: Reduction, known: tuple[Tensor, ...], remember: str | None = None) -> Top:
        values, indices = evaluate(reduction, self._matrix, *known)
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
        lse = evaluate(reductions.LSE, self._matrix)
        if self._sinks is None:
            return self._shaped(torch.zeros_like(lse))
        return self._shaped(streaming.sink_mass(self._sinks, lse))

    # Reductions over the matrix

    def received(self) -> Float[Tensor, "... K"]:
        """Σ_i w_ij: the attention that each key gets, from all queries."""
        return self._reduced(reductions.RECEIVED)

    def grouped(
        self, queries: Int[Tensor, "Q"] | None = None, keys: Int[Tensor, "K"] | None = None
    ) -> Float[Tensor, "... R C"]:
        """Weights by word, sentence or passage: the mean over the queries of a group of the sum over its keys.

        Args:
            queries, keys: the group of each position, counted from 0; −1 is in none. Not given: each on its own.
        """
        _, _, rows, columns = self._scores.shape
        query_groups, key_groups = self._groups("queries", queries, rows), self._groups("keys", keys, columns)
        sizes = arguments.number_of_groups(query_groups), arguments.number_of_groups(key_groups)
        # The cells are summed in float64.
        self._refuse_if_large((*self._leading, *sizes), "Make fewer groups", item=8)
        total = evaluate(reductions.grouped(sizes, "sum"), self._matrix, query_groups, key_groups)
        members = torch.bincount(query_groups[query_groups >= 0], minlength=sizes[0]).clamp(min=1)
        return self._shaped(total / members[:, None])

    def _groups(self, name: str, groups: Any, size: int) -> Int[Tensor, "n"]:
        if groups is None:
            return torch.arange(size, device=self.device)
        call = f"{self._label}.grouped: {name}"
        numbers: Tensor = torch.as_tensor(groups, device=self.device)
        if numbers.shape != (size,) or (size and numbers.dtype not in arguments.INTEGERS):
            raise ValueError(
                f"{call}: expected the group of each position, {size} integers. "
                f"Got {tuple(numbers.shape)} {numbers.dtype}."
            )
        numbers = numbers.long()
        if size and int(numbers.min()) < -1:
            raise ValueError(f"{call}: expected groups from 0 on, or −1 for none. Got {int(numbers.min())}.")
        return numbers

    def pool(self, rows: int, cols: int, reduce: Literal["mean", "max", "sum"] = "mean") -> Float[Tensor, "... R C"]:
        """The matrix as a picture of rows × cols cells: cell r holds queries ⌊r·Q/rows⌋ up to the next cell's first."""
        _, _, queries, keys = self._scores.shape
        call = f"{self._label}.pool({rows}, {cols}, {reduce!r})"
        if reduce not in ("mean", "max", "sum"):
            raise ValueError(f"{call}: reduce: expected 'mean', 'max' or 'sum'.")
        sizes = (
            arguments.number_of_cells(call, "rows", rows, queries),
            arguments.number_of_cells(call, "cols", cols, keys),
        )
        # The cells are summed in float64.
        self._refuse_if_large((*self._leading, *sizes), "Ask for fewer cells", item=8)
        cell_of_row, cell_of_column = self._cells(queries, sizes[0]), self._cells(keys, sizes[1])
        reduction = reductions.grouped(sizes, "max" if reduce == "max" else "sum")
        cells = evaluate(reduction, self._matrix, cell_of_row, cell_of_column)
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
                f"{call} with w {tuple(self.shape)}: expected a tensor (…, {size}, F). Got {arguments.describe(x)}."
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
        return self._shaped(evaluate(reduction, self._matrix, x4))

    def _in_four(self, x: Tensor) -> Float[Tensor, "#B _ n F"] | None:
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

    # Inside

    def _reduced(self, reduction: Reduction, *tensors: Tensor) -> Tensor:
        return self._shaped(evaluate(reduction, self._matrix, *tensors))


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
