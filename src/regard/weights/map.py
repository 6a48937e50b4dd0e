"""Map: what the field makes of weights, a (B,H,Q,K) matrix that is never stored."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from regard.backends.factors import Activation, Factor
from regard.weights import arguments, reductions
from regard.weights.autograd import Reduction, evaluate
from regard.weights.indexing import selection
from regard.weights.inputs import MapInputs
from regard.weights.tensorlike import TensorLike, densely

if TYPE_CHECKING:
    from jaxtyping import Float, Int

DENSE_LIMIT = 1 << 30  # bytes
Reduce = Literal["sum", "mean", "max"]


class Top(NamedTuple):
    """The largest numbers of a map and the keys they belong to.

    >>> import torch, regard
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> top = regard.attention(x, x, x).weights.topk(1)
    >>> top.indices[2], top.values[2]
    (tensor([2]), tensor([0.5035]))
    """

    values: Float[Tensor, "..."]
    indices: Int[Tensor, "..."]


class Map(MapInputs):
    """What is made of attention weights, pair by pair, as a function of a few N × d matrices:

        M_ij = w_ij · φ(a_i·b_j)        a (Q × F), b (K × F), φ the identity, relu or the absolute value

    `Weights.times` makes one, and `Weights` themselves are the map whose factor is one. It has the shape (…,Q,K) of the
    matrix and none of its memory: a part, a statistic, a picture or a product with vectors is computed when it is asked
    for, exact, in O(N) memory.

    All that is asked for is differentiable in a, b and, where they required grad when the attention was computed, in
    query, key, bias and sinks; the gradient is streamed too. Inputs are kept, not copied; operators, methods and
    functions of tensors act on `dense()`. Both as in `Weights`.

    >>> import torch, regard
    >>> q = torch.ones(2, 3, 5, 7)
    >>> attention = regard.attention(q, q, q, causal=True)
    >>> lengths = torch.linalg.vector_norm(attention.value, dim=-1, keepdim=True)       # ‖v_j‖, a number a key
    >>> attention.weights.times(key=lengths)
    Map(shape=(2, 3, 5, 5), dtype=torch.float32, device=cpu)
    >>> attention.weights.times(key=lengths)[0, 2, 1]                                    # w_ij ‖v_j‖
    tensor([1.3229, 1.3229, 0.0000, 0.0000, 0.0000])
    """

    def times(
        self,
        query: Float[Tensor, "... Q F"] | None = None,
        key: Float[Tensor, "... K F"] | None = None,
        activation: Activation | None = None,
    ) -> Map:
        """The map M_ij · φ(a_i·b_j); a map of a map multiplies.

        Args:
            query: a, for each query head or for all; without `key`, of width 1, a factor for each row.
            key: b, for each query head, for each group of heads or for all; without `query`, a factor for each column.
            activation: φ: "relu", "abs", or None for the product itself.

        Raises ValueError for other shapes, TypeError for anything but tensors of numbers.

        >>> import torch, regard
        >>> q, k, v = torch.randn(3, 2, 5, 8)
        >>> a = regard.attention(q, k, v)
        >>> direction = torch.randn(8)
        >>> along = a.weights.times(key=v @ direction[:, None])       # w_ij · v_j·u: what j adds along u
        >>> torch.allclose(along.sum(), a.output @ direction, atol=1e-5)
        True
        """
        factor = Factor(self._vectors("query", query, self.shape[-2]), self._vectors("key", key, self.shape[-1]))
        call = f"{self._label}.times"
        if factor.query is None and factor.key is None:
            raise ValueError(f"{call}: expected query=, key= or both.")
        widths = [vectors.shape[-1] for vectors in (factor.query, factor.key) if vectors is not None]
        if len(set(widths)) > 1:
            raise ValueError(f"{call}: expected query and key of the same width. Got {widths[0]} and {widths[1]}.")
        if len(widths) == 1 and widths != [1]:
            name = "query" if factor.key is None else "key"
            raise ValueError(f"{call}: {name}: alone, expected the width 1. Got {widths[0]}.")
        if activation is not None and activation not in get_args(Activation):
            raise ValueError(f"{call}: activation: expected 'relu', 'abs' or None. Got {activation!r}.")
        factor = Factor(factor.query, factor.key, activation)
        return self._map((*self._factors, factor), self._gram)

    def _map(self, factors: tuple[Factor, ...], gram: Tensor | None) -> Map:
        return Map(
            *(self.scores, self._lse, self._sinks),
            leading=self._leading,
            dtype=self._dtype,
            backend=self._backend,
            factors=factors,
            gram=gram,
        )

    def _vectors(self, name: str, vectors: Any, size: int) -> Float[Tensor, "#B _ n F"] | None:
        """Vectors a row or a column, in four dimensions."""
        if vectors is None:
            return None
        if not isinstance(vectors, Tensor) or vectors.is_complex():
            call = f"{self._label}.times: {name}"
            raise TypeError(f"{call}: expected a tensor of real numbers. Got {arguments.describe(vectors)}.")
        whole = vectors[:, None] if vectors.ndim == 1 else vectors
        fitting = self._in_four(whole) if whole.ndim > 1 and whole.shape[-2] == size and whole.shape[-1] else None
        if fitting is None or (name == "query" and fitting.shape[1] not in (1, self._heads)):
            owners = "for each head or for all" if name == "query" else "for each head, each group of heads or all"
            raise ValueError(
                f"{self._label}.times: {name}: expected (…, {size}, F), vectors {owners}. Got {tuple(vectors.shape)}."
            )
        if fitting.device != self.device:
            raise ValueError(f"{self._label}.times: {name}: expected it on {self.device}. Got {fitting.device}.")
        return fitting

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
        """The whole matrix. Raises ValueError where it takes more than `limit` bytes.

        >>> import torch, regard
        >>> x = torch.ones(3, 8)
        >>> regard.attention(x, x, x, causal=True).weights.dense()
        tensor([[1.0000, 0.0000, 0.0000],
                [0.5000, 0.5000, 0.0000],
                [0.3333, 0.3333, 0.3333]])
        """
        self._refuse_if_large(self.shape, "Ask for a tile, pool it, or call dense(limit=…)", limit)
        return self._reduced(reductions.DENSE)

    def diagonal(self, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Float[Tensor, "... n"]:
        """M_{i,i+offset}: what each query makes of itself or, with an offset, of the key so far after it.

        As torch.diagonal of the last two dimensions, and from query, key and lse alone: O(N·D). For other dimensions,
        as torch.Tensor.diagonal of `dense()`.

        >>> import torch, regard
        >>> x = torch.ones(4, 8)
        >>> regard.attention(x, x, x, causal=True).weights.diagonal(-1)     # what each query gives to the key before it
        tensor([0.5000, 0.3333, 0.2500])
        """
        if (dim1 % self.ndim, dim2 % self.ndim) != (self.ndim - 2, self.ndim - 1):
            return self.dense().diagonal(offset, dim1, dim2)
        return self._reduced(reductions.diagonal(operator.index(offset)))

    def _refuse_if_large(self, shape: Sequence[int], what_to_do: str, limit: int | None = None, item: int = 0) -> None:
        limit = DENSE_LIMIT if limit is None else limit
        size = torch.Size(shape).numel() * (item or max(self._dtype.itemsize, self._scores.dtype.itemsize))
        if size > limit:
            raise ValueError(
                f"{self._label}: {tuple(shape)} weights take {size / 2**30:.1f} GiB, "
                f"more than the limit of {limit / 2**30:.1f} GiB. {what_to_do}."
            )

    # Rows

    def sum(self, dim: Any = -1, keepdim: bool = False) -> Float[Tensor, "..."]:
        """Σ_j M_ij: the sum of each row. For other dimensions than the keys', as torch.Tensor.sum of `dense()`.

        >>> import torch, regard
        >>> x = torch.ones(4, 8)
        >>> w = regard.attention(x, x, x).weights
        >>> w.times(key=torch.tensor([[2.0], [2.0], [2.0], [2.0]])).sum()   # each row of weights sums to one
        tensor([2., 2., 2., 2.])
        """
        if not self._by_key(dim):
            return self.dense().sum(dim, keepdim)
        ones = torch.ones(1, 1, self.shape[-1], 1, device=self.device, dtype=self._scores.dtype)
        total = self._shaped(evaluate(reductions.APPLY, self._matrix, ones))
        return total if keepdim else total[..., 0]

    def max(self, dim: Any = -1, keepdim: bool = False) -> Any:
        """The largest number of each query and its key, ties to the lower; .values and .indices (…,Q).

        For another dimension than the keys', or against another tensor, as torch.Tensor.max of `dense()`.

        >>> import torch, regard
        >>> x = torch.eye(3) * 9
        >>> regard.attention(x, x, x).weights.max().indices           # each looks at itself
        tensor([0, 1, 2])
        """
        if not self._by_key(dim):
            return self.dense().max(dim, keepdim) if isinstance(dim, int) else self.dense().max(dim)
        values, indices = self.topk(1)
        return Top(values, indices) if keepdim else Top(values[..., 0], indices[..., 0])

    def topk(self, k: int, dim: int = -1, largest: bool = True, sorted: bool = True, *, magnitude: bool = False) -> Top:
        """The k largest numbers of each query and their keys, sorted, ties to the lower; (…,Q,k).

        By value or, with `magnitude`, by their distance from 0. Keys that a query may not see count as 0. For another
        dimension than the keys', or the least numbers, as torch.Tensor.topk of `dense()`.

        >>> import torch, regard
        >>> x = torch.ones(3, 8)
        >>> m = regard.attention(x, x, x).weights.times(key=torch.tensor([[1.0], [-3.0], [2.0]]))
        >>> m.topk(2).indices[0], m.topk(2, magnitude=True).indices[0]
        (tensor([2, 0]), tensor([1, 2]))
        """
        if not self._by_key(dim) or not largest:
            return Top(*self.dense().topk(k, dim, largest, sorted))
        k = arguments.number_of_largest(k, self.shape[-1])
        self._refuse_if_large((*self.shape[:-1], k), "Ask for fewer", item=self._dtype.itemsize + 8)
        values, indices = evaluate(reductions.largest(k, magnitude), self._matrix)
        return Top(self._shaped(values), self._shaped(indices))

    def _by_key(self, dim: Any) -> bool:
        return isinstance(dim, int) and dim in (-1, self.ndim - 1)

    # Reductions over queries, keys or both

    def received(self, reduce: Reduce = "sum", queries: slice = slice(None)) -> Float[Tensor, "... K"]:
        """Σ_i M_ij: what each key gets from all queries, or from a slice of them; or their mean, or the largest.

        >>> import torch, regard
        >>> x = torch.ones(4, 8)
        >>> regard.attention(x, x, x, causal=True).weights.received()       # 1 + 1/2 + 1/3 + 1/4 for the first key
        tensor([2.0833, 1.0833, 0.5833, 0.2500])
        """
        call, size = f"{self._label}.received", int(self.shape[-1])
        arguments.check_reduce(call, reduce)
        run, step = arguments.run_of(call, queries, self.shape[-2])
        cells = torch.full((self.shape[-2],), -1, device=self.device)
        cells[run.start : run.stop : step] = 0
        of_each_key = torch.arange(size, device=self.device)
        reduction = reductions.grouped((1, size), "max" if reduce == "max" else "sum")
        result = evaluate(reduction, self._matrix, cells, of_each_key)[:, :, 0]
        count = max(1, len(range(run.start, run.stop, step)))
        return self._shaped(result / count if reduce == "mean" else result)

    def grouped(
        self, queries: Int[Tensor, "Q"] | None = None, keys: Int[Tensor, "K"] | None = None
    ) -> Float[Tensor, "... R C"]:
        """Numbers by word, sentence or passage: the mean over the queries of a group of the sum over its keys.

        Args:
            queries, keys: the group of each position, counted from 0; −1 is in none. Not given: each on its own.

        >>> import torch, regard
        >>> x = torch.ones(4, 8)
        >>> words = torch.tensor([0, 1, 1, 2])                        # the second word has two tokens
        >>> regard.attention(x, x, x).weights.grouped(queries=words, keys=words)
        tensor([[0.2500, 0.5000, 0.2500],
                [0.2500, 0.5000, 0.2500],
                [0.2500, 0.5000, 0.2500]])
        """
        rows, columns = self.shape[-2:]
        query_groups, key_groups = self._groups("queries", queries, rows), self._groups("keys", keys, columns)
        sizes = arguments.number_of_groups(query_groups), arguments.number_of_groups(key_groups)
        # The cells are summed in float64.
        self._refuse_if_large((*self._outer, *sizes), "Make fewer groups", item=8)
        total = evaluate(reductions.grouped(sizes, "sum"), self._matrix, query_groups, key_groups)
        members = torch.bincount(query_groups[query_groups >= 0], minlength=sizes[0]).clamp(min=1)
        return self._shaped(total / members[:, None])

    def _groups(self, name: str, groups: Any, size: int) -> Int[Tensor, "n"]:
        if groups is None:
            return torch.arange(size, device=self.device)
        return arguments.groups(f"{self._label}.grouped: {name}", groups, size, self.device)

    def pool(self, rows: int, cols: int, reduce: Reduce = "mean") -> Float[Tensor, "... R C"]:
        """The matrix as a picture of rows × cols cells: cell r holds queries ⌊r·Q/rows⌋ up to the next cell's first.

        >>> import torch, regard
        >>> x = torch.ones(8, 4)
        >>> regard.attention(x, x, x, causal=True).weights.pool(2, 2, reduce="sum")
        tensor([[4.0000, 0.0000],
                [2.5381, 1.4619]])
        """
        queries, keys = self.shape[-2:]
        call = f"{self._label}.pool({rows}, {cols}, {reduce!r})"
        arguments.check_reduce(call, reduce)
        sizes = (
            arguments.number_of_cells(call, "rows", rows, queries),
            arguments.number_of_cells(call, "cols", cols, keys),
        )
        # The cells are summed in float64.
        self._refuse_if_large((*self._outer, *sizes), "Ask for fewer cells", item=8)
        cell_of_row, cell_of_column = self._cells(queries, sizes[0]), self._cells(keys, sizes[1])
        reduction = reductions.grouped(sizes, "max" if reduce == "max" else "sum")
        cells = evaluate(reduction, self._matrix, cell_of_row, cell_of_column)
        if reduce == "mean":
            cells = cells / (cell_of_row.bincount()[:, None] * cell_of_column.bincount())
        return self._shaped(cells)

    def _cells(self, size: int, cells: int) -> Int[Tensor, "size"]:
        first = torch.arange(cells, device=self.device) * size // cells
        return torch.bucketize(torch.arange(size, device=self.device), first, right=True) - 1

    # Applied to vectors

    def __matmul__(self, x: Float[Tensor, "... K F"]) -> Float[Tensor, "... Q F"]:
        """M @ x: the map applied to vectors; x has one matrix a query head, a group, or for all.

        Differentiable in x too.
        """
        return self._applied(reductions.APPLY, " @ x", x, transposed=False)

    def __rmatmul__(self, x: Float[Tensor, "... F Q"]) -> Float[Tensor, "... F K"]:
        """x @ M, for rows that the queries hand out by the map."""
        return _from_the_left(x, self.T)

    @property
    def T(self) -> Transposed:  # noqa: N802
        """For M.T @ y."""
        return Transposed(self)

    @property
    def mT(self) -> Transposed:  # noqa: N802
        """The same: only the last two dimensions change places."""
        return Transposed(self)

    def _applied(self, reduction: Reduction, call: str, x: Any, *, transposed: bool) -> Tensor:
        queries, keys = self.shape[-2:]
        size, results = (queries, keys) if transposed else (keys, queries)
        if isinstance(x, TensorLike):
            x = x.dense()
        if isinstance(x, Tensor) and x.ndim == 1 and len(x) == size:
            return self._applied(reduction, call, x[:, None], transposed=transposed)[..., 0]
        if not isinstance(x, Tensor) or x.ndim < 2:
            raise ValueError(f"{self._label}{call}: expected a tensor (…, {size}, F). Got {arguments.describe(x)}.")
        x4 = self._in_four(x)
        if x4 is None or x.shape[-2] != size:
            try:
                torch.broadcast_shapes(self._outer, x.shape[:-2])
            except RuntimeError:
                fits = False
            else:
                fits = x.shape[-2] == size
            if not fits:
                raise ValueError(
                    f"{self._label}{call}: expected (…, {size}, F), with a matrix for each head, for each "
                    f"group of heads or for all. Got {tuple(x.shape)}."
                )
            dense = self.dense()
            return (dense.mT if transposed else dense) @ x.to(dense.dtype)
        self._refuse_if_large((*self._outer, results, x.shape[-1]), "Apply them to fewer vectors at a time")
        return self._shaped(evaluate(reduction, self._matrix, x4))

    @property
    def _heads(self) -> int:
        return 1 if self._gram is not None else self._scores.shape[1]

    def _in_four(self, x: Tensor) -> Float[Tensor, "#B _ n F"] | None:
        """Vectors for all sequences and heads; None where they do not fit without being repeated."""
        if self._gram is not None:  # no dimension of heads
            return None if x.ndim - 2 > len(self._outer) else self._of_sequences(x.unsqueeze(-3), self._outer)
        *_, of_heads = x.shape[:-2] or (1,)
        if x.ndim - 2 > len(self._leading) or of_heads not in (1, self._scores.key.shape[1], self._heads):
            return None
        return self._of_sequences(x if x.ndim > 2 else x[None], self._leading[:-1])

    def _of_sequences(self, x: Float[Tensor, "... h n F"], sequences: Sequence[int]) -> Tensor | None:
        """Vectors whose dimensions before the last three are made one, of the batch or of size 1."""
        if torch.Size(x.shape[:-3]).numel() == 1:
            return x.reshape(1, *x.shape[-3:])
        try:
            x = x.broadcast_to(*sequences, *x.shape[-3:])
        except RuntimeError:
            return None
        return x.reshape(self._scores.shape[0], *x.shape[-3:])

    # Inside

    def _reduced(self, reduction: Reduction, *tensors: Tensor) -> Tensor:
        return self._shaped(evaluate(reduction, self._matrix, *tensors))


class Transposed(TensorLike):
    """M.T, for M.T @ y: what each key would collect if the queries handed out y by the map."""

    def __init__(self, of: Map) -> None:
        self._map = of

    @property
    def shape(self) -> torch.Size:
        """(…,K,Q)."""
        *leading, queries, keys = self._map.shape
        return torch.Size((*leading, keys, queries))

    @property
    def dtype(self) -> torch.dtype:
        """That of the map."""
        return self._map.dtype

    @property
    def device(self) -> torch.device:
        """That of the map."""
        return self._map.device

    @property
    def T(self) -> Map:  # noqa: N802
        """The map."""
        return self._map

    @property
    def mT(self) -> Map:  # noqa: N802
        """The map."""
        return self._map

    def dense(self, limit: int = DENSE_LIMIT) -> Float[Tensor, "... K Q"]:
        """The whole matrix. Raises ValueError where it takes more than `limit` bytes."""
        return self._map.dense(limit).mT

    def __matmul__(self, y: Float[Tensor, "... Q F"]) -> Float[Tensor, "... K F"]:
        """M.T @ y; y has one matrix a query head, a group, or for all. Differentiable in y too."""
        return self._map._applied(reductions.TRANSPOSED, ".T @ y", y, transposed=True)

    def __rmatmul__(self, y: Float[Tensor, "... F K"]) -> Float[Tensor, "... F Q"]:
        """y @ M.T."""
        return _from_the_left(y, self._map)


def _from_the_left(x: Any, transposed: Map | Transposed) -> Tensor:
    """x @ m from m.T."""
    return (transposed @ x.mT).mT if isinstance(x, Tensor) and x.ndim > 1 else transposed @ x
